//! Owns the Engine: takes inputs in, hands outputs out, keeps time. Waits for nothing but its next input.

use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use agent_core::books::Fate;
use agent_core::capacity;
use agent_core::engine::{Engine, EngineConfig};
use agent_core::facts::HostFact;
use agent_core::input::Input;
use agent_core::output::Output;
use agent_core::time::{BootNs, WallNs};
use agent_ebpf::wire::Owner;
use tokio::sync::mpsc;
use tokio::time::MissedTickBehavior;

use super::served::Heartbeat;
use crate::api::feed::Feed;
use crate::api::protocol::{Book, Collector, CollectorState, Question, Status, Verb};
use crate::export::{self, Exporter};
use crate::lines;
use crate::telemetry::Telemetry;

/// The Engine is told the time this often.
const TICK: Duration = Duration::from_secs(1);
/// After so many ticks the node's addresses are read anew, so that a new interface is known within half a minute, and the
/// metrics of those who live are kept.
const LOOK_AROUND_TICKS: u32 = 30;
/// Executables looked up between two ticks. A look-up takes about 3 us: 3 ms a second at most.
pub(super) const EXE_READS_PER_TICK: u32 = 1_000;
/// After so many outputs readers get a turn, so that a large fold does not overrun those who keep up.
const OUTPUTS_PER_TURN: usize = 256;

/// The one owner of the Engine.
pub(super) struct Pump {
    engine: Engine,
    outputs: Vec<Output>,
    outlets: Outlets,
    surroundings: Surroundings,
    ticks: u32,
    exe_reads: u32,
    now: BootNs,
    /// What each source of the node's ceilings said last: one entry each, of a closed list.
    collectors: BTreeMap<capacity::Collector, Collector>,
}

/// Where outputs and counts go.
pub(super) struct Outlets {
    pub(super) telemetry: Telemetry,
    pub(super) feed: Feed,
    pub(super) exporter: Option<Exporter>,
    pub(super) heartbeat: Heartbeat,
    /// The part of the status that does not change.
    pub(super) status: Status,
}

/// What the pump asks the node.
pub(super) struct Surroundings {
    pub(super) clock: fn() -> (BootNs, WallNs),
    pub(super) addresses: Box<dyn FnMut() -> Vec<IpAddr>>,
    pub(super) exe_of: Box<dyn FnMut(Owner) -> Option<String>>,
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
            engine: Engine::new(config),
            outputs: Vec::new(),
            outlets,
            surroundings,
            ticks: 0,
            exe_reads: 0,
            now: BootNs(0),
            collectors: BTreeMap::new(),
        }
    }

    /// Tells the Engine the time and what was there before it.
    pub(super) async fn start(&mut self, baseline: Vec<Input>) {
        self.time();
        self.take(baseline);
        self.put_out().await;
        self.count();
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
        self.count();
        match self.outlets.exporter {
            Some(exporter) => exporter.finish(wait).await,
            None => Ok(()),
        }
    }

    fn tick(&mut self) {
        self.time();
        self.exe_reads = 0;
        self.ticks = self.ticks.wrapping_add(1);
        if self.ticks.is_multiple_of(LOOK_AROUND_TICKS) {
            let addresses = (self.surroundings.addresses)();
            self.engine.handle(Input::NodeAddresses(addresses), &mut self.outputs);
            self.outlets.telemetry.keep(self.engine.living(), self.now);
        }
        self.outlets.telemetry.expire(self.now);
        self.count();
    }

    fn time(&mut self) {
        let (boot, wall) = (self.surroundings.clock)();
        self.now = boot;
        self.outlets.heartbeat.beat(boot);
        self.engine.handle(Input::Tick { boot, wall }, &mut self.outputs);
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
                // What runs now is the last of the programs that a process went through, not this one.
                Input::Exec(fact) => Some(fact.process.owner).filter(|owner| last_exec.get(owner) == Some(&index)),
                Input::KernelTotals(totals) => {
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
            return;
        }
        let outputs: Vec<Arc<Output>> = self.outputs.drain(..).map(Arc::new).collect();
        // A large fold must not stay resident.
        self.outputs.shrink_to(OUTPUTS_PER_TURN);
        for output in &outputs {
            self.outlets.telemetry.observe(output, self.now);
        }
        if let Some(exporter) = &self.outlets.exporter {
            exporter.push(&outputs);
        }
        for turn in outputs.chunks(OUTPUTS_PER_TURN) {
            for output in turn {
                self.outlets.feed.publish(output);
            }
            tokio::task::yield_now().await;
        }
    }

    /// Shows the books to the metrics.
    fn count(&self) {
        for (ledger, line) in self.engine.books().lines() {
            for fate in Fate::ALL {
                self.outlets.telemetry.records(ledger.label(), fate.label(), line.fate(*fate));
            }
        }
    }

    fn answer(&self, verb: Verb) -> Vec<String> {
        match verb {
            Verb::Status => vec![lines::json(&self.status())],
            Verb::Capacity => {
                let row = Output::Capacity(Box::new(self.engine.capacity()));
                vec![row.to_json(&self.outlets.status.node)]
            }
            Verb::Findings | Verb::Observe => Vec::new(),
        }
    }

    fn status(&self) -> Status {
        let books = self.engine.books().lines().map(|(ledger, line)| Book {
            kind: ledger.label().to_owned(),
            seen: line.seen,
            pending: line.pending,
            fates: Fate::ALL.iter().map(|fate| (fate.label().to_owned(), line.fate(*fate))).collect(),
        });
        let collectors = self.collectors.values().cloned().collect();
        Status { books: books.collect(), collectors, ..self.outlets.status.clone() }
    }
}

/// Waits until standard output is gone; for ever without one.
async fn gone(exporter: &mut Option<Exporter>) -> Result<(), export::Error> {
    match exporter {
        Some(exporter) => exporter.gone().await,
        None => std::future::pending().await,
    }
}

/// How a source stands, when that is what a fact says.
pub(super) fn standing(fact: &HostFact) -> Option<Collector> {
    let HostFact::Collector { collector, error, absent, duration_ns } = fact else { return None };
    let state = match (error, absent) {
        (None, _) => CollectorState::Ok,
        (Some(_), true) => CollectorState::Absent,
        (Some(_), false) => CollectorState::Failed,
    };
    Some(Collector {
        name: collector.name().to_owned(),
        state,
        why: error.clone().unwrap_or_default(),
        duration_us: duration_ns / 1_000,
    })
}
