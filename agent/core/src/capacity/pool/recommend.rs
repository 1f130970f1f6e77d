//! Settings that hold fewer addresses for the same pods, and what they cost.

use super::{Calls, Held, Pool, Settings};
use crate::capacity::instances::InstanceType;

/// Fewest addresses kept free: a pod or two start without a wait.
const LEAST_WARM: u32 = 2;
/// Most addresses kept free: one call to EC2 brings as many.
const MOST_WARM: u32 = 16;
/// One address free for so many pods.
const PODS_A_WARM_ADDRESS: u32 = 10;

/// Settings that hold fewer addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Recommendation {
    /// `WARM_IP_TARGET` and `MINIMUM_IP_TARGET` are set, all else is as it was.
    pub settings: Settings,
    /// What the node then holds.
    pub held: Held,
    /// Calls to EC2 while the pods start one after the other.
    pub calls: Calls,
    /// The same with the settings as they were.
    pub calls_before: Calls,
    /// Pods that may start at once without waiting for EC2.
    pub burst: u32,
}

/// Settings for a node that usually runs so many pods: they hold at once what these pods need, and a tenth more. `None`: the
/// present ones hold no more than that.
pub fn recommend(of: &InstanceType, settings: &Settings, max_pods: u32, pods: u32) -> Option<Recommendation> {
    let before = Pool::new(of, settings, max_pods);
    let warm = pods.div_ceil(PODS_A_WARM_ADDRESS).clamp(LEAST_WARM, MOST_WARM);
    let settings = Settings { warm_ip_target: warm, minimum_ip_target: pods, ..*settings };
    let pool = Pool::new(of, &settings, max_pods);
    let held = pool.from_empty(pods);
    if held.high.total() >= before.from_empty(pods).low.total() {
        return None;
    }
    let burst = held.low.addresses.saturating_sub(pods);
    Some(Recommendation { settings, held, calls: pool.calls(pods), calls_before: before.calls(pods), burst })
}
