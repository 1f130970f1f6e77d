//! What the scheduler counts for a pod, and its limits of branch interfaces.

use std::collections::BTreeMap;

use agent_core::facts::{ContainerKind, Requests};
use serde_json::Value;

use super::container::init_kind;
use super::quantity;
use super::shapes::{Container, PodSpec, Resources};

/// The extended resource that stands for a branch interface.
const BRANCH: &str = "vpc.amazonaws.com/pod-eni";

/// A kind of resource with its unit.
struct Counted {
    name: &'static str,
    read: fn(&str) -> Result<u64, &'static str>,
}

const CPU: Counted = Counted { name: "cpu", read: quantity::milli };
const MEMORY: Counted = Counted { name: "memory", read: quantity::units };

/// The sum over app containers and sidecars, or what the greatest init container needs beside the sidecars that were
/// started before it, whichever is more; instead of it what the pod as a whole requests, if it does; and its overhead.
/// <https://kubernetes.io/docs/concepts/workloads/pods/sidecar-containers/#resource-sharing-within-containers>
pub(super) fn requests(spec: &PodSpec) -> Result<Requests, String> {
    let claims = spec.volumes.iter().filter(|v| v.persistent_volume_claim.is_some() || v.ephemeral.is_some()).count();
    Ok(Requests {
        cpu_milli: total(spec, &CPU)?,
        memory_bytes: total(spec, &MEMORY)?,
        claims: u32::try_from(claims).unwrap_or(u32::MAX),
    })
}

fn total(spec: &PodSpec, counted: &Counted) -> Result<u64, String> {
    let mut sidecars = 0_u64;
    let mut greatest = 0_u64;
    for container in &spec.init_containers {
        let own = request(container, counted)?;
        if init_kind(container) == ContainerKind::Sidecar {
            sidecars = sidecars.saturating_add(own);
            greatest = greatest.max(sidecars);
        } else {
            greatest = greatest.max(sidecars.saturating_add(own));
        }
    }
    let mut running = sidecars;
    for container in &spec.containers {
        running = running.saturating_add(request(container, counted)?);
    }
    let of_containers = running.max(greatest);
    let of_pod = explicit(&spec.resources, counted).map_err(|why| format!("spec.resources: {why}"))?;
    let overhead = amount(&spec.overhead, counted).map_err(|why| format!("spec.overhead: {why}"))?;
    Ok(of_pod.unwrap_or(of_containers).saturating_add(overhead.unwrap_or(0)))
}

fn request(container: &Container, counted: &Counted) -> Result<u64, String> {
    explicit(&container.resources, counted)
        .map(|amount| amount.unwrap_or(0))
        .map_err(|why| format!("container {}: resources: {why}", container.name))
}

/// A limit without a request is a request too: the API server fills it in.
fn explicit(resources: &Resources, counted: &Counted) -> Result<Option<u64>, String> {
    Ok(amount(&resources.requests, counted)?.or(amount(&resources.limits, counted)?))
}

fn amount(amounts: &BTreeMap<String, Value>, counted: &Counted) -> Result<Option<u64>, String> {
    amounts.get(counted.name).map(|value| read(value, counted.name, counted.read)).transpose()
}

/// A quantity is a text; a bare number is read as its digits, as the API server does.
pub(super) fn read(value: &Value, name: &str, read: fn(&str) -> Result<u64, &'static str>) -> Result<u64, String> {
    match value {
        Value::String(text) => read(text),
        Value::Number(number) => read(&number.to_string()),
        _ => Err("expected a quantity"),
    }
    .map_err(|why| format!("{name}: {why}"))
}

/// Branch interfaces over all app containers, as the controller counts, and whether the first one asks for one, by the
/// beginning of the name, as the CNI looks.
pub(super) fn branch_limits(spec: &PodSpec) -> Result<(u32, bool), String> {
    let counted = Counted { name: BRANCH, read: quantity::units };
    let mut sum = 0_u64;
    for container in &spec.containers {
        let limit = amount(&container.resources.limits, &counted);
        sum = sum
            .saturating_add(limit.map_err(|why| format!("container {}: limits: {why}", container.name))?.unwrap_or(0));
    }
    let first = spec.containers.first();
    let first = first.is_some_and(|first| first.resources.limits.keys().any(|name| name.starts_with(BRANCH)));
    Ok((u32::try_from(sum).unwrap_or(u32::MAX), first))
}
