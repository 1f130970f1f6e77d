//! Tokens for the Kubernetes API that nobody uses: a pod mounts one, and no connection of it went to the API server.
//!
//! That something did not happen is only known of a time that was watched whole. Whatever may have hidden a connection of a
//! pod begins its window anew: records that were lost, rows without peers, sockets that could not be followed, and a restart
//! of the agent, unless its probes stayed and nothing was missed. What is
//! judged is a day or more, so that a weekly job is the only thing that a weekday hides.

use std::net::IpAddr;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::{violation, whom, why};
use crate::cluster::{Cluster, Pod, Services};
use crate::facts::{Phase, PodFacts, TokenMount};
use crate::fast::FastMap;
use crate::finding::{Code, Evidence, Judgement, Severity, Subject, Verdict};
use crate::output::{AttributionKind, FlowRow, Output, PeerClass};
use crate::papers;
use crate::time::{BootNs, Clock, Moment, WallNs};

/// How long a pod is watched before silence says something: a day.
pub const WINDOW_NS: u64 = 24 * 3_600 * 1_000_000_000;
/// Most pods followed.
const MAX_PODS: usize = crate::cluster::MAX_PODS;

/// See the module's text.
#[derive(Debug, Default)]
pub(in crate::finding) struct Tokens {
    /// By the uid that cgroups tell.
    pods: FastMap<Arc<str>, Used>,
    /// The first fold.
    begun: Option<BootNs>,
    /// Something was not seen, of whomever: what all pods did is known from here on.
    spoiled: Option<BootNs>,
}

/// What is known of one pod.
#[derive(Clone, Copy, Debug, Default)]
struct Used {
    /// It was watched from here on by an earlier run, and nothing of it was missed between that one and this.
    before: Option<BootNs>,
    /// What it did is known from here on; `None`: as of all.
    whole_since: Option<BootNs>,
    first: Option<WallNs>,
    last: Option<Last>,
    connections: u64,
    bytes: u64,
}

/// When a pod called the API server last.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
struct Last {
    wall: WallNs,
    /// `None`: in another boot of the machine, where wall time alone says how long ago.
    boot: Option<BootNs>,
}

/// What is known at one moment, for the next start.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize)]
pub(in crate::finding) struct Kept {
    /// It is as of the end of its run: nothing was seen after it.
    is_last: bool,
    pods: Vec<KeptPod>,
}

#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
struct KeptPod {
    uid: Arc<str>,
    whole_since: Option<BootNs>,
    first: Option<WallNs>,
    last: Option<Last>,
    connections: u64,
    bytes: u64,
}

/// A pod's token, as an audit tells it.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
pub struct TokenRow {
    /// Namespace.
    pub namespace: Arc<str>,
    /// Owner of the pod.
    pub workload: Arc<str>,
    /// Pod.
    pub pod: Arc<str>,
    /// Whose token it is.
    pub service_account: Arc<str>,
    /// How it gets there; `None`: not known.
    pub mount: Option<TokenMount>,
    /// Whether the pod called the API server; `None`: cannot tell.
    pub used: Option<bool>,
    /// Why it cannot be told.
    pub why: Option<String>,
    /// First connection that was seen.
    pub first_used: Option<WallNs>,
    /// End of the last fold that saw one.
    pub last_used: Option<WallNs>,
    /// Connections that ended.
    pub connections: u64,
    /// Payload bytes, both ways.
    pub bytes: u64,
    /// All that the pod did is known from here on.
    pub watched_since: WallNs,
}

impl Tokens {
    /// Takes in the rows of a fold.
    pub(in crate::finding) fn rows(&mut self, outputs: &[Output], cluster: &Cluster, now: Moment) {
        let Moment { boot: now, wall } = now;
        self.begun.get_or_insert(now);
        for output in outputs {
            let Output::Flow(row) = output else { continue };
            let uid = &row.who.identity.uid;
            if uid.is_empty() {
                if row.who.identity.attribution == AttributionKind::Unknown {
                    // It may be anybody's.
                    self.spoil(now);
                }
                continue;
            }
            if self.pods.len() >= MAX_PODS && !self.pods.contains_key(&**uid) {
                self.spoil(now);
                continue;
            }
            let used = self.pods.entry(Arc::from(&**uid)).or_default();
            if is_to_api(row, cluster.services()) {
                used.first.get_or_insert(row.window.start);
                used.last = Some(Last { wall, boot: Some(now) });
                used.connections = used.connections.saturating_add(row.connections);
                used.bytes = used.bytes.saturating_add(row.bytes_sent).saturating_add(row.bytes_received);
            } else if row.merged && row.direction != "inbound" {
                used.whole_since = Some(now);
            }
        }
    }

    /// Something was not seen, of whomever.
    pub(in crate::finding) fn spoil(&mut self, now: BootNs) {
        self.spoiled = Some(now);
    }

    /// What is known of pods with a token, and of those that called the API server; `is_last`: the run ends.
    pub(in crate::finding) fn kept(&self, cluster: &Cluster, is_last: bool) -> Kept {
        let mut pods: FastMap<Arc<str>, KeptPod> = FastMap::default();
        let mut keep = |uid: &Arc<str>, used: Used, whole_since: Option<BootNs>| {
            let Used { first, last, connections, bytes, .. } = used;
            pods.insert(
                Arc::clone(uid),
                KeptPod { uid: Arc::clone(uid), whole_since, first, last, connections, bytes },
            );
        };
        // Pods that were known before a restart, and are not told again yet.
        for (uid, used) in self.pods.iter().filter(|(_, used)| used.before.is_some() || used.last.is_some()) {
            keep(uid, *used, used.before.map(|before| self.since(before, used)));
        }
        for pod in with_token(cluster) {
            let used = self.used(pod);
            if let Some(uid) = key(pod) {
                keep(uid, used, Some(self.since(pod.since, &used)));
            }
        }
        let mut pods: Vec<_> = pods.into_values().collect();
        pods.sort_unstable_by(|a, b| a.uid.cmp(&b.uid));
        pods.truncate(MAX_PODS);
        Kept { is_last, pods }
    }

    /// Takes in what an earlier run knew. Uses are told all the same; silence goes on only where that run was watched to its
    /// end, in this boot, and nothing was missed since (`goes_on`).
    pub(in crate::finding) fn restore(&mut self, kept: Kept, same_boot: bool, goes_on: bool) {
        let is_whole = same_boot && goes_on && kept.is_last;
        for KeptPod { uid, whole_since, first, last, connections, bytes } in kept.pods.into_iter().take(MAX_PODS) {
            let last = last.map(|last| Last { boot: last.boot.filter(|_| same_boot), ..last });
            let before = whole_since.filter(|_| is_whole);
            self.pods.insert(uid, Used { before, whole_since: None, first, last, connections, bytes });
        }
    }

    /// Whether there is anything to keep.
    pub(in crate::finding) fn is_empty(&self) -> bool {
        self.pods.is_empty()
    }

    /// Forgets pods that are gone.
    pub(in crate::finding) fn expire(&mut self, is_alive: &dyn Fn(&str) -> bool) {
        self.pods.retain(|uid, _| is_alive(uid));
    }

    /// Judges all pods with a token. `stands`: a finding that is about it was made before.
    pub(in crate::finding) fn judge(
        &self,
        cluster: &Cluster,
        window_ns: u64,
        stands: &dyn Fn(&Subject) -> bool,
        now: Moment,
    ) -> Vec<Judgement> {
        let mut judgements = Vec::new();
        for pod in with_token(cluster) {
            let subject = papers::subject(&pod.facts);
            let used = self.used(pod);
            let verdict = match self.verdict(pod, cluster, window_ns, now) {
                Ok(true) => Verdict::Holds,
                Ok(false) => Verdict::Violated(Box::new(violated(&subject, &pod.facts, window_ns))),
                // A day has to pass first, which is no news; but what was found before a restart is not over by that.
                Err(why::NOT_WATCHED_LONG) if !stands(&subject) && used.last.is_none() => continue,
                Err(why) => Verdict::CannotTell(why),
            };
            judgements.push(Judgement { code: Code::ApiTokenUnused, subject, verdict });
        }
        judgements
    }

    /// All pods with a token, by name.
    pub(in crate::finding) fn audit(
        &self,
        cluster: &Cluster,
        window_ns: u64,
        clock: Clock,
        now: BootNs,
    ) -> Vec<TokenRow> {
        let mut rows: Vec<_> = with_token(cluster)
            .map(|pod| {
                let PodFacts { namespace, name, workload, service_account, api_token, .. } = &*pod.facts;
                let used = self.used(pod);
                let verdict = self.verdict(pod, cluster, window_ns, Moment { boot: now, wall: clock.wall(now) });
                TokenRow {
                    namespace: Arc::clone(namespace),
                    workload: Arc::clone(&workload.name),
                    pod: Arc::clone(name),
                    service_account: Arc::clone(service_account),
                    mount: *api_token,
                    used: verdict.ok(),
                    why: verdict.err().map(ToOwned::to_owned),
                    first_used: used.first,
                    last_used: used.last.map(|last| last.boot.map_or(last.wall, |boot| clock.wall(boot))),
                    connections: used.connections,
                    bytes: used.bytes,
                    watched_since: clock.wall(self.since(pod.since, &used)),
                }
            })
            .collect();
        rows.sort_by(|a, b| (&a.namespace, &a.workload, &a.pod).cmp(&(&b.namespace, &b.workload, &b.pod)));
        rows
    }

    /// Whether a pod used its token within the window.
    fn verdict(&self, pod: &Pod, cluster: &Cluster, window_ns: u64, now: Moment) -> Result<bool, &'static str> {
        let used = self.used(pod);
        if used.last.is_some_and(|last| last.age_ns(now) <= window_ns) {
            return Ok(true);
        }
        if pod.facts.runtime_class.is_some() {
            return Err(why::SANDBOX);
        }
        if !cluster.services().knows_api() {
            return Err(why::API_NOT_KNOWN);
        }
        if now.boot.since(self.since(pod.since, &used)) < window_ns {
            return Err(why::NOT_WATCHED_LONG);
        }
        Ok(false)
    }

    fn used(&self, pod: &Pod) -> Used {
        key(pod).and_then(|uid| self.pods.get(uid)).copied().unwrap_or_default()
    }

    /// Since when all is known that a pod did, who was told at `told`.
    fn since(&self, told: BootNs, used: &Used) -> BootNs {
        let begun = used.before.unwrap_or_else(|| self.begun.unwrap_or(told).max(told));
        [self.spoiled, used.whole_since].into_iter().flatten().fold(begun, BootNs::max)
    }
}

// === impl Last ===

impl Last {
    fn age_ns(self, now: Moment) -> u64 {
        match self.boot {
            Some(boot) => now.boot.since(boot),
            None => u64::try_from(now.wall.0.saturating_sub(self.wall.0)).unwrap_or(0),
        }
    }
}

/// How cgroups call a pod.
fn key(pod: &Pod) -> Option<&Arc<str>> {
    pod.facts.config_hash.as_ref().or(pod.facts.uid.as_ref())
}

fn with_token(cluster: &Cluster) -> impl Iterator<Item = &Pod> {
    let running = |pod: &&Pod| pod.facts.phase == Some(Phase::Running) && pod.facts.uid.is_some();
    cluster.pods().present().filter(|pod| pod.is_certain() && pod.facts.api_token_mounted).filter(running)
}

/// Whether a row is of connections to the API server. One that is older than the agent has no direction, and so no known
/// port: its address has to do.
fn is_to_api(row: &FlowRow, services: &Services) -> bool {
    match row.direction {
        "outbound" => row.peer.class == PeerClass::KubeApi,
        "unknown" => {
            let ip = row.peer.ip.as_deref().and_then(|ip| ip.parse::<IpAddr>().ok());
            ip.is_some_and(|ip| services.is_api_address(ip))
        }
        _ => false,
    }
}

fn violated(subject: &Subject, pod: &PodFacts, window_ns: u64) -> crate::finding::Violation {
    let hours = window_ns / (3_600 * 1_000_000_000);
    let who = whom(subject);
    let account = &pod.service_account;
    let text = format!(
        "{who} mounts a token of the service account {account} and opened no connection to the API server for {hours} hours"
    );
    let evidence = Evidence {
        object: format!("Pod {}/{}", pod.namespace, pod.name),
        field: "spec.containers[].volumeMounts".to_owned(),
        generation: None,
        value: pod.api_token.map_or("a token", TokenMount::text).to_owned(),
    };
    crate::finding::Violation { evidence: vec![evidence], ..violation(Severity::Info, "unused", text) }
}
