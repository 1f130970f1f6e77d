//! Rules together: what is judged, and that nothing is alleged without knowledge.

use proptest::prelude::*;

use super::testing::{account, at, branch_pod, context, device, node, pod, policy, requested};
use super::*;
use crate::facts::{Branch, Phase};

fn codes_violated(judgements: &[Judgement]) -> Vec<Code> {
    let violated = |judgement: &&Judgement| matches!(judgement.verdict, Verdict::Violated(_));
    judgements.iter().filter(violated).map(|judgement| judgement.code).collect()
}

#[test]
fn an_innocent_pod_is_judged_and_violates_nothing() {
    let (pod, account, node) = (branch_pod(), account(None), node(Some(9)));
    let policies = [Arc::new(policy("cart", &["sg-1"]))];
    let links = [device()];
    let links = Links::new(&links, at(1_000));
    let events = [requested(&["sg-1"], 202)];
    let context = PodContext {
        node: Some(&node),
        links: Some(&links),
        events: Some(&events),
        ..context(&pod, &account, &policies)
    };
    let judgements = judge_pod(&context, &Settings::default());
    assert!(judgements.iter().all(|judgement| judgement.verdict == Verdict::Holds), "{judgements:?}");
    let codes: Vec<_> = judgements.iter().map(|judgement| judgement.code.name()).collect();
    assert_eq!(
        codes,
        [
            "sgp-not-enforced",
            "sgp-stale",
            "sgp-orphaned",
            "sgp-invalid",
            "irsa-not-injected",
            "identity-conflict",
            "static-credentials"
        ]
    );
}

#[test]
fn subjects_name_what_a_finding_is_about() {
    let pod = pod();
    let judgements = judge_pod(&PodContext::new(&pod), &Settings::default());
    for Judgement { code, subject, .. } in &judgements {
        assert_eq!((&*subject.namespace, &*subject.pod, &*subject.workload), ("shop", "cart-0", "cart"));
        assert_eq!(subject.uid, *pod.uid.as_ref().unwrap());
        let by_container = matches!(code, Code::IdentityConflict | Code::StaticCredentials);
        assert_eq!(&*subject.container, if by_container { "web" } else { "" }, "{code:?}");
        assert_eq!(&*subject.service_account, if *code == Code::IrsaNotInjected { "cart" } else { "" }, "{code:?}");
    }
}

#[test]
fn of_a_pod_without_anything_else_nothing_is_alleged() {
    for pod in [pod(), branch_pod(), PodFacts { host_network: true, ..pod() }, PodFacts::default()] {
        let judgements = judge_pod(&PodContext::new(&pod), &Settings::default());
        assert_eq!(codes_violated(&judgements), [], "{pod:?}");
    }
}

#[test]
fn one_fault_makes_one_finding() {
    let (account, node) = (account(None), node(Some(9)));
    let policies = [Arc::new(policy("cart", &["sg-1"]))];
    let links = [device()];
    let links = Links::new(&links, at(1_000));
    // The address is not the branch interface's: not in force, so neither stale nor orphaned.
    let pod = PodFacts { ips: pod().ips, ..branch_pod() };
    let events = [requested(&["sg-9"], 202)];
    let context = PodContext {
        node: Some(&node),
        links: Some(&links),
        events: Some(&events),
        ..context(&pod, &account, &policies)
    };
    assert_eq!(codes_violated(&judge_pod(&context, &Settings::default())), [Code::SgpNotEnforced]);
}

#[test]
fn a_windows_pod_with_an_annotation_is_unsupported_and_nothing_else() {
    let (account, node) = (account(None), node(Some(9)));
    let policies = [Arc::new(policy("cart", &["sg-2"]))];
    let pod = PodFacts { windows: true, ..branch_pod() };
    let events = [requested(&["sg-1"], 202)];
    // Without a look at the interfaces nobody can say what the annotation is worth.
    let context =
        PodContext { node: Some(&node), links: None, events: Some(&events), ..context(&pod, &account, &policies) };
    assert_eq!(codes_violated(&judge_pod(&context, &Settings::default())), [Code::SgpNotEnforced]);
}

fn any_pod() -> impl Strategy<Value = PodFacts> {
    let phase = proptest::option::of(proptest::sample::select(vec![
        Phase::Pending,
        Phase::Running,
        Phase::Succeeded,
        Phase::Failed,
        Phase::Unknown,
    ]));
    let branch = proptest::sample::select(vec![
        Branch::Absent,
        Branch::Malformed("no array".to_owned()),
        Branch::Interfaces(Vec::new()),
        Branch::Interfaces(vec![testing::branch("10.0.1.5", 7), testing::branch("10.0.1.6", 8)]),
    ]);
    let ips = proptest::collection::vec(proptest::sample::select(vec!["10.0.1.5", "10.0.0.7", "::1"]), 0..3);
    let marks = proptest::collection::vec(any::<bool>(), 6);
    (phase, branch, ips, marks, 0..3_u32, -5..400_i64).prop_map(|(phase, branch, ips, marks, branch_limit, changed)| {
        PodFacts {
            phase,
            branch,
            ips: ips.iter().map(|ip| ip.parse().unwrap()).collect(),
            host_network: marks[0],
            windows: marks[1],
            fargate: marks[2],
            first_container_branch_limit: marks[3],
            uid: marks[4].then(|| "uid".into()),
            created: marks[5].then(|| at(200)),
            labels_changed: Some(at(changed)),
            branch_limit,
            ..pod()
        }
    })
}

proptest! {
    #[test]
    fn whatever_is_known_no_rule_panics_or_alleges_against_each_other(
        pod in any_pod(),
        known in proptest::collection::vec(any::<bool>(), 4),
        groups in proptest::collection::vec("sg-[1-9]", 0..8),
    ) {
        let (account, node) = (account(None), node(None));
        let groups: Vec<_> = groups.iter().map(|group| &**group).collect();
        let policies = [Arc::new(policy("cart", &groups))];
        let links = [device()];
        let links = Links::new(&links, at(1_000));
        let events = [requested(&["sg-1"], 202)];
        let context = PodContext {
            account: if known[0] { Account::Known(&account) } else { Account::Unknown },
            policies: known[1].then_some(&policies),
            links: known[2].then_some(&links),
            events: known[3].then_some(&events),
            node: Some(&node),
            ..PodContext::new(&pod)
        };
        let judgements = judge_pod(&context, &Settings::default());
        for Judgement { code, verdict, .. } in &judgements {
            if let Verdict::Violated(violation) = verdict {
                prop_assert!(causes(*code).contains(&violation.cause), "{code:?} {violation:?}");
                prop_assert!(!violation.evidence.is_empty() && !violation.text.is_empty());
            }
        }
        let codes = codes_violated(&judgements);
        let about_groups = [Code::SgpNotEnforced, Code::SgpStale, Code::SgpOrphaned];
        prop_assert!(codes.iter().filter(|code| about_groups.contains(code)).count() <= 1, "{codes:?}");
        if !known[1] {
            prop_assert!(codes.is_empty(), "{codes:?}");
        }
    }
}
