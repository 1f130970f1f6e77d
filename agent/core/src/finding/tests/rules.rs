//! Findings about security groups once their rules are known.

use std::sync::Arc;

use agent_ebpf::wire::Outcome;

use super::bench::{Bench, EPOCH, enforced, links, with_probe};
use crate::facts::{
    ClusterFact, ClusterTag, Ec2Fact, GroupFacts, HostFact, InterfaceFacts, NodeFacts, PeerInterface, PodFacts,
    PolicyFacts, ProbeKind, Selector,
};
use crate::finding::{Code, Severity};
use crate::input::{Input, TcpFact, UdpFact};
use crate::output::FindingRow;
use crate::sg::{Group, Peer, Rule, RuleId, Service, Side, Transport};
use crate::testing::{CGROUP, cluster, ends, pod, pod_cgroup, tcp, udp};
use crate::time::WallNs;

const DB: &str = "10.0.5.5";

fn at() -> WallNs {
    WallNs((EPOCH + 5) * 1_000_000_000)
}

fn rule(name: &str, side: Side, transport: Transport, port: u16, peer: &str) -> Rule {
    let peer = match peer.parse() {
        Ok(net) => Peer::Net(net),
        Err(_) => Peer::Group { id: peer.parse().unwrap(), account: None, stale: None },
    };
    let service = Service::Ports { transport, first: port, last: port };
    Rule { id: RuleId::given(&format!("sgr-{name}")), side, service, peer }
}

fn group(id: &str, rules: Vec<Rule>) -> GroupFacts {
    let group = Group { id: id.parse().unwrap(), name: None, vpc: None, owner: None, rules };
    GroupFacts { group, clusters: vec![] }
}

fn interface(id: &str, group: &str, address: &str) -> InterfaceFacts {
    InterfaceFacts {
        id: id.into(),
        groups: vec![group.parse().unwrap()],
        addresses: vec![address.parse().unwrap()],
        ..InterfaceFacts::default()
    }
}

fn ec2(bench: &mut Bench, fact: Ec2Fact) {
    bench.feed(Input::Ec2(Box::new(fact)));
}

fn groups(bench: &mut Bench, groups: Vec<GroupFacts>) {
    ec2(bench, Ec2Fact::Groups { groups, missing: vec![], at: at() });
}

/// A pod with a group of its own and these rules, in a VPC.
fn bench(pod: PodFacts, strict: bool, rules: Vec<Rule>) -> Bench {
    let mut bench = Bench::with_pods([pod, crate::testing::pod(2)]);
    let node =
        NodeFacts { branch_interfaces: Some(9), addresses: vec!["10.0.0.10".parse().unwrap()], ..NodeFacts::default() };
    bench.feed(cluster(ClusterFact::Node(Arc::new(node))));
    bench.feed(cluster(ClusterFact::NetworkPoliciesReplaced(Vec::new())));
    bench.host(links(&[(1, strict)]));
    let interfaces = vec![interface("eni-1", "sg-pod", "10.0.9.1"), interface("eni-node", "sg-node", "10.0.0.10")];
    ec2(&mut bench, Ec2Fact::Interfaces { interfaces, missing: vec![], at: at() });
    let ranges = vec!["10.0.0.0/16".parse().unwrap()];
    ec2(&mut bench, Ec2Fact::Vpc { id: "vpc-1".into(), ranges, at: at() });
    groups(&mut bench, vec![group("sg-pod", rules), group("sg-node", vec![])]);
    bench.wait(10);
    bench
}

fn tries(bench: &mut Bench, cgroup_id: u64, peer: (&str, u16), times: u32) {
    for _ in 0..times {
        let fact = TcpFact {
            cgroup_id,
            outcome: Outcome::TimedOut,
            established: false,
            retransmits: 3,
            srtt_us: None,
            bytes_sent: 0,
            bytes_received: 0,
            ends: ends("10.0.9.1", 40_000, peer.0, peer.1),
            ..tcp(1)
        };
        bench.feed(Input::Tcp(fact));
        bench.wait(10);
    }
}

fn evidence<'a>(row: &'a FindingRow, field: &str) -> Vec<&'a str> {
    row.evidence.iter().filter(|says| says.field == field).map(|says| says.value.as_str()).collect()
}

fn peer(bench: &mut Bench, address: &str, group: &str) {
    let peers =
        vec![PeerInterface { ip: address.parse().unwrap(), interface: Some(interface("eni-peer", group, address)) }];
    ec2(
        bench,
        Ec2Fact::Peers {
            peers,
            at: WallNs((EPOCH + i64::try_from(bench.now().0 / 1_000_000_000).unwrap()) * 1_000_000_000),
        },
    );
}

#[test]
fn a_blocked_flow_names_exactly_the_rule_that_the_pods_groups_lack() {
    let near = rule("near", Side::Egress, Transport::Tcp, 3306, "10.0.5.0/24");
    let mut bench = bench(enforced(1), true, vec![near]);
    tries(&mut bench, pod_cgroup(1), (DB, 5432), 4);
    assert_eq!(bench.open(), [(Code::SgpBlockedFlow, Severity::Medium, "egress_rule_missing".to_owned())]);
    let row = bench.row(Code::SgpBlockedFlow);
    assert!(row.text.ends_with("and sg-pod has no egress rule for tcp 5432 to 10.0.5.5/32"), "{}", row.text);
    let [command] = &evidence(&row, "add by AWS CLI")[..] else { panic!("{row:?}") };
    assert!(command.contains("authorize-security-group-egress --group-id sg-pod"), "{command}");
    assert!(command.contains("FromPort=5432,ToPort=5432,IpRanges=[{CidrIp=10.0.5.5/32}]"), "{command}");
    assert!(evidence(&row, "add by Terraform")[0].contains("aws_vpc_security_group_egress_rule"));
    assert_eq!(evidence(&row, "nearest"), ["tcp 3306 to 10.0.5.0/24; it lacks port 5432"]);
    assert_eq!(evidence(&row, "told by EC2"), [at().to_string()]);
}

#[test]
fn the_peers_side_is_named_once_it_is_known_and_nothing_is_blamed_that_rules_allow() {
    let out = rule("db", Side::Egress, Transport::Tcp, 5432, "10.0.0.0/16");
    let mut bench = bench(enforced(1), true, vec![out]);
    tries(&mut bench, pod_cgroup(1), (DB, 5432), 4);
    // Its own end lets it out; of the other nothing is known.
    assert_eq!(bench.open(), [(Code::SgpBlockedFlow, Severity::Medium, "unanswered".to_owned())]);
    let text = bench.row(Code::SgpBlockedFlow).text;
    assert!(text.contains("lets it out by sgr-db") || text.contains("let it out by sgr-db"), "{text}");
    assert!(bench.engine.wishes().peers.contains(&DB.parse().unwrap()));
    peer(&mut bench, DB, "sg-db");
    groups(&mut bench, vec![group("sg-db", vec![])]);
    tries(&mut bench, pod_cgroup(1), (DB, 5432), 1);
    let row = bench.row(Code::SgpBlockedFlow);
    assert_eq!(row.cause, "ingress_rule_missing");
    assert!(row.text.ends_with("and sg-db has no ingress rule for tcp 5432 from sg-pod"), "{}", row.text);
    assert!(evidence(&row, "add by AWS CLI")[0].contains("authorize-security-group-ingress --group-id sg-db"));
    // The rule comes, and still nobody answers: it is not the groups.
    let admits = rule("in", Side::Ingress, Transport::Tcp, 5432, "sg-pod");
    groups(&mut bench, vec![group("sg-db", vec![admits])]);
    tries(&mut bench, pod_cgroup(1), (DB, 5432), 1);
    assert_eq!((bench.open(), bench.doubts(Code::SgpBlockedFlow)), (vec![], vec!["rules_allow_it".to_owned()]));
}

#[test]
fn a_missing_rule_is_named_although_others_get_no_answer_either_and_no_group_is_blamed_on_one_node() {
    let mut found = bench(enforced(1), true, vec![]);
    tries(&mut found, pod_cgroup(1), (DB, 5432), 2);
    tries(&mut found, pod_cgroup(2), (DB, 5432), 1);
    tries(&mut found, pod_cgroup(1), (DB, 5432), 2);
    assert_eq!(found.open()[0].2, "egress_rule_missing");
    // Standard mode, and the peer is a pod of this node.
    let mut bench = bench(enforced(1), false, vec![]);
    let mut here = pod(2);
    here.ips = vec![DB.parse().unwrap()];
    bench.feed(cluster(ClusterFact::Pod(Arc::new(here))));
    tries(&mut bench, pod_cgroup(1), (DB, 5432), 5);
    assert_eq!((bench.open(), bench.doubts(Code::SgpBlockedFlow)), (vec![], vec!["no_group_judges_it".to_owned()]));
}

fn queries(bench: &mut Bench, others: Option<bool>) {
    let query = |n, answered: bool| {
        let (outcome, bytes_received) = if answered { (Outcome::Established, 100) } else { (Outcome::OneWay, 0) };
        let ends = ends("10.0.9.1", 40_000, "172.20.0.10", 53);
        Input::Udp(UdpFact { cgroup_id: pod_cgroup(n), outcome, bytes_received, ends, ..udp(1) })
    };
    for _ in 0..4 {
        bench.feed(query(1, false));
        if let Some(answered) = others {
            bench.feed(query(2, answered));
        }
        bench.wait(10);
    }
}

#[test]
fn dns_that_no_rule_lets_out_is_found_unless_the_resolver_answers_nobody() {
    let name = |bench: &Bench| bench.open().into_iter().map(|(code, _, cause)| (code, cause)).collect::<Vec<_>>();
    let missing = vec![(Code::SgpDnsBlocked, "egress_rule_missing".to_owned())];
    let mut strict = bench(enforced(1), true, vec![]);
    queries(&mut strict, None);
    assert_eq!(name(&strict), missing);
    let text = strict.row(Code::SgpDnsBlocked).text;
    assert!(text.contains("sg-pod has no egress rule for udp 53"), "{text}");
    let mut silent = bench(enforced(1), true, vec![]);
    queries(&mut silent, Some(false));
    assert_eq!(name(&silent), []);
    // In standard mode the resolver may be on this node: others' answers must say that it is not the resolver.
    let mut standard = bench(enforced(1), false, vec![]);
    queries(&mut standard, None);
    assert_eq!(name(&standard), []);
    queries(&mut standard, Some(true));
    assert_eq!(name(&standard), missing);
    // A rule lets it out: others get answers, so it is CoreDNS's side, as far as anybody knows.
    let out = rule("dns", Side::Egress, Transport::Udp, 53, "0.0.0.0/0");
    let mut open = bench(enforced(1), true, vec![out]);
    queries(&mut open, Some(true));
    assert_eq!(name(&open), [(Code::SgpDnsBlocked, "groups".to_owned())]);
}

#[test]
fn probes_that_no_rule_admits_name_it_and_admitted_ones_do_not_blame_the_groups() {
    let probe = |bench: &mut Bench| {
        bench.feed(Input::CgroupPresent { id: CGROUP, path: "/runtime.slice/kubelet.service".to_owned() });
        tries(bench, CGROUP, ("10.0.9.1", 8080), 4);
        bench.row(Code::SgpProbeBlocked)
    };
    let probed = || with_probe(enforced(1), ProbeKind::Http, 8080);
    let mut refused = bench(probed(), true, vec![]);
    refused.host(HostFact::TcpEarlyDemux(Some(true)));
    let row = probe(&mut refused);
    assert_eq!(row.cause, "node_group_ingress");
    assert!(row.text.ends_with("sg-pod has no ingress rule for tcp 8080 from sg-node"), "{}", row.text);
    let admits = rule("probe", Side::Ingress, Transport::Tcp, 8080, "sg-node");
    let mut admitted = bench(probed(), true, vec![admits]);
    admitted.host(HostFact::TcpEarlyDemux(Some(false)));
    assert_eq!(probe(&mut admitted).cause, "unknown");
    admitted.host(HostFact::TcpEarlyDemux(Some(true)));
    tries(&mut admitted, CGROUP, ("10.0.9.1", 8080), 1);
    assert_eq!(admitted.row(Code::SgpProbeBlocked).cause, "early_demux");
}

#[test]
fn connections_past_the_groups_are_found_where_the_rules_would_have_refused_them() {
    let snat = |bench: &mut Bench, external| {
        let settings = Some(crate::capacity::IpamSettings { external_snat: external, ..Default::default() });
        let facts = crate::capacity::IpamFacts { settings, ..Default::default() };
        bench.host(HostFact::Ipam(Box::new(facts)));
    };
    let connect = |bench: &mut Bench, port| {
        let ends = ends("10.0.9.1", 40_000, "93.184.216.34", port);
        bench.feed(Input::Tcp(TcpFact { cgroup_id: pod_cgroup(1), ends, ..tcp(1) }));
        bench.wait(10);
    };
    let web = || vec![rule("web", Side::Egress, Transport::Tcp, 443, "0.0.0.0/0")];
    let mut bench_ = bench(enforced(1), false, web());
    connect(&mut bench_, 80);
    assert_eq!(
        (bench_.open(), bench_.doubts(Code::SgpUnfilteredFlow)),
        (vec![], vec!["rules_of_groups_unknown".to_owned()])
    );
    snat(&mut bench_, Some(false));
    connect(&mut bench_, 443);
    assert_eq!(bench_.open(), [], "its groups let it pass too");
    connect(&mut bench_, 80);
    assert_eq!(bench_.open(), [(Code::SgpUnfilteredFlow, Severity::Medium, "outside_vpc".to_owned())]);
    let text = bench_.row(Code::SgpUnfilteredFlow).text;
    assert!(text.contains("sg-pod has no egress rule for tcp 80"), "{text}");
    // Translated elsewhere: then its groups judge it themselves.
    let mut external = bench(enforced(1), false, web());
    snat(&mut external, Some(true));
    connect(&mut external, 80);
    assert_eq!((external.open(), external.doubts(Code::SgpUnfilteredFlow)), (vec![], vec![]));
}

fn policy(groups: &[&str]) -> Input {
    let policy = PolicyFacts {
        namespace: "shop".into(),
        name: "cart".into(),
        pod_selector: Some(Selector::default()),
        groups: groups.iter().map(|id| Arc::from(*id)).collect(),
        ..PolicyFacts::default()
    };
    cluster(ClusterFact::PoliciesReplaced { policies: vec![Arc::new(policy)], installed: true })
}

#[test]
fn groups_of_the_real_interface_make_a_pod_stale_and_fresh_again() {
    let mut bench = bench(enforced(1), true, vec![]);
    bench.feed(crate::testing::pods([enforced(1)]));
    bench.feed(policy(&["sg-pod"]));
    bench.evaluate_twice();
    assert_eq!(bench.open(), [], "no event is needed");
    let changed = vec![interface("eni-1", "sg-other", "10.0.9.1")];
    ec2(&mut bench, Ec2Fact::Interfaces { interfaces: changed, missing: vec![], at: at() });
    bench.evaluate_twice();
    assert_eq!(bench.open().iter().map(|(code, ..)| *code).collect::<Vec<_>>(), [Code::SgpStale]);
    assert_eq!(evidence(&bench.row(Code::SgpStale), "Groups"), ["sg-other"]);
    assert_eq!(evidence(&bench.row(Code::SgpStale), "told by EC2"), [at().to_string()]);
    let back = vec![interface("eni-1", "sg-pod", "10.0.9.1")];
    ec2(&mut bench, Ec2Fact::Interfaces { interfaces: back, missing: vec![], at: at() });
    bench.evaluate_twice();
    assert_eq!(bench.open(), []);
}

#[test]
fn a_cluster_security_group_is_known_by_its_tag_or_its_name() {
    let tagged = |id: &str, cluster: &str| {
        let tag = ClusterTag { cluster: cluster.into(), by_eks: true, value: cluster.into() };
        GroupFacts { clusters: vec![tag], ..group(id, vec![]) }
    };
    let named = |id: &str, name: &str| {
        let mut facts = group(id, vec![]);
        facts.group.name = Some(name.into());
        facts
    };
    let causes = |told: Vec<GroupFacts>| {
        let mut bench = bench(enforced(1), true, vec![]);
        bench.feed(crate::testing::pods([enforced(1)]));
        bench.feed(policy(&["sg-pod"]));
        groups(&mut bench, told);
        bench.evaluate_twice();
        bench.open().into_iter().map(|(code, _, cause)| (code, cause)).collect::<Vec<_>>()
    };
    let cluster_group = |cause: &str| vec![(Code::SgpClusterGroup, cause.to_owned())];
    assert_eq!(causes(vec![tagged("sg-pod", "blue")]), cluster_group("cluster_group"));
    assert_eq!(causes(vec![tagged("sg-pod", "blue"), tagged("sg-node", "blue")]), cluster_group("cluster_group"));
    assert_eq!(causes(vec![tagged("sg-pod", "blue"), tagged("sg-node", "green")]), cluster_group("other_cluster"));
    assert_eq!(causes(vec![named("sg-pod", "eks-cluster-sg-my-blue-123456")]), cluster_group("cluster_group"));
    assert_eq!(causes(vec![named("sg-pod", "database-clients")]), []);
}

#[test]
fn what_the_pods_own_groups_let_out_of_the_vpc_is_neither_blamed_on_them_nor_do_they_go_free() {
    let web = rule("web", Side::Egress, Transport::Tcp, 443, "0.0.0.0/0");
    let mut bench = bench(enforced(1), true, vec![web]);
    tries(&mut bench, pod_cgroup(1), ("93.184.216.34", 443), 4);
    // A public address may be a load balancer's, whose groups drop.
    assert_eq!((bench.open(), bench.doubts(Code::SgpBlockedFlow)), (vec![], vec!["own_end_allows_it".to_owned()]));
    tries(&mut bench, pod_cgroup(1), ("93.184.216.34", 80), 4);
    assert_eq!(bench.open(), [(Code::SgpBlockedFlow, Severity::Medium, "egress_rule_missing".to_owned())]);
}

#[test]
fn a_connection_past_the_groups_is_measured_by_the_pods_own_end() {
    let connect = |rules: Vec<Rule>| {
        let mut bench = bench(enforced(1), false, rules);
        bench.feed(crate::testing::pods([enforced(1), enforced(3)]));
        bench.host(links(&[(1, false), (3, false)]));
        let interfaces = vec![interface("eni-3", "sg-shut", "10.0.9.3")];
        ec2(&mut bench, Ec2Fact::Interfaces { interfaces, missing: vec![], at: at() });
        groups(&mut bench, vec![group("sg-shut", vec![])]);
        bench.wait(20);
        let ends = ends("10.0.9.1", 40_000, "10.0.9.3", 5432);
        bench.feed(Input::Tcp(TcpFact { cgroup_id: pod_cgroup(1), ends, ..tcp(1) }));
        // The other end's row names it.
        let ends = crate::testing::ends("10.0.9.3", 5432, "10.0.9.1", 40_000);
        let direction = agent_ebpf::wire::Direction::Inbound;
        bench.feed(Input::Tcp(TcpFact { cgroup_id: pod_cgroup(3), ends, direction, ..tcp(2) }));
        bench.wait(10);
        let past = bench.open().into_iter().filter(|(code, ..)| *code == Code::SgpUnfilteredFlow).count();
        (past, bench.doubts(Code::SgpUnfilteredFlow))
    };
    let db = rule("db", Side::Egress, Transport::Tcp, 5432, "10.0.0.0/16");
    assert_eq!(connect(vec![db]), (0, vec![]), "that the other pod's groups admit nobody is not its doing");
    assert_eq!(connect(vec![]).0, 1);
}

#[test]
fn a_blocked_flow_to_a_service_is_judged_by_its_backend() {
    use crate::output::{ActualPeer, Output, PeerClass};
    let db = rule("db", Side::Egress, Transport::Tcp, 5432, "10.0.0.0/16");
    let told = |actual_peer: Option<ActualPeer>| {
        let mut bench = bench(enforced(1), true, vec![db.clone()]);
        let fact = TcpFact {
            cgroup_id: pod_cgroup(1),
            outcome: Outcome::TimedOut,
            established: false,
            retransmits: 3,
            srtt_us: None,
            bytes_sent: 0,
            bytes_received: 0,
            ends: ends("10.0.9.1", 40_000, "172.20.0.50", 5432),
            ..tcp(1)
        };
        let outputs = crate::testing::feed(&mut bench.engine, [Input::Tcp(fact)]);
        assert!(outputs.is_empty());
        let mut rows = bench.fold();
        let [Output::Flow(row)] = &mut rows[..] else { panic!("{rows:?}") };
        (row.peer.class, row.actual_peer) = (PeerClass::Service, actual_peer);
        for _ in 0..4 {
            bench.engine.judge_rows(&mut rows);
            bench.wait(10);
        }
        let wished: Vec<String> = bench.engine.wishes().peers.iter().map(ToString::to_string).collect();
        (bench.row(Code::SgpBlockedFlow), wished)
    };
    let backend = |port| Some(ActualPeer { ip: DB.parse().unwrap(), port });
    let (row, wished) = told(backend(5433));
    assert_eq!((&*row.cause, &*row.subject.peer), ("egress_rule_missing", "172.20.0.50:5432/tcp"));
    assert!(row.text.ends_with("sg-pod has no egress rule for tcp 5433 to 10.0.5.5/32"), "{}", row.text);
    assert_eq!(wished, [DB]);
    let (row, _) = told(backend(5432));
    assert!(row.text.contains("let it out by sgr-db; the groups of the other end are not known"), "{}", row.text);
    let (row, wished) = told(None);
    assert!(row.text.contains("it may be the address of a service"), "{}", row.text);
    assert_eq!(wished, Vec::<String>::new(), "a service's address is nobody's");
}
