//! A node with pods in all placements, its interfaces and their groups.

use std::net::IpAddr;
use std::sync::Arc;

use agent_ebpf::wire::{Direction, Outcome};

use crate::capacity::{IpamFacts, IpamSettings};
use crate::engine::{Engine, EngineConfig};
use crate::facts::{
    ClusterFact, Ec2Fact, GroupFacts, HostFact, InterfaceFacts, NodeFacts, PeerInterface, PodFacts, PolicyFacts,
    Selector,
};
use crate::input::{Input, TcpFact};
use crate::output::{FlowRow, JudgedBy, Output, SgRow, SgVerdict, SgWhy};
use crate::sg::{Group, Peer, Rule, RuleId, Service, Side, Transport};
use crate::testing::*;
use crate::time::{BootNs, WallNs};

/// Wall time of boot second 0.
pub(super) const EPOCH: i64 = 1_767_323_000;

/// What a row's `sg` says.
#[derive(Debug, PartialEq)]
pub(super) struct Said {
    pub(super) verdict: SgVerdict,
    pub(super) by: Option<JudgedBy>,
    pub(super) rules: String,
    pub(super) why: Option<SgWhy>,
}

pub(super) struct World {
    pub(super) engine: Engine,
    second: u64,
    /// Rows since they were taken last.
    rows: Vec<FlowRow>,
}

pub(super) fn node() -> NodeFacts {
    NodeFacts { name: "n".into(), addresses: vec![ip("10.0.0.10")], branch_interfaces: Some(9), ..NodeFacts::default() }
}

pub(super) fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

/// `sgr-NAME`: TCP to one port, and one peer: a range or a group.
pub(super) fn rule(name: &str, side: Side, port: Option<u16>, peer: &str) -> Rule {
    let service =
        port.map_or(Service::All, |port| Service::Ports { transport: Transport::Tcp, first: port, last: port });
    let peer = match peer.parse() {
        Ok(net) => Peer::Net(net),
        Err(_) => Peer::Group { id: peer.parse().unwrap(), account: None, stale: None },
    };
    Rule { id: RuleId::given(&format!("sgr-{name}")), side, service, peer }
}

pub(super) fn group(id: &str, rules: Vec<Rule>) -> GroupFacts {
    GroupFacts {
        group: Group { id: id.parse().unwrap(), name: Some(format!("the-{id}").into()), vpc: None, owner: None, rules },
        clusters: vec![],
    }
}

pub(super) fn groups() -> Ec2Fact {
    groups_at(EPOCH + 1)
}

/// Told at a second of the wall clock.
pub(super) fn groups_at(second: i64) -> Ec2Fact {
    let groups = vec![
        group(
            "sg-pod",
            vec![
                rule("db", Side::Egress, Some(5432), "10.0.0.0/16"),
                rule("web", Side::Egress, Some(443), "0.0.0.0/0"),
                rule("cache", Side::Egress, Some(6379), "sg-cache"),
                rule("probe", Side::Ingress, Some(8080), "sg-node"),
                rule("never", Side::Ingress, Some(9999), "10.0.0.0/16"),
            ],
        ),
        group("sg-node", vec![rule("node-out", Side::Egress, None, "0.0.0.0/0")]),
        group("sg-cache", vec![rule("cache-in", Side::Ingress, Some(6379), "sg-pod")]),
    ];
    Ec2Fact::Groups { groups, missing: vec![], at: WallNs(second * 1_000_000_000) }
}

pub(super) fn interface(id: &str, groups: &[&str], addresses: &[&str]) -> InterfaceFacts {
    InterfaceFacts {
        id: id.into(),
        groups: groups.iter().map(|id| id.parse().unwrap()).collect(),
        addresses: addresses.iter().map(|text| ip(text)).collect(),
        ..InterfaceFacts::default()
    }
}

/// 1 and 3 have branch interfaces, 2 has an address of the node's, 4 the node's network, 5 is nobody's concern.
fn told_pods() -> Vec<PodFacts> {
    let mut plain = pod(2);
    plain.ips = vec![ip("10.0.1.20")];
    let mut host = pod(4);
    (host.host_network, host.ips) = (true, vec![ip("10.0.0.10")]);
    let mut other = pod(5);
    other.namespace = "other".into();
    vec![enforced(1), plain, enforced(3), host, other]
}

impl World {
    /// All is known but the CNI's settings.
    pub(super) fn new(strict: bool) -> Self {
        let mut world = Self::without_ec2(strict);
        let interfaces = vec![
            interface("eni-1", &["sg-pod"], &["10.0.9.1"]),
            interface("eni-3", &["sg-pod"], &["10.0.9.3"]),
            interface("eni-node", &["sg-node"], &["10.0.0.10", "10.0.1.20"]),
        ];
        let at = WallNs((EPOCH + 1) * 1_000_000_000);
        world.ec2(Ec2Fact::Interfaces { interfaces, missing: vec![], at });
        world.ec2(groups());
        let ranges = vec!["10.0.0.0/16".parse().unwrap()];
        world.ec2(Ec2Fact::Vpc { id: "vpc-1".into(), ranges, at });
        world
    }

    /// The cluster and the node are known, EC2 is not.
    pub(super) fn without_ec2(strict: bool) -> Self {
        let mut world = Self::bare();
        world.feed(pods(told_pods()));
        let policy = PolicyFacts {
            namespace: "shop".into(),
            name: "cart".into(),
            pod_selector: Some(Selector::default()),
            groups: vec!["sg-pod".into()],
            ..PolicyFacts::default()
        };
        let policies = vec![Arc::new(policy)];
        world.feed(cluster(ClusterFact::PoliciesReplaced { policies, installed: true }));
        world.modes(&[(1, strict), (3, strict)]);
        world
    }

    /// A node with pods, where nobody knows of groups.
    pub(super) fn bare() -> Self {
        let mut world = Self { engine: Engine::new(EngineConfig::default()), second: 0, rows: Vec::new() };
        world.wait(1);
        world.feed(cluster(ClusterFact::Node(Arc::new(node()))));
        world.feed(Input::NodeAddresses(vec![ip("10.0.0.10"), ip("127.0.0.1")]));
        for n in 1..6 {
            world.feed(pod_present(n));
        }
        world.feed(pods([told_pods().swap_remove(1)]));
        world
    }

    pub(super) fn feed(&mut self, input: Input) {
        let mut outputs = Vec::new();
        self.engine.handle(input, &mut outputs);
        self.rows.extend(outputs.into_iter().filter_map(|output| match output {
            Output::Flow(row) => Some(*row),
            _ => None,
        }));
    }

    pub(super) fn ec2(&mut self, fact: Ec2Fact) {
        self.feed(Input::Ec2(Box::new(fact)));
    }

    /// Whose address that is, told now.
    pub(super) fn peer(&mut self, address: &str, groups: &[&str]) {
        let interface = Some(interface("eni-peer", groups, &[address]));
        let at = WallNs((EPOCH + i64::try_from(self.second).unwrap()) * 1_000_000_000);
        self.ec2(Ec2Fact::Peers { peers: vec![PeerInterface { ip: ip(address), interface }], at });
    }

    /// The pods with branch interfaces, and whether each is in strict mode.
    pub(super) fn modes(&mut self, modes: &[(u32, bool)]) {
        self.feed(Input::Host(Box::new(links(modes))));
    }

    pub(super) fn snat(&mut self, external: Option<bool>) {
        let settings = Some(IpamSettings { external_snat: external, ..IpamSettings::default() });
        let facts = IpamFacts { settings, ..IpamFacts::default() };
        self.feed(Input::Host(Box::new(HostFact::Ipam(Box::new(facts)))));
    }

    pub(super) fn wait(&mut self, seconds: u64) {
        for _ in 0..seconds {
            self.second += 1;
            let wall = WallNs((EPOCH + i64::try_from(self.second).unwrap()) * 1_000_000_000);
            self.feed(Input::Tick { boot: BootNs(self.second * SECOND), wall });
        }
    }

    /// The wall clock's second.
    pub(super) fn second(&self) -> i64 {
        EPOCH + i64::try_from(self.second).unwrap()
    }

    /// The last row.
    pub(super) fn row(&self) -> &FlowRow {
        self.rows.last().unwrap()
    }

    /// What the last row says once it is changed.
    pub(super) fn again(&mut self, change: impl FnOnce(&mut FlowRow)) -> Option<Said> {
        let mut row = self.row().clone();
        change(&mut row);
        row.sg = None;
        let mut rows = [Output::Flow(Box::new(row))];
        self.engine.judge_rows(&mut rows);
        let [Output::Flow(row)] = &rows else { panic!("{rows:?}") };
        row.sg.as_deref().map(Said::of)
    }

    pub(super) fn outbound(&mut self, n: u32, peer: &str, port: u16) -> Option<Said> {
        // Without an answer, so that a missing rule is no riddle.
        self.flow(n, Direction::Outbound, peer, port, Outcome::TimedOut)
    }

    pub(super) fn inbound(&mut self, n: u32, peer: &str, port: u16) -> Option<Said> {
        self.flow(n, Direction::Inbound, peer, port, Outcome::Established)
    }

    /// A connection of a pod, told at the end of the fold.
    pub(super) fn connect(&mut self, n: u32, peer: &str, port: u16) {
        let fact =
            TcpFact { cgroup_id: pod_cgroup(n), ends: ends(&format!("10.0.9.{n}"), 40_000, peer, port), ..tcp(1) };
        self.feed(Input::Tcp(fact));
    }

    /// One connection of a pod, and what its row says.
    pub(super) fn flow(
        &mut self,
        n: u32,
        direction: Direction,
        peer: &str,
        port: u16,
        outcome: Outcome,
    ) -> Option<Said> {
        let address = match n {
            2 => "10.0.1.20".to_owned(),
            4 => "10.0.0.10".to_owned(),
            n => format!("10.0.9.{n}"),
        };
        let local = if ip(peer).is_loopback() { "127.0.0.1" } else { &address };
        let (local_port, remote_port) = if direction == Direction::Inbound { (port, 40_000) } else { (40_000, port) };
        let established = outcome == Outcome::Established;
        let fact = TcpFact {
            cgroup_id: pod_cgroup(n),
            direction,
            outcome,
            established,
            srtt_us: established.then_some(300),
            bytes_sent: 0,
            bytes_received: 0,
            ends: ends(local, local_port, peer, remote_port),
            ..tcp(1)
        };
        self.rows.clear();
        self.feed(Input::Tcp(fact));
        self.wait(10);
        let [row] = &self.rows[..] else { panic!("{:?}", self.rows) };
        row.sg.as_deref().map(Said::of)
    }
}

impl Said {
    fn of(sg: &SgRow) -> Self {
        Self { verdict: sg.verdict, by: sg.by, rules: sg.rules.join(","), why: sg.why }
    }
}
