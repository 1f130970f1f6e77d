//! Events of the VPC resource controller about a pod: the only record in the cluster of the groups that a branch interface
//! was really made with.

use std::sync::Arc;

use agent_core::facts::{GroupEvent, GroupEventKind};
use agent_core::time::WallNs;
use serde::Deserialize;

use super::{Converted, cut};

/// Who writes them.
const CONTROLLER: &str = "vpc-resource-controller";

/// `Event`, of the core group or of `events.k8s.io`.
#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(super) struct Event {
    #[serde(alias = "regarding")]
    involved_object: Involved,
    reason: String,
    #[serde(rename = "type")]
    severity: String,
    #[serde(alias = "note")]
    message: String,
    source: Source,
    reporting_component: String,
    reporting_controller: String,
    #[serde(alias = "deprecatedFirstTimestamp")]
    first_timestamp: Option<WallNs>,
    #[serde(alias = "deprecatedLastTimestamp")]
    last_timestamp: Option<WallNs>,
    #[serde(rename = "eventTime")]
    time: Option<WallNs>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Involved {
    kind: String,
    uid: String,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Source {
    component: String,
}

/// An event, if it is one of the controller's about a pod.
pub(super) fn converted(event: Event) -> Result<Converted, String> {
    let by_controller = [&event.source.component, &event.reporting_component, &event.reporting_controller]
        .contains(&&CONTROLLER.to_owned());
    if !by_controller || event.involved_object.kind != "Pod" || event.involved_object.uid.is_empty() {
        return Ok(Converted::Skipped { kind: "Event".to_owned() });
    }
    let kind = match (event.reason.as_str(), event.severity.as_str()) {
        ("SecurityGroupRequested", "Normal") => GroupEventKind::Groups(groups(&event.message)?),
        ("SecurityGroupRequested", "Warning") => GroupEventKind::InstanceGroups,
        ("ResourceAllocated", _) => GroupEventKind::Allocated,
        ("BranchAllocationFailed" | "BranchENIAnnotationFailed", _) => GroupEventKind::Failed(cut(&event.message)),
        _ => return Ok(Converted::Skipped { kind: "Event".to_owned() }),
    };
    let time = event.last_timestamp.or(event.time).or(event.first_timestamp);
    Ok(Converted::GroupEvent { uid: event.involved_object.uid.into(), event: GroupEvent { kind, time } })
}

/// `Pod will get the following Security Groups [sg-1 sg-2]`: what stands in the brackets, if all of it are groups.
fn groups(message: &str) -> Result<Vec<Arc<str>>, String> {
    let wrong = || "message: expected ids of security groups in brackets".to_owned();
    let (_, rest) = message.split_once('[').ok_or_else(wrong)?;
    let (list, _) = rest.split_once(']').ok_or_else(wrong)?;
    let groups: Vec<Arc<str>> =
        list.split([' ', ',']).filter(|id| !id.is_empty()).map(|id| id.trim_matches('"')).map(Arc::from).collect();
    if groups.is_empty() || !groups.iter().all(|id| id.starts_with("sg-")) {
        return Err(wrong());
    }
    Ok(groups)
}
