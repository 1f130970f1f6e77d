//! The one owner of all state: takes inputs one by one, appends outputs. No clock, no lock, no wait: the same inputs give
//! the same outputs.
//!
//! The caller keeps two promises. The first input is a [`Input::Tick`], which tells both clocks. And before a record of
//! time t come the process and cgroup records up to t.

mod adopted;
mod dns;
mod request;
mod view;

use std::collections::VecDeque;

use agent_ebpf::wire::{Direction, Owner};
use serde::{Deserialize, Serialize};

use self::dns::DnsTold;
use self::request::metadata_row;
use crate::attribution::Attribution;
use crate::backends::{Backends, Ready};
use crate::books::{Books, LEDGERS, Ledger};
use crate::capacity::model::{self, Capacity};
use crate::cgroup::ROOT_ID;
use crate::cluster::{Cluster, HostSide};
use crate::continuity::{Losses, Place};
use crate::dns::Dns;
use crate::ec2::Ec2;
use crate::facts::HostFact;
use crate::finding::{self, Evaluator, Judgement, Verdict, View};
use crate::flow::{Context, Folder, PeerNotes};
use crate::flow_groups::{self, FlowGroups};
use crate::input::{Ends, ExecFact, GapCause, Input, KernelTotals, MetadataFact};
use crate::output::{AttributionKind, By, GapRow, MetadataRow, Output, ProcessRow, ProcessView, Protocol, Who};
use crate::peer::NodeAddresses;
use crate::process::ProcessTable;
use crate::time::{BootNs, Clock, Moment, WallNs};
use crate::traffic::Traffic;
use crate::versions;

/// Length of a fold unless configured otherwise: ten seconds.
pub const FOLD_NS: u64 = 10_000_000_000;

/// What the Engine is told once.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EngineConfig {
    /// Length of a fold, nanoseconds; at least one.
    pub fold_ns: u64,
    /// Of the findings.
    pub findings: finding::Settings,
    /// Of the model of the node's ceilings.
    pub capacity: model::Settings,
}

impl Default for EngineConfig {
    fn default() -> Self {
        Self { fold_ns: FOLD_NS, findings: finding::Settings::default(), capacity: model::Settings::default() }
    }
}

/// Most started programs held back, at about 1 KiB with eight ancestors: 1 MiB. More of them go out at once.
const MAX_STARTS: usize = 1_024;
/// How long a request of a pod without a name is held back, where pods are watched at all: the watch tells a pod about when
/// the kubelet learns of it, before its containers run. Five seconds are for a watch that lags.
const HOLD_NS: u64 = 5 * 1_000_000_000;
/// Most requests held back, at about 1 KiB: 1 MiB. More of them go out without names.
const MAX_HELD: usize = 1_024;

/// See the module's documentation.
#[derive(Debug)]
pub struct Engine {
    clock: Clock,
    now: BootNs,
    totals_at: Option<BootNs>,
    attribution: Attribution,
    cluster: Cluster,
    host: HostSide,
    ec2: Ec2,
    processes: ProcessTable,
    folder: Folder,
    findings: Evaluator,
    flow_groups: FlowGroups,
    backends: Backends,
    held: VecDeque<Held>,
    starts: Vec<Start>,
    node: NodeAddresses,
    capacity: Capacity,
    dns: Dns,
    /// What was counted of DNS until the last fold, and nobody took yet.
    dns_told: DnsTold,
    traffic: Traffic,
    books: Books,
    /// See [`Engine::told`]; without what is held back here.
    told: Option<Place>,
    /// What the kernel merged, as far as rows tell of it.
    merged_told: Losses,
    /// Nothing was missed between the run before and this one.
    goes_on: bool,
    /// The run is at its end.
    is_stopped: bool,
}

/// A started program, held back until the next tick: what its path resolves to is told right after.
#[derive(Debug)]
struct Start {
    time: BootNs,
    cgroup_id: u64,
    owner: Owner,
    uid: u32,
    view: ProcessView,
}

/// A request to a metadata service of a pod without a name yet.
#[derive(Debug)]
struct Held {
    since: BootNs,
    time: BootNs,
    cgroup_id: u64,
    owner: Option<Owner>,
    row: MetadataRow,
}

impl Engine {
    /// An Engine that knows nothing yet.
    pub fn new(config: EngineConfig) -> Self {
        Self {
            clock: Clock::default(),
            now: BootNs(0),
            totals_at: None,
            attribution: Attribution::default(),
            cluster: Cluster::default(),
            host: HostSide::default(),
            ec2: Ec2::default(),
            processes: ProcessTable::default(),
            folder: Folder::new(config.fold_ns),
            flow_groups: FlowGroups::new(config.findings.papers.veth_prefix.clone()),
            findings: Evaluator::new(config.findings),
            backends: Backends::default(),
            held: VecDeque::new(),
            starts: Vec::new(),
            node: NodeAddresses::default(),
            capacity: Capacity::new(config.capacity),
            dns: Dns::default(),
            dns_told: DnsTold::default(),
            traffic: Traffic::default(),
            books: Books::default(),
            told: None,
            merged_told: [0; LEDGERS],
            goes_on: false,
            is_stopped: false,
        }
    }

    /// Takes one input; appends what it leads to.
    pub fn handle(&mut self, input: Input, outputs: &mut Vec<Output>) {
        match input {
            Input::Tcp(fact) => {
                self.books.held(Ledger::Tcp);
                let name = self.tcp_name(&fact);
                let is_translated = self.is_translated(fact.direction, &fact.ends, Protocol::Tcp);
                self.folder.tcp(&fact, PeerNotes { name, is_translated }, &mut self.processes);
            }
            Input::Udp(fact) => {
                self.books.held(Ledger::Udp);
                let name = self.udp_name(&fact);
                let is_translated = self.is_translated(fact.direction, &fact.ends, Protocol::Udp);
                self.folder.udp(&fact, PeerNotes { name, is_translated }, &mut self.processes);
            }
            Input::Attempt(fact) => {
                self.books.held(Ledger::Attempt);
                let name = self.attempt_name(&fact);
                self.folder.attempt(&fact, name, &mut self.processes);
            }
            Input::Dns(fact) => self.dns_message(&fact),
            Input::Metadata(fact) => self.metadata(*fact, outputs),
            Input::Exec(fact) => self.exec(&fact, outputs),
            Input::Fork(fact) => {
                self.books.aggregated(Ledger::Process, 1);
                self.processes.fork(&fact);
            }
            Input::Exit { time, process } => {
                self.books.aggregated(Ledger::Process, 1);
                self.processes.exit(process, time);
            }
            Input::ProcessSeen(fact) => self.processes.seen(&fact, self.now),
            Input::ExeResolved { process, path } => {
                self.processes.exe_resolved(process, &path);
                if let Some(start) = self.starts.iter_mut().rfind(|start| start.owner == process) {
                    start.view.exe_resolved = Some(path);
                }
            }
            Input::ProcessCgroupV1 { process, path } => {
                let cgroup = self.attribution.path_v1(&path);
                self.processes.cgroup_v1(process, cgroup);
            }
            Input::CgroupPresent { id, path } => self.attribution.present(id, &path),
            Input::CgroupGone { id, time } => self.attribution.gone(id, time),
            Input::NodeAddresses(addresses) => self.node = NodeAddresses::new(&addresses),
            Input::KernelTotals(totals) => self.totals(&totals, outputs),
            Input::Decoded { metadata, cgroups } => {
                self.books.aggregated(Ledger::Metadata, metadata);
                self.books.aggregated(Ledger::Cgroup, cgroups);
            }
            Input::Undecodable { kind, why: _ } => self.books.refused(kind),
            Input::Gap { start, end, cause, lost } => outputs.push(gap(start, end, cause, lost)),
            Input::Tick { boot, wall } => {
                self.clock = Clock::new(boot, wall);
                self.now = self.now.max(boot);
                self.totals_at.get_or_insert(self.now);
                self.traffic.begin(self.clock.wall(self.now));
                self.put_out_held(false, outputs);
                self.put_out_starts(outputs);
                // Before the fold, whose rows ask the rules.
                self.flow_groups.tick(&self.ec2, self.clock.wall(self.now));
                let due = self.folder.is_due(self.now);
                if due && self.backends.due(|| self.folder.translated(), self.now) == Ready::Now {
                    self.close_fold(outputs);
                }
                self.attribution.expire(self.now);
                self.cluster.expire(self.now);
                self.processes.expire(self.now);
                self.dns.tick(self.now);
                self.ceilings(outputs);
                let (findings, view) = self.findings();
                findings.tick(view, outputs);
            }
            Input::Cluster(fact) => {
                self.capacity.cluster(&fact, self.now);
                let known = versions::Known::before(&self.cluster, &fact);
                self.cluster.learn(*fact, self.now);
                known.tell(&self.cluster, self.clock.wall(self.now), outputs);
                self.put_out_held(false, outputs);
            }
            Input::Host(fact) => self.host(&fact, outputs),
            Input::Ec2(fact) => {
                self.capacity.ec2(&fact);
                self.ec2.learn(*fact);
            }
            Input::Adopted(adopted) => self.adopted(&adopted, outputs),
            Input::Told(place) => self.told = Some(place),
            Input::Stop => {
                self.is_stopped = true;
                self.put_out_held(true, outputs);
                self.put_out_starts(outputs);
                self.close_fold(outputs);
            }
        }
    }

    /// Whether the node puts another address in place of the peer's, as far as services are known.
    fn is_translated(&self, direction: Direction, ends: &Ends, protocol: Protocol) -> bool {
        let services = self.cluster.services();
        let (ip, port) = (ends.remote, ends.remote_port);
        let at_node = || services.is_node_port(port, protocol) && self.node.has(ip);
        direction == Direction::Outbound && (services.is_service(ip, port, protocol) || at_node())
    }

    fn host(&mut self, fact: &HostFact, outputs: &mut Vec<Output>) {
        if let HostFact::Backends(backends) = fact {
            if self.backends.answer(backends) {
                self.close_fold(outputs);
            }
            return;
        }
        self.capacity.host(fact, self.now);
        self.host.learn(fact, Moment { boot: self.now, wall: self.clock.wall(self.now) });
        let (findings, view) = self.findings();
        findings.host(fact, view);
    }

    /// The model's row and what it says of cliffs, when it is time for both.
    fn ceilings(&mut self, outputs: &mut Vec<Output>) {
        let Some(row) = self.capacity.tick(self.now, self.clock) else { return };
        let mut judgements = self.capacity.judgements().to_vec();
        // What was found before a restart stands until its resource is told again.
        for code in model::CODES {
            let untold =
                self.findings.ledger().standing(code).filter(|subject| !self.capacity.has_told(&subject.resource));
            let verdict = || Verdict::CannotTell(model::NOT_TOLD);
            judgements.extend(untold.map(|subject| Judgement { code, subject, verdict: verdict() }));
        }
        let (findings, view) = self.findings();
        findings.judge(&model::CODES, judgements, view);
        // Where nobody looks at the node there is nothing to say.
        if !row.resources.is_empty() {
            outputs.push(Output::Capacity(Box::new(row)));
        }
    }

    fn close_fold(&mut self, outputs: &mut Vec<Output>) {
        let backends = self.backends.take();
        let mut context = Context {
            attribution: &mut self.attribution,
            cluster: &self.cluster,
            processes: &self.processes,
            node: &self.node,
            ec2: &self.ec2,
            backends: &backends,
            clock: self.clock,
            books: &mut self.books,
        };
        let first = outputs.len();
        let merged = context.books.merged_by_kernel();
        let window = self.folder.close(self.now, &mut context, outputs);
        let mut rows = outputs.split_off(first);
        let now = Moment { boot: self.now, wall: self.clock.wall(self.now) };
        let known = known(&self.cluster, &self.host, &self.ec2, &self.node, &self.capacity, now);
        self.flow_groups.rows(&mut rows, known);
        self.traffic.fold(&rows, window, self.now);
        let (findings, view) = self.findings();
        findings.fold(&rows, view);
        outputs.extend(rows);
        self.findings.put_out(outputs);
        self.merged_told = merged;
        self.dns_fold();
    }

    fn exec(&mut self, fact: &ExecFact, outputs: &mut Vec<Output>) {
        self.books.held(Ledger::Process);
        self.processes.exec(fact);
        let owner = fact.process.owner;
        // Whether a path was read before or after this exec cannot be told any more: the earlier program has none.
        for earlier in self.starts.iter_mut().filter(|start| start.owner == owner) {
            earlier.view.exe_resolved = None;
        }
        // As it is now: it may start another program before the tick.
        let view = self.processes.view(owner, By::Exec);
        self.starts.push(Start { time: fact.time, cgroup_id: fact.cgroup_id, owner, uid: fact.uid, view });
        if self.starts.len() >= MAX_STARTS {
            self.put_out_starts(outputs);
        }
    }

    fn put_out_starts(&mut self, outputs: &mut Vec<Output>) {
        for Start { time, cgroup_id, owner, uid, view } in std::mem::take(&mut self.starts) {
            let who = self.who(cgroup_id, Some(owner), Some(view));
            self.books.stored(Ledger::Process);
            outputs.push(Output::Process(Box::new(ProcessRow { time: self.clock.wall(time), who, uid_number: uid })));
        }
    }

    /// A row at once, unless its pod may still get its name: those few are held back for [`HOLD_NS`].
    fn metadata(&mut self, fact: MetadataFact, outputs: &mut Vec<Output>) {
        let by = if fact.sender_only { By::Send } else { By::Connect };
        let owner = fact.process.as_ref().map(|process| process.owner);
        let view = fact.process.as_ref().map(|process| self.processes.named_view(process, &fact.ancestors, by));
        let (cgroup_id, time) = (fact.cgroup_id, fact.time);
        let who = self.who(cgroup_id, owner, view);
        let is_unnamed = who.identity.attribution == AttributionKind::Pod && who.identity.pod.is_empty();
        let row = metadata_row(fact, who, self.clock.wall(time));
        let held = Held { since: self.now, time, cgroup_id, owner, row };
        if is_unnamed && self.cluster.is_watched() && self.held.len() < MAX_HELD {
            self.held.push_back(held);
        } else {
            self.put_out_request(held, outputs);
        }
    }

    /// Puts out the requests whose pods have names by now, those held long enough, or all.
    fn put_out_held(&mut self, all: bool, outputs: &mut Vec<Output>) {
        for _ in 0..self.held.len() {
            let Some(mut held) = self.held.pop_front() else { return };
            held.row.who = Who { process: held.row.who.process.take(), ..self.who(held.cgroup_id, held.owner, None) };
            let has_name = !held.row.who.identity.pod.is_empty();
            if all || has_name || self.now.since(held.since) >= HOLD_NS {
                self.put_out_request(held, outputs);
            } else {
                self.held.push_back(held);
            }
        }
    }

    fn put_out_request(&mut self, held: Held, outputs: &mut Vec<Output>) {
        self.traffic.request(&held.row, self.now);
        let (findings, view) = self.findings();
        findings.request(&held.row, held.time, view);
        outputs.push(Output::Metadata(Box::new(held.row)));
        self.findings.put_out(outputs);
    }

    /// What verdicts on flows rest on.
    fn known(&self) -> flow_groups::Known<'_> {
        let now = Moment { boot: self.now, wall: self.clock.wall(self.now) };
        known(&self.cluster, &self.host, &self.ec2, &self.node, &self.capacity, now)
    }

    /// Where findings are made, and what they rest on.
    fn findings(&mut self) -> (&mut Evaluator, View<'_>) {
        let now = Moment { boot: self.now, wall: self.clock.wall(self.now) };
        let view = View {
            known: known(&self.cluster, &self.host, &self.ec2, &self.node, &self.capacity, now),
            cluster: &self.cluster,
            host: &self.host,
            attribution: &self.attribution,
            flow_groups: &self.flow_groups,
            now,
        };
        (&mut self.findings, view)
    }

    fn who(&mut self, cgroup_id: u64, owner: Option<Owner>, view: Option<ProcessView>) -> Who {
        let process = owner.filter(|_| cgroup_id == ROOT_ID).and_then(|owner| self.processes.get(owner));
        let v1 = process.and_then(|process| process.v1());
        let identity = self.attribution.who(cgroup_id, v1.map(|cgroup| &**cgroup), self.cluster.pods());
        Who { identity, process: view.map(std::sync::Arc::new) }
    }

    /// What the kernel merged goes into rows, what its rings lost into a gap since the last totals.
    fn totals(&mut self, totals: &KernelTotals, outputs: &mut Vec<Output>) {
        self.folder.accounts(&totals.accounts);
        self.dns.totals(totals, self.now);
        let lost = self.books.kernel(totals);
        let since = self.totals_at.replace(self.now).unwrap_or(self.now);
        let (findings, view) = self.findings();
        findings.totals(totals, view);
        if !lost.is_empty() {
            self.findings.lost(self.now);
            let (start, end) = (self.clock.wall(since), self.clock.wall(self.now));
            outputs.push(Output::Gap(GapRow { start, end, cause: GapCause::RingFull, records_lost: lost }));
        }
        self.findings.put_out(outputs);
    }
}

/// A span that is not covered. What is known of the loss is told of every kind; a kind that is absent is unknown.
fn gap(start: WallNs, end: WallNs, cause: GapCause, lost: Option<Losses>) -> Output {
    let known = lost.iter().flat_map(|lost| Ledger::ALL.iter().zip(lost));
    let known = known.filter(|(ledger, records)| **ledger != Ledger::Unknown || **records > 0);
    let records_lost = known.map(|(ledger, records)| (ledger.label(), *records)).collect();
    Output::Gap(GapRow { start, end, cause, records_lost })
}

/// What verdicts on flows rest on.
fn known<'a>(
    cluster: &'a Cluster,
    host: &'a HostSide,
    ec2: &'a Ec2,
    node: &'a NodeAddresses,
    capacity: &Capacity,
    now: Moment,
) -> flow_groups::Known<'a> {
    flow_groups::Known { cluster, host, ec2, node, external_snat: capacity.external_snat(), now }
}

#[cfg(test)]
mod tests;
