//! Whole nodes, from their files and local servers to the row of their ceilings, against `golden/NAME.json`.
//! `SEKISHO_UPDATE_DOCS=1` writes those anew.

use agent_core::capacity::model::Capacity;
use agent_core::facts::{ClusterFact, CsiNodeFacts, NodeFacts, PodFacts, Requests};
use agent_core::time::{BootNs, Clock, WallNs};

use super::addresses::{nobody, serve};
use super::*;
use crate::node::collect::http::Peer;
use crate::node::collect::{
    conntrack, disks, ebs, ena, instance_type, ipam, kubelet, memory, neighbours, open_files, ports, threads,
};

/// What the API tells of a node.
struct Cluster {
    pods: u32,
    branch_interfaces: Option<u32>,
    compute_type: Option<&'static str>,
}

/// ipamd's pages.
type Pages<'a> = &'a [(&'static str, &'a str)];

/// A kernel as it is on any Linux machine, with two pods of two containers each.
fn machine() -> Fixture {
    let node = Fixture::new();
    node.put("proc/loadavg", "0.10 0.20 0.30 3/900 4711\n");
    node.put("proc/sys/kernel/pid_max", "4194304\n").put("proc/sys/kernel/threads-max", "62000\n");
    node.put("cgroup/cgroup.controllers", "cpu memory pids\n");
    node.put("proc/sys/net/netfilter/nf_conntrack_count", "1200\n");
    node.put("proc/sys/net/netfilter/nf_conntrack_max", "131072\n");
    node.put("proc/self/net/stat/nf_conntrack", CONNTRACK);
    node.put("proc/self/net/stat/arp_cache", "entries table_fulls\n00000020 00000000\n");
    node.put("proc/sys/net/ipv4/neigh/default/gc_thresh3", "16384\n");
    node.put("proc/meminfo", devices::MEMINFO);
    node.put("proc/sys/net/ipv4/ip_local_port_range", "32768 60999\n");
    node.put("proc/self/net/tcp", "head\n").put("proc/self/net/netstat", "").put("proc/self/net/dev", "");
    node.put("proc/1/mountinfo", devices::HOST_MOUNTS).put("proc/self/mountinfo", devices::OWN_MOUNTS);
    node.put("sys/block/loop0/stat", "0\n");
    fs::create_dir_all(node.roots.sys.join("class/net")).expect("a directory");
    node.process(1, "systemd", 9, "1048576");
    node
}

/// The same on EC2, with Kubernetes.
fn worker(instance_type: &str) -> Fixture {
    let node = machine();
    node.put("sys/devices/virtual/dmi/id/sys_vendor", "Amazon EC2\n");
    node.put("sys/devices/virtual/dmi/id/product_name", &format!("{instance_type}\n"));
    for number in [1, 2] {
        let pid = u32::from(number) * 10;
        node.pod(number, &[pid]).process(pid, "app", 5, "65536");
        node.pids(&slice(number), "12", "1024", 0).pids(
            &format!("{}/{}", slice(number), scope(number)),
            "12",
            "max",
            0,
        );
    }
    node.pids("kubepods.slice", "24", "50000", 0).pids("kubepods.slice/kubepods-burstable.slice", "24", "max", 0);
    devices::volume(&node, "nvme0n1", "vol0aaa", "1 0 8 0 1 0 8 0 0 0 0\n");
    node.put("etc/kubernetes/kubelet/config.json", r#"{"maxPods":29}"#);
    node
}

fn checkpoint(ips: &[&str]) -> String {
    let allocation = |(number, ip): (usize, &&str)| {
        let (v4, v6) = if ip.contains(':') { ("", *ip) } else { (*ip, "") };
        format!(
            r#"{{"containerID":"s{number}","ipv4":"{v4}","ipv6":"{v6}","metadata":{{"k8sPodNamespace":"shop","k8sPodName":"p{number}"}}}}"#
        )
    };
    let allocations: Vec<String> = ips.iter().enumerate().map(allocation).collect();
    format!(r#"{{"version":"vpc-cni-ipam/1","allocations":[{}]}}"#, allocations.join(","))
}

fn metrics(interfaces: u32, of: u32, total: u32, assigned: u32, prefixes: u32, most: u32) -> String {
    format!(
        "awscni_eni_allocated {interfaces}\nawscni_eni_max {of}\nawscni_ip_max {most}\nawscni_total_ip_addresses {total}\n\
         awscni_assigned_ip_addresses {assigned}\nawscni_total_ipv4_prefixes {prefixes}\n"
    )
}

/// Introspection of interfaces with so many addresses or prefixes each; a trunk has none.
fn enis(interfaces: &[(&str, u32, bool)], total: u32, assigned: u32) -> String {
    let interface = |(number, (kind, cidrs, is_prefix)): (usize, &(&str, u32, bool))| {
        let cidr = |at| format!(r#""10.0.{number}.{at}/x":{{"IsPrefix":{is_prefix},"IPAddresses":{{}}}}"#);
        let cidrs: Vec<String> = (0..*cidrs).map(cidr).collect();
        format!(
            r#""eni-{number}":{{"IsPrimary":{},"IsTrunk":{},"DeviceNumber":{number},"AvailableIPv4Cidrs":{{{}}}}}"#,
            *kind == "primary",
            *kind == "trunk",
            cidrs.join(",")
        )
    };
    let interfaces: Vec<String> = interfaces.iter().enumerate().map(interface).collect();
    format!(r#"{{"0":{{"TotalIPs":{total},"AssignedIPs":{assigned},"ENIs":{{{}}}}}}}"#, interfaces.join(","))
}

/// Looks at all that files and servers tell, models it, and compares the row.
fn check(name: &str, node: &Fixture, pages: Pages<'_>, cluster: Option<&Cluster>) {
    let peer = || if pages.is_empty() { nobody() } else { serve(pages) };
    let (roots, shared, pods) = (&node.roots, ipam::Shared::default(), node.pods());
    let looks: Vec<Box<dyn Look>> = vec![
        Box::new(threads::Threads::new(roots, Arc::clone(&pods), 20)),
        Box::new(open_files::OpenFiles::new(roots, Arc::clone(&pods))),
        Box::new(ports::Ports::new(roots, pods)),
        Box::new(conntrack::Conntrack::new(roots)),
        Box::new(memory::Memory::new(roots)),
        Box::new(ena::Ena::new(roots, devices::ask)),
        Box::new(neighbours::Neighbours::new(roots)),
        Box::new(disks::Disks::new(roots, devices::measure)),
        Box::new(ebs::Ebs::new(roots)),
        Box::new(kubelet::Kubelet::new(roots)),
        Box::new(instance_type::InstanceType::new(roots, Peer::new(&Endpoint::Off, "IMDS"))),
        Box::new(ipam::Checkpoint::new(roots, shared.clone())),
        Box::new(ipam::Metrics::new(peer(), shared.clone())),
        Box::new(ipam::Introspection::new(peer(), shared)),
    ];
    let now = BootNs(1_000_000_000);
    let mut capacity = Capacity::default();
    for mut look in looks {
        let mut facts = Vec::new();
        if let Err(error) = look.look(&mut facts) {
            assert!(error.is_absent(), "{name}: {}", error.chain());
        }
        for fact in &facts {
            capacity.host(fact, now);
        }
    }
    if let Some(Cluster { pods, branch_interfaces, compute_type }) = cluster {
        let facts = NodeFacts {
            pods: Some(*pods),
            cpu_milli: Some(1_930),
            memory_bytes: Some(7 << 30),
            branch_interfaces: *branch_interfaces,
            compute_type: compute_type.map(Into::into),
            ..NodeFacts::default()
        };
        capacity.cluster(&ClusterFact::Node(Arc::new(facts)), now);
        capacity.cluster(&ClusterFact::CsiNode(Some(CsiNodeFacts { ebs_volumes: Some(25) })), now);
        let pod = |number: u8| {
            let requests = Requests { cpu_milli: 100, memory_bytes: 128 << 20, ..Requests::default() };
            let name = format!("p{number}").into();
            Arc::new(PodFacts {
                uid: Some(uid(number).into()),
                namespace: "shop".into(),
                name,
                requests,
                ..PodFacts::default()
            })
        };
        capacity.cluster(&ClusterFact::PodsReplaced(vec![pod(1), pod(2)]), now);
    }
    let clock = Clock::new(now, WallNs(1_700_000_000_000_000_000));
    let row = capacity.tick(now, clock).unwrap_or_else(|| capacity.row(now, clock));
    let text = serde_json::to_string_pretty(&row).expect("JSON") + "\n";
    let text = text.replace(node.root.path().to_str().expect("a path"), "");
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("src/node/collect/tests/golden/{name}.json"));
    if std::env::var_os("SEKISHO_UPDATE_DOCS").is_some() {
        fs::write(&path, &text).expect("the file can be written");
    }
    let golden = fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    assert_eq!(golden, text, "{name} changed: look at it, then run the tests once with SEKISHO_UPDATE_DOCS=1");
}

const SETTINGS: &str = r#"{"WARM_IP_TARGET":0,"WARM_ENI_TARGET":1,"AWS_VPC_K8S_CNI_CUSTOM_NETWORK_CFG":false}"#;
const NETWORK: &str = r#"{"AWS_VPC_K8S_CNI_EXTERNALSNAT":false}"#;

/// The pages of an ipamd.
fn ipamd<'a>(metrics: &'a str, enis: &'a str) -> [(&'static str, &'a str); 4] {
    [
        ("/metrics", metrics),
        ("/v1/enis", enis),
        ("/v1/ipamd-env-settings", SETTINGS),
        ("/v1/networkutils-env-settings", NETWORK),
    ]
}

const MANAGED: Cluster = Cluster { pods: 29, branch_interfaces: None, compute_type: None };

#[test]
fn amazon_linux_2023() {
    let node = worker("m5.large");
    node.put("etc/kubernetes/kubelet/config.json.d/40-nodeadm.conf", r#"{"maxPods":29}"#);
    node.put("run/aws-node/ipam.json", &checkpoint(&["10.0.0.1", "10.0.0.2", "10.0.0.3"]));
    let enis = enis(&[("primary", 9, false), ("other", 9, false)], 18, 3);
    check("amazon_linux_2023", &node, &ipamd(&metrics(2, 3, 18, 3, 0, 27), &enis), Some(&MANAGED));
}

#[test]
fn bottlerocket() {
    let node = worker("m5.xlarge");
    let root = "259:1 / / rw,noatime shared:1 - xfs /dev/nvme0n1p1 rw";
    node.put("proc/1/mountinfo", &devices::HOST_MOUNTS.replace(root, devices::IMAGE));
    node.remove("etc/kubernetes/kubelet/config.json");
    node.put("etc/kubernetes/kubelet/config", "kind: KubeletConfiguration\nmaxPods: 58\npodPidsLimit: 1048576\n");
    node.put("run/aws-node/ipam.json", &checkpoint(&["10.0.0.1", "10.0.0.2"]));
    let enis = enis(&[("primary", 14, false), ("other", 14, false)], 28, 2);
    let cluster = Cluster { pods: 58, ..MANAGED };
    check("bottlerocket", &node, &ipamd(&metrics(2, 4, 28, 2, 0, 56), &enis), Some(&cluster));
}

#[test]
fn prefix_delegation() {
    let node = worker("m5.large");
    node.put("etc/kubernetes/kubelet/config.json", r#"{"maxPods":110}"#);
    node.put("run/aws-node/ipam.json", &checkpoint(&["10.0.0.1", "10.0.0.2"]));
    let enis = enis(&[("primary", 2, true)], 32, 2);
    let cluster = Cluster { pods: 110, ..MANAGED };
    check("prefix_delegation", &node, &ipamd(&metrics(1, 3, 32, 2, 2, 432), &enis), Some(&cluster));
}

#[test]
fn strict_security_groups() {
    let node = worker("m5.large");
    node.put("run/aws-node/ipam.json", &checkpoint(&["10.0.0.1"]));
    let enis = enis(&[("primary", 9, false), ("trunk", 0, false), ("other", 9, false)], 18, 1);
    let cluster = Cluster { branch_interfaces: Some(9), ..MANAGED };
    check("strict_security_groups", &node, &ipamd(&metrics(3, 3, 18, 1, 0, 27), &enis), Some(&cluster));
}

#[test]
fn ipv6() {
    let node = worker("m5.large");
    node.put("run/aws-node/ipam.json", &checkpoint(&["2600::1", "2600::2"]));
    let enis = r#"{"0":{"TotalIPs":281474976710656,"AssignedIPs":2,"ENIs":{"eni-a":{"IsPrimary":true,
        "AvailableIPv4Cidrs":{},"IPv6Cidrs":{"2600::/80":{"IsPrefix":true,"IPAddresses":{}}}}}}}"#;
    let cluster = Cluster { pods: 110, ..MANAGED };
    check("ipv6", &node, &ipamd(&metrics(1, 3, 0, 2, 0, 0), enis), Some(&cluster));
}

/// ipamd is a service of the system there and shows nothing.
#[test]
fn auto_mode() {
    let node = worker("m6i.large");
    let cluster = Cluster { pods: 27, compute_type: Some("auto"), ..MANAGED };
    check("auto_mode", &node, &[], Some(&cluster));
}

#[test]
fn plain_linux() {
    check("plain_linux", &machine(), &[], None);
}
