//! What a review says of whole sets of manifests.

use super::*;
use crate::facts::{Branch, ContainerFacts, GroupEvent, IdentityEnv, Phase, WorkloadRef};
use crate::finding::Severity;
use crate::papers::identity::Kind;
use crate::papers::testing::{account, branch_pod, container, equal, labels, node, pod, policy, requested};

const ROLE: &str = "arn:aws:iam::111122223333:role/cart";

fn place(line: u64) -> Place {
    Place { file: "cart.yaml".into(), document: 1, line }
}

/// An object; a pod from a cluster is on `node-1`.
fn manifest(kind: &str, pod: PodFacts) -> PodManifest {
    let node = pod.uid.as_ref().map(|_| "node-1".into());
    let pod = PodFacts { node, ..pod };
    PodManifest { place: place(7), kind: kind.into(), pod }
}

/// Deployment `shop/cart`.
fn deployment() -> PodManifest {
    let workload = WorkloadRef { kind: "Deployment".into(), name: "cart".into() };
    let template = PodFacts {
        uid: None,
        name: "cart".into(),
        workload,
        created: None,
        started: None,
        phase: None,
        ips: Vec::new(),
        ..pod()
    };
    manifest("Deployment", template)
}

fn manifests(pods: Vec<PodManifest>, role: Option<&str>, policies: &[PolicyFacts]) -> Manifests {
    let placed = |fact: &PolicyFacts| Placed { place: place(1), fact: fact.clone() };
    Manifests {
        pods,
        accounts: vec![Placed { place: place(3), fact: account(role) }],
        policies: policies.iter().map(placed).collect(),
        nodes: vec![node(Some(9))],
        ..Manifests::default()
    }
}

fn associated(role: Option<&str>) -> Options {
    let associations = [(("shop".into(), "cart".into()), role.map(Arc::from))].into();
    Options { associations: Associations::Known(associations), ..Options::default() }
}

fn nobody_associated() -> Options {
    Options { associations: Associations::Known([].into()), ..Options::default() }
}

#[track_caller]
fn one(report: &CheckReport) -> &PodReport {
    assert_eq!(report.pods.len(), 1, "{report:?}");
    &report.pods[0]
}

fn codes(report: &CheckReport) -> Vec<&str> {
    report.findings.iter().map(|finding| finding.code.name()).collect()
}

fn groups(pod: &PodReport) -> Vec<&str> {
    pod.security_groups.iter().map(|group| &**group).collect()
}

#[test]
fn a_workload_gets_its_groups_and_its_role() {
    let policies = [policy("b", &["sg-2", "sg-1"]), policy("a", &["sg-3", "sg-2"])];
    let report = check(manifests(vec![deployment()], Some(ROLE), &policies), &nobody_associated());
    let pod = one(&report);
    assert_eq!((groups(pod), pod.security_groups_source), (vec!["sg-3", "sg-2", "sg-1"], "policy"));
    assert_eq!(pod.policies.iter().map(|name| &**name).collect::<Vec<_>>(), ["a", "b"]);
    assert_eq!((pod.identity.kind, pod.identity.role.as_deref()), (Kind::Irsa, Some(ROLE)));
    assert_eq!((codes(&report), &pod.cannot_tell[..]), (vec![], &[][..]));
    assert_eq!((&*pod.kind, &*pod.workload, pod.admitted), ("Deployment", "cart", false));
}

#[test]
fn without_a_policy_it_has_the_nodes_groups() {
    let other = PolicyFacts { pod_selector: Some(equal(&[("app", "pay")])), ..policy("pay", &["sg-1"]) };
    let report = check(manifests(vec![deployment()], None, &[other]), &Options::default());
    let pod = one(&report);
    assert_eq!((groups(pod), pod.security_groups_source, pod.policies.len()), (vec![], "node", 0));
}

#[test]
fn the_mode_is_what_it_is_told_to_be_and_only_of_groups_of_its_own() {
    let options = |mode| Options { mode, ..nobody_associated() };
    let mode = |pods, mode| {
        one(&check(manifests(vec![pods], None, &[policy("a", &["sg-1"])]), &options(mode))).enforcement_mode
    };
    assert_eq!(mode(deployment(), None), None);
    assert_eq!(mode(deployment(), Some(Mode::Standard)), Some(Mode::Standard));
    let mut without = deployment();
    without.pod.labels = labels(&[]);
    assert_eq!(mode(without, Some(Mode::Strict)), None);
}

#[test]
fn associations_settle_what_manifests_cannot_tell() {
    let kind =
        |role, options: &Options| one(&check(manifests(vec![deployment()], role, &[]), options)).identity.clone();
    let unknown = kind(None, &Options::default());
    assert_eq!((unknown.kind, unknown.role), (Kind::Unknown, None));
    assert!(unknown.why.contains("Pod Identity"), "{}", unknown.why);
    assert_eq!(kind(None, &nobody_associated()).kind, Kind::None);
    let pod_identity = kind(Some(ROLE), &associated(Some("arn:aws:iam::111122223333:role/other")));
    assert_eq!(pod_identity.kind, Kind::PodIdentity);
    assert_eq!(pod_identity.role.as_deref(), Some("arn:aws:iam::111122223333:role/other"));
    assert_eq!(kind(None, &associated(None)).role, None);
    // Before associations are told, a role is what it looks like, with the reservation.
    let irsa = kind(Some(ROLE), &Options::default());
    assert_eq!(irsa.kind, Kind::Irsa);
    assert!(irsa.why.contains("would come first"), "{}", irsa.why);
}

#[test]
fn an_account_that_is_not_among_the_manifests_is_not_taken_for_one_without_a_role() {
    let mut manifests = manifests(vec![deployment()], None, &[]);
    manifests.accounts.clear();
    let report = check(manifests.clone(), &nobody_associated());
    let pod = one(&report);
    assert_eq!(pod.identity.kind, Kind::Unknown);
    assert!(pod.identity.why.contains("service account cart is not among the manifests"), "{:?}", pod.identity);
    // It matters to groups when a policy asks for it.
    assert_eq!(pod.security_groups_cannot_tell, None);
    let by_account = PolicyFacts { service_account_selector: Some(equal(&[("a", "b")])), ..policy("a", &["sg-1"]) };
    manifests.policies.push(Placed { place: place(1), fact: by_account });
    let report = check(manifests.clone(), &nobody_associated());
    assert_eq!(one(&report).security_groups_cannot_tell, Some("service_account_unknown"));
    assert_eq!(codes(&report), [""; 0]);
    // On the host's network the node's role is there anyway.
    manifests.pods[0].pod.host_network = true;
    assert_eq!(one(&check(manifests, &Options::default())).identity.kind, Kind::NodeRole);
}

#[test]
fn what_the_user_switched_off_is_not_expected() {
    let mut off = deployment();
    off.pod.skip_identity_webhook = true;
    let report = check(manifests(vec![off], Some(ROLE), &[]), &Options::default());
    assert_eq!((one(&report).identity.kind, codes(&report)), (Kind::None, vec![]));
}

#[test]
fn pod_identity_is_out_of_reach_in_strict_mode() {
    let policies = [policy("a", &["sg-1"])];
    let report =
        |mode, options: Options| check(manifests(vec![deployment()], None, &policies), &Options { mode, ..options });
    let strict = report(Some(Mode::Strict), associated(None));
    assert_eq!(codes(&strict), ["pod-identity-unreachable"]);
    assert_eq!((strict.findings[0].severity, strict.findings[0].cause), (Severity::Medium, "strict_mode"));
    assert_eq!(codes(&report(Some(Mode::Standard), associated(None))), [""; 0]);
    // Nobody said which mode it is.
    assert_eq!(codes(&report(None, associated(None))), [""; 0]);
    assert_eq!(codes(&report(Some(Mode::Strict), nobody_associated())), [""; 0]);
    let on_node =
        check(manifests(vec![deployment()], None, &[]), &Options { mode: Some(Mode::Strict), ..associated(None) });
    assert_eq!(codes(&on_node), [""; 0]);
}

#[test]
fn pods_from_a_cluster_are_judged_as_they_are() {
    let policies = [policy("a", &["sg-1"])];
    let missed = check(manifests(vec![manifest("Pod", pod())], Some(ROLE), &policies), &Options::default());
    assert_eq!(codes(&missed), ["sgp-not-enforced", "irsa-not-injected"]);
    assert_eq!(one(&missed).security_groups_source, "node");
    assert_eq!(one(&missed).identity.kind, Kind::None);
    let well = check(manifests(vec![manifest("Pod", branch_pod())], None, &policies), &Options::default());
    assert_eq!((codes(&well), groups(one(&well))), (vec![], vec!["sg-1"]));
    assert_eq!(one(&well).identity.kind, Kind::None, "an association would have been injected");
    let waiting = PodFacts { phase: Some(Phase::Pending), branch: Branch::Absent, ips: Vec::new(), ..branch_pod() };
    let report = check(manifests(vec![manifest("Pod", waiting)], None, &policies), &Options::default());
    assert_eq!((codes(&report), groups(one(&report))), (vec![], vec!["sg-1"]));
    let over_node = PodFacts { ips: pod().ips, ..branch_pod() };
    let report = check(manifests(vec![manifest("Pod", over_node)], None, &policies), &Options::default());
    assert_eq!((codes(&report), one(&report).security_groups_source), (vec!["sgp-not-enforced"], "node"));
}

#[test]
fn groups_of_pods_that_nobody_can_read_are_not_certain() {
    let policies = [policy("a", &["sg-1"])];
    let of = |pod| {
        let report = check(manifests(vec![manifest("Pod", pod)], None, &policies), &Options::default());
        assert_eq!(codes(&report), [""; 0]);
        one(&report).security_groups_cannot_tell
    };
    let malformed = PodFacts { branch: Branch::Malformed("no array".to_owned()), ..branch_pod() };
    assert_eq!(of(malformed.clone()), Some("annotation_unreadable"));
    assert_eq!(of(PodFacts { ips: Vec::new(), ..branch_pod() }), Some("no_address"));
    assert_eq!(of(PodFacts { phase: None, ..pod() }), Some("no_status"));
    assert_eq!(of(branch_pod()), None);
    // No policy selects it, so there is nothing to doubt.
    assert_eq!(of(PodFacts { labels: labels(&[]), branch: Branch::Malformed(String::new()), ..pod() }), None);
}

#[test]
fn nodes_and_events_beside_pods_are_used() {
    let mut auto = manifests(vec![manifest("Pod", pod())], None, &[policy("a", &["sg-1"])]);
    assert_eq!(codes(&check(auto.clone(), &Options::default())), ["sgp-not-enforced"]);
    auto.nodes = vec![NodeFacts { compute_type: Some("auto".into()), ..node(None) }];
    assert_eq!(codes(&check(auto.clone(), &Options::default())), [""; 0]);
    // Its node may be one of Auto Mode, as far as these manifests tell.
    auto.nodes = Vec::new();
    let unknown = check(auto, &Options::default());
    let doubt = one(&unknown).cannot_tell.iter().find(|doubt| doubt.code.name() == "sgp-not-enforced");
    assert_eq!((codes(&unknown), doubt.map(|doubt| doubt.why)), (vec![], Some("node_unknown")));
    let mut stale = manifests(vec![manifest("Pod", branch_pod())], None, &[policy("a", &["sg-1"])]);
    let uid = branch_pod().uid.unwrap();
    stale.events = [(uid, vec![requested(&["sg-2"], 202)] as Vec<GroupEvent>)].into();
    assert_eq!(codes(&check(stale, &Options::default())), ["sgp-stale"]);
}

#[test]
fn policies_are_judged_also_without_pods() {
    let broken = PolicyFacts { pod_selector: None, ..policy("broken", &["sg-1"]) };
    let mut options = Options::default();
    options.settings.cluster_groups = ["sg-9".into()].into();
    let report = check(manifests(Vec::new(), None, &[broken, policy("c", &["sg-9"])]), &options);
    assert_eq!(codes(&report), ["sgp-invalid", "sgp-cluster-group"]);
    assert_eq!(report.findings[0].object, "SecurityGroupPolicy shop/broken");
    assert_eq!((&*report.findings[0].place.file, report.findings[0].place.line), ("cart.yaml", 1));
    assert_eq!(report.at_least(Severity::Low).count(), 1);
    assert_eq!(report.at_least(Severity::Info).count(), 2);
}

#[test]
fn findings_of_pods_stand_with_the_pod_and_with_all() {
    let keys = vec![("AWS_ACCESS_KEY_ID".to_owned(), "AKIAIOSFODNN7EXAMPLE".to_owned())];
    let identity = IdentityEnv { access_key_id: true, static_keys: keys, ..IdentityEnv::default() };
    let mut with_key = deployment();
    with_key.pod.containers = vec![ContainerFacts { identity, ..container("web") }];
    let report = check(manifests(vec![with_key], None, &[]), &Options::default());
    assert_eq!(one(&report).findings, report.findings);
    assert_eq!(codes(&report), ["static-credentials"]);
    assert_eq!(report.findings[0].object, "Deployment shop/cart");
    assert_eq!(one(&report).identity.kind, Kind::Static);
}

#[test]
fn an_object_given_twice_counts_once_the_last_one() {
    let mut later = deployment();
    later.pod.labels = labels(&[]);
    let old = policy("a", &["sg-1"]);
    let new = policy("a", &["sg-2"]);
    let given = manifests(vec![deployment(), later], None, &[old.clone(), new.clone()]);
    assert_eq!(groups(one(&check(given, &Options::default()))), [""; 0]);
    let given = manifests(vec![deployment()], None, &[old, new]);
    assert_eq!(groups(one(&check(given, &Options::default()))), ["sg-2"]);
}

#[test]
fn what_a_workload_made_is_said_by_the_workload() {
    let mut replicas = deployment();
    replicas.kind = "ReplicaSet".into();
    replicas.pod.name = "cart-5d8".into();
    let both = check(manifests(vec![replicas.clone(), deployment()], None, &[]), &Options::default());
    assert_eq!(&*one(&both).kind, "Deployment");
    // Alone it speaks for itself.
    let alone = check(manifests(vec![replicas.clone()], None, &[]), &Options::default());
    assert_eq!((&*one(&alone).kind, &*one(&alone).name), ("ReplicaSet", "cart-5d8"));
    // Pods that run are another matter than those that will.
    let running = manifest("Pod", PodFacts { workload: deployment().pod.workload, ..pod() });
    let report = check(manifests(vec![deployment(), running], None, &[]), &Options::default());
    assert_eq!(report.pods.len(), 2);
}

#[test]
fn fargate_gets_the_groups_by_another_way() {
    let mut fargate = deployment();
    fargate.pod.fargate = true;
    let report = check(manifests(vec![fargate], None, &[policy("a", &["sg-1"])]), &Options::default());
    assert_eq!((groups(one(&report)), codes(&report)), (vec!["sg-1"], vec![]));
}

#[test]
fn the_answer_has_the_promised_fields() {
    let policies = [policy("a", &["sg-1"])];
    let mut given = manifests(vec![manifest("Pod", pod())], None, &policies);
    given.skipped = [("Service".to_owned(), 2), ("Ingress".to_owned(), 1)].into();
    given.problems = vec![Problem { place: place(9), text: "is not YAML".to_owned() }];
    let report = serde_json::to_value(check(given, &Options::default())).unwrap();
    assert_eq!(
        (&report["schema"], &report["kind"], &report["skipped"]),
        (&"sekisho/1".into(), &"check".into(), &3.into())
    );
    let pod = &report["pods"][0];
    for field in [
        "namespace",
        "name",
        "security_groups",
        "security_groups_source",
        "policies",
        "enforcement_mode",
        "identity",
        "findings",
    ] {
        assert!(pod.get(field).is_some(), "{field}");
    }
    assert_eq!(pod["enforcement_mode"], serde_json::Value::Null);
    assert_eq!(pod["identity"]["kind"], "none");
    for field in ["code", "severity", "text", "cause"] {
        assert!(pod["findings"][0][field].is_string(), "{field}");
    }
    assert_eq!(
        report["errors"][0],
        serde_json::json!({"file": "cart.yaml", "document": 1, "line": 9, "text": "is not YAML"})
    );
}

#[test]
fn what_is_accepted_is_shown_and_does_not_count() {
    let policies = [policy("a", &["sg-1"]), PolicyFacts { groups: Vec::new(), ..policy("empty", &[]) }];
    let mut pod = deployment();
    pod.pod.host_network = true;
    let waive = |waiver: Waiver, now: i64| {
        let options = Options {
            waivers: vec![Waiver { reason: "agreed".to_owned(), ..waiver }],
            now: WallNs(now),
            ..nobody_associated()
        };
        check(manifests(vec![pod.clone()], None, &policies), &options)
    };
    let open = |report: &CheckReport| -> Vec<_> {
        report.at_least(Severity::Info).map(|finding| finding.code.name()).collect()
    };
    let report = waive(Waiver { namespace: Some("elsewhere".to_owned()), ..Waiver::default() }, 0);
    assert_eq!(open(&report), ["sgp-invalid", "sgp-not-enforced"], "it names somebody else");

    let of_workload = || Waiver { workload: Some("Deployment/cart".to_owned()), ..Waiver::default() };
    let report = waive(of_workload(), 0);
    assert_eq!(open(&report), ["sgp-invalid"], "a policy is of no workload");
    let accepted = &report.pods[0].findings[0];
    assert_eq!((accepted.state, accepted.accepted_reason.as_deref()), (State::Accepted, Some("agreed")));
    assert_eq!(codes(&report), ["sgp-invalid", "sgp-not-enforced"], "all are shown");
    let report = waive(Waiver { namespace: Some("shop".to_owned()), ..Waiver::default() }, 0);
    assert_eq!(open(&report), [""; 0], "a namespace holds policies too");

    let until = Waiver { until: Some(WallNs(10)), ..of_workload() };
    assert_eq!(open(&waive(until.clone(), 9)), ["sgp-invalid"]);
    assert_eq!(open(&waive(until, 10)), ["sgp-invalid", "sgp-not-enforced"], "it has ended");
}

#[test]
fn agents_of_aws_are_accepted_in_manifests_too() {
    let image = |repository: &str| {
        let mut pod = deployment();
        pod.pod.host_network = true;
        (pod.pod.namespace, pod.pod.service_account) = ("kube-system".into(), "aws-node".into());
        pod.pod.containers[0].image = format!("{repository}:v1.20.0").into();
        let everywhere = PolicyFacts { namespace: "kube-system".into(), ..policy("all", &["sg-1"]) };
        check(manifests(vec![pod], None, &[everywhere]), &nobody_associated()).findings[0].state
    };
    assert_eq!(image("602401143452.dkr.ecr.eu-west-1.amazonaws.com/amazon-k8s-cni"), State::Accepted);
    assert_eq!(image("registry.example/amazon-k8s-cni"), State::Open);
}
