//! Rules about what happens: requests, connections, records. Each is told what was seen and says what it makes of it;
//! what *is* so is judged from objects instead.

pub(super) mod agent;
mod attempts;
pub(super) mod flood;
pub(super) mod flows;
pub(super) mod groups;
mod judged;
pub(in crate::finding) mod requests;
pub mod tokens;
pub(super) mod traffic;
pub(super) mod unanswered;
pub(super) mod unfiltered;

use super::{Severity, Subject, Violation};
use crate::facts::PodFacts;
use crate::output::{AttributionKind, Identity};
use crate::papers;

/// Why a rule about what happened cannot tell: a closed set.
pub mod why {
    /// No counter and no hop limit tell why nothing came back.
    pub const NO_COUNTER: &str = "no_counter_of_time_exceeded";
    /// A pod or process without these groups gets no answer from the peer either: it may be dead.
    pub const PEER_SILENT: &str = "peer_answers_nobody";
    /// A `NetworkPolicy` selects the pod: its drops look the same.
    pub const NETWORK_POLICY: &str = "network_policy_selects_pod";
    /// Standard mode leaves traffic on one node, and what leaves the VPC by the node's address, to others than the pod's
    /// groups.
    pub const NOT_FILTERED: &str = "not_filtered_in_standard_mode";
    /// The pod is older than the agent's watch: whether the peer answered it before is not known.
    pub const OLDER: &str = "pod_older_than_watch";
    /// Credentials were asked for and something was given; whether it was a key was not seen.
    pub const KEY_NOT_SEEN: &str = "key_not_seen";
    /// More peers than there is room for: whether one of them ever answered is not known any more.
    pub const FORGOTTEN: &str = "successes_forgotten";
    /// A runtime class: the pod has a kernel or a network stack of its own.
    pub const SANDBOX: &str = "sandboxed_pod";
    /// No span of five minutes was seen whole of late, or only one, which exceeded: it proves nothing alone.
    pub const NO_SPAN: &str = "no_span_proves_it";
    /// Nobody looked at the pod's network namespace.
    pub const NOT_SEEN: &str = "network_namespace_not_seen";
    /// The rules of the groups are not read.
    pub const NO_RULES: &str = "rules_of_groups_unknown";
    /// The rules of all groups that judge it let it pass: it stays unanswered for another reason.
    pub const ALLOWED: &str = "rules_allow_it";
    /// The pod's own groups let it out of the VPC; what stands at the other end cannot be known.
    pub const OWN_END_ALLOWS: &str = "own_end_allows_it";
    /// All that the pod did is known for less than the window that silence takes to say something.
    pub const NOT_WATCHED_LONG: &str = "not_watched_long_enough";
    /// The service of the API server, or its endpoints, are not told.
    pub const API_NOT_KNOWN: &str = "api_server_not_known";
    /// No security group judges it.
    pub const NOT_JUDGED: &str = "no_group_judges_it";
    /// The counter stood still, or the hop limit suffices: something else lost the answer.
    pub const OTHER_REASON: &str = "not_the_hop_limit";
}

/// Digits of a container's id, which no container's name has.
const CONTAINER_ID_DIGITS: usize = 64;

/// The subject of a finding about a pod, as far as it is known; `None` for whoever is no pod.
pub(super) fn subject(identity: &Identity, pod: Option<&PodFacts>) -> Option<Subject> {
    if identity.attribution != AttributionKind::Pod {
        return None;
    }
    let container = if identity.container.len() == CONTAINER_ID_DIGITS { "" } else { &identity.container };
    Some(match pod {
        Some(pod) => Subject { container: container.into(), ..papers::subject(pod) },
        None => Subject {
            workload: identity.workload.as_str().into(),
            uid: identity.uid.as_str().into(),
            ..Subject::default()
        },
    })
}

/// `container app of shop/cart-0`, as far as it is known.
pub(super) fn whom(subject: &Subject) -> String {
    let pod = match (&*subject.namespace, &*subject.pod) {
        (_, "") => format!("pod {}", subject.uid),
        (namespace, pod) => format!("{namespace}/{pod}"),
    };
    match &*subject.container {
        "" => pod,
        container => format!("container {container} of {pod}"),
    }
}

pub(super) fn violation(severity: Severity, cause: &'static str, text: String) -> Violation {
    Violation { severity, cause, text, evidence: Vec::new() }
}
