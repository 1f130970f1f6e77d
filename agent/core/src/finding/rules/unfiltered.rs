//! Connections past the groups of pods in standard mode: to a pod of the same node, or out of the VPC by the node's
//! address.

use super::attempts::is_never_judged;
use super::{violation, whom};
use crate::facts::PodFacts;
use crate::finding::{Evidence, Severity, Subject, Violation};
use crate::flow_groups::{Question, Scene, is_answered, on_the_wire};
use crate::output::{FlowRow, JudgedBy, PeerClass, SgWhy};
use crate::sg::{Missing, SideVerdict};

/// What there is to say of a row.
pub(in crate::finding) enum Past {
    /// It did not go past the groups.
    No,
    /// It did, and they would have let it pass.
    Allowed,
    /// It did, and they would have refused it.
    Refused(Violation),
    /// It did, and nobody can tell what they would have said.
    CannotTell,
}

/// Judges a row of a pod in standard mode.
pub(in crate::finding) fn judge(row: &FlowRow, pod: &PodFacts, subject: &Subject, scene: &Scene<'_>) -> Past {
    let Some((cause, how)) = way(row) else { return Past::No };
    if row.sg.as_deref().is_some_and(|sg| sg.why == Some(SgWhy::SnatUnknown)) {
        return Past::CannotTell;
    }
    let Some(question) = question(row, pod) else { return Past::CannotTell };
    let Some(judged) = scene.had_it_been_judged(&question) else { return Past::CannotTell };
    let explained = scene.explain(&judged);
    // Its own groups are what it went past: those of the other end are another pod's, or nobody's.
    match explained.verdict.side(judged.side) {
        SideVerdict::Allowed(_) | SideVerdict::Unfiltered(_) => Past::Allowed,
        SideVerdict::CannotTell(_) | SideVerdict::NotJudged => Past::CannotTell,
        SideVerdict::NoRule => {
            let own = explained.missing.iter().filter(|missing| missing.side == judged.side);
            let missing = own.map(Missing::text).collect::<Vec<_>>().join("; ");
            let flow = judged.flow.text();
            let text =
                format!("{} made a connection past its security groups, {how}: {flow}, and {missing}", whom(subject));
            let told = explained.told.map(|told| Evidence {
                object: "security group rules".to_owned(),
                field: "told by EC2".to_owned(),
                generation: None,
                value: told.to_string(),
            });
            Past::Refused(Violation {
                evidence: told.into_iter().collect(),
                ..violation(Severity::Medium, cause, text)
            })
        }
    }
}

/// How it went past the groups, if it did. Left out is traffic to the node itself, which no group is meant
/// for, and what nobody answered.
fn way(row: &FlowRow) -> Option<(&'static str, &'static str)> {
    const SAME_NODE: (&str, &str) = ("same_node", "to a pod on the same node");
    const OUTSIDE: (&str, &str) = ("outside_vpc", "out of the VPC by the node's address");
    let stays = row.peer.class == PeerClass::NodeLocal || row.is_within_pod();
    if row.direction != "outbound" || stays || !is_answered(row) {
        return None;
    }
    let is_pod_here = row.peer.pod.is_some() && row.peer.class == PeerClass::ClusterPod;
    match row.sg.as_deref() {
        Some(sg) if sg.why == Some(SgWhy::SameNode) => Some(SAME_NODE),
        Some(sg) if sg.by == Some(JudgedBy::Node) => Some(OUTSIDE),
        Some(sg) if sg.why == Some(SgWhy::NodeGroupsUnknown) => Some(OUTSIDE),
        // By the node's address or not: that is what is not known.
        Some(sg) if sg.why == Some(SgWhy::SnatUnknown) => Some(OUTSIDE),
        Some(_) => None,
        None if is_pod_here => Some(SAME_NODE),
        None => is_outside(row).then_some(OUTSIDE),
    }
}

/// Whether a peer is out of the VPC, and not on the link.
fn is_outside(row: &FlowRow) -> bool {
    let on_link = || row.peer.ip.as_deref().is_some_and(|ip| is_never_judged(ip, row.peer.class));
    matches!(row.peer.class, PeerClass::Internet | PeerClass::AwsService) && !on_link()
}

fn question<'a>(row: &FlowRow, pod: &'a PodFacts) -> Option<Question<'a>> {
    let (peer, traffic, is_service) = on_the_wire(row)?;
    // The pod's address as its interface has it, whatever the connection used.
    Some(Question { pod, outbound: true, local: None, peer, traffic, is_service })
}
