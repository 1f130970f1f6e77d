//! Owns the Engine: takes inputs in, hands outputs out, keeps time. Waits for nothing but its next input.

use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use agent_core::books::Fate;
use agent_core::capacity;
use agent_core::continuity::{Jumps, Sleep};
use agent_core::engine::{Engine, EngineConfig};
use agent_core::facts::HostFact;
use agent_core::input::Input;
use agent_core::output::Output;
use agent_core::time::{BootNs, WallNs};
use agent_ebpf::wire::Owner;
use tokio::sync::mpsc;
use tokio::time::MissedTickBehavior;

use super::answers;
use super::aws::Wisher;
use super::backends;
use super::cluster::Reach;
use super::collect::standing;
use super::history::Keeper;
use super::ledger::{Saver, Store};
use super::served::{Heartbeat, Listing};
use super::shipping::Sinks;
use super::web;
use crate::api::feed::Feed;
use crate::api::protocol::{Book, Collector, Question, Status, Verb};
use crate::export::{self, Exporter};
use crate::lines;
use crate::recording::Recorder;
use crate::telemetry::Telemetry;

mod recorded;
mod rings;

pub(super) use self::recorded::Recorded;
use self::rings::RETOLD_TICKS;
pub(super) use self::rings::Rings;

/// The Engine is told the time this often.
const TICK: Duration = Duration::from_secs(1);
/// After so many ticks the node's addresses are read anew: a new interface is known within half a minute. Metrics are kept.
const LOOK_AROUND_TICKS: u32 = 30;
/// After so many ticks those who ask EC2 are told what to ask. Making that up looks at every pod of the node.
const WISH_TICKS: u32 = 5;
/// Executables looked up between two ticks. A look-up takes about 3 us: 3 ms a second at most.
pub(super) const EXE_READS_PER_TICK: u32 = 1_000;
/// After so many outputs readers get a turn, so that a large fold does not overrun those who keep up.
const OUTPUTS_PER_TURN: usize = 256;

/// The one owner of the Engine.
pub(super) struct Pump {
    engine: Recorded,
    outputs: Vec<Output>,
    outlets: Outlets,
    surroundings: Surroundings,
    findings: Saver,
    cluster: Reach,
    ec2: Wisher,
    backends: backends::Asker,
    secure: Option<web::Standing>,
    ticks: u32,
    exe_reads: u32,
    /// Readings of the kernel's counters.
    readings: u64,
    now: BootNs,
    /// What each source of the node's ceilings said last: one entry each, of a closed list.
    collectors: BTreeMap<capacity::Collector, Collector>,
    wall: WallNs,
    jumps: Jumps,
    sleep: Sleep,
    /// The kernel's side, when it outlives the agent.
    rings: Option<Rings>,
}

/// Where outputs and counts go.
pub(super) struct Outlets {
    pub(super) telemetry: Telemetry,
    pub(super) feed: Feed,
    pub(super) exporter: Option<Exporter>,
    pub(super) history: Keeper,
    pub(super) sinks: Sinks,
    pub(super) heartbeat: Heartbeat,
    pub(super) listing: Listing,
    /// The part of the status that does not change.
    pub(super) status: Status,
}

/// What the pump asks the node.
pub(super) struct Surroundings {
    pub(super) clock: fn() -> (BootNs, WallNs),
    /// How long the machine slept since its boot, nanoseconds.
    pub(super) asleep: fn() -> u64,
    /// Tells this boot of the machine from others.
    pub(super) boot_id: Option<String>,
    pub(super) addresses: Box<dyn FnMut() -> Vec<IpAddr>>,
    pub(super) exe_of: Box<dyn FnMut(Owner) -> Option<String>>,
    /// Settings of the node that may change.
    pub(super) settings: Box<dyn FnMut() -> Input>,
}

/// Why the pump came to its end.
#[derive(Debug)]
pub(super) enum Ended {
    /// It was told to.
    Stopped,
    /// Nobody reads standard output any more, or it failed.
    OutputGone(Result<(), export::Error>),
    /// No more inputs.
    NoInputs,
}

// === impl Pump ===

impl Pump {
    pub(super) fn new(config: EngineConfig, outlets: Outlets, surroundings: Surroundings) -> Self {
        Self {
            engine: Recorded::new(Engine::new(config)),
            outputs: Vec::new(),
            outlets,
            surroundings,
            findings: Saver::default(),
            cluster: Reach::default(),
            ec2: Wisher::default(),
            backends: backends::Asker::default(),
            secure: None,
            ticks: 0,
            exe_reads: 0,
            readings: 0,
            now: BootNs(0),
            collectors: BTreeMap::new(),
            wall: WallNs(0),
            jumps: Jumps::default(),
            sleep: Sleep::default(),
            rings: None,
        }
    }

    /// What of the outputs goes back to the cluster.
    pub(super) fn reach(&mut self, cluster: Reach) {
        self.cluster = cluster;
    }

    /// Who is told what the Engine wishes to know of EC2.
    pub(super) fn ask(&mut self, ec2: Wisher) {
        self.ec2 = ec2;
    }

    /// Everything that the Engine is told goes into this as well.
    pub(super) fn record(&mut self, recorder: Option<Recorder>) {
        self.engine.record(recorder);
    }

    /// The server beyond loopback.
    pub(super) fn serve(&mut self, secure: Option<web::Standing>) {
        self.secure = secure;
    }

    /// Who is asked what stands behind services' addresses.
    pub(super) fn resolve_backends(&mut self, asker: backends::Asker) {
        self.backends = asker;
    }

    /// Tells the Engine the time, what it found before a restart, and what was there before it.
    pub(super) async fn start(&mut self, baseline: Vec<Input>) {
        self.time();
        self.take_over();
        self.findings.restore(&mut self.engine);
        // From now on what stands on the disk is no run's last word.
        self.findings.changed(self.engine.keeps());
        self.findings.save(&self.engine);
        let settings = (self.surroundings.settings)();
        self.engine.handle(settings, &mut self.outputs);
        self.take(baseline);
        self.put_out().await;
        self.count();
    }

    /// Keeps what is found here, and begins with what is there.
    pub(super) fn keep(&mut self, store: Store) {
        self.findings = Saver::new(store);
    }

    /// Until it is told to stop, or cannot go on.
    pub(super) async fn run(
        &mut self,
        inputs: &mut mpsc::Receiver<Vec<Input>>,
        facts: &mut mpsc::Receiver<Vec<Input>>,
        questions: &mut mpsc::Receiver<Question>,
        mut stop: Pin<Box<dyn Future<Output = ()>>>,
    ) -> Ended {
        let mut ticks = tokio::time::interval(TICK);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                // In this order: inputs may come without end, and all else must still get its turn.
                biased;
                () = &mut stop => return Ended::Stopped,
                _ = ticks.tick() => self.tick(),
                Some(question) = questions.recv() => {
                    // Whoever asked may have given up.
                    let _ = question.answer.send(self.answer(question.verb));
                }
                result = gone(&mut self.outlets.exporter) => {
                    self.outlets.exporter = None;
                    return Ended::OutputGone(result);
                }
                // What the cluster and the node tell: few, and wanted before the records that they name.
                Some(batch) = facts.recv() => self.take(batch),
                batch = inputs.recv() => match batch {
                    Some(batch) => self.take(batch),
                    None => return Ended::NoInputs,
                },
            }
            self.put_out().await;
            // Folded flows put nothing out for a while: clients and probes of health get their turn all the same.
            tokio::task::yield_now().await;
        }
    }

    /// Takes what is left, until the other side closes; whether it did before it fell silent for so long.
    pub(super) async fn drain(&mut self, inputs: &mut mpsc::Receiver<Vec<Input>>, silence: Duration) -> bool {
        loop {
            match tokio::time::timeout(silence, inputs.recv()).await {
                Ok(Some(batch)) => {
                    self.take(batch);
                    self.put_out().await;
                }
                Ok(None) => return true,
                Err(_) => return false,
            }
        }
    }

    /// Puts out all that the Engine holds.
    pub(super) async fn finish(mut self, wait: Duration) -> Result<(), export::Error> {
        self.time();
        self.engine.handle(Input::Stop, &mut self.outputs);
        self.put_out().await;
        self.outlets.history.finish().await;
        self.count();
        self.engine.finish().await;
        self.findings.finish(&self.engine).await;
        self.outlets.sinks.finish().await;
        match self.outlets.exporter {
            Some(exporter) => exporter.finish(wait).await,
            None => Ok(()),
        }
    }

    fn tick(&mut self) {
        self.time();
        self.exe_reads = 0;
        self.ticks = self.ticks.wrapping_add(1);
        if self.ticks == RETOLD_TICKS {
            self.forget_told();
        }
        if self.ticks.is_multiple_of(LOOK_AROUND_TICKS) {
            let addresses = (self.surroundings.addresses)();
            self.engine.handle(Input::NodeAddresses(addresses), &mut self.outputs);
            let settings = (self.surroundings.settings)();
            self.engine.handle(settings, &mut self.outputs);
            // Counts of what stands change without a word.
            self.findings.changed(self.engine.keeps());
            self.outlets.telemetry.keep(self.engine.living(), self.now);
        }
        if self.ticks.is_multiple_of(WISH_TICKS) {
            self.ec2.wish(&self.engine);
        }
        self.outlets.telemetry.expire(self.now);
        self.count();
        self.engine.flush();
        self.findings.save(&self.engine);
    }

    fn time(&mut self) {
        let (boot, wall) = (self.surroundings.clock)();
        (self.now, self.wall) = (boot, wall);
        self.outlets.heartbeat.beat(boot);
        self.engine.handle(Input::Tick { boot, wall }, &mut self.outputs);
        if let Some(connections) = self.engine.asks_backends() {
            self.backends.ask(connections);
        }
        self.watch_clocks();
    }

    fn take(&mut self, batch: Vec<Input>) {
        let mut last_exec = HashMap::new();
        for (index, input) in batch.iter().enumerate() {
            if let Input::Exec(fact) = input {
                last_exec.insert(fact.process.owner, index);
            }
        }
        for (index, input) in batch.into_iter().enumerate() {
            let started = match &input {
                Input::Metadata(fact) if self.is_told(fact) => continue,
                // What runs now is the last of the programs that a process went through, not this one.
                Input::Exec(fact) => Some(fact.process.owner).filter(|owner| last_exec.get(owner) == Some(&index)),
                Input::KernelTotals(totals) => {
                    self.readings += 1;
                    self.outlets.telemetry.kernel_totals(totals);
                    None
                }
                Input::Host(fact) => {
                    self.outlets.telemetry.host(fact, self.now);
                    if let HostFact::Collector { collector, .. } = &**fact {
                        self.collectors.extend(standing(fact).map(|standing| (*collector, standing)));
                    }
                    None
                }
                _ => None,
            };
            self.engine.handle(input, &mut self.outputs);
            // At once, for the process may be gone soon; its flows and requests show what is known when they end.
            if let Some(owner) = started {
                self.resolve(owner);
            }
        }
    }

    /// Looks up which program runs, a bounded number of times.
    fn resolve(&mut self, process: Owner) {
        if self.exe_reads >= EXE_READS_PER_TICK {
            return;
        }
        self.exe_reads += 1;
        if let Some(path) = (self.surroundings.exe_of)(process) {
            self.engine.handle(Input::ExeResolved { process, path }, &mut self.outputs);
        }
    }

    async fn put_out(&mut self) {
        if self.outputs.is_empty() {
            return self.remember(&[]);
        }
        let outputs: Vec<Arc<Output>> = self.outputs.drain(..).map(Arc::new).collect();
        // A large fold must not stay resident.
        self.outputs.shrink_to(OUTPUTS_PER_TURN);
        for output in &outputs {
            self.findings.changed(matches!(**output, Output::Finding(_)));
            self.outlets.telemetry.observe(output, self.now);
            self.cluster.observe(output);
        }
        if let Some(exporter) = &self.outlets.exporter {
            exporter.push(&outputs);
        }
        self.outlets.sinks.push(&outputs);
        self.remember(&outputs);
        for turn in outputs.chunks(OUTPUTS_PER_TURN) {
            for output in turn {
                self.outlets.feed.publish(output);
            }
            tokio::task::yield_now().await;
        }
    }

    /// Shows the books to the metrics.
    fn count(&mut self) {
        let lost = self.outlets.history.count(&self.outlets.telemetry);
        self.engine.lost_store(lost);
        self.outlets.sinks.count(&self.outlets.telemetry, self.wall);
        for (ledger, line) in self.engine.books().lines() {
            for fate in Fate::ALL {
                self.outlets.telemetry.records(ledger.label(), fate.label(), line.fate(*fate));
            }
        }
        for (who, tally) in self.engine.take_dns() {
            self.outlets.telemetry.dns(&who, &tally, self.now);
        }
        self.outlets.telemetry.dns_counts(self.engine.dns_counts(), self.engine.dns_names());
        self.outlets.telemetry.findings(self.engine.ledger(), self.now);
        self.outlets.telemetry.cluster(self.engine.cluster(), self.wall);
        self.outlets.telemetry.kubernetes_events(self.cluster.events());
        self.outlets.listing.look(self.engine.cluster());
        self.outlets.telemetry.ec2(self.engine.ec2(), self.wall);
    }

    fn answer(&self, verb: Verb) -> Vec<String> {
        match verb {
            Verb::Status => vec![lines::json(&self.status())],
            Verb::Capacity => {
                let row = Output::Capacity(Box::new(self.engine.capacity()));
                vec![row.to_json(&self.outlets.status.node)]
            }
            Verb::Findings => answers::findings(&self.engine, &self.outlets.status.node, self.wall),
            Verb::SgAudit => answers::audit(&self.engine, &self.outlets.status.node, self.wall),
            Verb::TokenAudit => answers::tokens(&self.engine, &self.outlets.status.node, self.wall),
            Verb::Traffic => answers::traffic(&self.engine, &self.outlets.status.node, self.wall),
            Verb::Observe => Vec::new(),
        }
    }

    fn status(&self) -> Status {
        let books = self.engine.books().lines().map(|(ledger, line)| Book {
            kind: ledger.label().to_owned(),
            seen: line.seen,
            pending: line.pending,
            fates: Fate::ALL.iter().map(|fate| (fate.label().to_owned(), line.fate(*fate))).collect(),
        });
        let history = Some(self.outlets.history.status());
        let collectors = self.collectors.values().cloned().collect();
        let ec2 = Some(self.ec2.status(&self.engine, self.wall));
        let exports = self.outlets.sinks.status(self.wall);
        let secure = self.secure.as_ref().map(web::Standing::status);
        Status {
            books: books.collect(),
            readings: self.readings,
            collectors,
            ec2,
            history,
            exports,
            secure,
            ..self.outlets.status.clone()
        }
    }
}

/// Waits until standard output is gone; for ever without one.
async fn gone(exporter: &mut Option<Exporter>) -> Result<(), export::Error> {
    match exporter {
        Some(exporter) => exporter.gone().await,
        None => std::future::pending().await,
    }
}
