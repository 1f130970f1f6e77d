//! Keys of the model of the node's ceilings.

use std::ops::RangeInclusive;

use agent_core::capacity::model::{Settings, Shape};
use serde::{Deserialize, Serialize};

pub(super) const LOW_PERCENT: RangeInclusive<u32> = 50..=98;
pub(super) const LOW_WITHIN_SECONDS: RangeInclusive<u32> = 60..=86_400;
/// More than any node has.
pub(super) const POD_CPU_MILLI: RangeInclusive<u64> = 0..=1_000_000;
pub(super) const POD_MEMORY_MIB: RangeInclusive<u64> = 0..=67_108_864;
pub(super) const POD_VOLUMES: RangeInclusive<u32> = 0..=128;

/// Thresholds, and the pod that is asked for.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Capacity {
    /// A resource is low from this part of its limit on.
    pub(crate) low_percent: u32,
    /// Or when it is used up within this time.
    pub(crate) low_within_seconds: u32,
    /// What a pod asks for of which it is said how many fit; all of it nothing: what the node's pods usually ask for.
    pub(crate) pod_cpu_milli: u64,
    /// As above.
    pub(crate) pod_memory_mib: u64,
    /// As above.
    pub(crate) pod_volumes: u32,
    /// As above.
    pub(crate) pod_branch: bool,
}

impl Default for Capacity {
    fn default() -> Self {
        let Settings { low_percent, low_within_s, shape: _ } = Settings::default();
        Self {
            low_percent,
            low_within_seconds: low_within_s,
            pod_cpu_milli: 0,
            pod_memory_mib: 0,
            pod_volumes: 0,
            pod_branch: false,
        }
    }
}

impl From<&Capacity> for Settings {
    fn from(keys: &Capacity) -> Self {
        let shape = Shape {
            cpu_milli: keys.pod_cpu_milli,
            memory_bytes: keys.pod_memory_mib.saturating_mul(1 << 20),
            volumes: keys.pod_volumes,
            branch: keys.pod_branch,
        };
        Self {
            low_percent: keys.low_percent,
            low_within_s: keys.low_within_seconds,
            shape: Some(shape).filter(|shape| *shape != Shape::default()),
        }
    }
}
