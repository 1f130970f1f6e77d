//! Pods, policies and accounts for the tests of this folder.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::{Account, PodContext};
use crate::facts::{
    Branch, BranchInterface, ContainerFacts, Expression, GroupEvent, GroupEventKind, LinkFacts, LinkKind, NodeFacts,
    Phase, PodFacts, PolicyFacts, Selector, ServiceAccountFacts, WorkloadRef,
};
use crate::finding::{Verdict, Violation};
use crate::time::WallNs;

const SECOND: i64 = 1_000_000_000;

pub(crate) fn at(seconds: i64) -> WallNs {
    WallNs(seconds * SECOND)
}

pub(crate) fn labels(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
    pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
}

pub(crate) fn equal(pairs: &[(&str, &str)]) -> Selector {
    Selector { match_labels: labels(pairs), match_expressions: Vec::new() }
}

pub(crate) fn expression(key: &str, operator: &str, values: &[&str]) -> Selector {
    let values = values.iter().map(|value| (*value).to_owned()).collect();
    let expression = Expression { key: key.to_owned(), operator: operator.to_owned(), values };
    Selector { match_labels: BTreeMap::new(), match_expressions: vec![expression] }
}

/// A policy of namespace `shop`, made at second 100, that selects the pods with `app: cart`.
pub(crate) fn policy(name: &str, groups: &[&str]) -> PolicyFacts {
    PolicyFacts {
        namespace: "shop".into(),
        name: name.into(),
        uid: Some(format!("uid-of-{name}").into()),
        generation: Some(1),
        created: Some(at(100)),
        spec_changed: None,
        pod_selector: Some(equal(&[("app", "cart")])),
        service_account_selector: None,
        groups: groups.iter().map(|group| Arc::from(*group)).collect(),
    }
}

/// The running pod `shop/cart-0`, made at second 200, with one container and no branch interface.
pub(crate) fn pod() -> PodFacts {
    PodFacts {
        namespace: "shop".into(),
        name: "cart-0".into(),
        uid: Some("11111111-2222-3333-4444-555555555555".into()),
        created: Some(at(200)),
        started: Some(at(201)),
        phase: Some(Phase::Running),
        ips: vec!["10.0.0.7".parse().unwrap()],
        labels: labels(&[("app", "cart")]),
        service_account: "cart".into(),
        workload: WorkloadRef { kind: "StatefulSet".into(), name: "cart".into() },
        containers: vec![container("web")],
        ..PodFacts::default()
    }
}

/// The same pod with the branch interface `10.0.1.5`, vlan 7, as the webhook, the controller and the CNI leave it.
pub(crate) fn branch_pod() -> PodFacts {
    PodFacts {
        ips: vec!["10.0.1.5".parse().unwrap()],
        branch_limit: 1,
        first_container_branch_limit: true,
        branch: Branch::Interfaces(vec![branch("10.0.1.5", 7)]),
        ..pod()
    }
}

pub(crate) fn branch(ip: &str, vlan_id: u16) -> BranchInterface {
    BranchInterface {
        id: "eni-0abc".into(),
        mac: "02:11:22:33:44:55".into(),
        ipv4: Some(ip.parse().unwrap()),
        ipv6: None,
        vlan_id,
        subnet: Some("10.0.0.0/19".to_owned()),
    }
}

pub(crate) fn container(name: &str) -> ContainerFacts {
    ContainerFacts { name: name.into(), image: "example.com/cart:1".into(), ..ContainerFacts::default() }
}

pub(crate) fn link(name: &str, mac: &str) -> LinkFacts {
    LinkFacts { name: name.into(), mac: mac.into(), kind: LinkKind::Vlan, up: true, ..LinkFacts::default() }
}

/// What the CNI makes for [`branch_pod`] beside its veth.
pub(crate) fn device() -> LinkFacts {
    link("vlan.eth.7", "02:11:22:33:44:55")
}

/// Account `shop/cart`, made at second 50.
pub(crate) fn account(role: Option<&str>) -> ServiceAccountFacts {
    ServiceAccountFacts {
        namespace: "shop".into(),
        name: "cart".into(),
        role_arn: role.map(Arc::from),
        created: Some(at(50)),
        ..ServiceAccountFacts::default()
    }
}

pub(crate) fn node(branch_interfaces: Option<u32>) -> NodeFacts {
    NodeFacts { name: "node-1".into(), branch_interfaces, ..NodeFacts::default() }
}

pub(crate) fn requested(groups: &[&str], seconds: i64) -> GroupEvent {
    let groups = groups.iter().map(|group| Arc::from(*group)).collect();
    GroupEvent { kind: GroupEventKind::Groups(groups), time: Some(at(seconds)) }
}

pub(crate) fn context<'a>(
    pod: &'a PodFacts,
    account: &'a ServiceAccountFacts,
    policies: &'a [Arc<PolicyFacts>],
) -> PodContext<'a> {
    PodContext { account: Account::Known(account), policies: Some(policies), ..PodContext::new(pod) }
}

#[track_caller]
pub(crate) fn violation(verdict: &Verdict) -> &Violation {
    match verdict {
        Verdict::Violated(violation) => violation,
        other => panic!("not violated: {other:?}"),
    }
}
