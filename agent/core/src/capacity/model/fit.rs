//! How many more pods of a shape fit, and what stops the next one.

use super::known::Known;
use super::line::Line;
use super::settings::Shape;
use crate::capacity::{Resource, Scope};

/// The answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Fit {
    pub(super) pods: u64,
    pub(super) stopped_by: Resource,
}

/// `None`: cannot tell, because the limit of pods is not known; or one that the shape needs and that the node has. Among
/// resources that stop the same pod the first counts, in the order in which a pod meets them: the scheduler, then the CNI.
pub(super) fn fit(lines: &[Line], shape: Shape, known: &Known) -> Option<Fit> {
    let headroom = |resource: Resource| {
        let line = lines.iter().find(|line| line.resource == resource && line.scope == Scope::Node)?;
        line.headroom()
    };
    let pods = headroom(Resource::Pods)?;
    let mut least = Fit { pods, stopped_by: Resource::Pods };
    let mut consider = |resource: Resource, each: u64| {
        // What a pod does not need does not stop it.
        let fit = headroom(resource).and_then(|headroom| headroom.checked_div(each));
        if let Some(pods) = fit.filter(|&fit| fit < least.pods) {
            least = Fit { pods, stopped_by: resource };
        }
    };
    consider(Resource::CpuRequests, shape.cpu_milli);
    consider(Resource::MemoryRequests, shape.memory_bytes);
    consider(Resource::EbsVolumes, u64::from(shape.volumes));
    consider(Resource::BranchInterfaces, u64::from(shape.branch));
    consider(Resource::PodIps, u64::from(!shape.branch));
    // Requests of the node's pods are counted against allocatable: without it nobody can tell.
    let node = known.node()?;
    let needed = [(shape.cpu_milli, node.cpu_milli), (shape.memory_bytes, node.memory_bytes)];
    needed.iter().all(|(needed, allocatable)| *needed == 0 || allocatable.is_some()).then_some(least)
}
