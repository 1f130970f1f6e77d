//! The closed list of codes.

use serde::{Deserialize, Serialize};

macro_rules! codes {
    ($($(#[$doc:meta])* $variant:ident, $name:literal;)*) => {
        /// What a finding says.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
        pub enum Code {
            $($(#[$doc])* #[serde(rename = $name)] $variant,)*
        }

        impl Code {
            /// All of them.
            pub const ALL: &[Self] = &[$(Self::$variant,)*];

            /// Name in rows, labels and on the command line.
            pub const fn name(self) -> &'static str {
                match self { $(Self::$variant => $name,)* }
            }
        }
    };
}

codes! {
    /// A pod took the node role's credentials.
    NodeCredentialsTaken, "node-credentials-taken";
    /// A pod took the instance identity's credentials.
    IdentityCredentialsTaken, "identity-credentials-taken";
    /// A pod read the instance's user data.
    UserDataRead, "user-data-read";
    /// A request without token was answered.
    MetadataV1Used, "metadata-v1-used";
    /// A request to the metadata service was forwarded for somebody else.
    MetadataForwarded, "metadata-forwarded";
    /// The metadata service took a request and nothing came back.
    MetadataUnanswered, "metadata-unanswered";
    /// The service account names a role, and no container has it.
    IrsaNotInjected, "irsa-not-injected";
    /// Two identities in one pod, and the one that was not meant wins.
    IdentityConflict, "identity-conflict";
    /// A long-term access key stands in a pod's environment.
    StaticCredentials, "static-credentials";
    /// A pod cannot reach the Pod Identity agent.
    PodIdentityUnreachable, "pod-identity-unreachable";
    /// The Pod Identity agent refuses a pod.
    PodIdentityRefused, "pod-identity-refused";
    /// A policy selects the pod and is not enforced.
    SgpNotEnforced, "sgp-not-enforced";
    /// The pod's interface has other groups than the policies demand now.
    SgpStale, "sgp-stale";
    /// The pod has a branch interface and no policy selects it.
    SgpOrphaned, "sgp-orphaned";
    /// A policy cannot work as it stands.
    SgpInvalid, "sgp-invalid";
    /// A policy names the cluster security group.
    SgpClusterGroup, "sgp-cluster-group";
    /// A flow that no group of the pod judged, and that they would have refused.
    SgpUnfilteredFlow, "sgp-unfiltered-flow";
    /// Attempts of an enforced pod stay unanswered.
    SgpBlockedFlow, "sgp-blocked-flow";
    /// An enforced pod gets no answer from DNS while others do.
    SgpDnsBlocked, "sgp-dns-blocked";
    /// The kubelet's probes of an enforced pod time out.
    SgpProbeBlocked, "sgp-probe-blocked";
    /// A resource is nearly used up.
    CapacityLow, "capacity-low";
    /// A resource is used up.
    CapacityExhausted, "capacity-exhausted";
    /// A pod moves bytes that its sockets do not account for.
    TrafficUnaccounted, "traffic-unaccounted";
    /// A pod made more records than its budget.
    RecordFlood, "record-flood";
    /// A pod mounts a service account token and does not use it.
    ApiTokenUnused, "api-token-unused";
}

/// How bad.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Severity {
    /// Good to know.
    Info,
    /// Should be looked at some day.
    Low,
    /// Will become a problem.
    Warning,
    /// Should be looked at.
    Medium,
    /// Should be looked at today.
    High,
    /// Should be looked at now.
    Critical,
}

impl Severity {
    /// All of them, the least first.
    pub const ALL: &[Self] = &[Self::Info, Self::Low, Self::Warning, Self::Medium, Self::High, Self::Critical];

    /// Name in rows, labels and on the command line.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Info => "info",
            Self::Low => "low",
            Self::Warning => "warning",
            Self::Medium => "medium",
            Self::High => "high",
            Self::Critical => "critical",
        }
    }
}
