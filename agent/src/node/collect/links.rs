//! Interfaces of the node's network namespace, by rtnetlink, and what the node's own network did: ICMP messages that tell
//! senders of a time to live that ran out, and the pace of the instance's network cards.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use agent_core::capacity::{Collector, Counter, CounterName, Limit, Resource, Sample, Scope};
use agent_core::facts::{HostFact, LinkFacts, LinkKind};
use netlink_packet_route::link::{
    InfoData, InfoKind, InfoVlan, LinkAttribute, LinkFlags, LinkInfo, LinkLayerType, LinkMessage,
};

use super::netlink::{Netlink, other_end};
use super::pace::Pace;
use super::{Error, Look, Roots, read, table};

/// Most interfaces told: 737 pods with two each, and as many again.
const MAX_LINKS: usize = 4_096;
/// Driver of the Elastic Network Adapter.
const ENA_DRIVER: &str = "ena";
/// The longest hardware address, of `InfiniBand`, has 20 bytes.
const MAC_BYTES_MAX: usize = 32;

/// Looks at interfaces.
pub(super) struct Links {
    proc: PathBuf,
    sys: PathBuf,
    /// Bytes in and out of each network card.
    pace: Pace<u32>,
}

// === impl Links ===

impl Links {
    pub(super) fn new(roots: &Roots) -> Self {
        Self { proc: roots.proc.clone(), sys: roots.sys.clone(), pace: Pace::default() }
    }

    /// Bits a second of all network cards together, in the busier direction.
    fn bits_per_second(&mut self, links: &[LinkFacts]) -> Option<u64> {
        let cards = links.iter().filter(|link| link.kind == LinkKind::Ena);
        let bytes = cards.map(|link| (link.index, (link.received_bytes, link.sent_bytes))).collect();
        let (received, sent) = self.pace.of(bytes, Instant::now())?;
        Some(received.max(sent).saturating_mul(8))
    }
}

impl Look for Links {
    fn look(&mut self, facts: &mut Vec<HostFact>) -> Result<(), Error> {
        let mut result = Ok(());
        match time_exceeded(&self.proc) {
            Ok(counters) => facts.push(HostFact::Counters { collector: Collector::Links, counters }),
            Err(error) => read::keep_first(&mut result, error),
        }
        facts.push(HostFact::TcpEarlyDemux(early_demux(&self.proc)));
        let messages = Netlink::open()?.links()?;
        let links: Vec<LinkFacts> = messages.iter().take(MAX_LINKS).map(|message| link(message, &self.sys)).collect();
        let pace = self.bits_per_second(&links);
        facts.push(HostFact::Links(links));
        let samples = pace.map(|bits_per_second| Sample {
            resource: Resource::NetworkBandwidth,
            scope: Scope::Node,
            used: Some(bits_per_second),
            // The type's baseline, which no interface tells.
            limit: Limit::Unknown,
            source: "bytes of the ena interfaces".into(),
        });
        facts.push(HostFact::Samples { collector: Collector::Links, samples: samples.into_iter().collect() });
        result
    }
}

/// `Icmp: OutTimeExcds` of the node's own network namespace.
fn time_exceeded(proc: &Path) -> Result<Vec<Counter>, Error> {
    let path = proc.join("self/net/snmp");
    let value = table::paired(&path, &read::text(&path)?, "Icmp", "OutTimeExcds")?;
    let counter = value.map(|value| Counter { name: CounterName::IcmpTimeExceeded, scope: Scope::Node, value });
    Ok(counter.into_iter().collect())
}

/// `net.ipv4.tcp_early_demux`: with it on, the node takes packets of pods with a branch interface for its own.
fn early_demux(proc: &Path) -> Option<bool> {
    read::number::<u8>(&proc.join("sys/net/ipv4/tcp_early_demux")).ok().map(|value| value != 0)
}

fn link(message: &LinkMessage, sys: &Path) -> LinkFacts {
    let mut facts = LinkFacts {
        index: message.header.index,
        up: message.header.flags.contains(LinkFlags::Up),
        lower: other_end(message).0,
        ..LinkFacts::default()
    };
    if message.header.link_layer_type == LinkLayerType::Loopback {
        facts.kind = LinkKind::Loopback;
    }
    for attribute in &message.attributes {
        match attribute {
            LinkAttribute::IfName(name) => facts.name = name.as_str().into(),
            LinkAttribute::Address(bytes) => facts.mac = mac(bytes),
            LinkAttribute::LinkInfo(infos) => info(infos, &mut facts),
            LinkAttribute::Stats64(stats) => {
                facts.received_bytes = stats.rx_bytes;
                facts.received_packets = stats.rx_packets;
                facts.sent_bytes = stats.tx_bytes;
                facts.sent_packets = stats.tx_packets;
            }
            _ => {}
        }
    }
    // A card has no kind of its own; only its driver tells.
    if facts.kind == LinkKind::Other && driver(sys, &facts.name).as_deref() == Some(ENA_DRIVER) {
        facts.kind = LinkKind::Ena;
    }
    facts
}

fn info(infos: &[LinkInfo], facts: &mut LinkFacts) {
    for info in infos {
        match info {
            LinkInfo::Kind(InfoKind::Veth) => facts.kind = LinkKind::Veth,
            LinkInfo::Kind(InfoKind::Vlan) => facts.kind = LinkKind::Vlan,
            LinkInfo::Kind(InfoKind::Dummy) => facts.kind = LinkKind::Dummy,
            LinkInfo::Data(InfoData::Vlan(settings)) => {
                facts.vlan_id = settings.iter().find_map(|setting| match setting {
                    InfoVlan::Id(id) => Some(*id),
                    _ => None,
                });
            }
            _ => {}
        }
    }
}

/// The driver behind an interface, by sysfs; `None` for one without a device.
pub(super) fn driver(sys: &Path, interface: &str) -> Option<String> {
    let link = std::fs::read_link(sys.join("class/net").join(interface).join("device/driver")).ok()?;
    link.file_name()?.to_str().map(ToOwned::to_owned)
}

/// Lower case with colons; empty for an interface without one.
fn mac(bytes: &[u8]) -> Arc<str> {
    if bytes.len() > MAC_BYTES_MAX || bytes.iter().all(|byte| *byte == 0) {
        return "".into();
    }
    bytes.iter().map(|byte| format!("{byte:02x}")).collect::<Vec<_>>().join(":").into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hardware_addresses() {
        assert_eq!(&*mac(&[2, 0xab, 0, 0, 0, 1]), "02:ab:00:00:00:01");
        assert_eq!(&*mac(&[0; 6]), "");
        assert_eq!(&*mac(&[]), "");
    }
}
