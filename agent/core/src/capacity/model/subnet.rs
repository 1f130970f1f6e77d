//! A subnet that runs dry, seen from the node without asking EC2: the CNI's own failures, and pods that wait.

use super::line::Line;
use super::readings::{Readings, Refusal};
use super::waiting::WaitingPod;
use crate::capacity::{CounterName, Resource, Scope};
use crate::time::BootNs;

/// Calls fail now and then: throttled, or of an interface that is just going. They mean something when they go on.
const FAILING_NS: u64 = 120_000_000_000;

/// The sign that no single counter gives: the CNI's calls to EC2 go on failing, pods wait or find no address, and the
/// instance could hold more. `None` as well where EC2's own answer says it already, or somebody who asked it.
pub(super) fn dry(
    refusals: &[Refusal],
    readings: &Readings,
    waiting: &[WaitingPod],
    lines: &[Line],
    now: BootNs,
) -> Option<Refusal> {
    let is_told = refusals.iter().any(|refusal| refusal.resource == Resource::SubnetIps)
        || lines.iter().any(|line| line.resource == Resource::SubnetIps && line.used.is_some());
    let (times, for_ns) = readings.streak(CounterName::Ec2CallsFailed, now)?;
    let lacks = !waiting.is_empty() || refusals.iter().any(|refusal| refusal.resource == Resource::PodIps);
    // Where the instance itself is full the subnet is not to blame.
    let addresses = lines.iter().find(|line| line.resource == Resource::PodIps && line.scope == Scope::Node);
    let is_full = addresses.and_then(Line::headroom) == Some(0);
    let dry = !is_told && lacks && !is_full && for_ns >= FAILING_NS;
    let name = CounterName::Ec2CallsFailed;
    dry.then_some(Refusal { resource: Resource::SubnetIps, scope: Scope::Node, times, name, for_ns })
}
