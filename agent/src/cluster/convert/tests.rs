//! Objects as the API server, manifests and broken programs write them.

use agent_core::facts::{
    Branch, ContainerKind, GroupEventKind, Phase, PodFacts, PolicyFacts, ProbeKind, ServiceAccountFacts, TokenMount,
    Value as Env,
};
use agent_core::time::WallNs;
use proptest::prelude::*;
use serde_json::{Value, json};

use super::{Conversion, Converted, IRSA_PREFIX_DEFAULT, quantity};

fn convert(object: Value) -> Converted {
    Conversion::default().object(object)
}

fn pod(object: Value) -> PodFacts {
    match convert(object) {
        Converted::Pod(pod) => *pod,
        other => panic!("not a pod: {other:?}"),
    }
}

fn template(object: Value) -> PodFacts {
    match convert(object) {
        Converted::Template { pod, .. } => *pod,
        other => panic!("not a template: {other:?}"),
    }
}

fn why(object: Value) -> (String, String) {
    match convert(object) {
        Converted::Malformed(malformed) => (malformed.object, malformed.why),
        other => panic!("not malformed: {other:?}"),
    }
}

fn time(text: &str) -> WallNs {
    text.parse().unwrap()
}

/// A pod with these metadata and spec.
#[expect(clippy::needless_pass_by_value, reason = "callers make their arguments in place")]
fn with(metadata: Value, spec: Value) -> Value {
    let mut object =
        json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p", "namespace": "ns", "uid": "u"}});
    object["metadata"].as_object_mut().unwrap().extend(metadata.as_object().unwrap().clone());
    object["spec"] = spec;
    object
}

fn branch(annotation: &str) -> Branch {
    pod(with(json!({"annotations": {"vpc.amazonaws.com/pod-eni": annotation}}), json!({}))).branch
}

/// A pod of a Deployment with a branch interface, IRSA, an init container, a sidecar and an ephemeral container.
fn rich() -> Value {
    serde_json::from_str(include_str!("fixtures/pod.json")).unwrap()
}

#[test]
fn a_running_pod_is_read_whole() {
    let pod = pod(rich());
    assert_eq!(
        (&*pod.namespace, &*pod.name, pod.uid.as_deref()),
        ("shop", "cart-6d8f7b9c5d-x2x7q", Some("8c5a1f0e-3f9e-4f0e-9d3b-0d6c2b1a7e55"))
    );
    assert_eq!((&*pod.workload.kind, &*pod.workload.name), ("Deployment", "cart"));
    assert_eq!(pod.created, Some(time("2026-08-20T10:00:00Z")));
    assert_eq!(pod.started, Some(time("2026-08-20T10:00:02Z")));
    assert_eq!(pod.labels_changed, Some(time("2026-08-20T11:30:00Z")));
    assert_eq!((pod.phase, pod.ready, pod.deleting, pod.host_network), (Some(Phase::Running), true, false, false));
    assert_eq!(pod.ips, ["10.0.1.5".parse::<std::net::IpAddr>().unwrap(), "2001:db8::5".parse().unwrap()]);
    assert_eq!((&*pod.service_account, pod.node.as_deref()), ("cart", Some("ip-10-0-1-9.ec2.internal")));
    assert_eq!((pod.branch_limit, pod.first_container_branch_limit), (1, true));
    assert!(pod.irsa_volume && !pod.pod_identity_volume && pod.api_token_mounted);
    assert_eq!(pod.skip_containers, ["proxy", "log"]);

    let kinds: Vec<_> = pod.containers.iter().map(|c| (&*c.name, c.kind, c.running, c.ids.len())).collect();
    assert_eq!(
        kinds,
        [
            ("migrate", ContainerKind::Init, false, 1),
            ("proxy", ContainerKind::Sidecar, true, 1),
            ("cart", ContainerKind::App, true, 2),
            ("debugger", ContainerKind::Ephemeral, true, 1),
        ]
    );
    let cart = &pod.containers[2];
    assert_eq!(&*cart.ids[0], "c".repeat(64));
    assert_eq!(&*cart.ids[1], "b".repeat(64));
    assert!(cart.irsa_mount && cart.started);
    assert_eq!(cart.identity.role_arn, Some(Env::Literal("arn:aws:iam::111122223333:role/cart".into())));
    let probes: Vec<_> = cart.probes.iter().map(|p| (p.kind, p.port, p.timeout_s, p.period_s)).collect();
    assert_eq!(probes, [(ProbeKind::Http, Some(8080), 3, 10), (ProbeKind::Grpc, Some(9090), 1, 5)]);
    // App 250m + sidecar 100m = 350m, below init 500m; memory 256Mi + 64Mi above init's 128Mi; overhead 10m.
    assert_eq!((pod.requests.cpu_milli, pod.requests.memory_bytes, pod.requests.claims), (510, 320 << 20, 2));
    let Branch::Interfaces(interfaces) = pod.branch else { panic!("{:?}", pod.branch) };
    assert_eq!((interfaces.len(), interfaces[0].vlan_id, &*interfaces[0].mac), (1, 7, "02:aa:bb:cc:dd:ee"));
    assert_eq!(interfaces[0].ipv4, Some("10.0.1.5".parse().unwrap()));
}

#[test]
fn facts_hold_no_value_of_other_variables() {
    let text = format!("{:?}", pod(rich()));
    assert!(!text.contains("hunter2"), "{text}");
}

#[test]
fn what_is_missing_has_the_defaults_of_the_api() {
    let pod = pod(json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p"}, "spec": null, "status": null}));
    assert_eq!((&*pod.namespace, &*pod.service_account, pod.phase, pod.uid), ("default", "default", None, None));
    assert_eq!((&*pod.workload.kind, &*pod.workload.name), ("Pod", "p"));
    assert_eq!(pod.branch, Branch::Absent);
    assert!(pod.api_token_mounted, "admission would mount one");
    assert!(pod.containers.is_empty());
}

#[test]
fn a_wrong_shape_is_named_with_its_path_and_without_its_value() {
    let spec = json!({"containers": [{"name": "a", "env": [{"name": "PASSWORD", "value": 987_654_321}]}]});
    let (object, why) = why(with(json!({}), spec));
    assert_eq!(object, "ns/p");
    assert_eq!(why, "spec.containers[0].env[0].value: expected a string");
    for (metadata, spec, path) in [
        (json!({"labels": ["a"]}), json!({}), "metadata.labels: expected a map"),
        (json!({"creationTimestamp": "canary-when"}), json!({}), "metadata.creationTimestamp: cannot be read"),
        (json!({}), json!({"hostNetwork": "yes"}), "spec.hostNetwork: expected a boolean"),
        (json!({}), json!({"containers": {}}), "spec.containers: expected a sequence"),
        (
            json!({}),
            json!({"containers": [{"name": "a", "resources": {"requests": {"cpu": "canary"}}}]}),
            "container a: resources: cpu: expected a quantity",
        ),
    ] {
        let (_, why) = super::tests::why(with(metadata, spec));
        assert!(why.starts_with(path) && !why.contains("canary"), "{why}");
    }
    assert_eq!(super::tests::why(json!({"apiVersion": "v1", "kind": "Pod"})).1, "metadata.name: expected a name");
    assert!(matches!(convert(json!([1, 2])), Converted::Malformed(_)));
    assert!(matches!(convert(Value::Null), Converted::Malformed(_)));
}

#[test]
fn an_odd_shape_where_nothing_is_read_does_no_harm() {
    pod(with(json!({"finalizers": {"odd": 1}}), json!({"affinity": 7, "tolerations": "x"})));
}

#[test]
fn texts_of_foreign_origin_are_cut() {
    let name = "é".repeat(500);
    let Converted::Malformed(malformed) =
        convert(json!({"kind": "Pod", "apiVersion": "v1", "metadata": {"name": name}, "spec": 1}))
    else {
        panic!("read")
    };
    assert!(malformed.object.len() <= 256);
}

#[test]
fn null_labels_are_empty_texts_and_null_selectors_are_absent() {
    let facts = pod(with(json!({"labels": {"a": null}}), json!({})));
    assert_eq!(facts.labels.get("a").map(String::as_str), Some(""));
    let object = json!({"apiVersion": "vpcresources.k8s.aws/v1beta1", "kind": "SecurityGroupPolicy",
        "metadata": {"name": "p", "namespace": "ns"},
        "spec": {"podSelector": null, "serviceAccountSelector": {}, "securityGroups": {"groupIds": ["sg-b", "sg-a"]}}});
    let Converted::Policy(policy) = convert(object) else { panic!("no policy") };
    let PolicyFacts { pod_selector, service_account_selector, groups, .. } = *policy;
    assert_eq!(pod_selector, None);
    assert_eq!(service_account_selector, Some(agent_core::facts::Selector::default()));
    assert_eq!(groups.iter().map(|group| &**group).collect::<Vec<_>>(), ["sg-b", "sg-a"]);
}

#[test]
fn an_unknown_operator_is_kept() {
    let object = json!({"apiVersion": "vpcresources.k8s.aws/v1beta1", "kind": "SecurityGroupPolicy",
        "metadata": {"name": "p", "namespace": "ns", "generation": 3, "creationTimestamp": "2026-01-01T00:00:00Z",
            "managedFields": [
                {"manager": "kubectl", "time": "2026-02-01T00:00:00Z", "fieldsV1": {"f:spec": {"f:podSelector": {}}}},
                {"manager": "other", "time": "2026-03-01T00:00:00Z", "fieldsV1": {"f:metadata": {"f:labels": {}}}}]},
        "spec": {"podSelector": {"matchExpressions": [{"key": "k", "operator": "Gt", "values": ["1"]}]}}});
    let Converted::Policy(policy) = convert(object) else { panic!("no policy") };
    assert_eq!(policy.pod_selector.unwrap().match_expressions[0].operator, "Gt");
    assert_eq!((policy.generation, policy.spec_changed), (Some(3), Some(time("2026-02-01T00:00:00Z"))));
}

#[test]
fn of_a_network_policy_only_whom_it_selects_is_read() {
    let network = |spec: Value| {
        convert(json!({"apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy",
            "metadata": {"name": "deny", "namespace": "shop"}, "spec": spec}))
    };
    let selector = |spec: Value| match network(spec) {
        Converted::NetworkPolicy(policy) => {
            assert_eq!((&*policy.namespace, &*policy.name), ("shop", "deny"));
            policy.pod_selector
        }
        other => panic!("no network policy: {other:?}"),
    };
    let one = selector(json!({"podSelector": {"matchLabels": {"app": "till"}, "matchExpressions":
        [{"key": "tier", "operator": "In", "values": ["db"]}]}, "policyTypes": ["Ingress"], "ingress": 7}));
    assert_eq!(one.match_labels, [("app".to_owned(), "till".to_owned())].into());
    assert_eq!((&*one.match_expressions[0].key, &*one.match_expressions[0].operator), ("tier", "In"));
    // Everybody: empty, null and absent are the same.
    for spec in [json!({"podSelector": {}}), json!({"podSelector": null}), json!({})] {
        assert_eq!(selector(spec), agent_core::facts::Selector::default());
    }
    let Converted::Malformed(malformed) = network(json!({"podSelector": {"matchLabels": ["app"]}})) else {
        panic!("read")
    };
    assert_eq!((&*malformed.object, &*malformed.why), ("shop/deny", "spec.podSelector.matchLabels: expected a map"));
}

#[test]
fn the_branch_annotation_in_its_shapes() {
    let one = r#"[{"eniId":"eni-1","ifAddress":"02:AA:bb:cc:dd:ee","privateIp":"10.0.0.1","vlanID":4}]"#;
    let Branch::Interfaces(read) = branch(one) else { panic!("{:?}", branch(one)) };
    assert_eq!((read[0].vlan_id, &*read[0].mac, read[0].ipv6), (4, "02:aa:bb:cc:dd:ee", None));

    let entry = |change: &str| {
        format!(r#"[{{"eniId":"eni-1","ifAddress":"02:00:00:00:00:01","privateIp":"10.0.0.1","vlanId":1{change}}}]"#)
    };
    assert!(matches!(branch(&entry("")), Branch::Interfaces(_)));
    assert!(matches!(
        branch(&entry(r#","ipv6Addr":"2001:db8::1","subnetV6Cidr":"","associationID":"x","new":{}"#)),
        Branch::Interfaces(_)
    ));
    let many = format!("[{}]", vec!["{}"; 10_000].join(","));
    for (text, why) in [
        ("", "not JSON"),
        ("[1", "not JSON"),
        ("{", "expected a JSON array"),
        ("{}", "expected a JSON array"),
        ("\"eni-1\"", "expected a JSON array"),
        ("[]", "an empty array"),
        ("[1]", "entry 0: expected an object"),
        ("[{}]", "entry 0: eniId"),
        (many.as_str(), "10000 entries, more than 16"),
        (r#"[{"eniId":["x"]}]"#, "entry 0: eniId: expected a text"),
        (r#"[{"eniId":"e","ifAddress":"2:0:0:0:0:1","vlanId":1}]"#, "entry 0: ifAddress"),
        (r#"[{"eniId":"e","ifAddress":"02:00:00:00:00:01","vlanId":4095}]"#, "entry 0: vlanId"),
        (r#"[{"eniId":"e","ifAddress":"02:00:00:00:00:01","vlanId":"1"}]"#, "entry 0: vlanId"),
        (r#"[{"eniId":"e","ifAddress":"02:00:00:00:00:01","vlanId":1,"privateIp":"10.0.0"}]"#, "entry 0: privateIp"),
        (
            r#"[{"eniId":"e","ifAddress":"02:00:00:00:00:01","vlanId":1,"privateIp":"::1"}]"#,
            "entry 0: an address of the wrong family",
        ),
    ] {
        match branch(text) {
            Branch::Malformed(said) => assert!(said.starts_with(why), "{text:.60}: {said}"),
            other => panic!("{text:.60}: {other:?}"),
        }
    }
    let deep = "[".repeat(100_000);
    assert!(matches!(branch(&deep), Branch::Malformed(_)));
}

#[test]
fn owners_are_told_only_as_far_as_the_pod_proves_them() {
    let owned = |kind: &str, name: &str, created: &str, labels: Value| {
        let metadata = json!({"labels": labels, "creationTimestamp": created,
            "ownerReferences": [{"kind": "Other", "name": "x"}, {"kind": kind, "name": name, "controller": true}]});
        let workload = pod(with(metadata, json!({}))).workload;
        format!("{}/{}", workload.kind, workload.name)
    };
    let then = "2026-08-20T10:00:10Z";
    // 2026-08-20T10:00:00Z is minute 29787000 and second 1787220000 since 1970.
    assert_eq!(owned("ReplicaSet", "web-5d9c", then, json!({"pod-template-hash": "5d9c"})), "Deployment/web");
    assert_eq!(owned("ReplicaSet", "web-5d9c", then, json!({})), "ReplicaSet/web-5d9c");
    assert_eq!(owned("ReplicaSet", "web-5d9c", then, json!({"pod-template-hash": "9c"})), "ReplicaSet/web-5d9c");
    assert_eq!(owned("ReplicaSet", "-5d9c", then, json!({"pod-template-hash": "5d9c"})), "ReplicaSet/-5d9c");
    assert_eq!(owned("Job", "backup-29787000", then, json!({})), "CronJob/backup");
    assert_eq!(owned("Job", "backup-1787220000", then, json!({})), "CronJob/backup");
    assert_eq!(owned("Job", "backup-20260820", then, json!({})), "Job/backup-20260820");
    assert_eq!(
        owned("Job", "backup-29787010", then, json!({})),
        "Job/backup-29787010",
        "scheduled after the pod was made"
    );
    assert_eq!(owned("Job", "backup-1", then, json!({})), "Job/backup-1");
    assert_eq!(owned("StatefulSet", "db", then, json!({})), "StatefulSet/db");
}

#[test]
fn a_static_pod_belongs_to_its_node() {
    let metadata = json!({"annotations": {"kubernetes.io/config.mirror": "h", "kubernetes.io/config.hash": "a1b2"},
        "ownerReferences": [{"kind": "Node", "name": "n1", "controller": true}]});
    let pod = pod(with(metadata, json!({"hostNetwork": true})));
    assert_eq!((&*pod.workload.kind, &*pod.workload.name, pod.config_hash.as_deref()), ("Node", "n1", Some("a1b2")));
}

#[test]
fn labels_that_creation_wrote_did_not_change() {
    let changed = |entries: Value| {
        let metadata = json!({"creationTimestamp": "2026-01-01T00:00:00Z", "managedFields": entries});
        pod(with(metadata, json!({}))).labels_changed
    };
    let labels = json!({"f:metadata": {"f:labels": {"f:a": {}}}});
    let made = json!({"f:metadata": {"f:labels": {}}, "f:spec": {"f:containers": {}}});
    assert_eq!(changed(json!([])), None);
    assert_eq!(changed(json!([{"time": "2026-01-01T00:00:00Z", "fieldsV1": labels}])), None);
    assert_eq!(
        changed(json!([{"time": "2026-01-02T00:00:00Z", "fieldsV1": made}])),
        None,
        "cannot tell what was changed"
    );
    assert_eq!(changed(json!([{"time": "2026-01-02T00:00:00Z", "fieldsV1": labels, "subresource": "status"}])), None);
    assert_eq!(
        changed(json!([{"time": "2026-01-02T00:00:00Z", "fieldsV1": labels}])),
        Some(time("2026-01-02T00:00:00Z"))
    );
}

#[test]
fn environments_tell_what_the_sdks_look_at() {
    let env = |env: Value| {
        let facts = pod(with(
            json!({}),
            json!({"containers": [{"name": "a", "env": env, "envFrom": [{"secretRef": {"name": "s"}}]}]}),
        ));
        facts.containers[0].identity.clone()
    };
    let secret = json!({"secretKeyRef": {"name": "s", "key": "k"}});
    let read = env(json!([
        {"name": "AWS_ACCESS_KEY_ID", "valueFrom": secret},
        {"name": "AWS_SECRET_ACCESS_KEY", "value": "hunter2"},
        {"name": "AWS_ROLE_ARN", "value": "arn:aws:iam::$(ACCOUNT):role/x"},
        {"name": "AWS_EC2_METADATA_DISABLED", "value": "True"},
        {"name": "BACKUP_KEY", "value": "AKIAIOSFODNN7EXAMPLE"},
        {"name": "NOT_ONE", "value": "AKIAIOSFODNN7EXAMPL1"},
        {"name": "MINIO", "value": "minioadmin"},
    ]));
    assert!(read.access_key_id && read.access_key_id_referenced && read.secret_access_key && read.env_from);
    assert_eq!((read.role_arn, read.metadata_disabled), (Some(Env::Referenced), true));
    assert_eq!(read.static_keys, [("BACKUP_KEY".to_owned(), "AKIAIOSFODNN7EXAMPLE".to_owned())]);

    let empty = env(json!([{"name": "AWS_ACCESS_KEY_ID", "value": ""}]));
    assert!(!empty.access_key_id && !empty.access_key_id_referenced);
    let twice = env(json!([{"name": "AWS_ROLE_ARN", "value": "a"}, {"name": "AWS_ROLE_ARN", "value": "b"}]));
    assert_eq!(twice.role_arn, Some(Env::Literal("b".into())));
    let keys: Vec<_> = (0..100).map(|n| json!({"name": format!("K{n}"), "value": "AKIAIOSFODNN7EXAMPLE"})).collect();
    assert_eq!(env(json!(keys)).static_keys.len(), 8);
}

#[test]
fn probes_resolve_names_of_ports() {
    let probes = |probe: Value| {
        let container =
            json!({"name": "a", "ports": [{"name": "web", "containerPort": 8080}], "readinessProbe": probe});
        pod(with(json!({}), json!({"containers": [container]}))).containers[0].probes.clone()
    };
    assert_eq!(probes(json!({"httpGet": {"port": "web"}, "timeoutSeconds": 0}))[0].port, Some(8080));
    assert_eq!(probes(json!({"tcpSocket": {"port": "nothing"}}))[0].port, None);
    assert_eq!(probes(json!({"tcpSocket": {"port": "81"}}))[0].port, Some(81));
    assert_eq!(probes(json!({"exec": {"command": ["x"]}}))[0].kind, ProbeKind::Exec);
    assert!(probes(json!({"telepathy": {}})).is_empty());
    let container = json!({"name": "a", "livenessProbe": {"tcpSocket": {"port": 70_000}}});
    assert!(why(with(json!({}), json!({"containers": [container]}))).1.contains("port of a probe"));
}

#[test]
fn templates_are_pods_that_are_not_there_yet() {
    let inner = json!({"metadata": {"labels": {"app": "web"}}, "spec": {"containers": [{"name": "a", "image": "i"}]}});
    let meta = json!({"name": "web", "namespace": "shop"});
    for (version, kind, spec) in [
        ("apps/v1", "Deployment", json!({"template": inner})),
        ("apps/v1", "StatefulSet", json!({"template": inner})),
        ("apps/v1", "DaemonSet", json!({"template": inner})),
        ("apps/v1", "ReplicaSet", json!({"template": inner})),
        ("extensions/v1beta1", "Deployment", json!({"template": inner})),
        ("batch/v1", "Job", json!({"template": inner})),
        ("batch/v1", "CronJob", json!({"jobTemplate": {"spec": {"template": inner}}})),
        ("v1", "ReplicationController", json!({"template": inner})),
    ] {
        let pod = template(json!({"apiVersion": version, "kind": kind, "metadata": meta, "spec": spec}));
        assert_eq!(
            (&*pod.namespace, &*pod.name, &*pod.workload.kind, &*pod.workload.name),
            ("shop", "web", kind, "web")
        );
        assert_eq!((pod.uid, pod.labels.get("app").map(String::as_str)), (None, Some("web")), "{kind}");
        assert_eq!(&*pod.containers[0].image, "i");
    }
    let object = json!({"apiVersion": "v1", "kind": "PodTemplate", "metadata": meta, "template": inner});
    assert_eq!(&*template(object).containers[0].name, "a");
    let object = json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": meta, "spec": {"template": {}}});
    assert_eq!(why(object), ("shop/web".to_owned(), "spec.template.spec: expected the spec of a pod".to_owned()));
}

#[test]
fn an_account_has_its_role_and_since_when() {
    let object = |prefix: &str| {
        json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "a", "namespace": "ns", "labels": {"t": "x"},
            "annotations": {format!("{prefix}/role-arn"): "arn:aws:iam::1:role/r"},
            "managedFields": [{"time": "2026-02-01T00:00:00Z",
                "fieldsV1": {"f:metadata": {"f:annotations": {format!("f:{prefix}/role-arn"): {}}}}}]}})
    };
    let account = |conversion: &Conversion, object| match conversion.object(object) {
        Converted::ServiceAccount(account) => *account,
        other => panic!("{other:?}"),
    };
    let ServiceAccountFacts { role_arn, role_changed, .. } =
        account(&Conversion::default(), object(IRSA_PREFIX_DEFAULT));
    assert_eq!(
        (role_arn.as_deref(), role_changed),
        (Some("arn:aws:iam::1:role/r"), Some(time("2026-02-01T00:00:00Z")))
    );
    let other = Conversion { irsa_prefix: "aws.example.org".to_owned() };
    assert!(account(&other, object("aws.example.org")).role_arn.is_some());
    assert!(account(&other, object(IRSA_PREFIX_DEFAULT)).role_arn.is_none());
}

#[test]
fn a_node_and_what_hangs_on_it() {
    let object = json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": "n", "labels": {
            "node.kubernetes.io/instance-type": "m5.large", "vpc.amazonaws.com/has-trunk-attached": "true"}},
        "spec": {"unschedulable": true},
        "status": {"addresses": [{"type": "InternalIP", "address": "10.0.0.9"}, {"type": "Hostname", "address": "n"}],
            "allocatable": {"cpu": "1930m", "memory": "7244732Ki", "pods": "29", "vpc.amazonaws.com/pod-eni": 9},
            "images": [{"names": [], "sizeBytes": 10}, {"sizeBytes": 5}],
            "volumesAttached": [{"name": "kubernetes.io/csi/ebs.csi.aws.com^vol-1", "devicePath": ""},
                {"name": "kubernetes.io/csi/efs.csi.aws.com^fs-1"}, {"name": "kubernetes.io/csi/ebs.csi.aws.com^vol-2"}]}});
    let Converted::Node(node) = convert(object) else { panic!("no node") };
    assert_eq!((node.instance_type.as_deref(), node.addresses.len(), node.unschedulable), (Some("m5.large"), 1, true));
    assert_eq!(
        (node.cpu_milli, node.memory_bytes, node.pods, node.branch_interfaces),
        (Some(1_930), Some(7_244_732 << 10), Some(29), Some(9))
    );
    assert_eq!((node.image_bytes, node.ebs_attached), (Some(15), Some(2)));
    let Converted::Node(node) = convert(json!({"kind": "Node", "metadata": {"name": "n"}, "status": {}})) else {
        panic!("no node")
    };
    assert_eq!(node.ebs_attached, Some(0), "an empty list is left out");

    let object = json!({"apiVersion": "vpcresources.k8s.aws/v1alpha1", "kind": "CNINode", "metadata": {"name": "n"},
        "spec": {"features": [{"name": "SecurityGroupsForPods"}, {"name": "CustomNetworking", "value": "a"}]}});
    let Converted::CniNode { name, facts } = convert(object) else { panic!("no CNINode") };
    assert_eq!((&*name, facts.security_groups_for_pods, facts.custom_networking.as_deref()), ("n", true, Some("a")));

    let object = json!({"apiVersion": "storage.k8s.io/v1", "kind": "CSINode", "metadata": {"name": "n"},
        "spec": {"drivers": [{"name": "efs.csi.aws.com"}, {"name": "ebs.csi.aws.com", "allocatable": {"count": 25}}]}});
    let Converted::CsiNode { facts, .. } = convert(object) else { panic!("no CSINode") };
    assert_eq!(facts.ebs_volumes, Some(25));
}

#[test]
fn events_of_the_controller_and_no_others() {
    let event = |reason: &str, severity: &str, message: &str, component: &str| {
        convert(json!({"apiVersion": "v1", "kind": "Event", "metadata": {"name": "e", "namespace": "ns"},
            "involvedObject": {"kind": "Pod", "uid": "u"}, "reason": reason, "type": severity, "message": message,
            "source": {"component": component}, "lastTimestamp": "2026-01-01T00:00:00Z", "eventTime": null}))
    };
    let controller = "vpc-resource-controller";
    let message = "Pod will get the following Security Groups [sg-1 sg-2]";
    let Converted::GroupEvent { uid, event: read } = event("SecurityGroupRequested", "Normal", message, controller)
    else {
        panic!("no event")
    };
    assert_eq!((&*uid, read.time), ("u", Some(time("2026-01-01T00:00:00Z"))));
    assert_eq!(read.kind, GroupEventKind::Groups(vec!["sg-1".into(), "sg-2".into()]));
    assert!(matches!(
        event("SecurityGroupRequested", "Warning", "x", controller),
        Converted::GroupEvent { event, .. } if event.kind == GroupEventKind::InstanceGroups
    ));
    assert!(matches!(event("SecurityGroupRequested", "Normal", message, "somebody"), Converted::Skipped { .. }));
    assert!(matches!(event("Scheduled", "Normal", "x", controller), Converted::Skipped { .. }));
    for message in ["", "[]", "[x y]", "groups sg-1"] {
        assert!(
            matches!(event("SecurityGroupRequested", "Normal", message, controller), Converted::Malformed(_)),
            "{message}"
        );
    }
}

#[test]
fn other_kinds_are_skipped_and_named() {
    let skipped = |object: Value| match convert(object) {
        Converted::Skipped { kind } => kind,
        other => panic!("{other:?}"),
    };
    assert_eq!(skipped(json!({"apiVersion": "v1", "kind": "ConfigMap", "data": 7})), "ConfigMap");
    assert_eq!(skipped(json!({"apiVersion": "example.org/v1", "kind": "Pod"})), "Pod.example.org");
}

#[test]
fn quantities_are_exact() {
    for (text, milli) in [
        ("0", 0),
        ("1", 1_000),
        ("250m", 250),
        ("0.5", 500),
        (".5", 500),
        ("1.", 1_000),
        ("1.0005", 1_001),
        ("100u", 1),
        ("1n", 1),
        ("2k", 2_000_000),
        ("1e3", 1_000_000),
        ("1E3", 1_000_000),
        ("5e-1", 500),
        ("+3", 3_000),
        ("1Ki", 1_024_000),
        ("0.000", 0),
    ] {
        assert_eq!(quantity::milli(text), Ok(milli), "{text}");
    }
    for (text, units) in [
        ("1.5Gi", 3 << 29),
        ("1E", 1_000_000_000_000_000_000),
        ("8Ei", 1 << 63),
        ("128974848", 128_974_848),
        ("129e6", 129_000_000),
        ("129M", 129_000_000),
        ("123Mi", 123 << 20),
        ("1m", 1),
        ("99999999999999999999Ei", u64::MAX),
        ("1e1000000000", u64::MAX),
        ("1e-1000000000", 1),
    ] {
        assert_eq!(quantity::units(text), Ok(units), "{text}");
    }
    for text in ["", "m", ".", "-1", "1.2.3", "1kk", "1 Gi", "0x10", "1e", "1e+", "NaN", "inf", "１", &"9".repeat(31)]
    {
        assert!(quantity::units(text).is_err(), "{text}");
    }
}

/// Any JSON, as deep and wide as finds faults.
fn any_json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        "[-a-zA-Z0-9:./ ]{0,12}".prop_map(Value::from),
    ];
    leaf.prop_recursive(4, 32, 4, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::btree_map("[a-zA-Z]{1,8}", inner, 0..4).prop_map(|members| json!(members)),
        ]
    })
}

/// Every place of the rich pod and of a policy that can be changed.
fn places(value: &Value, path: &str, out: &mut Vec<String>) {
    out.push(path.to_owned());
    match value {
        Value::Object(members) => {
            for (key, member) in members {
                places(member, &format!("{path}/{}", key.replace('~', "~0").replace('/', "~1")), out);
            }
        }
        Value::Array(elements) => {
            for (index, element) in elements.iter().enumerate() {
                places(element, &format!("{path}/{index}"), out);
            }
        }
        _ => {}
    }
}

proptest! {
    #[test]
    fn no_object_makes_it_panic(object in any_json()) {
        convert(object);
    }

    #[test]
    fn no_change_to_a_pod_makes_it_panic(place in any::<prop::sample::Index>(), put in any_json()) {
        let mut object = rich();
        let mut all = Vec::new();
        places(&object, "", &mut all);
        *object.pointer_mut(place.get(all.as_slice()).as_str()).unwrap() = put;
        convert(object);
    }

    #[test]
    fn no_annotation_makes_it_panic(text in ".{0,200}") {
        branch(&text);
    }

    #[test]
    fn a_quantity_is_what_an_obvious_reading_says(whole in 0_u64..1_000_000, milli in 0_u64..1_000) {
        prop_assert_eq!(quantity::milli(&format!("{whole}.{milli:03}")), Ok(whole * 1_000 + milli));
        prop_assert_eq!(quantity::units(&format!("{whole}Mi")), Ok(whole << 20));
    }
}

#[test]
fn how_a_token_for_the_api_gets_into_a_pod() {
    const AT: &str = "/var/run/secrets/kubernetes.io/serviceaccount";
    let of = |volume: Value, path: &str| {
        let name = volume["name"].clone();
        pod(json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p", "uid": "u"},
            "spec": {"volumes": [volume], "containers": [{"name": "a", "volumeMounts": [{"name": name, "mountPath": path}]}]}}))
        .api_token
    };
    let projected =
        |name: &str, token: Value| json!({"name": name, "projected": {"sources": [{"serviceAccountToken": token}]}});
    assert_eq!(of(projected("kube-api-access-x7k2p", json!({})), AT), Some(TokenMount::Automounted));
    assert_eq!(of(projected("token", json!({})), "/tokens"), Some(TokenMount::Projected));
    assert_eq!(of(projected("vault", json!({"audience": "vault"})), "/tokens"), None);
    assert_eq!(of(json!({"name": "default-token-abcde", "secret": {"secretName": "x"}}), AT), Some(TokenMount::Secret));
    assert_eq!(of(json!({"name": "db", "secret": {"secretName": "x"}}), "/db"), None);
}

#[test]
fn which_way_a_network_policy_is_about() {
    let of = |spec: Value| {
        let object = json!({"apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy", "metadata": {"name": "n"}, "spec": spec});
        match convert(object) {
            Converted::NetworkPolicy(policy) => (policy.ingress_only, policy.egress_only),
            other => panic!("not a network policy: {other:?}"),
        }
    };
    assert_eq!(of(json!({"policyTypes": ["Ingress"], "egress": [{}]})), (true, false));
    assert_eq!(of(json!({"policyTypes": ["Egress"]})), (false, true));
    assert_eq!(of(json!({"policyTypes": ["Ingress", "Egress"]})), (false, false));
    // As manifests leave it to the API server.
    assert_eq!(of(json!({})), (true, false));
    assert_eq!(of(json!({"egress": []})), (false, false));
}

#[test]
fn of_a_policy_endpoint_whom_it_selects_and_which_way_is_read() {
    let of = |spec: Value| {
        convert(json!({"apiVersion": "networking.k8s.aws/v1alpha1", "kind": "PolicyEndpoint",
            "metadata": {"name": "deny-x1", "namespace": "shop"}, "spec": spec}))
    };
    let read = |spec: Value| match of(spec) {
        Converted::NetworkPolicy(policy) => *policy,
        other => panic!("not a network policy: {other:?}"),
    };
    let one = read(json!({"policyRef": {"name": "deny", "namespace": "shop"}, "podIsolation": ["Egress"],
        "podSelector": {"matchLabels": {"app": "till"}}, "podSelectorEndpoints": 7, "isGlobal": false}));
    assert_eq!((&*one.namespace, &*one.name, one.made_of.as_deref()), ("shop", "deny-x1", Some("deny")));
    assert_eq!(one.pod_selector.match_labels, [("app".to_owned(), "till".to_owned())].into());
    assert_eq!((one.ingress_only, one.egress_only), (false, true));
    for (isolation, expected) in [
        (json!(["Ingress"]), (true, false)),
        (json!(["Ingress", "Egress"]), (false, false)),
        // Nothing is said, or something that nobody knows: it may be about both.
        (json!([]), (false, false)),
        (json!(["Sideways"]), (false, false)),
    ] {
        let read = read(json!({"podIsolation": isolation}));
        assert_eq!((read.ingress_only, read.egress_only), expected, "{isolation}");
    }
    // Without a selector it may be about everybody.
    assert_eq!(read(json!({})).pod_selector, agent_core::facts::Selector::default());
    let Converted::Malformed(malformed) = of(json!({"podSelector": 7})) else { panic!("read") };
    assert_eq!(
        (&*malformed.object, &*malformed.why),
        ("shop/deny-x1", "spec.podSelector: expected struct LabelSelector")
    );
}

#[test]
fn a_pod_of_an_ambient_mesh_is_known_by_what_the_cni_wrote() {
    let of = |annotations: Value| {
        let object = json!({"apiVersion": "v1", "kind": "Pod", "spec": {},
            "metadata": {"name": "p", "namespace": "shop", "uid": "u", "annotations": annotations}});
        match convert(object) {
            Converted::Pod(pod) => pod.ambient,
            other => panic!("no pod: {other:?}"),
        }
    };
    assert!(of(json!({"ambient.istio.io/redirection": "enabled"})));
    for none in
        [json!({}), json!({"ambient.istio.io/redirection": "pending"}), json!({"istio.io/dataplane-mode": "ambient"})]
    {
        assert!(!of(none.clone()), "{none}");
    }
}
