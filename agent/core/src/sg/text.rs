//! Rules, lacks and doubts in words.

use super::flow::{Flow, Traffic};
use super::model::{GroupRule, Peer, Rule, Service, Side};
use super::nearest::{Lack, Near};
use super::verdict::Doubt;

/// `tcp 3306`, `all traffic`, `icmp type 8`.
pub(super) fn service(service: Service) -> String {
    match service {
        Service::All => "all traffic".to_owned(),
        Service::Protocol(number) => format!("protocol {number}"),
        Service::Icmp { version, kind: None } => format!("{} of any type", version.name()),
        Service::Icmp { version, kind: Some((kind, None)) } => format!("{} type {kind}", version.name()),
        Service::Icmp { version, kind: Some((kind, Some(code))) } => {
            format!("{} type {kind} code {code}", version.name())
        }
        Service::Ports { transport, first: 0, last: u16::MAX } => format!("{} on any port", transport.name()),
        Service::Ports { transport, .. } => {
            format!("{} {}", transport.name(), service.range().unwrap_or_default())
        }
    }
}

/// A range, a list, a group with its account.
pub(super) fn peer(peer: &Peer) -> String {
    match peer {
        Peer::Net(net) => net.to_string(),
        Peer::PrefixList(id) => id.to_string(),
        Peer::Group { id, account: Some(account), .. } => format!("{id} (account {account})"),
        Peer::Group { id, account: None, .. } => id.to_string(),
    }
}

pub(super) fn towards(side: Side) -> &'static str {
    match side {
        Side::Egress => "to",
        Side::Ingress => "from",
    }
}

impl Rule {
    /// `tcp 3306 to 10.0.0.0/16`.
    pub fn text(&self) -> String {
        format!("{} {} {}", service(self.service), towards(self.side), peer(&self.peer))
    }
}

impl GroupRule {
    /// As [`Rule::text`].
    pub fn text(&self) -> String {
        self.rule.text()
    }
}

impl Near {
    /// What the rule lacks, as `port 3306, address 10.0.0.9`.
    pub fn lacks_text(&self, flow: &Flow) -> String {
        let address = flow.peer(self.rule.rule.side).map_or(String::new(), |ip| format!(" {ip}"));
        let lack = |lack: &Lack| match (lack, flow.traffic) {
            (Lack::Port, Traffic::Port(_, port)) => format!("port {port}"),
            (Lack::IcmpType, Traffic::Icmp { kind, code, .. }) => format!("type {kind} code {code}"),
            (Lack::Protocol | Lack::Port | Lack::IcmpType, traffic) => service(traffic.exactly()),
            (Lack::Family, _) => format!("{} addresses", flow.ends.family().name()),
            (Lack::Address | Lack::PrefixList, _) => format!("address{address}"),
            (Lack::Group, _) => "the other end's groups".to_owned(),
            (Lack::Stale, _) => "a VPC peering that is active".to_owned(),
        };
        self.lacks.iter().map(lack).collect::<Vec<_>>().join(", ")
    }
}

impl Doubt {
    /// What is not known, and which answer would tell.
    pub fn text(&self) -> String {
        match self {
            Self::UnknownGroup(id) => {
                format!("the rules of {id} are not known: see `aws ec2 describe-security-groups --group-ids {id}`")
            }
            Self::UnknownPrefixList(rule, id) => format!(
                "the addresses of {id}, which {} names, are not known: see `aws ec2 get-managed-prefix-list-entries \
                 --prefix-list-id {id}`",
                rule.rule.id
            ),
            Self::PeerGroups(rule) => format!(
                "{} ({}) depends on the groups of the {}, which are not known",
                rule.rule.id,
                rule.text(),
                other_end(rule)
            ),
            Self::PeerAddress(rule) => format!(
                "{} ({}) depends on the address of the {}, which is not known",
                rule.rule.id,
                rule.text(),
                other_end(rule)
            ),
            Self::PublicAddress(rule, ip) => format!(
                "{} ({}) holds for private addresses of interfaces alone, and {ip} looks public: give the ranges of the \
                 VPC if it is not",
                rule.rule.id,
                rule.text()
            ),
            Self::MayBeResolver(ip) => format!(
                "{ip} may be the VPC's resolver, which security groups do not filter: give the ranges of the VPC"
            ),
        }
    }
}

fn other_end(rule: &GroupRule) -> &'static str {
    match rule.rule.side {
        Side::Egress => "destination",
        Side::Ingress => "source",
    }
}
