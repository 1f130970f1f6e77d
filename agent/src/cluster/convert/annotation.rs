//! Annotations that programs write and anybody may break.

use std::net::IpAddr;
use std::sync::Arc;

use agent_core::facts::{Branch, BranchInterface};
use serde_json::{Map, Value};

use super::cut;
use super::shapes::Texts;

/// Written by the VPC resource controller. What stands in it, and who reads it how:
/// <https://github.com/aws/amazon-vpc-resource-controller-k8s> (`pkg/provider/branch/trunk`),
/// <https://github.com/aws/amazon-vpc-cni-k8s> (`pkg/ipamd/rpc_handler.go`).
const BRANCH: &str = "vpc.amazonaws.com/pod-eni";
/// 802.1q knows ids of 12 bits; 0 is no VLAN and 4095 is reserved.
const VLAN_IDS: std::ops::RangeInclusive<u64> = 1..=4_094;

/// The annotations of a pod.
pub(super) struct Annotations<'a> {
    pub(super) texts: &'a Texts,
    /// See [`super::Conversion::irsa_prefix`].
    pub(super) prefix: &'a str,
}

// === impl Annotations ===

impl Annotations<'_> {
    /// Names in `<prefix>/skip-containers`, a list with commas.
    pub(super) fn skip_containers(&self) -> Vec<String> {
        let text = self.texts.get(&format!("{}/skip-containers", self.prefix)).map_or("", String::as_str);
        text.split(',').map(str::trim).filter(|name| !name.is_empty()).map(ToOwned::to_owned).collect()
    }

    /// The branch interfaces.
    pub(super) fn branch(&self) -> Branch {
        match self.texts.get(BRANCH) {
            None => Branch::Absent,
            Some(text) => interfaces(text).map_or_else(|why| Branch::Malformed(cut(&why)), Branch::Interfaces),
        }
    }
}

fn interfaces(text: &str) -> Result<Vec<BranchInterface>, String> {
    // The API server lets all annotations of an object have 256 KiB, so this is bounded.
    let entries: Vec<Value> = serde_json::from_str(text).map_err(|error| match error.classify() {
        serde_json::error::Category::Data => "expected a JSON array".to_owned(),
        _ => format!("not JSON, at line {} column {}", error.line(), error.column()),
    })?;
    match entries.len() {
        0 => Err("an empty array".to_owned()),
        count if count > Branch::MAX => Err(format!("{count} entries, more than {}", Branch::MAX)),
        _ => entries.into_iter().enumerate().map(|(index, entry)| interface(index, entry)).collect(),
    }
}

fn interface(index: usize, entry: Value) -> Result<BranchInterface, String> {
    let Value::Object(members) = entry else { return Err(format!("entry {index}: expected an object")) };
    // The CNI's reader does not mind the case of names, and depends on that: the writer says vlanId, the reader vlanID.
    let members: Map<String, Value> =
        members.into_iter().map(|(key, value)| (key.to_ascii_lowercase(), value)).collect();
    let text = |name: &str| match members.get(&name.to_ascii_lowercase()) {
        None | Some(Value::Null) => Ok(""),
        Some(Value::String(text)) => Ok(text.as_str()),
        Some(_) => Err(format!("entry {index}: {name}: expected a text")),
    };
    let address = |name: &str| match text(name)? {
        "" => Ok(None),
        text => text.parse().map(Some).map_err(|_| format!("entry {index}: {name}: expected an IP address")),
    };
    let id = text("eniId")?;
    if id.is_empty() {
        return Err(format!("entry {index}: eniId: expected the id of an interface"));
    }
    let mac = text("ifAddress")?.to_ascii_lowercase();
    if !is_mac(&mac) {
        return Err(format!("entry {index}: ifAddress: expected a hardware address"));
    }
    let vlan_id = members
        .get("vlanid")
        .and_then(Value::as_u64)
        .filter(|id| VLAN_IDS.contains(id))
        .and_then(|id| u16::try_from(id).ok())
        .ok_or_else(|| format!("entry {index}: vlanId: expected a number from 1 to 4094"))?;
    let (ipv4, ipv6) = (address("privateIp")?, address("ipv6Addr")?);
    if ipv4.is_some_and(|ip: IpAddr| ip.is_ipv6()) || ipv6.is_some_and(|ip: IpAddr| ip.is_ipv4()) {
        return Err(format!("entry {index}: an address of the wrong family"));
    }
    let subnet = Some(text("subnetCidr")?).filter(|subnet| !subnet.is_empty()).map(cut);
    Ok(BranchInterface { id: Arc::from(cut(id)), mac: mac.into(), ipv4, ipv6, vlan_id, subnet })
}

/// Six pairs of hex digits with colons.
fn is_mac(text: &str) -> bool {
    text.len() == 17
        && text.split(':').count() == 6
        && text.split(':').all(|pair| pair.len() == 2 && pair.bytes().all(|digit| digit.is_ascii_hexdigit()))
}
