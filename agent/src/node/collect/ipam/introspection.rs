//! ipamd's introspection: its interfaces, what is on each, and the few settings that it tells. Up to version 1.19 of the
//! CNI `/v1/enis` gives one pool, since 1.20 one for each network card.

use std::collections::BTreeMap;
use std::sync::Arc;

use agent_core::capacity::{IpamInterface, IpamSettings};
use agent_core::facts::HostFact;
use hyper::body::Bytes;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::{Pool, Shared};
use crate::node::collect::http::{Peer, get};
use crate::node::collect::{Error, Look, read};

/// Most interfaces kept: the largest types have 64.
const MAX_INTERFACES: usize = 256;

/// Looks at introspection.
pub(in super::super) struct Introspection {
    peer: Peer,
    shared: Shared,
}

/// Both shapes of `/v1/enis`.
#[derive(Deserialize)]
#[serde(untagged)]
enum Enis {
    Flat(Card),
    ByCard(BTreeMap<String, Card>),
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Card {
    #[serde(rename = "TotalIPs")]
    total: u64,
    #[serde(rename = "AssignedIPs")]
    assigned: u64,
    #[serde(rename = "ENIs", deserialize_with = "or_default")]
    enis: BTreeMap<String, Eni>,
}

#[expect(clippy::struct_excessive_bools, reason = "as ipamd tells them")]
#[derive(Deserialize)]
#[serde(default, rename_all = "PascalCase")]
#[derive(Default)]
struct Eni {
    is_primary: bool,
    is_trunk: bool,
    #[serde(rename = "IsEFA")]
    is_efa: bool,
    #[serde(rename = "IsExcludedForPodIPs")]
    is_excluded: bool,
    device_number: u32,
    #[serde(rename = "AvailableIPv4Cidrs", deserialize_with = "or_default")]
    v4: BTreeMap<String, Cidr>,
    #[serde(rename = "IPv6Cidrs", deserialize_with = "or_default")]
    v6: BTreeMap<String, Cidr>,
}

#[derive(Deserialize)]
#[serde(default, rename_all = "PascalCase")]
#[derive(Default)]
struct Cidr {
    is_prefix: bool,
    #[serde(rename = "IPAddresses", deserialize_with = "or_default")]
    addresses: BTreeMap<String, Address>,
}

#[derive(Deserialize)]
#[serde(default)]
#[derive(Default)]
struct Address {
    #[serde(rename = "IPAMKey", deserialize_with = "or_default")]
    key: Key,
}

/// Empty when nobody has the address. Newer versions leave out all but the network's name.
#[derive(Deserialize)]
#[serde(default)]
#[derive(Default)]
struct Key {
    #[serde(rename = "networkName")]
    network: String,
    #[serde(rename = "containerID")]
    container: String,
}

/// `null` is how an empty map of Go comes.
fn or_default<'de, D, T>(deserializer: D) -> Result<T, D::Error>
where
    D: serde::Deserializer<'de>,
    T: Default + Deserialize<'de>,
{
    Option::deserialize(deserializer).map(Option::unwrap_or_default)
}

// === impl Introspection ===

impl Introspection {
    pub(in super::super) fn new(peer: Peer, shared: Shared) -> Self {
        Self { peer, shared }
    }

    fn pool(&self, result: &mut Result<(), Error>) -> Result<Pool, Error> {
        let enis: Enis = self.parse("/v1/enis", &get(&self.peer, "/v1/enis")?)?;
        let mut pool = Pool::default();
        let mut has_v6 = false;
        let cards: Vec<(u32, Card)> = match enis {
            Enis::Flat(card) => vec![(0, card)],
            Enis::ByCard(cards) => cards.into_iter().map(|(index, card)| (index.parse().unwrap_or(0), card)).collect(),
        };
        for (index, card) in cards {
            pool.total = pool.total.saturating_add(saturated(card.total));
            pool.assigned = pool.assigned.saturating_add(saturated(card.assigned));
            for (id, eni) in card.enis {
                has_v6 |= !eni.v6.is_empty();
                if pool.interfaces.len() < MAX_INTERFACES {
                    pool.interfaces.push(eni.interface(id.into(), index));
                }
            }
        }
        match self.settings(&pool, has_v6) {
            Ok(settings) => pool.settings = Some(settings),
            Err(error) => read::keep_first(result, error),
        }
        Ok(pool)
    }

    /// ipamd tells few of its settings. Which way it works shows in what it holds.
    fn settings(&self, pool: &Pool, ipv6: bool) -> Result<IpamSettings, Error> {
        let mut told: BTreeMap<String, Value> = BTreeMap::new();
        for path in ["/v1/ipamd-env-settings", "/v1/networkutils-env-settings"] {
            told.extend(self.parse::<BTreeMap<String, Value>>(path, &get(&self.peer, path)?)?);
        }
        let number = |name: &str| told.get(name).and_then(number);
        let flag = |name: &str| told.get(name).and_then(flag);
        // 0 is how these tell that they are not set, or set to nothing, which is the same.
        let target = |name: &str| number(name).filter(|target| *target > 0);
        Ok(IpamSettings {
            warm_eni_target: number("WARM_ENI_TARGET"),
            warm_ip_target: target("WARM_IP_TARGET"),
            minimum_ip_target: target("MINIMUM_IP_TARGET"),
            warm_prefix_target: number("WARM_PREFIX_TARGET"),
            max_eni: target("MAX_ENI"),
            prefix_delegation: flag("ENABLE_PREFIX_DELEGATION")
                .unwrap_or_else(|| pool.interfaces.iter().any(|interface| interface.prefixes > 0)),
            pod_eni: flag("ENABLE_POD_ENI").unwrap_or_else(|| pool.interfaces.iter().any(|interface| interface.trunk)),
            custom_networking: flag("AWS_VPC_K8S_CNI_CUSTOM_NETWORK_CFG").unwrap_or(false),
            ipv6: flag("ENABLE_IPv6").unwrap_or(ipv6),
            external_snat: flag("AWS_VPC_K8S_CNI_EXTERNALSNAT"),
            enforcing_mode: told.get("POD_SECURITY_GROUP_ENFORCING_MODE").and_then(Value::as_str).map(Arc::from),
        })
    }

    fn parse<T: DeserializeOwned>(&self, path: &str, body: &Bytes) -> Result<T, Error> {
        serde_json::from_slice(body)
            .map_err(|error| Error::Malformed { what: format!("{}{path}", self.peer), why: error.to_string() })
    }
}

impl Look for Introspection {
    fn look(&mut self, facts: &mut Vec<HostFact>) -> Result<(), Error> {
        let mut result = Ok(());
        let pool = self.pool(&mut result);
        self.shared.put(pool, |parts| &mut parts.introspection, facts)?;
        result
    }
}

// === impl Eni ===

impl Eni {
    fn interface(self, id: Arc<str>, card: u32) -> IpamInterface {
        /// Addresses of a /28.
        const PREFIX: u32 = 16;
        let prefixes = saturated(self.v4.values().filter(|cidr| cidr.is_prefix).count() as u64);
        let singles = saturated(self.v4.len() as u64).saturating_sub(prefixes);
        let cidrs = self.v4.values().chain(self.v6.values());
        let assigned = cidrs.flat_map(|cidr| cidr.addresses.values()).filter(|address| address.is_assigned()).count();
        IpamInterface {
            id,
            card,
            device: self.device_number,
            primary: self.is_primary,
            trunk: self.is_trunk,
            efa: self.is_efa,
            excluded: self.is_excluded,
            addresses: singles.saturating_add(prefixes.saturating_mul(PREFIX)),
            prefixes,
            assigned: saturated(assigned as u64),
        }
    }
}

impl Address {
    fn is_assigned(&self) -> bool {
        !self.key.network.is_empty() || !self.key.container.is_empty()
    }
}

fn saturated(value: u64) -> u32 {
    // An IPv6 prefix has 2^48 addresses: more than anybody counts.
    u32::try_from(value).unwrap_or(u32::MAX)
}

/// A number that is not negative, as itself or as text.
fn number(value: &Value) -> Option<u32> {
    match value {
        Value::Number(number) => number.as_u64().and_then(|number| u32::try_from(number).ok()),
        Value::String(text) => text.parse().ok(),
        _ => None,
    }
}

/// True or false, as itself or as text.
fn flag(value: &Value) -> Option<bool> {
    match value {
        Value::Bool(flag) => Some(*flag),
        Value::String(text) => text.parse().ok(),
        _ => None,
    }
}
