//! What is asked: a flow in the direction of its first packet.

use std::net::IpAddr;

use super::model::{IcmpVersion, Service, Side, Transport};

/// A flow, as its first packet shows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Flow {
    /// What it carries.
    pub traffic: Traffic,
    /// Between whom.
    pub ends: Ends,
}

/// Protocol and what rules may ask of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Traffic {
    /// TCP or UDP, to this port of the destination.
    Port(Transport, u16),
    /// ICMP of IPv4 or of IPv6.
    Icmp {
        /// Which.
        version: IcmpVersion,
        /// Type.
        kind: u8,
        /// Code.
        code: u8,
    },
    /// Another protocol by its number.
    Protocol(u8),
}

/// The ends of a flow, as far as they are known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ends {
    family: Family,
    source: Option<IpAddr>,
    destination: Option<IpAddr>,
}

/// IPv4 or IPv6.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Family {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}

/// One end is IPv4 and the other IPv6: no flow has such ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{ipv4} is IPv4 and {ipv6} is IPv6: give both ends in one family")]
pub struct MixedFamilies {
    ipv4: IpAddr,
    ipv6: IpAddr,
}

// === impl Flow ===

impl Flow {
    /// The other end's address, seen from one side.
    pub(super) fn peer(&self, side: Side) -> Option<IpAddr> {
        match side {
            Side::Egress => self.ends.destination,
            Side::Ingress => self.ends.source,
        }
    }
}

// === impl Traffic ===

impl Traffic {
    /// Protocol 1 and 58 carry types, 6 and 17 ports: `None` for them.
    pub fn other(protocol: u8) -> Option<Self> {
        (!matches!(protocol, 1 | 6 | 17 | 58)).then_some(Self::Protocol(protocol))
    }

    /// The rule's service that fits this and nothing else.
    pub fn exactly(self) -> Service {
        match self {
            Self::Port(transport, port) => Service::Ports { transport, first: port, last: port },
            Self::Icmp { version, kind, code } => Service::Icmp { version, kind: Some((kind, Some(code))) },
            Self::Protocol(number) => Service::Protocol(number),
        }
    }
}

// === impl Ends ===

impl Ends {
    /// Ends by address. `None` when neither is known: the family must be said then, see [`Ends::unknown`].
    ///
    /// An IPv4 address in IPv6 clothes (`::ffff:10.0.0.1`) is IPv4, as on the wire.
    pub fn new(source: Option<IpAddr>, destination: Option<IpAddr>) -> Result<Option<Self>, MixedFamilies> {
        let (source, destination) = (source.map(|ip| ip.to_canonical()), destination.map(|ip| ip.to_canonical()));
        match (source, destination) {
            (Some(ipv4), Some(ipv6)) | (Some(ipv6), Some(ipv4)) if ipv4.is_ipv4() && ipv6.is_ipv6() => {
                Err(MixedFamilies { ipv4, ipv6 })
            }
            (Some(ip), _) | (None, Some(ip)) => Ok(Some(Self { family: Family::of(ip), source, destination })),
            (None, None) => Ok(None),
        }
    }

    /// Ends without addresses.
    pub fn unknown(family: Family) -> Self {
        Self { family, source: None, destination: None }
    }

    /// IPv4 or IPv6.
    pub fn family(&self) -> Family {
        self.family
    }

    /// Who begins.
    pub fn source(&self) -> Option<IpAddr> {
        self.source
    }

    /// Who is spoken to.
    pub fn destination(&self) -> Option<IpAddr> {
        self.destination
    }
}

// === impl Family ===

impl Family {
    /// Of an address as it is written.
    pub fn of(ip: IpAddr) -> Self {
        if ip.is_ipv4() { Self::V4 } else { Self::V6 }
    }

    /// As people write it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::V4 => "IPv4",
            Self::V6 => "IPv6",
        }
    }
}
