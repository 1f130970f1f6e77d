//! Findings and capacity as rows.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::capacity::{Resource, Unit};
use crate::finding::{Code, Evidence, Severity, Subject};
use crate::time::WallNs;

/// A finding as it stands.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct FindingRow {
    /// When it became what it is.
    #[serde(skip, default)]
    pub time: WallNs,
    /// The same finding keeps its id, over a restart too.
    pub id: String,
    /// What.
    pub code: Code,
    /// How bad.
    pub severity: Severity,
    /// Whether it stands.
    pub state: State,
    /// About whom.
    pub subject: Subject,
    /// Pods that it is about, when they are several of one workload; at most [`FindingRow::MAX_PODS`] are named.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub pods: Vec<Arc<str>>,
    /// Pods that it is about, those beyond the named ones included.
    pub pods_count: u64,
    /// Why, from the code's closed list.
    pub cause: String,
    /// First seen.
    pub first_seen: WallNs,
    /// Last seen.
    pub last_seen: WallNs,
    /// When it was resolved; `None` while it stands.
    pub resolved_at: Option<WallNs>,
    /// How often it was seen.
    pub count: u64,
    /// Since when the agent has watched this subject.
    pub watched_since: WallNs,
    /// What, in a sentence.
    pub text: String,
    /// What to do.
    pub advice: String,
    /// What it rests on.
    pub evidence: Vec<Evidence>,
    /// Reason of the waiver that accepts it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub accepted_reason: Option<String>,
}

impl FindingRow {
    /// Names in a row: enough to look at some.
    pub const MAX_PODS: usize = 16;
}

/// Whether a finding stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum State {
    /// It stands.
    Open,
    /// It stands, and a waiver says that this is as it should be.
    Accepted,
    /// Its cause is gone.
    Resolved,
}

/// All ceilings of the node as they stand.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct CapacityRow {
    /// When.
    #[serde(skip, default)]
    pub time: WallNs,
    /// One for each resource and scope that is known; the one that binds first comes first.
    pub resources: Vec<ResourceRow>,
    /// How many more pods of the usual shape fit; `None`: cannot tell.
    pub pods_fit: Option<u64>,
    /// What stops the next one; `None`: cannot tell.
    pub binding_resource: Option<Resource>,
    /// What the CNI's pool of addresses holds; `None`: nobody tells, or there is none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pool: Option<PoolRow>,
    /// Pods that the kubelet has taken on and that have waited for their sandbox, so for an address, for more than a
    /// minute; `None`: nobody tells of pods.
    #[serde(default)]
    pub pods_waiting: Option<u64>,
    /// Readings, pods and series that found no room since the agent's start.
    #[serde(default)]
    pub left_out: u64,
}

/// What the CNI's pool of addresses holds on this node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PoolRow {
    /// IPv6: the node holds a prefix (/80) that does not run out, and none of the targets counts.
    #[serde(default)]
    pub ipv6: bool,
    /// Addresses for pods that the node holds; `None` with IPv6.
    pub addresses_held: Option<u32>,
    /// Those that pods have.
    pub assigned: u32,
    /// Those that nobody has: held for pods that may come; `None` with IPv6.
    pub free: Option<u32>,
    /// The setting that holds them; `None`: the settings are not known.
    pub why: Option<String>,
    /// Least that ipamd's loop comes to rest at with so many pods; `None`: settings or instance type are not known.
    pub expected_least: Option<u32>,
    /// The most, whatever pods there were before; `None` as above.
    pub expected_most: Option<u32>,
    /// Settings that would hold fewer; `None`: not known, or these hold few enough.
    pub recommended: Option<PoolAdvice>,
}

/// Settings that hold fewer addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PoolAdvice {
    /// `WARM_IP_TARGET`.
    pub warm_ip_target: u32,
    /// `MINIMUM_IP_TARGET`.
    pub minimum_ip_target: u32,
    /// Addresses for pods that the node would hold.
    pub addresses_held: u32,
    /// Fewer than now.
    pub addresses_saved: u32,
    /// Pods beyond the present ones that may start at once without waiting for EC2.
    pub burst_pods: u32,
}

/// One ceiling.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ResourceRow {
    /// What.
    pub resource: Resource,
    /// Where the limit holds, as `node`, `pod shop/cart-0`, `interface eth0`.
    pub scope: String,
    /// In use; `None`: not known.
    pub used: Option<u64>,
    /// The ceiling; `None`: not known, or there is none.
    pub limit: Option<u64>,
    /// What one of it is.
    pub unit: Unit,
    /// Who said so.
    pub source: String,
    /// Age of the reading, seconds.
    pub age_s: u64,
    /// What is left; `None`: cannot tell.
    pub headroom: Option<u64>,
    /// Seconds until it is used up. See [`Exhaustion`].
    pub exhaustion_s: Exhaustion,
}

/// When a resource is used up, by what it did lately.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Exhaustion {
    /// It does not grow.
    NotGrowing,
    /// Too few samples, or no limit: cannot tell.
    CannotTell,
    /// Between so many seconds.
    #[serde(untagged)]
    Range {
        /// At the fastest pace seen.
        earliest_s: u64,
        /// At the usual pace.
        likely_s: u64,
    },
}
