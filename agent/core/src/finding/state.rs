//! One evaluation of what is so: every pod of the node and every policy, by the rules about papers, and what the node
//! shows of its pods.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::rules::traffic::Traffic;
use super::{Code, Judgement, View};
use crate::cluster::{Found, Pod};
use crate::fast::{FastMap, FastSet};
use crate::papers::enforcement::{Enforcement, Gap, Links, Mode, enforcement, mode};
use crate::papers::{self, Account, Belongs, PodContext, Selected, Settings};
use crate::sg::GroupId;

/// EKS names a cluster's group `eks-cluster-sg-CLUSTER-NUMBER`
/// (<https://docs.aws.amazon.com/eks/latest/userguide/sec-group-reqs.html>).
const CLUSTER_GROUP_PREFIX: &str = "eks-cluster-sg-";

/// The codes that an evaluation answers for.
pub const STATE_CODES: &[Code] = &[
    Code::IrsaNotInjected,
    Code::IdentityConflict,
    Code::StaticCredentials,
    Code::SgpNotEnforced,
    Code::SgpStale,
    Code::SgpOrphaned,
    Code::SgpInvalid,
    Code::SgpClusterGroup,
    Code::TrafficUnaccounted,
];

/// What an evaluation found.
pub(super) struct Evaluation {
    /// For the ledger.
    pub(super) judgements: Vec<Judgement>,
    /// Pods whose groups are in force, by the uid that their cgroups tell, and how. The mode is not always known.
    pub(super) enforced: FastMap<Arc<str>, Option<Mode>>,
    /// Pods that have no groups of their own and asked for none.
    pub(super) groupless: FastSet<Arc<str>>,
}

/// Judges all pods that are certain, and the policies that concern them. `groups_wanted`: pods that made flows which a
/// group should have judged.
pub(super) fn evaluate(
    view: View<'_>,
    settings: &Settings,
    judged_flows: &FastSet<Arc<str>>,
    traffic: &Traffic,
) -> Evaluation {
    let policies = view.cluster.policies();
    // In an order of their own: the ledger's texts must not depend on that of a hash map.
    let pods: BTreeMap<&str, &Pod> = view
        .cluster
        .pods()
        .present()
        .filter(|pod| pod.is_certain())
        .filter_map(|pod| Some((pod.facts.uid.as_deref()?, pod)))
        .collect();
    let links = view.host.links().map(|(at, links)| {
        let late = pods.values().filter(|pod| pod.running.is_some_and(|running| running > at.boot));
        Links::new(links, at.wall).too_old_for(late.filter_map(|pod| pod.facts.uid.clone()))
    });
    let scene = view.flow_groups.scene(view.known);
    let texts = |ids: Vec<GroupId>| ids.iter().map(|id| Arc::from(id.as_str())).collect::<Vec<Arc<str>>>();
    let instance_groups = scene.node_groups().map(|held| texts(held.groups));
    let mut judgements = Vec::new();
    let mut enforced = FastMap::default();
    let mut groupless = FastSet::default();
    for pod in pods.values() {
        let facts = &*pod.facts;
        let uid = cgroup_uid(pod);
        let (interface_groups, interface_told) =
            scene.told_groups(facts).map(|held| (texts(held.groups), held.told)).unzip();
        let context = PodContext {
            interface_groups: interface_groups.as_deref(),
            interface_told: interface_told.flatten(),
            instance_groups: instance_groups.as_deref(),
            account: account(view, facts),
            policies: policies.as_deref(),
            node: view.cluster.node().map(|node| &**node),
            links: links.as_ref(),
            events: view.cluster.events(facts.uid.as_deref().unwrap_or_default()),
            judged_flows: judged_flows.contains(&uid),
            ..PodContext::new(facts)
        };
        judgements.extend(papers::judge_pod(&context, settings));
        let seen = view.host.pod(&uid).map(|(_, seen)| seen);
        let verdict = traffic.judge(&uid, facts, seen);
        judgements.push(Judgement { code: Code::TrafficUnaccounted, subject: papers::subject(facts), verdict });
        match enforcement(facts, links.as_ref()) {
            Enforcement::Enforced => {
                enforced.insert(uid, mode(facts, links.as_ref(), &settings.veth_prefix).ok());
            }
            Enforcement::Not(Gap::Interface) if facts.branch_limit == 0 => {
                groupless.insert(uid);
            }
            Enforcement::Not(_) | Enforcement::CannotTell(_) => {}
        }
    }
    let of_node: Vec<_> = pods.values().map(|pod| (&*pod.facts, account(view, &pod.facts))).collect();
    let own =
        scene.node_groups().iter().flat_map(|held| &held.groups).find_map(|id| match cluster_of(view, id.as_str()) {
            Some(Found::Present(cluster)) => Some(cluster),
            Some(Found::Absent) | None => None,
        });
    let belongs = |id: &str| match (cluster_of(view, id), &own) {
        (None, _) => Belongs::Unknown,
        (Some(Found::Absent), _) => Belongs::NoCluster,
        (Some(Found::Present(cluster)), None) => Belongs::SomeCluster(cluster),
        (Some(Found::Present(cluster)), Some(own)) if cluster == *own => Belongs::Cluster(cluster),
        (Some(Found::Present(cluster)), Some(_)) => Belongs::OtherCluster(cluster),
    };
    let elsewhere = papers::elsewhere(view.cluster.node().map(|node| &**node));
    for policy in policies.iter().flatten() {
        judgements.extend(papers::judge_policy(policy, Selected::Pods(&of_node, elsewhere), settings, &belongs));
    }
    Evaluation { judgements, enforced, groupless }
}

/// The cluster whose cluster security group a group is: by the tag that EKS alone can set, else by its name. `None`: EC2 did not tell of the group.
fn cluster_of(view: View<'_>, id: &str) -> Option<Found<Arc<str>>> {
    let facts = view.known.ec2.group(&id.parse().ok()?)?.what.as_ref()?;
    let by_tag = facts.clusters.iter().find(|tag| tag.by_eks).map(|tag| Arc::clone(&tag.cluster));
    let by_name = || {
        let (cluster, _) = facts.group.name.as_deref()?.strip_prefix(CLUSTER_GROUP_PREFIX)?.rsplit_once('-')?;
        Some(Arc::from(cluster))
    };
    Some(by_tag.or_else(by_name).into())
}

/// A pod's service account, as far as it is known.
pub(super) fn account<'a>(view: View<'a>, pod: &crate::facts::PodFacts) -> Account<'a> {
    match view.cluster.account(&pod.namespace, &pod.service_account) {
        Some(Found::Present(account)) => Account::Known(account),
        Some(Found::Absent) => Account::Gone,
        None => Account::Unknown,
    }
}

/// The uid that a pod's cgroups tell.
fn cgroup_uid(pod: &Pod) -> Arc<str> {
    pod.facts.config_hash.clone().or_else(|| pod.facts.uid.clone()).unwrap_or_default()
}
