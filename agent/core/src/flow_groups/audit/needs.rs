//! What every pod needs of its groups: names, and in strict mode the node's probes.

use std::net::IpAddr;

use super::Problem;
use crate::facts::{Dns, PodFacts, ProbeKind};
use crate::flow_groups::scene::Scene;
use crate::papers::enforcement::Mode;
use crate::sg::{Compiled, Ends, Family, Flow, GroupId, Missing, Side, SideVerdict, Traffic, Transport};

/// Most findings about one pod: a handful of probed ports, and DNS.
const MAX_PROBLEMS: usize = 32;
const DNS_PORT: u16 = 53;

/// What groups do not give a pod.
#[derive(Debug, Default)]
pub(super) struct Needs {
    pub(super) problems: Vec<Problem>,
    pub(super) cannot_tell: Vec<String>,
}

/// What every pod needs: names, and in strict mode the node's probes.
pub(super) fn of(scene: &Scene<'_>, pod: &PodFacts, mode: Option<Mode>, own: &[GroupId]) -> Needs {
    let compiled = scene.compiled;
    let mut needs = Needs::default();
    for transport in [Transport::Udp, Transport::Tcp] {
        match dns(compiled, pod, transport, own) {
            Names::Served => {}
            Names::Refused(missing) => {
                let text = format!("its groups let no DNS out over {}: {}", transport.name(), missing.text());
                needs.problems.push(problem("no_dns", text, &missing));
            }
            Names::CannotTell(why) => {
                let text = format!("whether its groups let DNS out over {}: {why}", transport.name());
                needs.cannot_tell.push(text);
            }
        }
    }
    if mode == Some(Mode::Strict) {
        let node = scene.known.cluster.node().and_then(|node| node.addresses.first().copied());
        let node_groups = scene.node_groups().map(|held| held.groups);
        for port in probed_ports(pod) {
            let Some(flow) = probe_flow(node, pod, port) else { continue };
            if let Some(missing) = lacks(compiled, &flow, Side::Ingress, own, node_groups.as_deref()) {
                let text = format!("its groups do not admit the node's probes of port {port}: {}", missing.text());
                needs.problems.push(problem("no_probe_path", text, &missing));
            }
        }
    }
    needs.problems.truncate(MAX_PROBLEMS);
    needs
}

/// What groups say of a pod's name servers.
enum Names {
    /// One of them at least may be asked.
    Served,
    /// None may, for want of this rule.
    Refused(Missing),
    CannotTell(&'static str),
}

/// The cluster's resolver is behind a service's address: that no rule lets DNS out to anybody is all that can be said of
/// it. AWS's own, which is usually the node's, is never filtered.
fn dns(compiled: &Compiled, pod: &PodFacts, transport: Transport, own: &[GroupId]) -> Names {
    let to = |ends| Flow { traffic: Traffic::Port(transport, DNS_PORT), ends };
    match &pod.dns {
        Dns::Unknown => Names::CannotTell("its dnsPolicy is not known"),
        Dns::Node => Names::CannotTell("it asks the node's resolvers, which are not known"),
        Dns::Named(servers) if servers.is_empty() => Names::CannotTell("it names no name server"),
        Dns::Named(servers) => {
            let source = |server: &IpAddr| pod.ips.iter().copied().find(|ip| ip.is_ipv4() == server.is_ipv4());
            let ends = servers.iter().filter_map(|server| Ends::new(source(server), Some(*server)).ok().flatten());
            let mut refused = None;
            for flow in ends.map(to) {
                match compiled.judge(&flow, Side::Egress, Some(own), None) {
                    SideVerdict::NoRule => {
                        refused = refused.or_else(|| compiled.missing(&flow, Side::Egress, own, None));
                    }
                    SideVerdict::Allowed(_) | SideVerdict::Unfiltered(_) => return Names::Served,
                    SideVerdict::CannotTell(_) | SideVerdict::NotJudged => {
                        return Names::CannotTell("not enough is known of its name servers or of its groups' rules");
                    }
                }
            }
            refused.map_or(Names::CannotTell("its name servers cannot be read"), Names::Refused)
        }
        Dns::Cluster => {
            let family = pod.ips.first().map_or(Family::V4, |ip| Family::of(*ip));
            lacks(compiled, &to(Ends::unknown(family)), Side::Egress, own, None).map_or(Names::Served, Names::Refused)
        }
    }
}

fn lacks(compiled: &Compiled, flow: &Flow, side: Side, own: &[GroupId], others: Option<&[GroupId]>) -> Option<Missing> {
    match compiled.judge(flow, side, Some(own), others) {
        SideVerdict::NoRule => compiled.missing(flow, side, own, others),
        _ => None,
    }
}

fn problem(name: &str, text: String, missing: &Missing) -> Problem {
    Problem { problem: name.to_owned(), text, aws_cli: missing.aws_cli(), terraform: missing.terraform() }
}

/// Ports that the kubelet connects to.
fn probed_ports(pod: &PodFacts) -> Vec<u16> {
    let probes = pod.containers.iter().flat_map(|container| &container.probes);
    let mut ports: Vec<_> =
        probes.filter(|probe| probe.kind != ProbeKind::Exec).filter_map(|probe| probe.port).collect();
    ports.sort_unstable();
    ports.dedup();
    ports
}

/// A probe of the node, as it arrives.
pub(crate) fn probe_flow(node: Option<IpAddr>, pod: &PodFacts, port: u16) -> Option<Flow> {
    let destination = pod.ips.first().copied()?;
    let source = node.filter(|node| node.is_ipv4() == destination.is_ipv4());
    let ends = Ends::new(source, Some(destination)).ok().flatten()?;
    Some(Flow { traffic: Traffic::Port(Transport::Tcp, port), ends })
}
