//! The matching of policies as tables, and the union by another road.

use proptest::prelude::*;

use super::*;
use crate::facts::Selector;
use crate::papers::testing::{account, equal, expression, labels, pod, policy};

fn groups(demand: &Demand) -> Vec<&str> {
    demand.groups.iter().map(|group| &**group).collect()
}

fn all(policies: &[PolicyFacts]) -> Vec<Arc<PolicyFacts>> {
    policies.iter().cloned().map(Arc::new).collect()
}

#[test]
fn absent_empty_and_both_selectors() {
    let pod = pod();
    let mut account = account(None);
    account.labels = labels(&[("team", "x")]);
    let this = equal(&[("app", "cart")]);
    let other = equal(&[("app", "pay")]);
    let team = equal(&[("team", "x")]);
    let broken = expression("app", "Is", &["x"]);
    let table: &[(Option<Selector>, Option<Selector>, bool)] = &[
        (None, None, false),
        (Some(Selector::default()), None, true),
        (None, Some(Selector::default()), true),
        (Some(Selector::default()), Some(Selector::default()), true),
        (Some(this.clone()), None, true),
        (Some(other.clone()), None, false),
        (None, Some(team.clone()), true),
        // By the account's labels: its name is none, and neither are the pod's labels.
        (None, Some(this.clone()), false),
        (Some(this.clone()), Some(team.clone()), true),
        (Some(other), Some(team.clone()), false),
        (Some(this.clone()), Some(equal(&[("team", "y")])), false),
        (Some(broken.clone()), None, false),
        (Some(broken.clone()), Some(team), false),
        (Some(this), Some(broken), false),
    ];
    for (pod_selector, service_account_selector, wanted) in table {
        let policy = PolicyFacts {
            pod_selector: pod_selector.clone(),
            service_account_selector: service_account_selector.clone(),
            ..policy("one", &["sg-1"])
        };
        let demand = demanded(&pod, Account::Known(&account), Some(&all(&[policy])));
        assert_eq!(demand.selected(), Some(*wanted), "{pod_selector:?} {service_account_selector:?}");
        assert_eq!(groups(&demand), if *wanted { vec!["sg-1"] } else { vec![] });
    }
}

#[test]
fn policies_without_groups_and_of_other_namespaces_are_passed_over() {
    let elsewhere = PolicyFacts { namespace: "pay".into(), ..policy("elsewhere", &["sg-2"]) };
    let policies = all(&[policy("empty", &[]), elsewhere]);
    assert_eq!(demanded(&pod(), Account::Unknown, Some(&policies)), Demand::default());
}

#[test]
fn groups_stand_once_in_the_order_of_the_policies_names() {
    let policies = all(&[policy("b", &["sg-3", "sg-1", "sg-3"]), policy("a", &["sg-2", "sg-1"])]);
    let demand = demanded(&pod(), Account::Unknown, Some(&policies));
    assert_eq!(groups(&demand), ["sg-2", "sg-1", "sg-3"]);
    assert_eq!(demand.policies.iter().map(|policy| &*policy.name).collect::<Vec<_>>(), ["a", "b"]);
    assert!(demand.is(&["sg-1".into(), "sg-3".into(), "sg-2".into(), "sg-1".into()]));
    assert!(!demand.is(&["sg-1".into(), "sg-3".into()]));
    assert!(!demand.is(&["sg-1".into(), "sg-3".into(), "sg-2".into(), "sg-4".into()]));
}

#[test]
fn what_is_not_known_is_said() {
    let mut by_account = policy("by-account", &["sg-1"]);
    by_account.service_account_selector = Some(equal(&[("team", "x")]));
    let not_this_pod = PolicyFacts { pod_selector: Some(equal(&[("app", "pay")])), ..by_account.clone() };
    let pod = pod();
    assert_eq!(demanded(&pod, Account::Unknown, None).cannot_tell, Some(why::POLICIES));
    assert_eq!(demanded(&pod, Account::Unknown, None).selected(), None);
    let policies = all(std::slice::from_ref(&by_account));
    assert_eq!(demanded(&pod, Account::Unknown, Some(&policies)).cannot_tell, Some(why::ACCOUNT));
    assert_eq!(demanded(&pod, Account::Gone, Some(&policies)).cannot_tell, Some(why::ACCOUNT_GONE));
    // The account does not matter to a policy that does not select the pod.
    assert_eq!(demanded(&pod, Account::Unknown, Some(&all(&[not_this_pod]))).selected(), Some(false));
    // One policy is certain: the pod is selected, and there may be more.
    let demand = demanded(&pod, Account::Unknown, Some(&all(&[by_account, policy("sure", &["sg-2"])])));
    assert_eq!((demand.selected(), demand.cannot_tell), (Some(true), Some(why::ACCOUNT)));
}

fn any_policy() -> impl Strategy<Value = PolicyFacts> {
    let selector = proptest::option::of(proptest::sample::select(vec![
        Selector::default(),
        equal(&[("app", "cart")]),
        equal(&[("app", "pay")]),
        expression("app", "Exists", &[]),
        expression("app", "Is", &[]),
    ]));
    let account = proptest::option::of(proptest::sample::select(vec![
        Selector::default(),
        equal(&[("team", "x")]),
        expression("team", "DoesNotExist", &[]),
    ]));
    let groups = proptest::collection::vec(proptest::sample::select(vec!["sg-1", "sg-2", "sg-3", "sg-4"]), 0..4);
    ("[a-d]", selector, account, groups).prop_map(|(name, pod_selector, service_account_selector, groups)| {
        PolicyFacts { pod_selector, service_account_selector, ..policy(&name, &groups) }
    })
}

proptest! {
    #[test]
    fn the_union_does_not_depend_on_the_order(
        (policies, shuffled) in proptest::collection::vec(any_policy(), 0..6)
            .prop_flat_map(|policies| (Just(policies.clone()), Just(policies).prop_shuffle())),
    ) {
        let mut account = account(None);
        account.labels = labels(&[("team", "x")]);
        let pod = pod();
        let one = demanded(&pod, Account::Known(&account), Some(&all(&policies)));
        let other = demanded(&pod, Account::Known(&account), Some(&all(&shuffled)));
        prop_assert!(one.is(&other.groups) && other.is(&one.groups));
        prop_assert_eq!(one.selected(), other.selected());
        // The union, by another road.
        let mut wanted: Vec<_> = policies
            .iter()
            .filter(|policy| selects(policy, &pod, Account::Known(&account)) == Selects::Yes)
            .flat_map(|policy| policy.groups.clone())
            .collect();
        wanted.sort();
        wanted.dedup();
        let mut found = one.groups.clone();
        found.sort();
        prop_assert_eq!(found, wanted);
    }
}
