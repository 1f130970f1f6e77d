//! Where findings are made: what the Engine sees goes to the rules, what they say to the ledger.

use std::net::IpAddr;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::ledger::{Context, Ledger, RestoreError, Snapshot};
use super::rules::agent::{AgentRuns, Step};
use super::rules::flood::Flood;
use super::rules::flows::{Flows, Step as FlowStep};
use super::rules::groups::{self, History, Outcome};
use super::rules::tokens::{self, TokenRow, Tokens};
use super::rules::traffic::Traffic;
use super::rules::unanswered::{Answer, Unanswered, is_on_node};
use super::rules::unfiltered::{self, Past};
use super::rules::{self, requests};
use super::state::{self, STATE_CODES};
use super::{Code, Judgement, Subject};
use crate::attribution::Attribution;
use crate::cluster::{Cluster, HostSide, Pod, REMEMBER_GONE_NS};
use crate::facts::{HostFact, Phase, PodFacts};
use crate::fast::{FastMap, FastSet};
use crate::flow_groups::{FlowGroups, Known};
use crate::input::KernelTotals;
use crate::output::{MetadataRow, Output};
use crate::papers::enforcement::Mode;
use crate::papers::waivers::{self, Waiver};
use crate::papers::{self, identity};
use crate::time::{BootNs, Clock, Moment, WallNs};

/// Time between two evaluations of state rules: two that agree are twenty seconds.
pub const EVALUATION_NS: u64 = 10 * 1_000_000_000;

/// What the rules and the ledger are told by configuration.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Settings {
    /// Of the rules about papers.
    pub papers: papers::Settings,
    /// Findings that are as they should be; those for AWS's own node agents are built in.
    pub waivers: Vec<Waiver>,
    /// The agent's own process, in the initial pid namespace: what it asks of the metadata service and of the Pod Identity
    /// agent, for credentials of its own, is as it should be. `None`: not known.
    pub own_pid: Option<u32>,
    /// How long a pod with a token for the Kubernetes API is watched before its silence says something, nanoseconds.
    pub token_window_ns: u64,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            papers: papers::Settings::default(),
            waivers: Vec::new(),
            own_pid: None,
            token_window_ns: tokens::WINDOW_NS,
        }
    }
}

/// What is known beside what the rules are told.
#[derive(Clone, Copy)]
pub struct View<'a> {
    /// The cluster.
    pub cluster: &'a Cluster,
    /// The node's side of it.
    pub host: &'a HostSide,
    /// Cgroups.
    pub attribution: &'a Attribution,
    /// What verdicts on flows rest on, the cluster and the node's side among it.
    pub known: Known<'a>,
    /// Rules of security groups.
    pub flow_groups: &'a FlowGroups,
    /// Now.
    pub now: Moment,
}

/// See the module's documentation.
#[derive(Debug, Default)]
pub struct Evaluator {
    settings: Settings,
    ledger: Ledger,
    unanswered: Unanswered,
    agent: AgentRuns,
    flood: Flood,
    flows: Flows,
    /// What the probes could not follow, as of the last reading.
    unfollowed: u64,
    traffic: Traffic,
    tokens: Tokens,
    /// Pods whose groups are in force, as of the last evaluation.
    enforced: FastMap<Arc<str>, Option<Mode>>,
    /// Pods that have no groups of their own and get none.
    groupless: FastSet<Arc<str>>,
    started: Option<Moment>,
    evaluated: Option<BootNs>,
}

impl Evaluator {
    /// An evaluator with these settings.
    pub fn new(settings: Settings) -> Self {
        Self { settings, ..Self::default() }
    }

    /// The findings.
    pub fn ledger(&self) -> &Ledger {
        &self.ledger
    }

    /// The findings, for restoring them.
    pub fn ledger_mut(&mut self) -> &mut Ledger {
        &mut self.ledger
    }

    /// Peers of connections that stay without an answer, the latest first.
    pub fn unanswered_peers(&self) -> Vec<IpAddr> {
        self.flows.unanswered_peers()
    }

    /// A request to a metadata service, made at `time`.
    pub fn request(&mut self, row: &MetadataRow, time: BootNs, view: View<'_>) {
        if self.settings.own_pid.is_some()
            && row.who.process.as_ref().map(|process| process.pid) == self.settings.own_pid
        {
            return;
        }
        let identity = &row.who.identity;
        let pod = pod_of(view, &identity.uid);
        let subject = rules::subject(identity, pod);
        let own = pod.and_then(|pod| own_identity(view, pod, subject.as_ref()));
        let span = (time, view.now.boot);
        self.unanswered.request(row, subject.clone(), is_on_node(row, pod), own, span);
        let Some(subject) = subject else { return };
        if let Some((code, why)) = requests::doubt(row) {
            self.ledger.cannot_tell(code, &subject, why, None, view.now);
        }
        for (code, violation) in requests::judge(row, &subject, own) {
            self.with(view, |ledger, context| ledger.happened(code, &subject, violation, 1, context));
        }
        let strict = self.enforced.get(&*identity.uid) == Some(&Some(Mode::Strict));
        match self.agent.request(row, &subject, strict, view.now.boot) {
            Step::Nothing => {}
            Step::Violated(code, violation, times) => {
                if code == Code::PodIdentityRefused {
                    self.cleared(Code::PodIdentityUnreachable, &subject, view);
                }
                self.with(view, |ledger, context| ledger.happened(code, &subject, violation, times, context));
            }
            Step::Reached => self.cleared(Code::PodIdentityUnreachable, &subject, view),
            Step::Works => {
                self.cleared(Code::PodIdentityUnreachable, &subject, view);
                self.cleared(Code::PodIdentityRefused, &subject, view);
            }
        }
    }

    /// A reading of the kernel's counters and accounts.
    pub fn totals(&mut self, totals: &KernelTotals, view: View<'_>) {
        let KernelTotals { untracked_sockets, untracked_attempts: _, untracked_peers, overflow_accounts, .. } = totals;
        let unfollowed = untracked_sockets.saturating_add(*untracked_peers).saturating_add(*overflow_accounts);
        if std::mem::replace(&mut self.unfollowed, unfollowed) != unfollowed {
            self.traffic.spoil();
            self.tokens.spoil(view.now.boot);
        }
        let accounts = &totals.accounts;
        let of = |cgroup_id| {
            let cgroup = view.attribution.pod_cgroup(cgroup_id, None)?;
            Some(match pod_of(view, &cgroup.uid) {
                Some(pod) => papers::subject(pod),
                None => Subject {
                    workload: format!("pod-{}", cgroup.uid).into(),
                    uid: cgroup.uid.into(),
                    ..Subject::default()
                },
            })
        };
        for (subject, violation, records) in self.flood.read(accounts, of) {
            self.with(view, |ledger, context| {
                ledger.happened(Code::RecordFlood, &subject, violation, records, context);
            });
        }
    }

    /// What a fold put out.
    pub fn fold(&mut self, outputs: &[Output], view: View<'_>) {
        self.traffic.rows(outputs);
        self.tokens.rows(outputs, view.cluster, view.now);
        let pod_of_ip = pods_by_ip(view);
        let pods = (&self.enforced, &self.groupless);
        let steps = self.flows.rows(outputs, pods, &|ip| pod_of_ip.get(ip).cloned(), view.now.boot);
        for step in steps {
            self.flow_step(step, view);
        }
        if !self.enforced.is_empty() {
            self.count_unfiltered(outputs, view);
        }
    }

    /// Records were lost.
    pub fn lost(&mut self, now: BootNs) {
        self.traffic.spoil();
        self.tokens.spoil(now);
    }

    /// What the next start is told; `is_last`: this run ends.
    pub fn snapshot(&self, cluster: &Cluster, is_last: bool) -> Snapshot {
        let mut snapshot = self.ledger.snapshot();
        snapshot.tokens = self.tokens.kept(cluster, is_last);
        snapshot
    }

    /// Whether there is anything to keep for the next start.
    pub fn keeps(&self) -> bool {
        self.ledger.rows().next().is_some() || !self.tokens.is_empty()
    }

    /// Takes in what an earlier run left. `goes_on`: nothing was missed between that one and this.
    pub fn restore(
        &mut self,
        mut before: Snapshot,
        same_boot: bool,
        goes_on: bool,
        now: Moment,
    ) -> Result<usize, RestoreError> {
        let tokens = std::mem::take(&mut before.tokens);
        let restored = self.ledger.restore(before, same_boot, now)?;
        self.tokens.restore(tokens, same_boot, goes_on);
        Ok(restored)
    }

    /// Pods with a token for the Kubernetes API, and what they did with it.
    pub fn tokens(&self, cluster: &Cluster, clock: Clock, now: BootNs) -> Vec<TokenRow> {
        self.tokens.audit(cluster, self.settings.token_window_ns, clock, now)
    }

    /// A look at the node, after it was taken into `view`.
    pub fn host(&mut self, fact: &HostFact, view: View<'_>) {
        match fact {
            HostFact::Links(links) => {
                let veths: Vec<_> = view.host.veths().collect();
                self.traffic.links(links, &veths, view.now.boot);
            }
            HostFact::Pods(pods) => self.traffic.seen(pods),
            _ => {}
        }
    }

    /// One evaluation of rules whose facts are kept elsewhere: complete for `codes`.
    pub fn judge(&mut self, codes: &[Code], judgements: Vec<Judgement>, view: View<'_>) {
        self.with(view, |ledger, context| ledger.judge(codes, judgements, context));
    }

    /// Time passes.
    pub fn tick(&mut self, view: View<'_>, outputs: &mut Vec<Output>) {
        self.started.get_or_insert(view.now);
        for answer in self.unanswered.answers(view.host, view.now.boot) {
            match answer {
                Answer::Violated(subject, violation) => self.with(view, |ledger, context| {
                    ledger.happened(Code::MetadataUnanswered, &subject, violation, 1, context);
                }),
                Answer::CannotTell(subject, why) => {
                    self.ledger.cannot_tell(Code::MetadataUnanswered, &subject, why, None, view.now);
                }
            }
        }
        if self.evaluated.is_none_or(|at| view.now.boot.since(at) >= EVALUATION_NS) {
            self.evaluated = Some(view.now.boot);
            self.evaluate(view);
        }
        self.put_out(outputs);
    }

    /// Appends the findings that changed.
    pub fn put_out(&mut self, outputs: &mut Vec<Output>) {
        let refused = [&mut self.unanswered.refused, &mut self.agent.refused, &mut self.flows.refused];
        self.ledger.refuse(refused.into_iter().map(std::mem::take).sum());
        self.ledger.put_out(outputs);
    }

    fn evaluate(&mut self, view: View<'_>) {
        self.agent.expire(view.now.boot);
        let name = |uid: &str| pod_of(view, uid).map(papers::subject);
        self.with(view, |ledger, context| ledger.rename(&name, context));
        let is_told = view.cluster.pods().is_told();
        // After a start pods may be there that nobody told yet, static ones under another uid than their cgroups'.
        let age_ns = self.started.map_or(0, |started| view.now.boot.since(started.boot));
        let is_early = !is_told && (view.cluster.is_watched() || age_ns < REMEMBER_GONE_NS);
        self.ledger.hold_waivers(is_early);
        let living: FastSet<&str> = view.attribution.living_pods().collect();
        // A pod is over when neither its object nor a cgroup of it is there.
        let is_alive = |uid: &str| {
            let pods = view.cluster.pods();
            let pod = pods.by_uid(uid).or_else(|| pods.of_cgroup(uid));
            let has_cgroup = |uid: &str| living.contains(uid);
            is_early
                || has_cgroup(uid)
                || pod.is_some_and(|pod| pod.is_present() || pod.facts.config_hash.as_deref().is_some_and(has_cgroup))
        };
        self.flows.expire(&is_alive);
        self.tokens.expire(&is_alive);
        // Before the first list of pods nobody's absence means anything.
        if is_told {
            let evaluation = state::evaluate(view, &self.settings.papers, &self.flows.unjudged(), &self.traffic);
            (self.enforced, self.groupless) = (evaluation.enforced, evaluation.groupless);
            self.judge(STATE_CODES, evaluation.judgements, view);
            let standing: FastSet<_> = self.ledger.standing(Code::ApiTokenUnused).map(|subject| subject.uid).collect();
            let stands = |subject: &Subject| standing.contains(&subject.uid);
            let judgements = self.tokens.judge(view.cluster, self.settings.token_window_ns, &stands, view.now);
            self.judge(&[Code::ApiTokenUnused], judgements, view);
        }
        self.with(view, |ledger, context| ledger.tick(&is_alive, context));
    }

    fn flow_step(&mut self, step: FlowStep, view: View<'_>) {
        let uid = match &step {
            FlowStep::Unanswered { pair, .. } | FlowStep::Works(pair) => Arc::clone(&pair.uid),
        };
        let Some(pod) = pod_of(view, &uid) else { return };
        let mode = self.enforced.get(&uid).copied().flatten();
        let started = self.started.unwrap_or(view.now).wall;
        let history = History {
            has_forgotten: self.flows.has_forgotten(&uid),
            is_older: pod.created.is_some_and(|created| created < started),
            is_open: &|code, subject| self.ledger.is_open(code, subject),
        };
        match groups::judge(step, pod, mode, &history, view) {
            None => {}
            Some(Outcome::Violated(code, subject, violation, times)) => {
                self.with(view, |ledger, context| ledger.happened(code, &subject, violation, times, context));
            }
            Some(Outcome::CannotTell(code, subject, why, object)) => {
                self.ledger.cannot_tell(code, &subject, why, object, view.now);
            }
            Some(Outcome::NotTheGroups(code, subject, why)) => {
                self.ledger.cannot_tell(code, &subject, why, None, view.now);
                self.cleared(code, &subject, view);
            }
            Some(Outcome::Cleared(code, subject)) => self.cleared(code, &subject, view),
        }
    }

    /// Connections past the groups of pods in standard mode: counted, and found where the rules would have refused them.
    fn count_unfiltered(&mut self, outputs: &[Output], view: View<'_>) {
        let scene = view.flow_groups.scene(view.known);
        for output in outputs {
            let Output::Flow(row) = output else { continue };
            let is_standard = self.enforced.get(&*row.who.identity.uid) == Some(&Some(Mode::Standard));
            if !is_standard || row.connections == 0 {
                continue;
            }
            let Some(pod) = pod_of(view, &row.who.identity.uid) else { continue };
            let subject = papers::subject(pod);
            match unfiltered::judge(row, pod, &subject, &scene) {
                Past::No | Past::Allowed => {}
                Past::Refused(violation) => self.with(view, |ledger, context| {
                    ledger.happened(Code::SgpUnfilteredFlow, &subject, violation, row.connections, context);
                }),
                Past::CannotTell => {
                    self.ledger.cannot_tell(Code::SgpUnfilteredFlow, &subject, rules::why::NO_RULES, None, view.now);
                }
            }
        }
    }

    fn cleared(&mut self, code: Code, subject: &Subject, view: View<'_>) {
        self.with(view, |ledger, context| ledger.cleared(code, subject, context));
    }

    fn with<T>(&mut self, view: View<'_>, act: impl FnOnce(&mut Ledger, &Context<'_>) -> T) -> T {
        let started = self.started.unwrap_or(view.now).wall;
        let watched_since = |subject: &Subject| watched_since(view, subject, started);
        let waivers = &self.settings.waivers;
        let accept = |code: Code, subject: &Subject| accepting(view, waivers, code, subject);
        let context = Context { now: view.now, watched_since: &watched_since, accept: &accept };
        act(&mut self.ledger, &context)
    }
}

fn pod_of<'a>(view: View<'a>, cgroup_uid: &str) -> Option<&'a PodFacts> {
    if cgroup_uid.is_empty() {
        return None;
    }
    view.cluster.pods().of_cgroup(cgroup_uid).map(|pod| &*pod.facts)
}

/// Whether the container has an AWS identity of its own, or should have one; of one that is not known by name, whether all
/// of the pod's agree.
fn own_identity(view: View<'_>, pod: &PodFacts, subject: Option<&Subject>) -> Option<bool> {
    let account = state::account(view, pod);
    let named = subject.map(|subject| &*subject.container).filter(|name| !name.is_empty());
    let containers = pod.containers.iter().filter(|container| named.is_none_or(|name| *container.name == *name));
    let mut own = containers.map(|container| identity::is_own(pod, container, account));
    let first = own.next()?;
    own.all(|other| other == first).then_some(first).flatten()
}

/// The uids, as cgroups tell them, of this node's pods that have an address of their own.
fn pods_by_ip(view: View<'_>) -> FastMap<String, Arc<str>> {
    // One that is over keeps its address in its status, and another may have it by now.
    let is_over = |pod: &Pod| matches!(pod.facts.phase, Some(Phase::Succeeded | Phase::Failed));
    let present = view.cluster.pods().present();
    let present = present.filter(|pod| pod.is_certain() && !pod.facts.host_network && !is_over(pod));
    let mut by_ip = FastMap::default();
    for pod in present {
        let Some(uid) = pod.facts.config_hash.as_ref().or(pod.facts.uid.as_ref()) else { continue };
        for ip in &pod.facts.ips {
            by_ip.insert(ip.to_string(), Arc::clone(uid));
        }
    }
    by_ip
}

fn accepting(view: View<'_>, waivers: &[Waiver], code: Code, subject: &Subject) -> Option<Arc<str>> {
    let pod = view.cluster.pods().by_uid(&subject.uid).filter(|pod| pod.is_certain());
    let container = Some(&*subject.container).filter(|name| !name.is_empty());
    let who = match pod {
        Some(pod) => waivers::Who::of(&pod.facts, container),
        None => waivers::Who {
            namespace: &subject.namespace,
            service_account: &subject.service_account,
            ..waivers::Who::default()
        },
    };
    waivers::accepting(waivers, code, &who, view.now.wall).map(Arc::from)
}

/// Since the agent's start, or the pod's if that was later.
fn watched_since(view: View<'_>, subject: &Subject, started: WallNs) -> WallNs {
    let pod = view.cluster.pods().by_uid(&subject.uid);
    pod.and_then(|pod| pod.facts.created).map_or(started, |created| created.max(started))
}
