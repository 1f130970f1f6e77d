//! Groups, rules and prefix lists as facts.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

/// The longest id that is accepted. EC2's have at most 21 characters; made-up ones for tests may be longer.
const MAX_ID_BYTES: usize = 64;

/// An id that EC2 would not give.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "{text:?} is no id of a {what}: expected {prefix} and then letters, digits, - or _, {MAX_ID_BYTES} characters at most"
)]
pub struct InvalidId {
    text: String,
    what: &'static str,
    prefix: &'static str,
}

macro_rules! id {
    ($(#[$doc:meta])* $name:ident, $what:literal, $prefix:literal) => {
        $(#[$doc])*
        #[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $name(Arc<str>);

        impl $name {
            /// The id as EC2 writes it.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl FromStr for $name {
            type Err = InvalidId;

            fn from_str(text: &str) -> Result<Self, InvalidId> {
                if is_word(text) && text.strip_prefix($prefix).is_some_and(|rest| !rest.is_empty()) {
                    Ok(Self(text.into()))
                } else {
                    let text = text.chars().take(MAX_ID_BYTES).collect();
                    Err(InvalidId { text, what: $what, prefix: $prefix })
                }
            }
        }

        impl TryFrom<String> for $name {
            type Error = InvalidId;

            fn try_from(text: String) -> Result<Self, InvalidId> {
                text.parse()
            }
        }

        impl From<$name> for String {
            fn from(id: $name) -> Self {
                id.0.as_ref().to_owned()
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
    };
}

id! {
    /// Id of a security group. Safe in a shell: commands that are proposed to people hold it.
    GroupId, "security group", "sg-"
}
id! {
    /// Id of a prefix list, the customer's or AWS's.
    PrefixListId, "prefix list", "pl-"
}

/// Whether a text can stand in a command, a path or a terminal as it is.
pub(super) fn is_word(text: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_';
    !text.is_empty() && text.len() <= MAX_ID_BYTES && text.bytes().all(plain)
}

/// A security group.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Group {
    /// Its id.
    pub id: GroupId,
    /// Its name; `None`: the source does not tell.
    pub name: Option<Arc<str>>,
    /// Its VPC; `None`: the source does not tell.
    pub vpc: Option<Arc<str>>,
    /// The account that owns it; `None`: the source does not tell.
    pub owner: Option<Arc<str>>,
    /// All its rules, of both sides.
    pub rules: Vec<Rule>,
}

/// One rule: one side, one service, one peer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rule {
    /// Its id, or a name made of what it says.
    pub id: RuleId,
    /// Whose packets it lets pass.
    pub side: Side,
    /// What it lets pass.
    pub service: Service,
    /// To whom, or from whom.
    pub peer: Peer,
}

/// A rule and the group it stands in.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct GroupRule {
    /// The group.
    pub group: GroupId,
    /// The rule.
    pub rule: Rule,
}

/// Names a rule.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct RuleId(Arc<str>);

/// The side of an interface that a rule is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Side {
    /// What leaves the interface.
    Egress,
    /// What reaches it.
    Ingress,
}

/// What a rule lets pass.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Service {
    /// Protocol -1: everything.
    All,
    /// TCP or UDP to a range of the destination's ports.
    Ports {
        /// Which.
        transport: Transport,
        /// First port.
        first: u16,
        /// Last port, included.
        last: u16,
    },
    /// ICMP of IPv4 or of IPv6.
    Icmp {
        /// Which.
        version: IcmpVersion,
        /// Type and code; `None`: all types. The code's `None`: all codes of that type.
        kind: Option<(u8, Option<u8>)>,
    },
    /// Another protocol by its number, with whatever it carries.
    Protocol(u8),
}

/// A protocol with ports.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Transport {
    /// Protocol 6.
    Tcp,
    /// Protocol 17.
    Udp,
}

/// ICMP of IPv4 or of IPv6: two protocols.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum IcmpVersion {
    /// Protocol 1.
    V4,
    /// Protocol 58.
    V6,
}

/// The other end, as a rule names it.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Peer {
    /// Addresses, IPv4 or IPv6. An IPv4 range says nothing about IPv6.
    Net(IpNet),
    /// The addresses of a prefix list.
    PrefixList(PrefixListId),
    /// Interfaces that have a group.
    Group {
        /// The group; ids are the same in all accounts, so this alone decides.
        id: GroupId,
        /// The account that owns it, where it is another than that of the rule's group, or that is not known; `None`:
        /// the same, or the source does not tell.
        account: Option<Arc<str>>,
        /// What the source says of the VPC peering that the reference goes through, when it is not `active`: such a
        /// rule is stale and lets nothing pass.
        stale: Option<Arc<str>>,
    },
}

/// A prefix list.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PrefixList {
    /// Its id.
    pub id: PrefixListId,
    /// Its name; `None`: the source does not tell.
    pub name: Option<Arc<str>>,
    /// Its addresses; `None`: the source does not tell.
    pub entries: Option<Vec<IpNet>>,
}

// === impl RuleId ===

impl RuleId {
    /// The id that EC2 gave.
    pub fn given(id: &str) -> Self {
        Self(id.into())
    }

    /// For sources that show rules without ids: what the rule says, as `sg-0a:egress:tcp:3306:10.0.0.0/16`. The same in
    /// every answer as long as the rule is.
    pub fn derived(group: &GroupId, side: Side, service: Service, peer: &Peer) -> Self {
        let (protocol, range) = (service.protocol_name(), service.range());
        let range = range.map_or(String::new(), |range| format!(":{range}"));
        let peer = match peer {
            Peer::Net(net) => net.to_string(),
            Peer::PrefixList(id) => id.to_string(),
            Peer::Group { id, .. } => id.to_string(),
        };
        Self(format!("{group}:{}:{protocol}{range}:{peer}", side.name()).into())
    }

    /// The id.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The same, to be kept.
    pub fn shared(&self) -> Arc<str> {
        Arc::clone(&self.0)
    }

    /// Whether EC2 gave it, and not [`RuleId::derived`].
    pub fn is_given(&self) -> bool {
        self.0.starts_with("sgr-")
    }
}

impl fmt::Display for RuleId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

// === impl Side ===

impl Side {
    /// Name in rows and commands.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Egress => "egress",
            Self::Ingress => "ingress",
        }
    }
}

// === impl Service ===

impl Service {
    /// The protocol as EC2 writes it: a name, a number, or -1.
    pub fn protocol_name(self) -> String {
        match self {
            Self::All => "-1".to_owned(),
            Self::Ports { transport, .. } => transport.name().to_owned(),
            Self::Icmp { version, .. } => version.name().to_owned(),
            Self::Protocol(number) => number.to_string(),
        }
    }

    /// Ports as `443` or `1024-65535`, ICMP types as `8`, `3/4` or `all`; `None` where there is no such thing.
    pub fn range(self) -> Option<String> {
        match self {
            Self::All | Self::Protocol(_) => None,
            Self::Ports { first, last, .. } if first == last => Some(first.to_string()),
            Self::Ports { first, last, .. } => Some(format!("{first}-{last}")),
            Self::Icmp { kind: None, .. } => Some("all".to_owned()),
            Self::Icmp { kind: Some((kind, None)), .. } => Some(kind.to_string()),
            Self::Icmp { kind: Some((kind, Some(code))), .. } => Some(format!("{kind}/{code}")),
        }
    }
}

impl Transport {
    /// Name, as EC2 writes it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
        }
    }
}

impl IcmpVersion {
    /// Name, as EC2 writes it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::V4 => "icmp",
            Self::V6 => "icmpv6",
        }
    }
}
