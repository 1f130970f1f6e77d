//! Papers: what each pod should be allowed, and whether it is so.
//!
//! [`demand`] says which security groups the policies ask for, [`enforcement`] whether the node really applies them,
//! [`identity`] which AWS identity a container has and by which way. [`judge_pod`] and [`judge_policy`] turn that into
//! judgements: what *is* so, as opposed to what happened. The same functions serve the node and manifests; an object
//! that was not admitted yet goes through [`admission`] first. [`waivers`] say which findings are as they should be.

pub mod admission;
pub mod demand;
pub mod enforcement;
pub mod identity;
pub mod selector;
pub mod waivers;

mod credentials;
mod groups;
mod policies;

use std::collections::BTreeSet;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::attribution::workload_of;
use crate::facts::{GroupEvent, NodeFacts, PodFacts, PolicyFacts, ServiceAccountFacts};
use crate::finding::{Code, Evidence, Judgement, Severity, Subject, Verdict, Violation};
use crate::time::WallNs;

use self::enforcement::Links;
pub(crate) use self::groups::last_requested;
pub use self::policies::{Belongs, Selected, judge_policy};

/// Why a verdict cannot be told: a closed set.
pub mod why {
    /// The policies were not read yet.
    pub const POLICIES: &str = "policies_unknown";
    /// The service account was not read, and a policy or the identity depends on it.
    pub const ACCOUNT: &str = "service_account_unknown";
    /// The service account is gone, and a policy or the identity depends on it.
    pub const ACCOUNT_GONE: &str = "service_account_gone";
    /// The annotation of the branch interface cannot be read.
    pub const ANNOTATION: &str = "annotation_unreadable";
    /// The node's interfaces are not known.
    pub const LINKS: &str = "interfaces_unknown";
    /// The node's interfaces were read before the pod started.
    pub const LINKS_OLD: &str = "interfaces_older_than_pod";
    /// No host veth of the pod's name, or more than one kind.
    pub const MODE: &str = "mode_unknown";
    /// The pod has no address yet.
    pub const ADDRESS: &str = "no_address";
    /// The pod has not started yet.
    pub const PENDING: &str = "pod_pending";
    /// The pod has no status, or one that nobody knows.
    pub const STATUS: &str = "no_status";
    /// The pod's node was not read yet: it may be one on which this mechanism is not in use.
    pub const NODE: &str = "node_unknown";
    /// EKS Auto Mode has a mechanism of its own.
    pub const AUTO_MODE: &str = "auto_mode";
    /// Fargate has a mechanism of its own.
    pub const FARGATE: &str = "fargate";
    /// The controller's event is gone, and EC2 was not asked.
    pub const EVENT: &str = "event_expired";
    /// The controller's events were not asked for yet.
    pub const EVENT_PENDING: &str = "event_not_read";
    /// The interface has the instance's groups, and these are not known.
    pub const INSTANCE_GROUPS: &str = "instance_groups_unknown";
    /// No cluster security group is configured.
    pub const CLUSTER_GROUP: &str = "cluster_group_not_configured";
    /// Variables come from a `ConfigMap` or Secret as a whole.
    pub const ENVIRONMENT: &str = "environment_unknown";
    /// The key comes from a Secret, a `ConfigMap` or a field.
    pub const KEY: &str = "key_from_reference";
}

/// Causes that a rule of this module gives; empty for the codes of other rules.
pub const fn causes(code: Code) -> &'static [&'static str] {
    match code {
        Code::SgpNotEnforced => &[
            "webhook_missed",
            "policy_newer",
            "labels_changed",
            "cni_ignored",
            "unsupported_node",
            "host_network",
            "unknown",
        ],
        Code::SgpStale => &["policy_changed", "labels_changed", "unknown"],
        Code::SgpOrphaned => &["policy_gone", "limit_by_hand", "unknown"],
        Code::SgpInvalid => &["no_selector", "no_groups", "selector_invalid", "too_many_groups"],
        Code::SgpClusterGroup => &["cluster_group", "other_cluster"],
        Code::IrsaNotInjected => &["webhook_missed", "annotated_later", "unknown"],
        Code::IdentityConflict => &["access_key", "web_identity"],
        Code::StaticCredentials => &["access_key"],
        _ => &[],
    }
}

/// A service account as far as it is known.
#[derive(Clone, Copy, Debug, Default)]
pub enum Account<'a> {
    /// It was read.
    Known(&'a ServiceAccountFacts),
    /// It was looked for and is not there.
    Gone,
    /// It was not read.
    #[default]
    Unknown,
}

/// Everything that judging one pod rests on.
#[derive(Clone, Copy, Debug)]
pub struct PodContext<'a> {
    /// The pod.
    pub pod: &'a PodFacts,
    /// Its service account.
    pub account: Account<'a>,
    /// All policies; those of other namespaces are passed over. `None`: not read yet.
    pub policies: Option<&'a [Arc<PolicyFacts>]>,
    /// The pod's node; `None`: not read yet.
    pub node: Option<&'a NodeFacts>,
    /// Interfaces of the node.
    pub links: Option<&'a Links<'a>>,
    /// What the controller's events said; `None`: not asked yet.
    pub events: Option<&'a [GroupEvent]>,
    /// Groups on the pod's branch interface, from EC2.
    pub interface_groups: Option<&'a [Arc<str>]>,
    /// When EC2 told them.
    pub interface_told: Option<WallNs>,
    /// Groups of the instance, from EC2.
    pub instance_groups: Option<&'a [Arc<str>]>,
    /// The pod made flows that a group should have judged.
    pub judged_flows: bool,
}

/// What the rules can be told by configuration.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Settings {
    /// Ids of the cluster security group; more than one where clusters share policies.
    pub cluster_groups: BTreeSet<Arc<str>>,
    /// Most groups an interface may have, [`Settings::MAX_GROUPS_DEFAULT`] up to [`Settings::MAX_GROUPS_MOST`].
    pub max_groups: usize,
    /// What the CNI's host veths begin with.
    pub veth_prefix: String,
}

impl Settings {
    /// EC2's default quota of security groups per network interface.
    pub const MAX_GROUPS_DEFAULT: usize = 5;
    /// What that quota can be raised to.
    pub const MAX_GROUPS_MOST: usize = 16;
    /// The CNI's default of `AWS_VPC_K8S_CNI_VETHPREFIX`.
    pub const VETH_PREFIX_DEFAULT: &str = "eni";
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            cluster_groups: BTreeSet::new(),
            max_groups: Self::MAX_GROUPS_DEFAULT,
            veth_prefix: Self::VETH_PREFIX_DEFAULT.to_owned(),
        }
    }
}

impl<'a> PodContext<'a> {
    /// A pod of which nothing else is known.
    pub fn new(pod: &'a PodFacts) -> Self {
        Self {
            pod,
            account: Account::Unknown,
            policies: None,
            node: None,
            links: None,
            events: None,
            interface_groups: None,
            interface_told: None,
            instance_groups: None,
            judged_flows: false,
        }
    }
}

/// Judges a pod by all rules about its state. Each rule answers for every subject that it knows, so that a finding can
/// be resolved; policies are judged by [`judge_policy`].
pub fn judge_pod(context: &PodContext<'_>, settings: &Settings) -> Vec<Judgement> {
    let demand = demand::demanded(context.pod, context.account, context.policies);
    let about_pod = |code, verdict| Judgement { code, subject: subject(context.pod), verdict };
    let mut judgements = vec![
        about_pod(Code::SgpNotEnforced, groups::not_enforced(context, &demand)),
        about_pod(Code::SgpStale, groups::stale(context, &demand)),
        about_pod(Code::SgpOrphaned, groups::orphaned(context, &demand)),
        about_pod(Code::SgpInvalid, groups::too_many(context, &demand, settings)),
        Judgement {
            code: Code::IrsaNotInjected,
            subject: Subject { service_account: context.pod.service_account.clone(), ..subject(context.pod) },
            verdict: credentials::irsa_not_injected(context.pod, context.account),
        },
    ];
    for container in &context.pod.containers {
        let about = Subject { container: container.name.clone(), ..subject(context.pod) };
        judgements.push(Judgement {
            code: Code::IdentityConflict,
            subject: about.clone(),
            verdict: credentials::conflict(context.pod, container),
        });
        judgements.push(Judgement {
            code: Code::StaticCredentials,
            subject: about,
            verdict: credentials::static_keys(context.pod, container),
        });
    }
    judgements
}

/// Why nothing can be said of security groups on a node: it has a mechanism of its own, or may have one.
pub fn elsewhere(node: Option<&NodeFacts>) -> Option<&'static str> {
    groups::elsewhere_of(node, false)
}

/// The subject of a finding about a pod as a whole.
pub fn subject(pod: &PodFacts) -> Subject {
    Subject {
        namespace: pod.namespace.clone(),
        workload: workload_of(pod).into(),
        pod: pod.name.clone(),
        uid: pod.uid.clone().unwrap_or_default(),
        ..Subject::default()
    }
}

/// `Pod shop/cart-0`; of a template, which has no pod yet, the workload, `Deployment shop/cart`.
pub fn pod_object(pod: &PodFacts) -> String {
    match &*pod.workload.kind {
        "" | "Pod" | "Node" => format!("Pod {}/{}", pod.namespace, pod.name),
        kind if pod.uid.is_none() => format!("{kind} {}/{}", pod.namespace, pod.workload.name),
        _ => format!("Pod {}/{}", pod.namespace, pod.name),
    }
}

/// `SecurityGroupPolicy shop/cart`.
pub fn policy_object(policy: &PolicyFacts) -> String {
    format!("SecurityGroupPolicy {}/{}", policy.namespace, policy.name)
}

/// What a field of the pod says.
pub(crate) fn pod_says(pod: &PodFacts, field: &str, value: impl Into<String>) -> Evidence {
    Evidence { object: pod_object(pod), field: field.to_owned(), generation: None, value: value.into() }
}

/// What a field of a policy says.
pub(crate) fn policy_says(policy: &PolicyFacts, field: &str, value: impl Into<String>) -> Evidence {
    Evidence {
        object: policy_object(policy),
        field: field.to_owned(),
        generation: policy.generation,
        value: value.into(),
    }
}

fn violated(severity: Severity, cause: &'static str, text: String, evidence: Vec<Evidence>) -> Verdict {
    Verdict::Violated(Box::new(Violation { severity, cause, text, evidence }))
}

/// `a, b, c`, or `none`.
fn list<T: AsRef<str>>(items: impl IntoIterator<Item = T>) -> String {
    let mut text = String::new();
    for item in items {
        if !text.is_empty() {
            text.push_str(", ");
        }
        text.push_str(item.as_ref());
    }
    if text.is_empty() { "none".to_owned() } else { text }
}

#[cfg(test)]
pub(crate) mod testing;
#[cfg(test)]
mod tests;
