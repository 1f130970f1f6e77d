//! `DescribeSecurityGroups` and `DescribeSecurityGroupRules`
//! (<https://docs.aws.amazon.com/AWSEC2/latest/APIReference/API_DescribeSecurityGroups.html>,
//! <https://docs.aws.amazon.com/AWSEC2/latest/APIReference/API_DescribeSecurityGroupRules.html>).
//!
//! What a rule means is decided in one place, the core's reader of what the AWS CLI prints: answers are put into that
//! form, group by group, so that one that cannot be read leaves the others known.

use std::collections::BTreeMap;

use agent_core::facts::{ClusterTag, GroupFacts};
use agent_core::sg::{self, Group, GroupId, Rule};
use serde::{Deserialize, Serialize};

use super::client::Client;
use super::form::Form;
use super::pages::{self, Set, page};
use super::trouble::{Kind, Trouble};

/// Groups of one question. 60 rules a side each are 3,000 rules: six pages.
pub(super) const CHUNK: usize = 25;
/// Rules of one page.
const RULES_PAGE: &str = "500";
const GROUPS: &str = "DescribeSecurityGroups";
const RULES: &str = "DescribeSecurityGroupRules";
/// Only EKS itself can set it: <https://docs.aws.amazon.com/eks/latest/userguide/sec-group-reqs.html>.
const EKS_TAG: &str = "aws:eks:cluster-name";
const CLUSTER_TAG: &str = "kubernetes.io/cluster/";

page!(Groups, "securityGroupInfo", WireGroup);
page!(Rules, "securityGroupRuleSet", WireRule);

/// Groups as EC2 has them.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) groups: Vec<GroupFacts>,
    /// Groups with a rule that means nothing here; they stay unknown.
    pub(super) unreadable: Vec<(GroupId, Trouble)>,
    /// How the question for rules by their ids went; `None`: it was not asked.
    pub(super) rules: Option<Result<(), Trouble>>,
}

/// Both forms of a group: read from the API's XML, written as the CLI's JSON.
#[derive(Deserialize, Serialize)]
#[serde(rename_all(deserialize = "camelCase", serialize = "PascalCase"))]
struct WireGroup {
    group_id: GroupId,
    group_name: Option<String>,
    owner_id: Option<String>,
    vpc_id: Option<String>,
    #[serde(default)]
    ip_permissions: Set<Permission>,
    #[serde(default)]
    ip_permissions_egress: Set<Permission>,
    #[serde(default, skip_serializing)]
    tag_set: Set<Tag>,
}

#[derive(Deserialize)]
struct Tag {
    key: String,
    #[serde(default)]
    value: String,
}

#[derive(Deserialize, Serialize)]
#[serde(rename_all(deserialize = "camelCase", serialize = "PascalCase"))]
struct Permission {
    ip_protocol: String,
    from_port: Option<i64>,
    to_port: Option<i64>,
    #[serde(default)]
    ip_ranges: Set<IpRange>,
    #[serde(default)]
    ipv6_ranges: Set<Ipv6Range>,
    #[serde(default)]
    prefix_list_ids: Set<ListRef>,
    #[serde(default, rename(deserialize = "groups", serialize = "UserIdGroupPairs"))]
    groups: Set<GroupRef>,
}

#[derive(Deserialize, Serialize)]
#[serde(rename_all(deserialize = "camelCase", serialize = "PascalCase"))]
struct IpRange {
    cidr_ip: String,
}

#[derive(Deserialize, Serialize)]
#[serde(rename_all(deserialize = "camelCase", serialize = "PascalCase"))]
struct Ipv6Range {
    cidr_ipv6: String,
}

#[derive(Deserialize, Serialize)]
#[serde(rename_all(deserialize = "camelCase", serialize = "PascalCase"))]
struct ListRef {
    prefix_list_id: String,
}

#[derive(Deserialize, Serialize)]
#[serde(rename_all(deserialize = "camelCase", serialize = "PascalCase"))]
struct GroupRef {
    group_id: String,
    user_id: Option<String>,
    peering_status: Option<String>,
}

/// Both forms of a rule.
#[derive(Deserialize, Serialize)]
#[serde(rename_all(deserialize = "camelCase", serialize = "PascalCase"))]
struct WireRule {
    security_group_rule_id: Option<String>,
    group_id: GroupId,
    group_owner_id: Option<String>,
    is_egress: bool,
    ip_protocol: String,
    from_port: Option<i64>,
    to_port: Option<i64>,
    cidr_ipv4: Option<String>,
    cidr_ipv6: Option<String>,
    prefix_list_id: Option<String>,
    referenced_group_info: Option<GroupRef>,
}

/// Those of these groups that exist. Without `by_rule`, or when the role may not ask for rules by their ids, a group's own
/// description tells its rules, without ids.
pub(super) async fn ask(client: &mut Client, ids: &[GroupId], by_rule: bool) -> Result<Answer, Trouble> {
    let ids = || ids.iter().map(GroupId::as_str);
    let form = Form::new(GROUPS).with("MaxResults", "1000").filter("group-id", ids());
    let groups = pages::all::<Groups>(client, form).await?;
    let rules = if by_rule && !groups.is_empty() {
        let form = Form::new(RULES).with("MaxResults", RULES_PAGE).filter("group-id", ids());
        Some(pages::all::<Rules>(client, form).await)
    } else {
        None
    };
    let (mut rules, how) = match rules {
        None => (None, None),
        Some(Ok(rules)) => {
            let mut of_group: BTreeMap<GroupId, Vec<WireRule>> = BTreeMap::new();
            for rule in rules {
                of_group.entry(rule.group_id.clone()).or_default().push(rule);
            }
            (Some(of_group), Some(Ok(())))
        }
        Some(Err(trouble)) => (None, Some(Err(trouble))),
    };
    let mut answer = Answer { groups: Vec::new(), unreadable: Vec::new(), rules: how };
    for group in groups {
        let mut rules = rules.as_mut().map(|rules| rules.remove(&group.group_id).unwrap_or_default());
        for rule in rules.iter_mut().flatten() {
            // Without the owner a reference to a group of the same account would seem to be one to another's.
            rule.group_owner_id = rule.group_owner_id.take().or_else(|| group.owner_id.clone());
        }
        match facts(&group, rules.as_deref()) {
            Ok(facts) => answer.groups.push(facts),
            Err(error) => {
                let text = format!("group {} cannot be read: {error}", group.group_id);
                answer.unreadable.push((group.group_id, Trouble::new(Kind::Unreadable, text)));
            }
        }
    }
    Ok(answer)
}

fn facts(wire: &WireGroup, rules: Option<&[WireRule]>) -> Result<GroupFacts, sg::ReadError> {
    let document = sg::read(&serde_json::json!({ "SecurityGroups": [wire] }).to_string())?;
    let mut group = document.groups.into_iter().next().unwrap_or_else(|| bare(wire));
    if let Some(rules) = rules {
        let document = sg::read(&serde_json::json!({ "SecurityGroupRules": rules }).to_string())?;
        group.rules = document.rules.into_iter().map(|(rule, _)| rule.rule).collect::<Vec<Rule>>();
    }
    Ok(GroupFacts { group, clusters: wire.tag_set.items.iter().filter_map(cluster).collect() })
}

/// One group in is one group out; this arm is for the type's sake.
fn bare(wire: &WireGroup) -> Group {
    Group { id: wire.group_id.clone(), name: None, vpc: None, owner: None, rules: Vec::new() }
}

fn cluster(tag: &Tag) -> Option<ClusterTag> {
    let Tag { key, value } = tag;
    if key == EKS_TAG {
        return Some(ClusterTag { cluster: value.as_str().into(), by_eks: true, value: value.as_str().into() });
    }
    let cluster = key.strip_prefix(CLUSTER_TAG).filter(|cluster| !cluster.is_empty())?;
    Some(ClusterTag { cluster: cluster.into(), by_eks: false, value: value.as_str().into() })
}
