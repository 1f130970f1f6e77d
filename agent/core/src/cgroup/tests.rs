//! Paths as kubelets, runtimes and systemd make them, and strings that nobody makes.

use proptest::prelude::*;

use super::*;
use crate::time::BootNs;

const ID: &str = "0f1e2d3c4b5a69788796a5b4c3d2e1f00f1e2d3c4b5a69788796a5b4c3d2e1f0";
const ID2: &str = "aaaaaaaaaaaaaaaabbbbbbbbbbbbbbbbccccccccccccccccdddddddddddddddd";
const UID: &str = "6f0d2c1e-8a52-4b7e-9d0c-1a2b3c4d5e6f";
const UID_: &str = "6f0d2c1e_8a52_4b7e_9d0c_1a2b3c4d5e6f";
const STATIC: &str = "0123456789abcdef0123456789abcdef";

fn pod(uid: &str, qos: Qos, container: Option<(&str, Runtime)>) -> CgroupIdentity {
    let container = container.map(|(id, runtime)| ContainerRef { id: id.to_owned(), runtime });
    CgroupIdentity::Pod(PodCgroup { uid: uid.to_owned(), qos, container })
}

fn container(id: &str, runtime: Runtime) -> CgroupIdentity {
    CgroupIdentity::Container(ContainerRef { id: id.to_owned(), runtime })
}

fn unit(name: &str) -> CgroupIdentity {
    CgroupIdentity::Unit(name.to_owned())
}

#[test]
fn pods_by_path() {
    use Qos::{BestEffort, Burstable, Guaranteed};
    use Runtime::{Containerd, Crio, Docker, Unknown};
    let cases = [
        // EKS: systemd driver, containerd.
        (
            format!("/kubepods.slice/kubepods-pod{UID_}.slice/cri-containerd-{ID}.scope"),
            pod(UID, Guaranteed, Some((ID, Containerd))),
        ),
        (
            format!(
                "/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod{UID_}.slice/cri-containerd-{ID}.scope"
            ),
            pod(UID, Burstable, Some((ID, Containerd))),
        ),
        (
            format!(
                "/kubepods.slice/kubepods-besteffort.slice/kubepods-besteffort-pod{UID_}.slice/cri-containerd-{ID}.scope"
            ),
            pod(UID, BestEffort, Some((ID, Containerd))),
        ),
        // The pod's own cgroup; without a leading slash; gone, as /proc shows it.
        (format!("/kubepods.slice/kubepods-pod{UID_}.slice"), pod(UID, Guaranteed, None)),
        (format!("kubepods.slice/kubepods-pod{UID_}.slice/"), pod(UID, Guaranteed, None)),
        (
            format!("/kubepods.slice/kubepods-pod{UID_}.slice/cri-containerd-{ID}.scope (deleted)"),
            pod(UID, Guaranteed, Some((ID, Containerd))),
        ),
        // A static pod.
        (
            format!(
                "/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod{STATIC}.slice/cri-containerd-{ID}.scope"
            ),
            pod(STATIC, Burstable, Some((ID, Containerd))),
        ),
        // CRI-O, its monitor, and Docker.
        (format!("/kubepods.slice/kubepods-pod{UID_}.slice/crio-{ID}.scope"), pod(UID, Guaranteed, Some((ID, Crio)))),
        (
            format!("/kubepods.slice/kubepods-pod{UID_}.slice/crio-{ID}.scope/container"),
            pod(UID, Guaranteed, Some((ID, Crio))),
        ),
        (format!("/kubepods.slice/kubepods-pod{UID_}.slice/crio-conmon-{ID}.scope"), pod(UID, Guaranteed, None)),
        (
            format!("/kubepods.slice/kubepods-pod{UID_}.slice/docker-{ID}.scope"),
            pod(UID, Guaranteed, Some((ID, Docker))),
        ),
        // The cgroupfs driver, with and without prefixes.
        (format!("/kubepods/pod{UID}/{ID}"), pod(UID, Guaranteed, Some((ID, Unknown)))),
        (format!("/kubepods/burstable/pod{UID}/{ID}"), pod(UID, Burstable, Some((ID, Unknown)))),
        (format!("/kubepods/besteffort/pod{UID}/crio-{ID}"), pod(UID, BestEffort, Some((ID, Crio)))),
        (format!("/kubepods/besteffort/pod{UID}/crio-conmon-{ID}"), pod(UID, BestEffort, None)),
        (format!("/kubepods/burstable/pod{UID}"), pod(UID, Burstable, None)),
        (format!("/kubepods/burstable/pod{STATIC}/{ID}"), pod(STATIC, Burstable, Some((ID, Unknown)))),
        // kind: below a container, below a cgroup root of its own.
        (
            format!(
                "/kubelet.slice/kubelet-kubepods.slice/kubelet-kubepods-burstable.slice/kubelet-kubepods-burstable-pod{UID_}.slice/cri-containerd-{ID}.scope"
            ),
            pod(UID, Burstable, Some((ID, Containerd))),
        ),
        (
            format!(
                "/system.slice/docker-{ID2}.scope/kubelet.slice/kubelet-kubepods.slice/kubelet-kubepods-pod{UID_}.slice/cri-containerd-{ID}.scope"
            ),
            pod(UID, Guaranteed, Some((ID, Containerd))),
        ),
        (format!("/docker/{ID2}/kubelet/kubepods/besteffort/pod{UID}/{ID}"), pod(UID, BestEffort, Some((ID, Unknown)))),
        // The kubelet speaks systemd, the runtime does not.
        (
            format!("/system.slice/containerd.service/kubepods-burstable-pod{UID_}.slice:cri-containerd:{ID}"),
            pod(UID, Burstable, Some((ID, Containerd))),
        ),
        (
            format!("/kubepods-besteffort-pod{UID_}.slice:cri-containerd:{ID}"),
            pod(UID, BestEffort, Some((ID, Containerd))),
        ),
        // What runs inside stays the container's: systemd, Docker, another Kubernetes.
        (
            format!("/kubepods.slice/kubepods-pod{UID_}.slice/cri-containerd-{ID}.scope/init.scope"),
            pod(UID, Guaranteed, Some((ID, Containerd))),
        ),
        (
            format!("/kubepods.slice/kubepods-pod{UID_}.slice/cri-containerd-{ID}.scope/docker/{ID2}"),
            pod(UID, Guaranteed, Some((ID, Containerd))),
        ),
        (
            format!("/kubepods/pod{UID}/{ID}/kubepods/pod00000000-0000-0000-0000-000000000000/{ID2}"),
            pod(UID, Guaranteed, Some((ID, Unknown))),
        ),
        // Relative to a reader in a cgroup namespace.
        (
            format!("/../../kubepods.slice/kubepods-pod{UID_}.slice/cri-containerd-{ID}.scope"),
            pod(UID, Guaranteed, Some((ID, Containerd))),
        ),
    ];
    for (path, expected) in cases {
        assert_eq!(parse(&path), expected, "{path}");
    }
}

#[test]
fn everything_else_by_path() {
    use Runtime::{Containerd, Crio, Docker, Unknown};
    let cases = [
        ("/".to_owned(), CgroupIdentity::Root),
        (String::new(), CgroupIdentity::Root),
        (format!("/docker/{ID}"), container(ID, Docker)),
        (format!("/docker/{ID}/docker/{ID2}"), container(ID, Docker)),
        (format!("/docker/{ID}/system.slice/kubelet.service"), container(ID, Docker)),
        (format!("/system.slice/docker-{ID}.scope"), container(ID, Docker)),
        (format!("/system.slice/docker-{ID}.scope/init.scope"), container(ID, Docker)),
        (format!("/machine.slice/libpod-{ID}.scope/container"), container(ID, Unknown)),
        (format!("/system.slice/crio-{ID}.scope"), container(ID, Crio)),
        (format!("/default/{ID}"), container(ID, Unknown)),
        (format!("/system.slice:cri-containerd:{ID}"), container(ID, Containerd)),
        (format!("/ecs/task/{ID}"), container(ID, Unknown)),
        // A monitor is a host process; its name must not be one label value per container.
        (format!("/system.slice/crio-conmon-{ID}.scope"), unit("crio-conmon")),
        (format!("/machine.slice/libpod-conmon-{ID}.scope"), unit("libpod-conmon")),
        ("/system.slice/sshd.service".to_owned(), unit("sshd.service")),
        ("/runtime.slice/kubelet.service".to_owned(), unit("kubelet.service")),
        ("/system.slice/system-getty.slice/getty@tty1.service".to_owned(), unit("getty@tty1.service")),
        ("/system.slice/foo.service/payload".to_owned(), unit("foo.service")),
        ("/user.slice/user-1000.slice/user@1000.service/app.slice/app-x.scope".to_owned(), unit("app-x.scope")),
        ("/user.slice/user-0.slice/session-3.scope".to_owned(), unit("session-3.scope")),
        ("/init.scope".to_owned(), unit("init.scope")),
        ("/kubepods.slice/kubepods-burstable.slice".to_owned(), unit("kubepods-burstable.slice")),
        ("/kubepods/burstable".to_owned(), CgroupIdentity::Other),
        ("/a/b".to_owned(), CgroupIdentity::Other),
        ("/.service".to_owned(), CgroupIdentity::Other),
        // Not a pod's place: no kubepods above, or beside.
        (format!("/pod{UID}/x"), CgroupIdentity::Other),
        (format!("/kubepods/other/pod{UID}"), CgroupIdentity::Other),
        (format!("/xkubepods-pod{UID_}.slice"), unit(&format!("xkubepods-pod{UID_}.slice"))),
        // A uid that is none, or cut short, is not taken for one.
        ("/kubepods.slice/kubepods-podfoo.slice/x".to_owned(), CgroupIdentity::PodWithoutUid),
        (format!("/kubepods/pod{}", &UID[..35]), CgroupIdentity::PodWithoutUid),
        // Ids of the wrong length or alphabet are not containers.
        (format!("/docker/{}", &ID[1..]), CgroupIdentity::Other),
        (format!("/docker/g{}", &ID[1..]), CgroupIdentity::Other),
        (format!("/docker/x{ID}"), CgroupIdentity::Other),
    ];
    for (path, expected) in cases {
        assert_eq!(parse(&path), expected, "{path}");
    }
}

#[test]
fn a_static_pod_is_told_by_its_uid() {
    let is_static = |uid: &str| match parse(&format!("/kubepods/pod{uid}")) {
        CgroupIdentity::Pod(pod) => pod.is_static(),
        other => panic!("{other:?}"),
    };
    assert!(is_static(STATIC));
    assert!(!is_static(UID));
}

#[test]
fn long_names_are_cut_at_a_character() {
    let path = format!("/{}.service", "é".repeat(200));
    let CgroupIdentity::Unit(name) = parse(&path) else { panic!("not a unit") };
    assert!(name.len() <= UNIT_BYTES && name.len() > UNIT_BYTES - 2);
}

proptest! {
    #[test]
    fn no_string_panics(path in "\\PC*") {
        parse(&path);
    }

    #[test]
    fn no_path_like_string_panics(
        segments in proptest::collection::vec(
            prop_oneof![
                Just("kubepods".to_owned()), Just("kubepods.slice".to_owned()), Just("burstable".to_owned()),
                Just("docker".to_owned()), Just(format!("crio-{ID}.scope")), Just(ID.to_owned()), Just(":".to_owned()),
                "kubepods-(burstable-)?pod[0-9a-f_é]{0,40}\\.slice(:cri-containerd:[0-9a-f]{0,70})?",
                "pod[0-9a-fé-]{0,40}", "\\PC{0,70}\\.(scope|service|slice)", "[é0-9a-f]{60,70}",
            ],
            0..6,
        )
    ) {
        parse(&segments.join("/"));
    }

    /// Whatever a container creates below itself, it stays what it is.
    #[test]
    fn nothing_below_a_container_changes_it(below in "\\PC*") {
        let base = format!("/kubepods.slice/kubepods-pod{UID_}.slice/cri-containerd-{ID}.scope");
        prop_assert_eq!(parse(&format!("{base}/{below}")), parse(&base));
        let base = format!("/system.slice/docker-{ID}.scope");
        prop_assume!(!below.contains("kubepods"));
        prop_assert_eq!(parse(&format!("{base}/{below}")), parse(&base));
    }
}

#[test]
fn the_index_remembers_the_gone_for_minutes() {
    let mut index = CgroupIndex::default();
    assert!(index.present(7, "/system.slice/a.service"));
    assert!(!index.present(7, "/system.slice/a.service"), "nothing new");
    index.gone(7, BootNs(1000));
    assert!(!index.expire(BootNs(1000 + REMEMBER_GONE_NS)));
    assert_eq!(index.get(7).as_deref(), Some(&unit("a.service")));
    assert!(index.expire(BootNs(1001 + REMEMBER_GONE_NS)));
    assert_eq!(index.get(7), None);
    assert_eq!(index.get(ROOT_ID).as_deref(), Some(&CgroupIdentity::Root));
}

#[test]
fn an_id_that_comes_back_is_not_forgotten() {
    let mut index = CgroupIndex::default();
    index.present(7, "/system.slice/a.service");
    index.gone(7, BootNs(1000));
    index.present(7, "/system.slice/b.service");
    index.expire(BootNs(5000 + REMEMBER_GONE_NS));
    assert_eq!(index.get(7).as_deref(), Some(&unit("b.service")));
}

#[test]
fn the_index_is_bounded_and_prefers_the_living() {
    let mut index = CgroupIndex::default();
    for id in 0..MAX_CGROUPS as u64 {
        index.present(id + 2, "/system.slice/a.service");
    }
    index.present(1_000_000, "/b.slice");
    assert_eq!((index.len(), index.refused(), index.get(1_000_000)), (MAX_CGROUPS, 1, None));
    index.gone(2, BootNs(1));
    index.present(1_000_000, "/b.slice");
    assert_eq!((index.len(), index.get(2)), (MAX_CGROUPS, None));
    assert!(index.get(1_000_000).is_some());
}
