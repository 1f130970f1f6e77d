//! Identities by cgroup, named and not, and what may not be concluded.

use super::*;
use crate::facts::{ContainerFacts, WorkloadRef};

const UID: &str = "6f0d2c1e-8a52-4b7e-9d0c-1a2b3c4d5e6f";

fn id() -> String {
    "0123456789abcdef".repeat(4)
}

#[test]
fn identities_by_path() {
    let identity = |path: &str| identify(&parse(path), None);
    let expected = Identity {
        attribution: AttributionKind::Pod,
        uid: UID.to_owned(),
        container: id(),
        workload: format!("pod-{UID}"),
        ..Identity::default()
    };
    assert_eq!(identity(&format!("/kubepods/pod{UID}/{}", id())), expected);
    let expected = Identity {
        attribution: AttributionKind::Container,
        container: id(),
        workload: "0123456789ab".to_owned(),
        ..Identity::default()
    };
    assert_eq!(identity(&format!("/docker/{}", id())), expected);
    assert_eq!(identity("/system.slice/sshd.service"), host("sshd.service"));
    assert_eq!(identity("/"), host("host"));
    assert_eq!(identity("/made/by/hand"), host("host"));
    assert_eq!(identity("/kubepods/podx"), unknown(why::POD_UID));
}

#[test]
fn a_named_pod_shows_its_name() {
    let mut pod = PodFacts {
        namespace: "shop".into(),
        name: "cart-7d9-x".into(),
        workload: WorkloadRef { kind: "Deployment".into(), name: "cart".into() },
        containers: vec![ContainerFacts { name: "app".into(), ids: vec!["f".repeat(64).into()], ..Default::default() }],
        ..PodFacts::default()
    };
    let cgroup = parse(&format!("/kubepods/pod{UID}/{}", id()));
    let identity = identify(&cgroup, Some(&pod));
    assert_eq!((&*identity.namespace, &*identity.pod, &*identity.workload), ("shop", "cart-7d9-x", "cart"));
    assert_eq!((&*identity.uid, identity.container), (UID, id()), "the status does not name this container");
    pod.containers[0].ids.push(id().into());
    assert_eq!(identify(&cgroup, Some(&pod)).container, "app");
    pod.workload = WorkloadRef { kind: "Pod".into(), name: "cart-7d9-x".into() };
    assert_eq!(identify(&cgroup, Some(&pod)).workload, "cart-7d9-x");
    pod.workload = WorkloadRef { kind: "Node".into(), name: "node-1".into() };
    pod.name = "kube-proxy-node-1".into();
    assert_eq!(identify(&cgroup, Some(&pod)).workload, "kube-proxy");
}

#[test]
fn an_unknown_cgroup_is_unknown_until_told_and_remembered_when_gone() {
    let mut attribution = Attribution::default();
    assert_eq!(*attribution.who(9, None, &Pods::default()), unknown(why::CGROUP));
    attribution.present(9, "/system.slice/a.service");
    assert_eq!(*attribution.who(9, None, &Pods::default()), host("a.service"));
    assert!(
        Arc::ptr_eq(&attribution.who(9, None, &Pods::default()), &attribution.who(9, None, &Pods::default())),
        "made once"
    );
    attribution.gone(9, BootNs(1));
    assert_eq!(*attribution.who(9, None, &Pods::default()), host("a.service"));
    attribution.expire(BootNs(2 + crate::cgroup::REMEMBER_GONE_NS));
    assert_eq!(*attribution.who(9, None, &Pods::default()), unknown(why::CGROUP));
    assert_eq!(*attribution.who(0, None, &Pods::default()), unknown(why::NO_ROOM));
}

#[test]
fn the_root_is_the_host_unless_containers_live_in_version_1() {
    let mut attribution = Attribution::default();
    assert_eq!(*attribution.who(ROOT_ID, None, &Pods::default()), host("host"));
    let unit = attribution.path_v1("/system.slice/sshd.service");
    assert_eq!(*attribution.who(ROOT_ID, Some(&unit), &Pods::default()), host("sshd.service"));
    assert_eq!(*attribution.who(ROOT_ID, None, &Pods::default()), host("host"));
    let pod = attribution.path_v1(&format!("/kubepods/pod{UID}/{}", id()));
    assert_eq!(attribution.who(ROOT_ID, Some(&pod), &Pods::default()).uid, UID);
    assert_eq!(*attribution.who(ROOT_ID, None, &Pods::default()), unknown(why::VERSION_1));
    // Its own cgroup2 cgroup says more than a version 1 path.
    attribution.present(9, "/system.slice/a.service");
    assert_eq!(*attribution.who(9, Some(&pod), &Pods::default()), host("a.service"));
}

#[test]
fn the_living_are_told_from_the_remembered() {
    let mut attribution = Attribution::default();
    attribution.present(8, "/system.slice/a.service");
    attribution.present(9, "/system.slice/b.service");
    attribution.gone(8, BootNs(1));
    assert_eq!(attribution.living(&Pods::default()).collect::<Vec<_>>(), [host("b.service")]);
    attribution.present(8, "/system.slice/a.service");
    assert_eq!(attribution.living(&Pods::default()).count(), 2);
}
