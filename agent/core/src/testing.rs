//! Facts for tests, with values that differ from field to field.

use agent_ebpf::wire::{Direction, Outcome, Owner};

use std::sync::Arc;

use crate::engine::{Engine, EngineConfig};
use crate::facts::{ClusterFact, ContainerFacts, HostFact, Phase, PodFacts, WorkloadRef};
use crate::input::{AttemptFact, Ends, ExecFact, Input, NamedProcess, TcpFact, UdpFact};
use crate::output::{FlowRow, Output};
use crate::time::{BootNs, WallNs};

pub(crate) const SECOND: u64 = 1_000_000_000;
pub(crate) const CGROUP: u64 = 77;

pub(crate) fn owner(tgid: u32) -> Owner {
    Owner { start_ns: u64::from(tgid) * SECOND + 1, tgid, pad: 0 }
}

pub(crate) fn named(tgid: u32, comm: &str) -> NamedProcess {
    NamedProcess { owner: owner(tgid), comm: comm.to_owned() }
}

pub(crate) fn ends(local: &str, local_port: u16, remote: &str, remote_port: u16) -> Ends {
    Ends { local: local.parse().unwrap(), local_port, remote: remote.parse().unwrap(), remote_port, netns: 4 }
}

/// An outbound connection that ended well.
pub(crate) fn tcp(cookie: u64) -> TcpFact {
    TcpFact {
        time: BootNs(SECOND + cookie),
        cgroup_id: CGROUP,
        cookie,
        start: Some(BootNs(SECOND)),
        open: false,
        first: true,
        established: true,
        preexisting: false,
        direction: Direction::Outbound,
        outcome: Outcome::Established,
        bytes_sent: 100,
        bytes_received: 1_000,
        retransmits: 0,
        srtt_us: Some(300),
        connected: Some(owner(10)),
        listened: None,
        closed: Some(owner(11)),
        ends: ends("10.0.0.1", 40_000, "10.0.0.2", 80),
    }
}

pub(crate) fn udp(cookie: u64) -> UdpFact {
    UdpFact {
        time: BootNs(SECOND + cookie),
        cgroup_id: CGROUP,
        cookie,
        start: Some(BootNs(SECOND)),
        open: false,
        preexisting: false,
        many_peers: false,
        direction: Direction::Outbound,
        outcome: Outcome::OneWay,
        bytes_sent: 50,
        bytes_received: 0,
        packets_sent: 1,
        packets_received: 0,
        sent: Some(owner(10)),
        closed: None,
        ends: ends("10.0.0.1", 40_000, "10.0.0.2", 53),
    }
}

pub(crate) fn attempt(cookie: u64) -> AttemptFact {
    AttemptFact {
        time: BootNs(SECOND + cookie),
        start: BootNs(SECOND),
        cgroup_id: CGROUP,
        cookie,
        outcome: Outcome::Unreachable,
        connected: Some(owner(10)),
        ends: ends("0.0.0.0", 0, "10.0.0.2", 80),
    }
}

pub(crate) fn exec(tgid: u32, path: &str) -> ExecFact {
    ExecFact {
        time: BootNs(SECOND),
        cgroup_id: CGROUP,
        process: named(tgid, path.rsplit('/').next().unwrap()),
        parent: None,
        path: path.to_owned(),
        path_cut: false,
        args: Vec::new(),
        uid: 0,
    }
}

pub(crate) fn tick(second: u64) -> Input {
    Input::Tick { boot: BootNs(second * SECOND), wall: WallNs(1_767_323_045 * 1_000_000_000) }
}

/// An Engine that was told the time, and a unit as [`CGROUP`].
pub(crate) fn engine() -> Engine {
    let mut engine = Engine::new(EngineConfig::default());
    let first = [tick(1), Input::CgroupPresent { id: CGROUP, path: "/system.slice/app.service".to_owned() }];
    assert!(feed(&mut engine, first).is_empty());
    engine
}

pub(crate) fn feed(engine: &mut Engine, inputs: impl IntoIterator<Item = Input>) -> Vec<Output> {
    let mut outputs = Vec::new();
    for input in inputs {
        engine.handle(input, &mut outputs);
        assert_eq!(engine.books().imbalance(), None);
        for (ledger, line) in engine.books().lines() {
            assert_eq!(line.seen, line.accounted(), "{ledger:?}");
        }
    }
    outputs
}

pub(crate) fn flows(outputs: &[Output]) -> Vec<&FlowRow> {
    let flows = outputs.iter().filter_map(|output| match output {
        Output::Flow(row) => Some(&**row),
        _ => None,
    });
    flows.collect()
}

/// The rows of a fold of these inputs.
pub(crate) fn fold(engine: &mut Engine, inputs: impl IntoIterator<Item = Input>) -> Vec<FlowRow> {
    let outputs = feed(engine, inputs.into_iter().chain([Input::Stop]));
    flows(&outputs).into_iter().cloned().collect()
}

// === pods ===

/// Cgroup of [`pod`]'s container.
pub(crate) fn pod_cgroup(n: u32) -> u64 {
    1_000 + u64::from(n)
}

pub(crate) fn uid(n: u32) -> String {
    format!("00000000-0000-4000-8000-{n:012}")
}

pub(crate) fn container_id(n: u32) -> String {
    format!("{n:064x}")
}

/// The cgroup of a pod's container.
pub(crate) fn pod_present(n: u32) -> Input {
    let (uid, id) = (uid(n), container_id(n));
    Input::CgroupPresent { id: pod_cgroup(n), path: format!("/kubepods/burstable/pod{uid}/{id}") }
}

/// `shop/cart-N` of the Deployment `cart`, with a running container `app`.
pub(crate) fn pod(n: u32) -> PodFacts {
    PodFacts {
        namespace: "shop".into(),
        name: format!("cart-{n}").into(),
        uid: Some(uid(n).into()),
        phase: Some(Phase::Running),
        service_account: "cart".into(),
        dns: crate::facts::Dns::Cluster,
        workload: WorkloadRef { kind: "Deployment".into(), name: "cart".into() },
        containers: vec![ContainerFacts {
            name: "app".into(),
            image: "registry.example/shop/cart:1".into(),
            ids: vec![container_id(n).into()],
            running: true,
            started: true,
            ..ContainerFacts::default()
        }],
        ..PodFacts::default()
    }
}

pub(crate) fn cluster(fact: ClusterFact) -> Input {
    Input::Cluster(Box::new(fact))
}

pub(crate) fn pods(pods: impl IntoIterator<Item = PodFacts>) -> Input {
    cluster(ClusterFact::PodsReplaced(pods.into_iter().map(Arc::new).collect()))
}

/// A pod whose branch interface has its address.
pub(crate) fn enforced(n: u32) -> PodFacts {
    use crate::facts::{Branch, BranchInterface};
    let ip = format!("10.0.9.{n}").parse().unwrap();
    let branch = BranchInterface {
        id: format!("eni-{n}").into(),
        mac: mac(n).into(),
        ipv4: Some(ip),
        ipv6: None,
        vlan_id: u16::try_from(n).unwrap(),
        subnet: None,
    };
    PodFacts {
        ips: vec![ip],
        branch: Branch::Interfaces(vec![branch]),
        branch_limit: 1,
        first_container_branch_limit: true,
        ..pod(n)
    }
}

fn mac(n: u32) -> String {
    format!("02:00:00:00:00:{n:02x}")
}

/// The node's interfaces: a device and a host veth for each of these pods, in strict mode or not.
pub(crate) fn links(pods: &[(u32, bool)]) -> HostFact {
    use crate::facts::{LinkFacts, LinkKind};
    use crate::papers::enforcement::host_veth;
    let mut links = vec![LinkFacts { name: "eth0".into(), index: 2, kind: LinkKind::Ena, ..LinkFacts::default() }];
    for (n, strict) in pods {
        let prefix = if *strict { "vlan" } else { "eni" };
        let veth = host_veth(prefix, "shop", &format!("cart-{n}"), 0);
        links.push(LinkFacts { name: veth.into(), index: 10 + n, kind: LinkKind::Veth, ..LinkFacts::default() });
        links.push(LinkFacts {
            name: format!("vlan.eth.{n}").into(),
            index: 100 + n,
            mac: mac(*n).into(),
            kind: LinkKind::Vlan,
            vlan_id: u16::try_from(*n).ok(),
            ..LinkFacts::default()
        });
    }
    HostFact::Links(links)
}
