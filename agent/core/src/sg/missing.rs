//! The rule that would let a flow pass: as text, as a command, as Terraform.

use std::net::IpAddr;
use std::sync::Arc;

use ipnet::IpNet;

use super::compile::Compiled;
use super::flow::Flow;
use super::model::{GroupId, Peer, RuleId, Service, Side};
use super::text;

/// A rule that one side lacks: the narrowest one that lets the flow pass.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Missing {
    /// The side.
    pub side: Side,
    /// The group to add it to: the first of the interface's. Another one of them would do.
    pub group: GroupId,
    /// What it must let pass.
    pub service: Service,
    /// To whom, or from whom; `None`: neither groups nor address of the other end are known.
    pub peer: Option<Peer>,
}

impl Compiled {
    /// What one side lacks to let a flow pass. `None`: that end has no groups.
    ///
    /// The peer is named by its first group where it has one, because addresses of pods change. A public address is named by itself, since a reference to a
    /// group means private addresses.
    pub fn missing(&self, flow: &Flow, side: Side, own: &[GroupId], others: Option<&[GroupId]>) -> Option<Missing> {
        let group = own.iter().find(|id| self.defines(id)).or(own.first())?;
        let address = flow.peer(side);
        let by_group = others.and_then(|ids| ids.first()).filter(|_| address.is_none_or(|ip| !self.looks_public(ip)));
        let peer = match (by_group, address) {
            (Some(id), _) => Some(Peer::Group { id: id.clone(), account: self.foreign_owner(group, id), stale: None }),
            (None, Some(ip)) => Some(Peer::Net(IpNet::from(ip))),
            (None, None) => None,
        };
        Some(Missing { side, group: group.clone(), service: flow.traffic.exactly(), peer })
    }

    /// The account of a group, where it is known to be another than that of the group which shall name it.
    fn foreign_owner(&self, own: &GroupId, other: &GroupId) -> Option<Arc<str>> {
        let owner = |id: &GroupId| self.sieves(id).and_then(|sieves| sieves.owner.clone());
        let (own, other) = (owner(own)?, owner(other)?);
        (own != other).then_some(other)
    }
}

impl Missing {
    /// `sg-0a has no egress rule for tcp 3306 to sg-0b`.
    pub fn text(&self) -> String {
        let Self { side, group, service, peer } = self;
        let peer = peer.as_ref().map_or_else(|| "the other end".to_owned(), text::peer);
        let towards = text::towards(*side);
        format!("{group} has no {} rule for {} {towards} {peer}", side.name(), text::service(*service))
    }

    /// A line for the AWS CLI that adds the rule; `None`: the peer is not known.
    pub fn aws_cli(&self) -> Option<String> {
        let peer = match self.peer.as_ref()? {
            Peer::Net(IpNet::V4(net)) => format!("IpRanges=[{{CidrIp={net}}}]"),
            Peer::Net(IpNet::V6(net)) => format!("Ipv6Ranges=[{{CidrIpv6={net}}}]"),
            Peer::PrefixList(id) => format!("PrefixListIds=[{{PrefixListId={id}}}]"),
            Peer::Group { id, account: None, .. } => format!("UserIdGroupPairs=[{{GroupId={id}}}]"),
            Peer::Group { id, account: Some(account), .. } => {
                format!("UserIdGroupPairs=[{{GroupId={id},UserId={account}}}]")
            }
        };
        let range = self.range().map_or(String::new(), |(from, to)| format!("FromPort={from},ToPort={to},"));
        let (side, group, protocol) = (self.side.name(), &self.group, self.service.protocol_name());
        Some(format!(
            "aws ec2 authorize-security-group-{side} --group-id {group} --ip-permissions \
             'IpProtocol={protocol},{range}{peer}'"
        ))
    }

    /// A Terraform resource (AWS provider 5 or later) that is the rule; `None`: the peer is not known.
    pub fn terraform(&self) -> Option<String> {
        let (argument, value) = match self.peer.as_ref()? {
            Peer::Net(net @ IpNet::V4(_)) => ("cidr_ipv4", net.to_string()),
            Peer::Net(net @ IpNet::V6(_)) => ("cidr_ipv6", net.to_string()),
            Peer::PrefixList(id) => ("prefix_list_id", id.to_string()),
            Peer::Group { id, account: None, .. } => ("referenced_security_group_id", id.to_string()),
            Peer::Group { id, account: Some(account), .. } => {
                ("referenced_security_group_id", format!("{account}/{id}"))
            }
        };
        let mut arguments = vec![
            ("security_group_id", quoted(self.group.as_str())),
            ("ip_protocol", quoted(&self.service.protocol_name())),
        ];
        if let Some((from, to)) = self.range() {
            arguments.extend([("from_port", from), ("to_port", to)]);
        }
        arguments.push((argument, quoted(&value)));
        let width = arguments.iter().map(|(name, _)| name.len()).max().unwrap_or_default();
        let lines: Vec<_> = arguments.iter().map(|(name, value)| format!("  {name:width$} = {value}\n")).collect();
        Some(format!(
            "resource \"aws_vpc_security_group_{}_rule\" \"{}\" {{\n{}}}\n",
            self.side.name(),
            self.label()?,
            lines.concat()
        ))
    }

    /// `FromPort` and `ToPort`: ports, or type and code.
    fn range(&self) -> Option<(String, String)> {
        match self.service {
            Service::All | Service::Protocol(_) => None,
            Service::Ports { first, last, .. } => Some((first.to_string(), last.to_string())),
            Service::Icmp { kind, .. } => {
                let code = kind.and_then(|(_, code)| code).map_or("-1".to_owned(), |code| code.to_string());
                Some((kind.map_or("-1".to_owned(), |(kind, _)| kind.to_string()), code))
            }
        }
    }

    /// A name that Terraform takes: letters, digits and underscores.
    fn label(&self) -> Option<String> {
        let id = RuleId::derived(&self.group, self.side, self.service, self.peer.as_ref()?);
        Some(id.as_str().chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '_' }).collect())
    }
}

/// Ids, addresses, protocols and accounts: nothing that needs an escape.
fn quoted(text: &str) -> String {
    format!("\"{text}\"")
}

impl Flow {
    /// `tcp 3306 from 10.0.0.5 to 10.0.1.9`, with what is known.
    pub fn text(&self) -> String {
        let end = |word, ip: Option<IpAddr>| ip.map_or(String::new(), |ip| format!(" {word} {ip}"));
        let (from, to) = (end("from", self.ends.source()), end("to", self.ends.destination()));
        format!("{}{from}{to}", text::service(self.traffic.exactly()))
    }
}
