//! Who breaks, who falls back, who does not care; and what cannot be told.

use std::sync::Arc;

use super::{Entry, Plan, Readiness, Report};
use crate::facts::{IdentityEnv, PodFacts, Value};
use crate::finding::{Code, Severity, Subject};
use crate::input::{Category, GapCause, ImdsVersion, MetadataOutcome, Method};
use crate::output::{
    AttributionKind, Change, FindingRow, GapRow, Identity, Local, MetadataRow, ObjectFacts, ObjectKind, ObjectRow,
    Output, State, Who, Window,
};
use crate::papers::testing::{account, at, container, pod};

const NODE_IP: &str = "10.0.0.2";

/// The pod `shop/NAME-0` of the workload NAME.
fn pod_of(name: &str, env: IdentityEnv) -> PodFacts {
    let mut pod = PodFacts { name: format!("{name}-0").into(), uid: Some(format!("uid-{name}").into()), ..pod() };
    pod.workload.name = name.into();
    pod.service_account = name.into();
    pod.containers[0].identity = env;
    pod
}

fn irsa() -> IdentityEnv {
    IdentityEnv {
        role_arn: Some(Value::Literal("arn:aws:iam::111122223333:role/cart".into())),
        web_identity_token_file: Some(Value::Literal("/token".into())),
        ..IdentityEnv::default()
    }
}

fn object(facts: PodFacts) -> ObjectRow {
    ObjectRow {
        time: at(10),
        object: ObjectKind::Pod,
        change: Change::Seen,
        namespace: facts.namespace.clone(),
        name: facts.name.clone(),
        uid: facts.uid.clone(),
        workload: facts.workload.name.clone(),
        changed: Vec::new(),
        facts: Some(ObjectFacts::Pod(Arc::new(facts))),
        digest: 1,
    }
}

/// An answered GET with a token by the pod `shop/NAME-0`.
fn get(name: &str, category: Category) -> MetadataRow {
    let identity = Identity {
        attribution: AttributionKind::Pod,
        namespace: "shop".to_owned(),
        pod: format!("{name}-0"),
        uid: format!("uid-{name}"),
        container: "web".to_owned(),
        workload: name.to_owned(),
        ..Identity::default()
    };
    MetadataRow {
        time: at(400),
        who: Who { identity: Arc::new(identity), process: None },
        service: "imds",
        version: ImdsVersion::V2,
        method: Some(Method::Get),
        category: Some(category),
        role: (category == Category::RoleCredentials).then(|| "node-role".to_owned()),
        access_key_id: None,
        forwarded_for: None,
        status: Some(200),
        response_ttl: Some(64),
        response_bytes: Some(10),
        outcome: MetadataOutcome::Ok,
        latency_us: None,
        local: Local { ip: Some("10.0.0.7".to_owned()) },
        origin: None,
    }
}

fn v1(name: &str, category: Category) -> MetadataRow {
    MetadataRow { version: ImdsVersion::V1, ..get(name, category) }
}

/// An answered request for a token; the answer arrived with so many hops left.
fn token(name: &str, ttl: u8) -> MetadataRow {
    MetadataRow { method: Some(Method::Put), response_ttl: Some(ttl), ..get(name, Category::Token) }
}

fn in_vain(name: &str) -> MetadataRow {
    let row = token(name, 0);
    MetadataRow { status: None, response_ttl: None, outcome: MetadataOutcome::Unanswered, ..row }
}

/// A program of the node itself.
fn on_node(mut row: MetadataRow, unit: &str) -> MetadataRow {
    let identity = Identity { attribution: AttributionKind::Host, workload: unit.to_owned(), ..Identity::default() };
    row.who.identity = Arc::new(identity);
    row.local.ip = Some(NODE_IP.to_owned());
    row
}

fn report(objects: &[ObjectRow], rows: &[MetadataRow]) -> Report {
    report_with(objects, rows, &[])
}

fn report_with(objects: &[ObjectRow], rows: &[MetadataRow], others: &[Output]) -> Report {
    let mut readiness = Readiness::default();
    for row in objects {
        readiness.object(row);
    }
    for row in rows {
        readiness.survey(row);
    }
    for row in rows {
        readiness.row(&Output::Metadata(Box::new(row.clone())));
    }
    for row in others {
        readiness.row(row);
    }
    let watched = [Window { start: at(0), end: at(600) }, Window { start: at(900), end: at(5_000) }];
    readiness.report(Window { start: at(300), end: at(1_000) }, &watched, &Plan::ALL)
}

/// Names by list: breaks, cannot tell, falls back, does not care.
fn lists(report: &Report, plan: Plan) -> [Vec<&str>; 4] {
    let found = report.plans.iter().find(|found| found.plan == plan).unwrap();
    [&found.breaks, &found.cannot_tell, &found.falls_back, &found.does_not_care]
        .map(|list| list.iter().map(|entry| entry.workload.as_str()).collect())
}

fn entry<'r>(report: &'r Report, plan: Plan, workload: &str) -> &'r Entry {
    let found = report.plans.iter().find(|found| found.plan == plan).unwrap();
    let mut all = [&found.breaks, &found.cannot_tell, &found.falls_back, &found.does_not_care].into_iter().flatten();
    all.find(|entry| entry.workload == workload).unwrap()
}

#[test]
fn hop_limit_1_takes_tokens_from_pods_with_a_network_of_their_own_and_from_nobody_else() {
    let own_network = pod_of("app", IdentityEnv::default());
    let host_network = PodFacts { host_network: true, ..pod_of("agent", IdentityEnv::default()) };
    let old = pod_of("old", IdentityEnv::default());
    let idle = pod_of("idle", IdentityEnv::default());
    let objects = [own_network, host_network, old, idle].map(object);
    let credentials = |name| get(name, Category::RoleCredentials);
    let rows = [
        token("app", 1),
        credentials("app"),
        token("agent", 2),
        credentials("agent"),
        v1("old", Category::RoleCredentials),
        on_node(token("x", 2), "kubelet.service"),
    ];
    let report = report(&objects, &rows);
    assert_eq!(
        lists(&report, Plan::HopLimit1),
        [vec!["app"], vec![], vec![], vec!["kubelet.service", "agent", "idle", "old"]]
    );
    assert_eq!(
        lists(&report, Plan::TokensRequired),
        [vec!["old"], vec![], vec![], vec!["kubelet.service", "agent", "app", "idle"]]
    );
    assert_eq!(
        lists(&report, Plan::BlockedForPods),
        [vec!["app", "old"], vec![], vec![], vec!["kubelet.service", "agent", "idle"]]
    );
    let [breaks, unknown, back, rest] = lists(&report, Plan::Disabled);
    // The node's own program got tokens, and what for was not seen.
    assert_eq!(
        (breaks, unknown, back, rest),
        (vec!["agent", "app", "old"], vec!["kubelet.service"], vec![], vec!["idle"])
    );
    let app = entry(&report, Plan::HopLimit1, "app");
    assert_eq!((app.requests, app.first_seen, app.last_seen), (2, Some(at(400)), Some(at(400))));
    assert!(app.why.contains("node-role") && app.why.contains("no identity of its own"), "{}", app.why);
    assert_eq!(entry(&report, Plan::HopLimit1, "idle").why, "made no request to the metadata service");
    assert_eq!((report.hop_limit.value, report.hop_limit.by, report.hop_limit.changed), (Some(2), Some("node"), false));
    assert_eq!(report.tokens.required, Some(false));
}

#[test]
fn an_identity_of_its_own_makes_up_for_the_nodes_role_and_for_nothing_else() {
    let mut missed = account(Some("arn:aws:iam::111122223333:role/late"));
    missed.name = "late".into();
    let late = ObjectRow {
        object: ObjectKind::ServiceAccount,
        name: "late".into(),
        uid: None,
        facts: Some(ObjectFacts::ServiceAccount(Arc::new(missed))),
        ..object(pod())
    };
    let from_a_map = IdentityEnv { env_from: true, ..IdentityEnv::default() };
    let mut objects = vec![late];
    let all = [
        ("own", irsa()),
        ("reader", irsa()),
        ("late", IdentityEnv::default()),
        ("map", from_a_map),
        ("tokens", irsa()),
    ];
    objects.extend(all.map(|(name, env)| object(pod_of(name, env))));
    let mut rows: Vec<_> = ["own", "reader", "late", "map"]
        .into_iter()
        .flat_map(|name| [token(name, 1), get(name, Category::RoleList), get(name, Category::RoleCredentials)])
        .collect();
    rows.extend([get("reader", Category::Metadata), token("tokens", 1)]);
    let report = report(&objects, &rows);
    for plan in [Plan::HopLimit1, Plan::BlockedForPods, Plan::Disabled] {
        let wanted = [vec!["late", "reader"], vec!["map", "tokens"], vec!["own"], vec![]];
        assert_eq!(lists(&report, plan), wanted, "{plan:?}");
    }
    let reader = &entry(&report, Plan::BlockedForPods, "reader").why;
    assert!(reader.starts_with("reads metadata") && reader.contains("a role by IRSA"), "{reader}");
    assert!(entry(&report, Plan::HopLimit1, "late").why.contains("did not reach it"));
    assert!(entry(&report, Plan::HopLimit1, "tokens").why.contains("what it used them for"));
    // In a pod a hop is gone already.
    assert_eq!((report.hop_limit.value, report.hop_limit.by), (Some(2), Some("pod")));
    assert_eq!(report.tokens.required, None);
}

#[test]
fn with_tokens_required_proxied_requests_break_for_good_and_those_that_got_no_token_need_hops() {
    let objects = ["proxied", "fallen", "mixed"].map(|name| object(pod_of(name, irsa())));
    let mut proxied = v1("proxied", Category::RoleCredentials);
    proxied.forwarded_for = Some("10.0.0.9".to_owned());
    let rows = [
        proxied,
        in_vain("fallen"),
        v1("fallen", Category::Metadata),
        v1("mixed", Category::RoleCredentials),
        token("mixed", 1),
        get("mixed", Category::Metadata),
    ];
    let report = report(&objects, &rows);
    assert_eq!(lists(&report, Plan::TokensRequired), [vec!["fallen", "proxied"], vec![], vec!["mixed"], vec![]]);
    assert!(entry(&report, Plan::TokensRequired, "proxied").why.contains("X-Forwarded-For"));
    assert!(entry(&report, Plan::TokensRequired, "fallen").why.contains("greater hop limit (it is 2)"));
    assert_eq!(entry(&report, Plan::TokensRequired, "mixed").requests, 1, "the rest has tokens");
    // What is not forwarded has an identity of its own.
    assert_eq!(lists(&report, Plan::HopLimit1)[3], ["fallen", "proxied"]);
    assert_eq!(report.hop_limit.unanswered, 1);
}

#[test]
fn what_is_refused_or_unanswered_already_and_what_is_not_ec2s_is_no_loss() {
    let objects = ["refused", "waiting", "azure"].map(|name| object(pod_of(name, IdentityEnv::default())));
    let mut refused = v1("refused", Category::RoleList);
    (refused.status, refused.outcome, refused.time) = (Some(401), MetadataOutcome::Unauthorized, at(500));
    let rows = [refused, in_vain("waiting"), v1("azure", Category::OtherCloud)];
    let report = report(&objects, &rows);
    for plan in Plan::ALL {
        assert_eq!(lists(&report, plan), [vec![], vec![], vec![], vec!["azure", "refused", "waiting"]], "{plan:?}");
    }
    assert_eq!(entry(&report, Plan::HopLimit1, "waiting").why, "gets no answer as it is");
    assert!(report.is_clear());
    assert_eq!((report.tokens.required, report.hop_limit.value), (Some(true), None));
}

#[test]
fn without_facts_the_address_tells_the_network_and_nobody_tells_the_identity() {
    let container = |ip: &str, name: &str| {
        let mut row = get(name, Category::RoleCredentials);
        let identity =
            Identity { attribution: AttributionKind::Container, workload: name.to_owned(), ..Identity::default() };
        (row.who.identity, row.local.ip) = (Arc::new(identity), Some(ip.to_owned()));
        row
    };
    let rows = [container("172.17.0.2", "bridged"), container(NODE_IP, "hosted")];
    let blind = report(&[], &rows);
    assert_eq!(lists(&blind, Plan::HopLimit1), [vec![], vec!["bridged", "hosted"], vec![], vec![]]);
    assert!(entry(&blind, Plan::HopLimit1, "hosted").why.contains("whether it uses the node's network"));

    let seeing = report(&[], &[&rows[..], &[on_node(v1("x", Category::Metadata), "cloud-init.service")]].concat());
    assert_eq!(
        lists(&seeing, Plan::HopLimit1),
        [vec![], vec!["bridged"], vec![], vec!["cloud-init.service", "hosted"]]
    );
    assert!(entry(&seeing, Plan::HopLimit1, "bridged").why.contains("identity of its own is not known"));
    assert_eq!(lists(&seeing, Plan::TokensRequired)[0], ["cloud-init.service"], "the node's own programs count");
}

#[test]
fn a_static_pod_and_a_row_without_a_name_find_their_pod_and_a_meshs_proxy_stands_for_all_containers() {
    let mut fixed = PodFacts { config_hash: Some("0123abcd".into()), ..pod_of("fixed", irsa()) };
    fixed.containers.push(container("other"));
    fixed.containers.push(container("istio-proxy"));
    let mut row = get("fixed", Category::RoleCredentials);
    let identity = Identity {
        attribution: AttributionKind::Pod,
        uid: "0123abcd".to_owned(),
        workload: "pod-0123abcd".to_owned(),
        container: "web".to_owned(),
        ..Identity::default()
    };
    row.who.identity = Arc::new(identity.clone());
    let direct = report(&[object(fixed.clone())], std::slice::from_ref(&row));
    assert_eq!(lists(&direct, Plan::HopLimit1), [vec![], vec![], vec!["fixed"], vec![]]);
    row.who.identity = Arc::new(Identity { container: "istio-proxy".to_owned(), ..identity });
    let through = report(&[object(fixed)], &[row]);
    assert_eq!(lists(&through, Plan::HopLimit1), [vec!["fixed"], vec![], vec![], vec![]], "`other` may have asked");
}

#[test]
fn what_was_not_covered_is_said() {
    let gap = GapRow {
        start: at(600),
        end: at(900),
        cause: GapCause::Stopped,
        records_lost: std::collections::BTreeMap::new(),
    };
    let flood = FindingRow {
        time: at(500),
        id: "f".to_owned(),
        code: Code::RecordFlood,
        severity: Severity::Medium,
        state: State::Open,
        subject: Subject { namespace: "shop".into(), workload: "noisy".into(), ..Subject::default() },
        pods: Vec::new(),
        pods_count: 1,
        cause: "budget".to_owned(),
        first_seen: at(500),
        last_seen: at(501),
        resolved_at: None,
        count: 1,
        watched_since: at(0),
        text: String::new(),
        advice: String::new(),
        evidence: Vec::new(),
        accepted_reason: None,
    };
    let mut nobody = get("x", Category::RoleList);
    nobody.who.identity = Arc::new(Identity { why: Some("cgroup not known"), ..Identity::default() });
    let mut cut = get("cart", Category::RoleList);
    cut.outcome = MetadataOutcome::Truncated;
    // Gone before the window: it is none of its workloads.
    let early = pod_of("early", IdentityEnv::default());
    let gone = ObjectRow { time: at(100), change: Change::Gone, facts: None, ..object(early.clone()) };
    let report = report_with(
        &[object(early), gone],
        &[nobody, cut],
        &[Output::Gap(gap.clone()), Output::Finding(Box::new(flood))],
    );
    let watched = [Window { start: at(300), end: at(600) }, Window { start: at(900), end: at(1_000) }];
    assert_eq!((&report.watched[..], report.watched_s), (&watched[..], 400));
    let said = &report.not_covered;
    assert_eq!(said.gaps, [gap]);
    assert_eq!((said.suppressed.len(), said.unknown[0].requests, said.unreadable_requests), (1, 1, 1));
    assert_eq!(lists(&report, Plan::HopLimit1), [const { Vec::<&str>::new() }; 4]);
    let text = report.text(&|time| time.to_string());
    for part in
        ["stopped, loss unknown", "shop/noisy", "cgroup not known", "1 requests that could not be read", "weekly"]
    {
        assert!(text.contains(part), "{part:?} is not in {text}");
    }
}

#[test]
fn the_report_reads_as_documented() {
    let objects = [object(pod_of("app", IdentityEnv::default()))];
    let report = report(&objects, &[token("app", 1), get("app", Category::RoleCredentials)]);
    let json = serde_json::to_value(&report).unwrap();
    let names = |value: &serde_json::Value| -> Vec<String> {
        value.as_object().unwrap().keys().cloned().collect::<std::collections::BTreeSet<_>>().into_iter().collect()
    };
    assert_eq!(names(&json), ["hop_limit", "not_covered", "plans", "since", "tokens", "until", "watched", "watched_s"]);
    let entry = &json["plans"][0]["breaks"][0];
    assert_eq!(json["plans"][0]["plan"], "hop_limit_1");
    assert_eq!(
        (&entry["namespace"], &entry["workload"], &entry["requests"]),
        (&"shop".into(), &"app".into(), &2.into())
    );
    assert_eq!(entry["asked"], serde_json::json!(["token", "role_credentials"]));
    let text = report.text(&|time| time.to_string());
    for part in [
        "hop limit   2, read in a pod",
        "  breaks (1)\n    shop/app: lives on the node's role node-role",
        "> give it a role",
    ] {
        assert!(text.contains(part), "{part:?} is not in {text}");
    }
    let page = include_str!("../../../../docs/readiness.md");
    let fields = names(&json)
        .into_iter()
        .chain(names(entry))
        .chain(names(&json["not_covered"]))
        .chain(names(&json["hop_limit"]));
    for field in fields {
        assert!(page.contains(&format!("`{field}`")), "docs/readiness.md lacks {field}");
    }
}
