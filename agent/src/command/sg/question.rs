//! The question: flags that go together, as a flow and the groups at its ends.

use std::net::IpAddr;
use std::str::FromStr;

use agent_core::sg::{Ends, Family, Flow, GroupId, IcmpVersion, InvalidId, Traffic, Transport};

/// More than an interface can have: EC2 allows 16 at most
/// (<https://docs.aws.amazon.com/vpc/latest/userguide/amazon-vpc-limits.html>).
const MAX_GROUPS: usize = 64;

/// Types of echo requests.
const ECHO: u8 = 8;
const ECHO_V6: u8 = 128;

/// Groups of an interface, or none.
#[derive(Clone)]
pub(super) struct Members(pub(super) Vec<GroupId>);

/// Why a list of groups is none.
#[derive(Debug, thiserror::Error)]
pub(super) enum WrongMembers {
    #[error(transparent)]
    Id(#[from] InvalidId),
    #[error("names more than {MAX_GROUPS} groups: an interface has 16 at most")]
    TooMany,
}

/// A protocol of a flow.
#[derive(Clone, Copy)]
pub(super) enum Protocol {
    Port(Transport),
    Icmp(IcmpVersion),
    Other(Traffic),
}

/// Why a word is no protocol.
#[derive(Debug, thiserror::Error)]
#[error("expected tcp, udp, icmp, icmpv6 or a number from 0 to 255: a flow has one protocol")]
pub(super) struct WrongProtocol;

/// The flags.
pub(super) struct Question {
    pub(super) protocol: Protocol,
    pub(super) port: Option<u16>,
    pub(super) icmp_type: Option<u8>,
    pub(super) icmp_code: Option<u8>,
    pub(super) ipv6: bool,
    pub(super) source: Option<IpAddr>,
    pub(super) destination: Option<IpAddr>,
    pub(super) source_groups: Option<Vec<GroupId>>,
    pub(super) destination_groups: Option<Vec<GroupId>>,
}

/// What is asked.
pub(super) struct Asked {
    pub(super) flow: Flow,
    pub(super) source: Option<Vec<GroupId>>,
    pub(super) destination: Option<Vec<GroupId>>,
}

// === impl Members ===

impl FromStr for Members {
    type Err = WrongMembers;

    fn from_str(text: &str) -> Result<Self, WrongMembers> {
        if text == "none" {
            return Ok(Self(Vec::new()));
        }
        if text.split(',').count() > MAX_GROUPS {
            return Err(WrongMembers::TooMany);
        }
        Ok(Self(text.split(',').map(|id| id.trim().parse()).collect::<Result<_, _>>()?))
    }
}

// === impl Protocol ===

impl FromStr for Protocol {
    type Err = WrongProtocol;

    fn from_str(text: &str) -> Result<Self, WrongProtocol> {
        Ok(match text.to_ascii_lowercase().as_str() {
            "tcp" | "6" => Self::Port(Transport::Tcp),
            "udp" | "17" => Self::Port(Transport::Udp),
            "icmp" | "1" => Self::Icmp(IcmpVersion::V4),
            "icmpv6" | "58" => Self::Icmp(IcmpVersion::V6),
            number => Self::Other(number.parse().ok().and_then(Traffic::other).ok_or(WrongProtocol)?),
        })
    }
}

// === impl Question ===

impl Question {
    /// Says what does not go together, for people.
    pub(super) fn check(self) -> Result<Asked, String> {
        let has_groups = |groups: &Option<Vec<GroupId>>| groups.as_ref().is_some_and(|groups| !groups.is_empty());
        if !has_groups(&self.source_groups) && !has_groups(&self.destination_groups) {
            return Err("no end has groups, so nothing judges: give --source-groups or --dest-groups".to_owned());
        }
        let traffic = self.traffic()?;
        let ends = Ends::new(self.source, self.destination).map_err(|mixed| mixed.to_string())?;
        let icmp = match traffic {
            Traffic::Icmp { version: IcmpVersion::V4, .. } => Some(Family::V4),
            Traffic::Icmp { version: IcmpVersion::V6, .. } => Some(Family::V6),
            Traffic::Port(..) | Traffic::Protocol(_) => None,
        };
        let said = if self.ipv6 { Some(Family::V6) } else { icmp };
        let ends = ends.unwrap_or(Ends::unknown(said.unwrap_or(Family::V4)));
        if self.ipv6 && ends.family() == Family::V4 {
            return Err("--ipv6 does not go with IPv4 addresses".to_owned());
        }
        if icmp.is_some_and(|family| family != ends.family()) {
            return Err("icmp is of IPv4 and icmpv6 of IPv6: give the protocol that goes with the addresses".to_owned());
        }
        Ok(Asked { flow: Flow { traffic, ends }, source: self.source_groups, destination: self.destination_groups })
    }

    fn traffic(&self) -> Result<Traffic, String> {
        let has_type = self.icmp_type.is_some() || self.icmp_code.is_some();
        match (self.protocol, self.port) {
            (Protocol::Port(_) | Protocol::Other(_), _) if has_type => {
                Err("--icmp-type and --icmp-code go with --protocol icmp and icmpv6 alone".to_owned())
            }
            (Protocol::Port(transport), Some(port)) => Ok(Traffic::Port(transport, port)),
            (Protocol::Port(transport), None) => {
                Err(format!("--protocol {} needs the port that is spoken to: give --port", transport.name()))
            }
            (Protocol::Icmp(_) | Protocol::Other(_), Some(_)) => {
                Err("--port goes with --protocol tcp and udp alone".to_owned())
            }
            (Protocol::Icmp(version), None) => {
                let echo = match version {
                    IcmpVersion::V4 => ECHO,
                    IcmpVersion::V6 => ECHO_V6,
                };
                let kind = self.icmp_type.unwrap_or(echo);
                Ok(Traffic::Icmp { version, kind, code: self.icmp_code.unwrap_or(0) })
            }
            (Protocol::Other(traffic), None) => Ok(traffic),
        }
    }
}
