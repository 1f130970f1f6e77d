//! `DescribeInstanceTypes`
//! (<https://docs.aws.amazon.com/AWSEC2/latest/APIReference/API_DescribeInstanceTypes.html>).

use std::sync::Arc;

use agent_core::facts::InstanceTypeFacts;
use serde::Deserialize;

use super::client::Client;
use super::form::Form;
use super::pages::{self, Set, page};
use super::trouble::Trouble;

const ACTION: &str = "DescribeInstanceTypes";
const MBPS_PER_GBPS: f64 = 1_000.0;

page!(Types, "instanceTypeSet", Type);

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Type {
    hypervisor: Option<Arc<str>>,
    v_cpu_info: Option<Processors>,
    memory_info: Option<Memory>,
    network_info: Option<NetworkInfo>,
    ebs_info: Option<EbsInfo>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Processors {
    default_v_cpus: Option<u32>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Memory {
    size_in_mi_b: Option<u64>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct NetworkInfo {
    maximum_network_interfaces: Option<u32>,
    default_network_card_index: Option<u32>,
    ipv4_addresses_per_interface: Option<u32>,
    #[serde(default)]
    network_cards: Set<Card>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Card {
    network_card_index: Option<u32>,
    maximum_network_interfaces: Option<u32>,
    baseline_bandwidth_in_gbps: Option<f64>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct EbsInfo {
    ebs_optimized_info: Option<Optimized>,
    maximum_ebs_attachments: Option<u32>,
    attachment_limit_type: Option<Arc<str>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Optimized {
    baseline_bandwidth_in_mbps: Option<u32>,
    baseline_iops: Option<u32>,
}

/// The figures of a type; `None`: there is no such type in this region.
pub(super) async fn ask(client: &mut Client, name: &str) -> Result<Option<InstanceTypeFacts>, Trouble> {
    let form = Form::new(ACTION).with("MaxResults", "5").filter("instance-type", [name]);
    let types = pages::all::<Types>(client, form).await?;
    Ok(types.into_iter().next().map(InstanceTypeFacts::from))
}

impl From<Type> for InstanceTypeFacts {
    fn from(wire: Type) -> Self {
        let Type { hypervisor, v_cpu_info, memory_info, network_info, ebs_info } = wire;
        let mut facts = Self { hypervisor, ..Self::default() };
        facts.vcpus = v_cpu_info.and_then(|info| info.default_v_cpus);
        facts.memory_mib = memory_info.and_then(|info| info.size_in_mi_b);
        if let Some(network) = network_info {
            let default = network.default_network_card_index.unwrap_or(0);
            let cards = &network.network_cards.items;
            let card = cards.iter().find(|card| card.network_card_index == Some(default));
            facts.interfaces = card.and_then(|card| card.maximum_network_interfaces);
            if cards.is_empty() {
                facts.interfaces = network.maximum_network_interfaces;
            }
            facts.interfaces_total = network.maximum_network_interfaces;
            facts.ipv4_per_interface = network.ipv4_addresses_per_interface;
            // Of all cards; one that does not say leaves it unknown.
            let bandwidth: Option<f64> = cards.iter().map(|card| card.baseline_bandwidth_in_gbps).sum();
            facts.network_mbps = bandwidth.filter(|_| !cards.is_empty()).and_then(mbps);
        }
        if let Some(EbsInfo { ebs_optimized_info, maximum_ebs_attachments, attachment_limit_type }) = ebs_info {
            facts.ebs_mbps = ebs_optimized_info.as_ref().and_then(|info| info.baseline_bandwidth_in_mbps);
            facts.ebs_iops = ebs_optimized_info.as_ref().and_then(|info| info.baseline_iops);
            facts.ebs_volumes = maximum_ebs_attachments;
            facts.ebs_limit_type = attachment_limit_type;
        }
        facts
    }
}

fn mbps(gbps: f64) -> Option<u32> {
    let mbps = (gbps * MBPS_PER_GBPS).round();
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "a whole number within the range, as the test before it says"
    )]
    (0.0..=f64::from(u32::MAX)).contains(&mbps).then_some(mbps as u32)
}
