//! The JSON of the EC2 API, field by field. What no decision needs is skipped.

use std::sync::Arc;

use serde::Deserialize;

use super::{Cidr, Word};
use crate::sg::model::{
    Group, GroupId, GroupRule, IcmpVersion, Peer, PrefixList, PrefixListId, Rule, RuleId, Service, Side, Transport,
};

/// An answer's top.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct Answer {
    pub(super) security_groups: Option<Vec<SecurityGroup>>,
    pub(super) security_group_rules: Option<Vec<SecurityGroupRule>>,
    pub(super) prefix_lists: Option<Vec<ManagedPrefixList>>,
    pub(super) entries: Option<Vec<Entry>>,
    pub(super) next_token: Option<String>,
}

/// An entry of a prefix list.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct Entry {
    pub(super) cidr: Cidr,
}

/// A group with its rules.
#[derive(Deserialize)]
#[serde(from = "WireGroup")]
pub(super) struct SecurityGroup(pub(super) Group);

/// A rule by itself.
#[derive(Deserialize)]
#[serde(try_from = "WireRule")]
pub(super) struct SecurityGroupRule {
    pub(super) rule: GroupRule,
    pub(super) owner: Option<Arc<str>>,
}

/// A prefix list, with its addresses or without.
#[derive(Deserialize)]
#[serde(from = "WireList")]
pub(super) struct ManagedPrefixList(pub(super) PrefixList);

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct WireGroup {
    group_id: GroupId,
    group_name: Option<Arc<str>>,
    owner_id: Option<Word>,
    vpc_id: Option<Word>,
    /// Both are always there, empty when there is no rule: a file without them says nothing about rules.
    ip_permissions: Vec<Permission>,
    ip_permissions_egress: Vec<Permission>,
}

#[derive(Deserialize)]
#[serde(try_from = "WirePermission")]
struct Permission {
    service: Service,
    peers: Vec<Peer>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct WirePermission {
    ip_protocol: String,
    from_port: Option<i64>,
    to_port: Option<i64>,
    #[serde(default)]
    ip_ranges: Vec<IpRange>,
    #[serde(default)]
    ipv6_ranges: Vec<Ipv6Range>,
    #[serde(default)]
    prefix_list_ids: Vec<ListRef>,
    #[serde(default)]
    user_id_group_pairs: Vec<GroupRef>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct IpRange {
    cidr_ip: Cidr,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Ipv6Range {
    cidr_ipv6: Cidr,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct ListRef {
    prefix_list_id: PrefixListId,
}

/// `UserIdGroupPair` and `ReferencedSecurityGroup`: of the fields that count the same.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct GroupRef {
    group_id: GroupId,
    user_id: Option<Word>,
    peering_status: Option<Word>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct WireRule {
    security_group_rule_id: Option<Word>,
    group_id: GroupId,
    group_owner_id: Option<Word>,
    is_egress: bool,
    ip_protocol: String,
    from_port: Option<i64>,
    to_port: Option<i64>,
    cidr_ipv4: Option<Cidr>,
    cidr_ipv6: Option<Cidr>,
    prefix_list_id: Option<PrefixListId>,
    referenced_group_info: Option<GroupRef>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct WireList {
    prefix_list_id: PrefixListId,
    prefix_list_name: Option<Arc<str>>,
    /// `describe-prefix-lists` prints them, `describe-managed-prefix-lists` does not.
    cidrs: Option<Vec<Cidr>>,
}

impl From<WireGroup> for SecurityGroup {
    fn from(wire: WireGroup) -> Self {
        let WireGroup { group_id: id, group_name, owner_id, vpc_id, ip_permissions, ip_permissions_egress } = wire;
        let owner = word(owner_id);
        let sides = [(Side::Ingress, ip_permissions), (Side::Egress, ip_permissions_egress)];
        let mut rules = Vec::new();
        for (side, permissions) in sides {
            for Permission { service, peers } in permissions {
                rules.extend(peers.into_iter().map(|peer| {
                    let peer = without(peer, owner.as_ref());
                    let rule = RuleId::derived(&id, side, service, &peer);
                    Rule { id: rule, side, service, peer }
                }));
            }
        }
        Self(Group { id, name: group_name, vpc: word(vpc_id), owner, rules })
    }
}

impl TryFrom<WirePermission> for Permission {
    type Error = String;

    fn try_from(wire: WirePermission) -> Result<Self, String> {
        let WirePermission { ip_protocol, from_port, to_port, ip_ranges, ipv6_ranges, prefix_list_ids, .. } = wire;
        let nets = ip_ranges
            .into_iter()
            .map(|range| range.cidr_ip)
            .chain(ipv6_ranges.into_iter().map(|range| range.cidr_ipv6));
        let peers = nets
            .map(|cidr| Peer::Net(cidr.0))
            .chain(prefix_list_ids.into_iter().map(|list| Peer::PrefixList(list.prefix_list_id)))
            .chain(wire.user_id_group_pairs.into_iter().map(Peer::from));
        Ok(Self { service: service(&ip_protocol, from_port, to_port)?, peers: peers.collect() })
    }
}

impl TryFrom<WireRule> for SecurityGroupRule {
    type Error = String;

    fn try_from(wire: WireRule) -> Result<Self, String> {
        let WireRule { security_group_rule_id, group_id, group_owner_id, is_egress, ip_protocol, .. } = wire;
        let service = service(&ip_protocol, wire.from_port, wire.to_port)?;
        let peers = [
            wire.cidr_ipv4.map(|cidr| Peer::Net(cidr.0)),
            wire.cidr_ipv6.map(|cidr| Peer::Net(cidr.0)),
            wire.prefix_list_id.map(Peer::PrefixList),
            wire.referenced_group_info.map(Peer::from),
        ];
        let mut peers = peers.into_iter().flatten();
        let (Some(peer), None) = (peers.next(), peers.next()) else {
            return Err("expected exactly one of CidrIpv4, CidrIpv6, PrefixListId and ReferencedGroupInfo".to_owned());
        };
        let owner = word(group_owner_id);
        let peer = without(peer, owner.as_ref());
        let side = if is_egress { Side::Egress } else { Side::Ingress };
        let id = match security_group_rule_id {
            Some(id) => RuleId::given(&id.0),
            None => RuleId::derived(&group_id, side, service, &peer),
        };
        Ok(Self { rule: GroupRule { group: group_id, rule: Rule { id, side, service, peer } }, owner })
    }
}

impl From<GroupRef> for Peer {
    fn from(wire: GroupRef) -> Self {
        let stale = word(wire.peering_status).filter(|status| status.as_ref() != "active");
        Self::Group { id: wire.group_id, account: word(wire.user_id), stale }
    }
}

impl From<WireList> for ManagedPrefixList {
    fn from(wire: WireList) -> Self {
        let entries = wire.cidrs.map(|cidrs| cidrs.into_iter().map(|cidr| cidr.0).collect());
        Self(PrefixList { id: wire.prefix_list_id, name: wire.prefix_list_name, entries })
    }
}

/// A reference to a group of one's own account does not name the account.
fn without(peer: Peer, owner: Option<&Arc<str>>) -> Peer {
    match peer {
        Peer::Group { id, account, stale } => Peer::Group { id, account: account.filter(|a| Some(a) != owner), stale },
        Peer::Net(_) | Peer::PrefixList(_) => peer,
    }
}

fn word(word: Option<Word>) -> Option<Arc<str>> {
    word.map(|word| word.0)
}

/// Protocol and range. For protocols without ports and types, EC2 ignores the range, and so does this.
fn service(protocol: &str, from: Option<i64>, to: Option<i64>) -> Result<Service, String> {
    match protocol {
        "-1" => Ok(Service::All),
        "tcp" | "6" => ports(Transport::Tcp, from, to),
        "udp" | "17" => ports(Transport::Udp, from, to),
        "icmp" | "1" => icmp(IcmpVersion::V4, from, to),
        "icmpv6" | "58" => icmp(IcmpVersion::V6, from, to),
        number => number.parse().map(Service::Protocol).map_err(|_| {
            let text: String = number.chars().take(64).collect();
            format!("IpProtocol {text:?} is unknown: expected tcp, udp, icmp, icmpv6, -1 or a number up to 255")
        }),
    }
}

fn ports(transport: Transport, from: Option<i64>, to: Option<i64>) -> Result<Service, String> {
    let name = transport.name();
    let (Some(from), Some(to)) = (from, to) else {
        return Err(format!("a rule for {name} lacks FromPort or ToPort"));
    };
    match (u16::try_from(from), u16::try_from(to)) {
        (Ok(first), Ok(last)) if first <= last => Ok(Service::Ports { transport, first, last }),
        _ => Err(format!("{name} from FromPort {from} to ToPort {to} is no range of ports within 0 to 65535")),
    }
}

/// Types and codes stand in the fields for ports; -1, or nothing at all, is all of them.
fn icmp(version: IcmpVersion, from: Option<i64>, to: Option<i64>) -> Result<Service, String> {
    let kind = match (from.unwrap_or(-1), to.unwrap_or(-1)) {
        (-1, -1) => None,
        (kind, code) => match (u8::try_from(kind), code, u8::try_from(code)) {
            (Ok(kind), -1, _) => Some((kind, None)),
            (Ok(kind), _, Ok(code)) => Some((kind, Some(code))),
            _ => {
                let name = version.name();
                return Err(format!(
                    "{name} with FromPort {kind} and ToPort {code} is no type and code (0 to 255, -1: all)"
                ));
            }
        },
    };
    Ok(Service::Icmp { version, kind })
}
