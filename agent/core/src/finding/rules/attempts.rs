//! What a row of connections tells about answers: from whom, how often, and whether groups have a say in it.

use std::net::IpAddr;
use std::sync::Arc;

use super::flows::About;
use crate::fast::FastSet;
use crate::output::{AttributionKind, FlowRow, PeerClass, Protocol};

const DNS_PORT: u16 = 53;
/// Where AWS's own services live on a VPC's links: metadata, the resolver, time. No group judges traffic to them
/// (<https://docs.aws.amazon.com/vpc/latest/userguide/vpc-security-groups.html>).
const LINK_SERVICES_V6: [u16; 2] = [0xfd00, 0x0ec2];
/// The VPC's resolver at its link-local addresses; that at the VPC's base address plus two looks like any other.
const RESOLVERS: [&str; 2] = ["169.254.169.253", "fd00:ec2::253"];

/// Attempts of a row.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Tally {
    /// To this pod or process, now or earlier.
    pub(super) answered: u64,
    /// In this fold: what an old connection was told long ago is no sign of life.
    pub(super) answered_now: u64,
    pub(super) unanswered: u64,
}

impl Tally {
    fn answered(count: u64) -> Self {
        Self { answered: count, answered_now: count, unanswered: 0 }
    }

    /// It answered once, and nothing tells when.
    fn once(count: u64) -> Self {
        Self { answered: count, ..Self::default() }
    }

    fn unanswered(count: u64) -> Self {
        Self { unanswered: count, ..Self::default() }
    }
}

/// What a row tells about answers: from whom, and how often.
pub(super) fn attempts(row: &FlowRow) -> Option<(About, &str, u16, Tally)> {
    if row.direction != "outbound" || row.merged {
        return None;
    }
    let (ip, port) = (row.peer.ip.as_deref()?, row.service_port?);
    let identity = &row.who.identity;
    let is_kubelet = identity.attribution == AttributionKind::Host && is_kubelet(row);
    let about = match (identity.attribution, port) {
        (AttributionKind::Pod | AttributionKind::Host, DNS_PORT) => About::Dns,
        _ if is_kubelet => About::Probe,
        (AttributionKind::Pod | AttributionKind::Host | AttributionKind::Container, _) => About::Flow,
        (AttributionKind::Unknown, _) => return None,
    };
    let has_no_judge = match about {
        About::Flow => is_never_judged(ip, row.peer.class),
        About::Dns => RESOLVERS.contains(&ip),
        About::Probe => false,
    };
    if has_no_judge {
        return None;
    }
    let tally = match row.protocol? {
        Protocol::Tcp => tcp(row, about),
        Protocol::Udp if about == About::Dns => udp(row),
        Protocol::Udp => return None,
    };
    Some((about, ip, port, tally))
}

fn tcp(row: &FlowRow, about: About) -> Tally {
    match row.outcome {
        // A reset or a refusal is an answer too: no group made it.
        Some("established" | "reset" | "refused") => Tally::answered(row.connections),
        _ if row.bytes_received > 0 => Tally::answered(row.connections.max(row.open)),
        // An established connection that was given up counts as timed out as well: it has a round trip time.
        Some("timed_out" | "aborted") if row.rtt_us.is_some() => Tally::once(row.connections),
        Some("timed_out") => Tally::unanswered(row.connections),
        Some("aborted") => {
            // A caller that gives up at once proves nothing; a SYN sent again does. The kubelet gives up after a second,
            // about when the SYN would be sent again.
            let retried = row.connections.min(row.retransmits.unwrap_or(0));
            Tally::unanswered(if about == About::Probe { row.connections } else { retried })
        }
        None if row.rtt_us.is_some() => Tally::once(row.open),
        _ => Tally::default(),
    }
}

fn udp(row: &FlowRow) -> Tally {
    match row.outcome {
        _ if row.bytes_received > 0 => Tally::answered(row.connections.max(1)),
        Some("one_way") => Tally::unanswered(row.connections),
        Some("established") => Tally::once(row.connections),
        _ => Tally::default(),
    }
}

/// Whether a row is of somebody who certainly has no groups of its own.
pub(super) fn is_other(row: &FlowRow, groupless: &FastSet<Arc<str>>) -> bool {
    match row.who.identity.attribution {
        AttributionKind::Host | AttributionKind::Container => true,
        AttributionKind::Pod => groupless.contains(&*row.who.identity.uid),
        AttributionKind::Unknown => false,
    }
}

/// Whether no group judges traffic to an address: AWS's services on the link, and the pod itself.
pub(super) fn is_never_judged(ip: &str, class: PeerClass) -> bool {
    let on_link = match ip.parse::<IpAddr>() {
        Ok(IpAddr::V4(ip)) => ip.is_link_local() || ip.is_loopback(),
        Ok(IpAddr::V6(ip)) => {
            ip.is_unicast_link_local() || ip.is_loopback() || ip.segments().starts_with(&LINK_SERVICES_V6)
        }
        Err(_) => false,
    };
    on_link || matches!(class, PeerClass::Imds | PeerClass::PodIdentity)
}

/// Whether the groups of a pod in standard mode do not see a connection. `on_node`: to a pod of this node.
pub(super) fn is_past_groups(row: &FlowRow, on_node: bool) -> bool {
    let is_link_local = row.peer.ip.as_deref().is_some_and(|ip| is_never_judged(ip, row.peer.class));
    let is_apart = matches!(row.peer.class, PeerClass::NodeLocal | PeerClass::Internet | PeerClass::AwsService);
    on_node || is_link_local || is_apart
}

/// The kubelet is a unit of the host, or a process of that name.
fn is_kubelet(row: &FlowRow) -> bool {
    row.who.identity.workload == "kubelet.service"
        || row.who.process.as_deref().is_some_and(|process| {
            let path = process.exe.as_deref().unwrap_or(&process.comm);
            path.rsplit('/').next() == Some("kubelet")
        })
}
