//! What the operator may set.

use serde::{Deserialize, Serialize};

use crate::capacity::Resource;

/// Thresholds, and the pod that is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Settings {
    /// A resource is low from this part of its limit on, percent.
    pub low_percent: u32,
    /// A resource is low when at its present pace it is used up within this time, seconds.
    pub low_within_s: u32,
    /// Pods of this shape are counted; `None`: what the node's pods usually ask for.
    pub shape: Option<Shape>,
}

/// What a pod needs of a node.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Shape {
    /// CPU request, thousandths of a core.
    pub cpu_milli: u64,
    /// Memory request, bytes.
    pub memory_bytes: u64,
    /// Persistent volumes.
    pub volumes: u32,
    /// It has a branch interface, so it needs no address of the pool.
    pub branch: bool,
}

impl Default for Settings {
    fn default() -> Self {
        Self { low_percent: 85, low_within_s: 1_800, shape: None }
    }
}

/// A resource is used up from this part of its limit on, percent: of most limits the last one.
pub(super) const EXHAUSTED_PERCENT: u32 = 99;
/// Having been low or used up, it is so until it falls by this much below the threshold, percent of the limit.
pub(super) const DISTANCE_PERCENT: u32 = 5;
/// Memory is meant to be used: it is low from here on, or from the usual threshold on when tasks wait for it.
const MEMORY_PERCENT: u32 = 95;
/// The kubelet collects images from 85 % on and evicts from 90 % on: a disk is low where collecting did not help.
const DISK_PERCENT: u32 = 90;

impl Settings {
    /// From which part of its limit on a resource is low, percent.
    pub(super) fn low_percent(&self, resource: Resource, memory_stalls: bool) -> u32 {
        match resource {
            Resource::Memory if !memory_stalls => self.low_percent.max(MEMORY_PERCENT),
            Resource::DiskBytes | Resource::DiskInodes => self.low_percent.max(DISK_PERCENT),
            _ => self.low_percent,
        }
    }
}
