//! `DescribeSubnets` and `DescribeVpcs`
//! (<https://docs.aws.amazon.com/AWSEC2/latest/APIReference/API_DescribeSubnets.html>,
//! <https://docs.aws.amazon.com/AWSEC2/latest/APIReference/API_DescribeVpcs.html>).

use std::sync::Arc;

use agent_core::facts::SubnetFacts;
use ipnet::IpNet;
use serde::Deserialize;

use super::client::Client;
use super::form::Form;
use super::pages::{self, Set, page};
use super::trouble::Trouble;

/// Subnets of one question; a node has interfaces in a few.
pub(super) const CHUNK: usize = 50;
const SUBNETS: &str = "DescribeSubnets";
const VPCS: &str = "DescribeVpcs";
/// A range that was taken away stays in the answer for a while.
const ASSOCIATED: &str = "associated";

page!(Subnets, "subnetSet", WireSubnet);
page!(Vpcs, "vpcSet", Vpc);

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct WireSubnet {
    subnet_id: Arc<str>,
    cidr_block: Option<String>,
    available_ip_address_count: u64,
    availability_zone: Option<Arc<str>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Vpc {
    cidr_block: Option<String>,
    #[serde(default)]
    cidr_block_association_set: Set<Four>,
    #[serde(default)]
    ipv6_cidr_block_association_set: Set<Six>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Four {
    cidr_block: Option<String>,
    cidr_block_state: Option<State>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Six {
    ipv6_cidr_block: Option<String>,
    ipv6_cidr_block_state: Option<State>,
}

#[derive(Deserialize)]
struct State {
    state: Option<String>,
}

/// Those of these subnets that exist.
pub(super) async fn subnets(client: &mut Client, ids: &[Arc<str>]) -> Result<Vec<SubnetFacts>, Trouble> {
    let form = Form::new(SUBNETS).with("MaxResults", "100").filter("subnet-id", ids);
    let subnets = pages::all::<Subnets>(client, form).await?;
    let facts = |wire: WireSubnet| SubnetFacts {
        id: wire.subnet_id,
        range: wire.cidr_block.and_then(|text| text.parse().ok()),
        free: wire.available_ip_address_count,
        zone: wire.availability_zone,
    };
    Ok(subnets.into_iter().map(facts).collect())
}

/// The ranges of a VPC, the primary one first; `None`: there is no such VPC.
pub(super) async fn vpc(client: &mut Client, id: &str) -> Result<Option<Vec<IpNet>>, Trouble> {
    let form = Form::new(VPCS).with("MaxResults", "5").filter("vpc-id", [id]);
    let vpcs = pages::all::<Vpcs>(client, form).await?;
    Ok(vpcs.into_iter().next().map(Vpc::into_ranges))
}

impl Vpc {
    fn into_ranges(self) -> Vec<IpNet> {
        let is_there = |state: &Option<State>| {
            state.as_ref().and_then(|state| state.state.as_deref()).is_none_or(|state| state == ASSOCIATED)
        };
        let four = self.cidr_block_association_set.items.into_iter();
        let four = four.filter(|one| is_there(&one.cidr_block_state)).filter_map(|one| one.cidr_block);
        let six = self.ipv6_cidr_block_association_set.items.into_iter();
        let six = six.filter(|one| is_there(&one.ipv6_cidr_block_state)).filter_map(|one| one.ipv6_cidr_block);
        let mut ranges: Vec<IpNet> = Vec::new();
        for net in self.cidr_block.into_iter().chain(four).chain(six).filter_map(|text| text.parse().ok()) {
            if !ranges.contains(&net) {
                ranges.push(net);
            }
        }
        ranges
    }
}
