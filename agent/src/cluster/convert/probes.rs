//! Probes that the kubelet makes.

use agent_core::facts::{ProbeFacts, ProbeKind};
use serde_json::Value;

use super::shapes::{Container, Probe, ProbePort};

/// Defaults of the API.
const TIMEOUT_S: u32 = 1;
const PERIOD_S: u32 = 10;

/// Startup, liveness, readiness.
pub(super) fn probes(container: &Container) -> Result<Vec<ProbeFacts>, String> {
    [&container.startup_probe, &container.liveness_probe, &container.readiness_probe]
        .into_iter()
        .flatten()
        .filter_map(|probe| facts(probe, container).transpose())
        .collect()
}

fn facts(probe: &Probe, container: &Container) -> Result<Option<ProbeFacts>, String> {
    let (kind, target) = if let Some(target) = &probe.http_get {
        (ProbeKind::Http, Some(target))
    } else if let Some(target) = &probe.tcp_socket {
        (ProbeKind::Tcp, Some(target))
    } else if let Some(target) = &probe.grpc {
        (ProbeKind::Grpc, Some(target))
    } else if probe.exec.is_some() {
        (ProbeKind::Exec, None)
    } else {
        // A kind of probe that is not known here.
        return Ok(None);
    };
    let port = target.map(|target| port(target, container)).transpose()?.flatten();
    // 0 is what the API server replaces by the default.
    let or = |value: Option<u32>, default| value.filter(|value| *value != 0).unwrap_or(default);
    Ok(Some(ProbeFacts {
        kind,
        port,
        timeout_s: or(probe.timeout_seconds, TIMEOUT_S),
        period_s: or(probe.period_seconds, PERIOD_S),
    }))
}

/// A number, a number as text, or the name of one of the container's ports.
fn port(target: &ProbePort, container: &Container) -> Result<Option<u16>, String> {
    match &target.port {
        Value::Number(number) => match number.as_u64().and_then(|port| u16::try_from(port).ok()) {
            Some(port) if port != 0 => Ok(Some(port)),
            _ => Err("port of a probe: expected 1 to 65535".to_owned()),
        },
        Value::String(name) => Ok(container
            .ports
            .iter()
            .find(|port| port.name == *name)
            .map(|port| port.container_port)
            .or_else(|| name.parse().ok())
            .filter(|port| *port != 0)),
        _ => Err("port of a probe: expected a number or a name".to_owned()),
    }
}
