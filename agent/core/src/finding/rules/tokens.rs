//! Tokens for the Kubernetes API that nobody uses: a pod mounts one, and no connection of it went to the API server.
//!
//! That something did not happen is only known of a time that was watched whole. Whatever may have hidden a connection of a
//! pod begins its window anew: records that were lost, rows without peers, sockets that could not be followed. What is
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
    /// What all pods did is known from here on.
    whole_since: Option<BootNs>,
}

/// What is known of one pod.
#[derive(Clone, Copy, Debug, Default)]
struct Used {
    /// What it did is known from here on; `None`: as of all.
    whole_since: Option<BootNs>,
    first: Option<WallNs>,
    last: Option<BootNs>,
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
    pub(in crate::finding) fn rows(&mut self, outputs: &[Output], cluster: &Cluster, now: BootNs) {
        self.whole_since.get_or_insert(now);
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
                used.last = Some(now);
                used.connections = used.connections.saturating_add(row.connections);
                used.bytes = used.bytes.saturating_add(row.bytes_sent).saturating_add(row.bytes_received);
            } else if row.merged && row.direction != "inbound" {
                used.whole_since = Some(now);
            }
        }
    }

    /// Something was not seen, of whomever.
    pub(in crate::finding) fn spoil(&mut self, now: BootNs) {
        self.whole_since = Some(now);
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
            let verdict = match self.verdict(pod, cluster, window_ns, now.boot) {
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
                let verdict = self.verdict(pod, cluster, window_ns, now);
                TokenRow {
                    namespace: Arc::clone(namespace),
                    workload: Arc::clone(&workload.name),
                    pod: Arc::clone(name),
                    service_account: Arc::clone(service_account),
                    mount: *api_token,
                    used: verdict.ok(),
                    why: verdict.err().map(ToOwned::to_owned),
                    first_used: used.first,
                    last_used: used.last.map(|at| clock.wall(at)),
                    connections: used.connections,
                    bytes: used.bytes,
                    watched_since: clock.wall(self.since(pod, &used)),
                }
            })
            .collect();
        rows.sort_by(|a, b| (&a.namespace, &a.workload, &a.pod).cmp(&(&b.namespace, &b.workload, &b.pod)));
        rows
    }

    /// Whether a pod used its token within the window.
    fn verdict(&self, pod: &Pod, cluster: &Cluster, window_ns: u64, now: BootNs) -> Result<bool, &'static str> {
        let used = self.used(pod);
        if used.last.is_some_and(|last| now.since(last) <= window_ns) {
            return Ok(true);
        }
        if pod.facts.runtime_class.is_some() {
            return Err(why::SANDBOX);
        }
        if !cluster.services().knows_api() {
            return Err(why::API_NOT_KNOWN);
        }
        if now.since(self.since(pod, &used)) < window_ns {
            return Err(why::NOT_WATCHED_LONG);
        }
        Ok(false)
    }

    fn used(&self, pod: &Pod) -> Used {
        let uid = pod.facts.config_hash.as_ref().or(pod.facts.uid.as_ref());
        uid.and_then(|uid| self.pods.get(uid)).copied().unwrap_or_default()
    }

    /// Since when all is known that a pod did.
    fn since(&self, pod: &Pod, used: &Used) -> BootNs {
        let whole = self.whole_since.unwrap_or(pod.since).max(pod.since);
        used.whole_since.map_or(whole, |since| since.max(whole))
    }
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
