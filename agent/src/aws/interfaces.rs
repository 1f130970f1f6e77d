//! `DescribeNetworkInterfaces`
//! (<https://docs.aws.amazon.com/AWSEC2/latest/APIReference/API_DescribeNetworkInterfaces.html>).

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use agent_core::facts::InterfaceFacts;
use ipnet::IpNet;
use serde::Deserialize;

use super::client::Client;
use super::form::Form;
use super::pages::{self, Set, page};
use super::trouble::Trouble;

/// Interfaces of one page; the most for one question.
pub(super) const CHUNK: usize = 100;
const ACTION: &str = "DescribeNetworkInterfaces";
const FILTER_V4: &str = "addresses.private-ip-address";
const FILTER_V6: &str = "ipv6-addresses.ipv6-address";

page!(Interfaces, "networkInterfaceSet", WireInterface);

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct WireInterface {
    network_interface_id: Arc<str>,
    subnet_id: Option<Arc<str>>,
    vpc_id: Option<Arc<str>>,
    mac_address: Option<String>,
    interface_type: Option<Arc<str>>,
    requester_id: Option<Arc<str>>,
    private_ip_address: Option<String>,
    #[serde(default)]
    group_set: Set<GroupRef>,
    attachment: Option<Attachment>,
    #[serde(default)]
    private_ip_addresses_set: Set<Private>,
    #[serde(default)]
    ipv6_addresses_set: Set<Six>,
    #[serde(default)]
    ipv4_prefix_set: Set<Prefix4>,
    #[serde(default)]
    ipv6_prefix_set: Set<Prefix6>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct GroupRef {
    group_id: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Attachment {
    instance_id: Option<Arc<str>>,
    instance_owner_id: Option<Arc<str>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Private {
    private_ip_address: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Six {
    ipv6_address: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Prefix4 {
    ipv4_prefix: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Prefix6 {
    ipv6_prefix: String,
}

/// Those of these ids that exist.
pub(super) async fn by_id(client: &mut Client, ids: &[Arc<str>]) -> Result<Vec<InterfaceFacts>, Trouble> {
    ask(client, "network-interface-id", ids).await
}

/// Those with these hardware addresses.
pub(super) async fn by_mac(client: &mut Client, macs: &[Arc<str>]) -> Result<Vec<InterfaceFacts>, Trouble> {
    ask(client, "mac-address", macs).await
}

/// Those that have one of these addresses, by address. Of several, for addresses repeat from VPC to VPC, the one in
/// `vpc`; without one there, the only one; else none.
pub(super) async fn by_address(
    client: &mut Client,
    peers: &[IpAddr],
    vpc: Option<&str>,
) -> Result<BTreeMap<IpAddr, InterfaceFacts>, Trouble> {
    let mut found: BTreeMap<IpAddr, Vec<InterfaceFacts>> = BTreeMap::new();
    for (filter, is_v4) in [(FILTER_V4, true), (FILTER_V6, false)] {
        let wanted: Vec<IpAddr> = peers.iter().copied().filter(|ip| ip.is_ipv4() == is_v4).collect();
        if wanted.is_empty() {
            continue;
        }
        let values: Vec<Arc<str>> = wanted.iter().map(|ip| ip.to_string().into()).collect();
        for interface in ask(client, filter, &values).await? {
            for ip in wanted.iter().filter(|ip| interface.addresses.contains(ip)) {
                found.entry(*ip).or_default().push(interface.clone());
            }
        }
    }
    Ok(found.into_iter().filter_map(|(ip, candidates)| Some((ip, the_one(candidates, vpc)?))).collect())
}

fn the_one(mut candidates: Vec<InterfaceFacts>, vpc: Option<&str>) -> Option<InterfaceFacts> {
    let here = vpc.and_then(|vpc| candidates.iter().position(|one| one.vpc.as_deref() == Some(vpc)));
    match (here, candidates.len()) {
        (Some(at), _) => Some(candidates.swap_remove(at)),
        (None, 1) => candidates.pop(),
        (None, _) => None,
    }
}

async fn ask(client: &mut Client, filter: &str, values: &[Arc<str>]) -> Result<Vec<InterfaceFacts>, Trouble> {
    let form = Form::new(ACTION).with("MaxResults", &CHUNK.to_string()).filter(filter, values);
    let interfaces = pages::all::<Interfaces>(client, form).await?;
    Ok(interfaces.into_iter().map(InterfaceFacts::from).collect())
}

impl From<WireInterface> for InterfaceFacts {
    fn from(wire: WireInterface) -> Self {
        let (instance, service) = match wire.attachment {
            Some(Attachment { instance_id, instance_owner_id }) => (instance_id, instance_owner_id),
            None => (None, None),
        };
        // A service's interface is attached to what belongs to `amazon-elb` and the like; accounts are numbers.
        let service = service.filter(|owner| !owner.bytes().all(|byte| byte.is_ascii_digit()));
        let first = wire.private_ip_address.as_deref();
        let more = wire.private_ip_addresses_set.items.iter().map(|one| one.private_ip_address.as_str());
        let six = wire.ipv6_addresses_set.items.iter().map(|one| one.ipv6_address.as_str());
        let mut addresses: Vec<IpAddr> = Vec::new();
        for ip in first.into_iter().chain(more).chain(six).filter_map(|text| text.parse().ok()) {
            if !addresses.contains(&ip) {
                addresses.push(ip);
            }
        }
        let four = wire.ipv4_prefix_set.items.iter().map(|one| one.ipv4_prefix.as_str());
        let six = wire.ipv6_prefix_set.items.iter().map(|one| one.ipv6_prefix.as_str());
        let prefixes = four.chain(six).filter_map(|text| text.parse::<IpNet>().ok()).collect();
        Self {
            id: wire.network_interface_id,
            groups: wire.group_set.items.iter().filter_map(|group| group.group_id.parse().ok()).collect(),
            addresses,
            prefixes,
            subnet: wire.subnet_id,
            vpc: wire.vpc_id,
            mac: wire.mac_address.map(|mac| mac.to_ascii_lowercase().into()),
            kind: wire.interface_type,
            instance,
            requester: service.or(wire.requester_id),
        }
    }
}
