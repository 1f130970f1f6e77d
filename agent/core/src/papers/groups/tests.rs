//! When each rule about groups holds, and when it keeps silent.

use std::sync::Arc;

use super::*;
use crate::facts::{Branch, LinkFacts, NodeFacts, PolicyFacts, ServiceAccountFacts};
use crate::finding::Violation;
use crate::papers::demand::demanded;
use crate::papers::enforcement::Links;
use crate::papers::testing::{
    account, at, branch_pod, context, device, equal, node, pod, policy, requested, violation,
};
use crate::papers::{Account, Settings};

type Rule = fn(&PodContext<'_>, &Demand) -> Verdict;

/// One pod and what is known around it.
struct Case {
    pod: PodFacts,
    account: ServiceAccountFacts,
    policies: Vec<Arc<PolicyFacts>>,
    links: Option<Vec<LinkFacts>>,
    node: Option<NodeFacts>,
    events: Option<Vec<GroupEvent>>,
}

impl Case {
    fn new(pod: PodFacts) -> Self {
        Self {
            pod,
            account: account(None),
            policies: vec![Arc::new(policy("cart", &["sg-1", "sg-2"]))],
            links: Some(vec![device()]),
            node: Some(node(Some(9))),
            events: Some(vec![requested(&["sg-2", "sg-1"], 202)]),
        }
    }

    fn with(mut self, change: impl FnOnce(&mut Self)) -> Self {
        change(&mut self);
        self
    }

    fn policy(&mut self) -> &mut PolicyFacts {
        Arc::make_mut(self.policies.first_mut().unwrap())
    }

    fn ask<T>(&self, rule: impl FnOnce(&PodContext<'_>, &Demand) -> T) -> T {
        let links = self.links.as_ref().map(|links| Links::new(links, at(1_000)));
        let context = PodContext {
            node: self.node.as_ref(),
            links: links.as_ref(),
            events: self.events.as_deref(),
            ..context(&self.pod, &self.account, &self.policies)
        };
        rule(&context, &demanded(context.pod, context.account, context.policies))
    }

    #[track_caller]
    fn violates(&self, rule: Rule) -> Violation {
        violation(&self.ask(rule)).clone()
    }

    #[track_caller]
    fn is(&self, rule: Rule, verdict: &Verdict) {
        assert_eq!(self.ask(rule), *verdict);
    }
}

const NOT: Rule = not_enforced;
const STALE: Rule = stale;
const ORPHANED: Rule = orphaned;
const HOLDS: Verdict = Verdict::Holds;

// === sgp-not-enforced ===

#[test]
fn an_enforced_pod_and_one_that_no_policy_selects_are_fine() {
    Case::new(branch_pod()).is(NOT, &HOLDS);
    Case::new(pod()).with(|case| case.policies.clear()).is(NOT, &HOLDS);
}

#[test]
fn the_webhook_missed_a_pod() {
    let violation = Case::new(pod()).violates(NOT);
    assert_eq!((violation.severity, violation.cause), (Severity::High, "webhook_missed"));
    assert_eq!(
        violation.text,
        "Pod shop/cart-0 has the node's security groups: SecurityGroupPolicy shop/cart asks for sg-1, sg-2, and the \
         admission webhook did not ask for a branch interface: it fails open"
    );
    let evidence = &violation.evidence[0];
    assert_eq!(evidence.object, "SecurityGroupPolicy shop/cart");
    assert_eq!(evidence.field, "spec.securityGroups.groupIds");
    assert_eq!((evidence.generation, &*evidence.value), (Some(1), "sg-1, sg-2"));
}

#[test]
fn a_pod_that_made_flows_is_critical() {
    let case = Case::new(pod());
    let verdict = case.ask(|context, demand| not_enforced(&PodContext { judged_flows: true, ..*context }, demand));
    assert_eq!(violation(&verdict).severity, Severity::Critical);
}

#[test]
fn a_policy_that_is_newer_than_the_pod() {
    let cause = |change: fn(&mut PolicyFacts)| Case::new(pod()).with(|case| change(case.policy())).violates(NOT).cause;
    assert_eq!(cause(|policy| policy.created = Some(at(201))), "policy_newer");
    // In the same second the webhook's cache may not have had it.
    assert_eq!(cause(|policy| policy.created = Some(at(200))), "policy_newer");
    assert_eq!(cause(|policy| policy.spec_changed = Some(at(250))), "policy_newer");
    assert_eq!(cause(|policy| policy.spec_changed = Some(at(150))), "webhook_missed");
    // Written more than once, and nobody tells when.
    assert_eq!(cause(|policy| policy.generation = Some(2)), "unknown");
    assert_eq!(cause(|policy| policy.created = None), "unknown");
    let older = Case::new(pod()).with(|case| {
        case.policies.push(Arc::new(PolicyFacts { created: Some(at(300)), ..policy("new", &["sg-3"]) }));
    });
    assert_eq!(older.violates(NOT).cause, "webhook_missed");
}

#[test]
fn labels_that_were_changed_later() {
    let case = Case::new(PodFacts { labels_changed: Some(at(260)), ..pod() });
    assert_eq!(case.violates(NOT).cause, "labels_changed");
    let at_creation = Case::new(PodFacts { labels_changed: Some(at(200)), ..pod() });
    assert_eq!(at_creation.violates(NOT).cause, "webhook_missed");
}

#[test]
fn labels_of_an_account_have_no_date() {
    let case = Case::new(pod()).with(|case| {
        case.policy().service_account_selector = Some(crate::facts::Selector::default());
    });
    assert_eq!(case.violates(NOT).cause, "unknown");
}

#[test]
fn the_cni_looks_at_the_first_container_only() {
    let on_node_ip =
        PodFacts { ips: vec!["10.0.0.7".parse().unwrap()], first_container_branch_limit: false, ..branch_pod() };
    let violation = Case::new(on_node_ip).violates(NOT);
    assert_eq!(violation.cause, "cni_ignored");
    assert!(violation.text.contains("first container only"), "{}", violation.text);
    let no_annotation = PodFacts { branch: Branch::Absent, ..branch_pod() };
    assert_eq!(Case::new(no_annotation).violates(NOT).cause, "cni_ignored");
}

#[test]
fn a_branch_interface_without_its_device() {
    let violation = Case::new(branch_pod()).with(|case| case.links = Some(Vec::new())).violates(NOT);
    assert_eq!(violation.cause, "cni_ignored");
    assert!(violation.evidence.iter().any(|evidence| evidence.object == "interface vlan.eth.7"), "{violation:?}");
}

#[test]
fn a_node_that_has_no_branch_interfaces() {
    let asking = PodFacts { branch: Branch::Absent, ..branch_pod() };
    for none in [None, Some(0)] {
        let case = Case::new(asking.clone()).with(|case| case.node = Some(node(none)));
        assert_eq!(case.violates(NOT).cause, "unsupported_node");
    }
    let hybrid = Case::new(pod()).with(|case| {
        case.node = Some(NodeFacts { compute_type: Some("hybrid".into()), ..node(None) });
    });
    assert_eq!(hybrid.violates(NOT).cause, "unsupported_node");
    assert_eq!(Case::new(PodFacts { windows: true, ..pod() }).violates(NOT).cause, "unsupported_node");
}

#[test]
fn the_hosts_network_is_worth_an_information() {
    let violation = Case::new(PodFacts { host_network: true, ..pod() }).violates(NOT);
    assert_eq!((violation.severity, violation.cause), (Severity::Info, "host_network"));
}

#[test]
fn pods_that_do_not_run_are_left_alone() {
    for (phase, verdict) in [
        (Some(Phase::Pending), Verdict::CannotTell(why::PENDING)),
        (Some(Phase::Unknown), Verdict::CannotTell(why::STATUS)),
        (None, Verdict::CannotTell(why::STATUS)),
        (Some(Phase::Succeeded), HOLDS),
        (Some(Phase::Failed), HOLDS),
    ] {
        Case::new(PodFacts { phase, ..pod() }).is(NOT, &verdict);
    }
    // Over, and the annotation stays: neither stale nor orphaned.
    for phase in [Phase::Succeeded, Phase::Failed] {
        let over = PodFacts { phase: Some(phase), ..branch_pod() };
        Case::new(over.clone()).with(|case| case.policy().groups = vec!["sg-9".into()]).is(STALE, &HOLDS);
        Case::new(over).with(|case| case.policies.clear()).is(ORPHANED, &HOLDS);
    }
    let on_host = PodFacts { host_network: true, phase: Some(Phase::Succeeded), ..pod() };
    Case::new(on_host).is(NOT, &HOLDS);
}

#[test]
fn other_mechanisms_are_not_judged() {
    for (compute, why) in [("auto", why::AUTO_MODE), ("fargate", why::FARGATE)] {
        let on = |pod| {
            Case::new(pod).with(|case| {
                case.node = Some(NodeFacts { compute_type: Some(compute.into()), ..node(None) });
            })
        };
        on(pod()).is(NOT, &Verdict::CannotTell(why));
        on(branch_pod()).is(STALE, &Verdict::CannotTell(why));
        on(branch_pod()).with(|case| case.policies.clear()).is(ORPHANED, &Verdict::CannotTell(why));
        // Also on the host's network: nobody knows what the mechanism there does.
        on(PodFacts { host_network: true, ..pod() }).is(NOT, &Verdict::CannotTell(why));
    }
    Case::new(PodFacts { fargate: true, ..pod() }).is(NOT, &Verdict::CannotTell(why::FARGATE));
}

#[test]
fn what_is_not_known_is_said() {
    let case = Case::new(branch_pod()).with(|case| case.links = None);
    case.is(NOT, &Verdict::CannotTell(why::LINKS));
    let malformed = PodFacts { branch: Branch::Malformed("no array".to_owned()), ..pod() };
    Case::new(malformed.clone()).is(NOT, &Verdict::CannotTell(why::ANNOTATION));
    // Nothing is said of interfaces that cannot be read.
    Case::new(malformed.clone()).is(STALE, &HOLDS);
    Case::new(malformed).with(|case| case.policies.clear()).is(ORPHANED, &HOLDS);
    let no_policies = Case::new(pod());
    let verdict = no_policies.ask(|context, _| {
        let unread = PodContext { policies: None, ..*context };
        not_enforced(&unread, &demanded(unread.pod, unread.account, None))
    });
    assert_eq!(verdict, Verdict::CannotTell(why::POLICIES));
    Case::new(pod()).with(|case| case.node = None).is(NOT, &Verdict::CannotTell(why::NODE));
    Case::new(branch_pod()).with(|case| case.node = None).is(STALE, &Verdict::CannotTell(why::NODE));
    let by_account = Case::new(pod()).with(|case| case.policy().service_account_selector = Some(equal(&[("a", "b")])));
    let verdict =
        by_account.ask(|context, _| not_enforced(context, &demanded(context.pod, Account::Unknown, context.policies)));
    assert_eq!(verdict, Verdict::CannotTell(why::ACCOUNT));
}

#[test]
fn what_was_not_admitted_is_judged_by_what_it_will_be() {
    let manifest = PodFacts { uid: None, phase: None, ips: Vec::new(), created: None, ..pod() };
    Case::new(manifest.clone()).is(NOT, &HOLDS);
    let on_host = Case::new(PodFacts { host_network: true, ..manifest.clone() });
    assert_eq!(on_host.violates(NOT).cause, "host_network");
    let windows = Case::new(PodFacts { windows: true, ..manifest });
    assert_eq!(windows.violates(NOT).cause, "unsupported_node");
}

// === sgp-stale ===

#[test]
fn groups_that_the_policies_no_longer_ask_for() {
    Case::new(branch_pod()).is(STALE, &HOLDS);
    let case = Case::new(branch_pod()).with(|case| {
        case.policy().groups = vec!["sg-1".into(), "sg-3".into()];
        case.policy().spec_changed = Some(at(250));
        case.policy().generation = Some(2);
    });
    let violation = case.violates(STALE);
    assert_eq!((violation.severity, violation.cause), (Severity::High, "policy_changed"));
    assert!(violation.text.contains("has the security groups sg-2, sg-1 and should have sg-1, sg-3"), "{violation:?}");
    let relabelled = case.with(|case| {
        case.policy().spec_changed = None;
        case.pod.labels_changed = Some(at(240));
    });
    assert_eq!(relabelled.violates(STALE).cause, "labels_changed");
    assert_eq!(relabelled.with(|case| case.pod.labels_changed = None).violates(STALE).cause, "unknown");
}

#[test]
fn the_last_event_counts() {
    let case = Case::new(branch_pod()).with(|case| {
        let timeless = GroupEvent { time: None, ..requested(&["sg-7"], 0) };
        case.events = Some(vec![requested(&["sg-1", "sg-2"], 202), requested(&["sg-9"], 201), timeless]);
    });
    case.is(STALE, &HOLDS);
    case.with(|case| case.events.as_mut().unwrap().push(requested(&["sg-9"], 203))).violates(STALE);
}

#[test]
fn ec2_knows_better_than_an_event() {
    let case = Case::new(branch_pod()).with(|case| case.events = Some(Vec::new()));
    case.is(STALE, &Verdict::CannotTell(why::EVENT));
    let ask = |groups: &[Arc<str>]| {
        case.ask(|context, demand| stale(&PodContext { interface_groups: Some(groups), ..*context }, demand))
    };
    assert_eq!(ask(&["sg-2".into(), "sg-1".into()]), HOLDS);
    assert_eq!(violation(&ask(&["sg-2".into()])).evidence.last().unwrap().object, "network interface eni-0abc");
}

#[test]
fn stale_is_silent_when_nobody_knows() {
    let case = Case::new(branch_pod()).with(|case| case.events = None);
    case.is(STALE, &Verdict::CannotTell(why::EVENT_PENDING));
    let failed = GroupEvent { kind: GroupEventKind::Failed("no".to_owned()), time: Some(at(210)) };
    case.with(|case| case.events = Some(vec![failed])).is(STALE, &Verdict::CannotTell(why::EVENT));
    let instance = GroupEvent { kind: GroupEventKind::InstanceGroups, time: Some(at(210)) };
    let case = Case::new(branch_pod()).with(|case| case.events = Some(vec![instance]));
    case.is(STALE, &Verdict::CannotTell(why::INSTANCE_GROUPS));
    let ask = |groups: &[Arc<str>]| {
        case.ask(|context, demand| stale(&PodContext { instance_groups: Some(groups), ..*context }, demand))
    };
    assert_eq!(ask(&["sg-1".into(), "sg-2".into()]), HOLDS);
    violation(&ask(&["sg-8".into()]));
    // Without a branch interface there is nothing to be stale, and what is not in force is another finding.
    Case::new(pod()).is(STALE, &HOLDS);
    Case::new(branch_pod())
        .with(|case| case.links = Some(Vec::new()))
        .with(|case| case.events = None)
        .is(STALE, &HOLDS);
}

// === sgp-orphaned ===

#[test]
fn a_branch_interface_that_no_policy_asks_for() {
    let case = Case::new(branch_pod()).with(|case| case.policies.clear());
    let violation = case.violates(ORPHANED);
    assert_eq!((violation.severity, violation.cause), (Severity::Low, "policy_gone"));
    let by_hand = GroupEvent { kind: GroupEventKind::InstanceGroups, time: Some(at(210)) };
    assert_eq!(case.with(|case| case.events = Some(vec![by_hand])).violates(ORPHANED).cause, "limit_by_hand");
    let no_events = Case::new(branch_pod()).with(|case| case.policies.clear()).with(|case| case.events = None);
    let violation = no_events.violates(ORPHANED);
    assert_eq!(violation.cause, "unknown");
    assert!(violation.text.contains("set by hand"), "{}", violation.text);
    Case::new(branch_pod()).is(ORPHANED, &HOLDS);
    Case::new(pod()).with(|case| case.policies.clear()).is(ORPHANED, &HOLDS);
}

#[test]
fn a_limit_by_hand_in_a_manifest() {
    let manifest = PodFacts { uid: None, branch_limit: 1, phase: None, ..pod() };
    let case = Case::new(manifest).with(|case| case.policies.clear());
    assert_eq!(case.violates(ORPHANED).cause, "limit_by_hand");
}

// === sgp-invalid, by too many groups ===

#[test]
fn the_union_counts_not_the_policy() {
    let case = Case::new(pod()).with(|case| {
        case.policies =
            vec![Arc::new(policy("a", &["sg-1", "sg-2", "sg-3"])), Arc::new(policy("b", &["sg-3", "sg-4", "sg-5"]))];
    });
    let ask = |case: &Case, max_groups| {
        case.ask(|context, demand| too_many(context, demand, &Settings { max_groups, ..Settings::default() }))
    };
    assert_eq!(ask(&case, 5), HOLDS);
    let case = case.with(|case| case.policies.push(Arc::new(policy("c", &["sg-6"]))));
    let verdict = ask(&case, 5);
    assert_eq!((violation(&verdict).severity, violation(&verdict).cause), (Severity::Medium, "too_many_groups"));
    assert_eq!(violation(&verdict).evidence.len(), 3);
    assert_eq!(ask(&case, 16), HOLDS);
    let on_host = case.with(|case| case.pod.host_network = true);
    assert_eq!(ask(&on_host, 5), HOLDS);
}
