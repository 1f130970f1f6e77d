//! Policies that cannot work, and who speaks of them.

use super::*;
use crate::facts::Selector;
use crate::finding::Violation;
use crate::papers::testing::{account, equal, expression, pod, policy, violation};

fn settings(groups: &[&str]) -> Settings {
    Settings { cluster_groups: groups.iter().map(|group| (*group).into()).collect(), ..Settings::default() }
}

/// The verdicts on validity and on the cluster group.
fn judged(policy: &PolicyFacts, pods: &[&PodFacts], settings: &Settings) -> [Verdict; 2] {
    let account = account(None);
    let pods: Vec<_> = pods.iter().map(|pod| (*pod, Account::Known(&account))).collect();
    let judgements = judge_policy(policy, Selected::Pods(&pods, None), settings, &|_| Belongs::Unknown);
    assert!(judgements.iter().all(|judgement| judgement.subject.policy == policy.name));
    assert_eq!(
        judgements.iter().map(|judgement| judgement.code).collect::<Vec<_>>(),
        [Code::SgpInvalid, Code::SgpClusterGroup]
    );
    judgements.into_iter().map(|judgement| judgement.verdict).collect::<Vec<_>>().try_into().unwrap()
}

fn invalid(policy: &PolicyFacts) -> Violation {
    violation(&judged(policy, &[&pod()], &settings(&[]))[0]).clone()
}

#[test]
fn policies_that_cannot_work() {
    let no_selector = PolicyFacts { pod_selector: None, ..policy("cart", &["sg-1"]) };
    assert_eq!((invalid(&no_selector).severity, invalid(&no_selector).cause), (Severity::Medium, "no_selector"));
    assert_eq!(invalid(&policy("cart", &[])).cause, "no_groups");
    let broken = PolicyFacts { pod_selector: Some(expression("app", "Is", &["cart"])), ..policy("cart", &["sg-1"]) };
    assert_eq!(invalid(&broken).cause, "selector_invalid");
    assert_eq!(invalid(&broken).evidence[0].field, "spec.podSelector");
    let account = Some(expression("app", "In", &[]));
    let broken = PolicyFacts { service_account_selector: account, ..policy("cart", &["sg-1"]) };
    assert_eq!(invalid(&broken).evidence[0].field, "spec.serviceAccountSelector");
}

#[test]
fn sound_policies_are_fine() {
    let empty = PolicyFacts { pod_selector: Some(Selector::default()), ..policy("cart", &["sg-1"]) };
    for policy in [policy("cart", &["sg-1"]), empty] {
        assert_eq!(judged(&policy, &[&pod()], &settings(&["sg-9"])), [Verdict::Holds, Verdict::Holds]);
    }
}

#[test]
fn only_nodes_with_a_pod_that_it_concerns_speak_of_a_policy() {
    let elsewhere = PodFacts { namespace: "pay".into(), ..pod() };
    let other = PodFacts { labels: [("app".to_owned(), "pay".to_owned())].into(), ..pod() };
    let cluster = settings(&["sg-1"]);
    let no_selector = PolicyFacts { pod_selector: None, ..policy("cart", &["sg-1"]) };
    assert_eq!(judged(&no_selector, &[&elsewhere], &cluster)[0], Verdict::Holds);
    assert_eq!(judged(&policy("cart", &[]), &[&other], &cluster)[0], Verdict::Holds);
    assert_eq!(judged(&policy("cart", &["sg-1"]), &[&other], &cluster)[1], Verdict::Holds);
    let broken = PolicyFacts {
        pod_selector: Some(equal(&[("app", "cart")])),
        service_account_selector: Some(expression("app", "Is", &[])),
        ..policy("cart", &["sg-1"])
    };
    assert_eq!(judged(&broken, &[&other], &cluster)[0], Verdict::Holds);
    violation(&judged(&broken, &[&pod()], &cluster)[0]);
    // In a review of manifests a policy is judged for its own sake.
    let judgements = judge_policy(&broken, Selected::Always, &cluster, &|_| Belongs::Unknown);
    violation(&judgements[0].verdict);
}

#[test]
fn the_cluster_security_group_is_an_advice() {
    let [_, verdict] = judged(&policy("cart", &["sg-1", "sg-2"]), &[&pod()], &settings(&["sg-2", "sg-8"]));
    assert_eq!((violation(&verdict).severity, violation(&verdict).cause), (Severity::Info, "cluster_group"));
    assert!(violation(&verdict).text.contains("cluster security group sg-2:"), "{verdict:?}");
    let [_, verdict] = judged(&policy("cart", &["sg-1"]), &[&pod()], &settings(&[]));
    assert_eq!(verdict, Verdict::CannotTell(why::CLUSTER_GROUP));
}

#[test]
fn an_account_that_was_not_read_leaves_open_whom_a_policy_concerns() {
    let by_account = PolicyFacts {
        pod_selector: None,
        service_account_selector: Some(equal(&[("team", "x")])),
        ..policy("cart", &["sg-1"])
    };
    let none = PolicyFacts { groups: Vec::new(), ..by_account.clone() };
    let pod = pod();
    let verdict = |policy, account, elsewhere| {
        let pods = [(&pod, account)];
        let judgements =
            judge_policy(policy, Selected::Pods(&pods, elsewhere), &settings(&["sg-1"]), &|_| Belongs::Unknown);
        judgements.into_iter().map(|judgement| judgement.verdict).collect::<Vec<_>>()
    };
    assert_eq!(verdict(&none, Account::Unknown, None)[0], Verdict::CannotTell(why::ACCOUNT));
    assert_eq!(verdict(&by_account, Account::Unknown, None)[1], Verdict::CannotTell(why::ACCOUNT));
    assert_eq!(verdict(&none, Account::Gone, None)[0], Verdict::CannotTell(why::ACCOUNT_GONE));
    // On a node with a mechanism of its own nothing is said of it.
    let all = PolicyFacts { groups: Vec::new(), ..policy("cart", &[]) };
    assert_eq!(verdict(&all, Account::Unknown, Some(why::AUTO_MODE))[0], Verdict::CannotTell(why::AUTO_MODE));
    violation(&verdict(&all, Account::Unknown, None)[0]);
}
