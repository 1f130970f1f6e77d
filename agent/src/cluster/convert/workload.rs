//! Who owns a pod, as people name it: the Deployment behind a `ReplicaSet` and the `CronJob` behind a Job, but only where
//! the pod itself proves it. Reading the owner's owner would cost a request and a permission.

use agent_core::facts::WorkloadRef;

use super::shapes::{Meta, Owner};

/// What the Deployment controller writes on its pods and appends to the name of its `ReplicaSet`.
const TEMPLATE_HASH: &str = "pod-template-hash";
/// Annotation of the API server's copy of a static pod.
const MIRROR: &str = "kubernetes.io/config.mirror";

const MINUTE_NS: i64 = 60_000_000_000;
/// How long after the moment it was scheduled for a `CronJob`'s pod may be made: late starts and retries of long Jobs, and
/// still far less than what tells a scheduled minute from a date of eight digits such as 20260131, which as minutes is 2008.
const SCHEDULE_LATE_MINUTES: i64 = 31 * 24 * 60;
/// Clocks of the control plane's machines may differ.
const SCHEDULE_EARLY_MINUTES: i64 = 5;

/// The owner of a pod.
pub(super) fn of_pod(pod: &Meta, name: &str) -> WorkloadRef {
    if pod.annotations.contains_key(MIRROR) {
        return workload("Node", controller(pod).map_or("", |owner| &owner.name));
    }
    let Some(owner) = controller(pod) else { return workload("Pod", name) };
    match owner.kind.as_str() {
        "ReplicaSet" => {
            let deployment = pod
                .labels
                .get(TEMPLATE_HASH)
                .and_then(|hash| owner.name.strip_suffix(hash.as_str()))
                .and_then(|rest| rest.strip_suffix('-'))
                .filter(|name| !name.is_empty());
            deployment.map_or_else(|| of(owner), |name| workload("Deployment", name))
        }
        "Job" => cron_job(&owner.name, pod).map_or_else(|| of(owner), |name| workload("CronJob", name)),
        _ => of(owner),
    }
}

/// The owner of the pods that an object with a template makes: the object's own controller, else the object.
pub(super) fn of_template(kind: &str, metadata: &Meta) -> WorkloadRef {
    controller(metadata).map_or_else(|| workload(kind, &metadata.name), of)
}

fn of(owner: &Owner) -> WorkloadRef {
    workload(&owner.kind, &owner.name)
}

fn workload(kind: &str, name: &str) -> WorkloadRef {
    WorkloadRef { kind: kind.into(), name: name.into() }
}

fn controller(metadata: &Meta) -> Option<&Owner> {
    metadata.owner_references.iter().find(|owner| owner.controller && !owner.name.is_empty())
}

/// A `CronJob` names its Jobs after itself and the minute they were scheduled for (the older controller: the second),
/// counted from 1970. Anybody may give a Job a name that ends in digits, so they must be a moment shortly before the pod.
fn cron_job<'a>(job: &'a str, pod: &Meta) -> Option<&'a str> {
    let created_minutes = pod.creation_timestamp?.0 / MINUTE_NS;
    let (name, digits) = job.rsplit_once('-')?;
    let number: i64 = digits.bytes().all(|digit| digit.is_ascii_digit()).then(|| digits.parse().ok())??;
    let scheduled_minutes = match digits.len() {
        8 | 9 => number,
        10 => number / 60,
        _ => return None,
    };
    let late = created_minutes - scheduled_minutes;
    ((-SCHEDULE_EARLY_MINUTES..=SCHEDULE_LATE_MINUTES).contains(&late) && !name.is_empty()).then_some(name)
}
