//! What policies allow, and what pods used.

use agent_ebpf::wire::{Direction, Outcome};

use super::world::World;
use crate::flow_groups::audit::Audit;

fn used(audit: &Audit) -> Vec<(String, bool)> {
    let group = audit.groups.iter().find(|group| &*group.group == "sg-pod").expect("the policy names it");
    assert!(group.watched_since.is_some() && group.told.is_some());
    group.rules.iter().map(|rule| (rule.rule.to_string(), rule.connections.is_some())).collect()
}

#[test]
fn rules_that_no_flow_used_are_told_apart_from_those_that_let_one_pass() {
    let mut world = World::new(true);
    world.flow(1, Direction::Outbound, "10.0.5.5", 5432, Outcome::Established);
    world.flow(1, Direction::Outbound, "10.0.5.6", 5432, Outcome::Established);
    world.inbound(1, "10.0.0.10", 8080);
    let audit = world.engine.audit();
    let expected =
        [("sgr-db", true), ("sgr-web", false), ("sgr-cache", false), ("sgr-probe", true), ("sgr-never", false)];
    assert_eq!(used(&audit), expected.map(|(rule, used)| (rule.to_owned(), used)));
    let db = &audit.groups.iter().find(|group| &*group.group == "sg-pod").unwrap().rules[0];
    assert_eq!((db.connections, db.text.as_str()), (Some(2), "tcp 5432 to 10.0.0.0/16"));
    let [policy] = &audit.policies[..] else { panic!("{audit:?}") };
    assert_eq!((&*policy.policy, policy.pods.len()), ("cart", 4));
    let pod = audit.pods.iter().find(|pod| &*pod.pod == "cart-1").unwrap();
    assert_eq!((pod.enforced, pod.groups.as_ref().unwrap().len(), pod.uses.len()), (Some(true), 1, 3));
    let plain = audit.pods.iter().find(|pod| &*pod.pod == "cart-2").unwrap();
    assert_eq!((plain.enforced, &plain.mode), (Some(false), &None));
}

#[test]
fn flows_that_no_rule_explains_stand_out_and_what_cannot_work_is_named() {
    let mut world = World::new(true);
    world.flow(1, Direction::Outbound, "10.0.5.5", 5433, Outcome::Established);
    world.flow(1, Direction::Outbound, "10.0.5.5", 5434, Outcome::TimedOut);
    let audit = world.engine.audit();
    let pod = audit.pods.iter().find(|pod| &*pod.pod == "cart-1").unwrap();
    let uses: Vec<_> = pod.uses.iter().map(|used| (used.port, used.verdict.as_str(), used.unexplained)).collect();
    assert_eq!(uses, [(5434, "no_rule", false), (5433, "no_rule", true)], "the latest first");
    let problems: Vec<_> = pod.problems.iter().map(|problem| problem.problem.as_str()).collect();
    assert_eq!(problems, ["no_dns", "no_dns"], "over UDP and TCP");
}

#[test]
fn a_probed_port_that_the_groups_do_not_admit_is_named_with_the_rule_that_would() {
    use crate::facts::{ClusterFact, ProbeFacts, ProbeKind};
    use crate::testing::{cluster, enforced};
    let mut world = World::new(true);
    let mut probed = enforced(1);
    let probe = |port| ProbeFacts { kind: ProbeKind::Http, port: Some(port), timeout_s: 1, period_s: 10 };
    probed.containers[0].probes = vec![probe(8080), probe(8081)];
    world.feed(cluster(ClusterFact::Pod(std::sync::Arc::new(probed))));
    world.wait(1);
    let audit = world.engine.audit();
    let pod = audit.pods.iter().find(|pod| &*pod.pod == "cart-1").unwrap();
    let paths: Vec<_> = pod.problems.iter().filter(|problem| problem.problem == "no_probe_path").collect();
    let [path] = &paths[..] else { panic!("{paths:?}") };
    assert!(path.text.contains("8081") && path.text.contains("sg-pod has no ingress rule"), "{}", path.text);
    assert!(path.aws_cli.as_ref().is_some_and(|cli| cli.contains("sg-node") && cli.contains("8081")), "{path:?}");
}

#[test]
fn without_ec2_an_audit_says_what_policies_ask_for_and_that_no_rule_is_known() {
    let mut world = World::without_ec2(true);
    world.outbound(1, "10.0.5.5", 5432);
    let audit = world.engine.audit();
    assert_eq!(audit.policies.len(), 1);
    let [group] = &audit.groups[..] else { panic!("{audit:?}") };
    assert_eq!((group.told, group.watched_since, group.rules.len(), group.absent), (None, None, 0, false));
    let pod = audit.pods.iter().find(|pod| &*pod.pod == "cart-1").unwrap();
    assert_eq!((&pod.groups, pod.problems.len()), (&None, 0));
}

#[test]
fn what_is_kept_of_uses_is_bounded_and_what_found_no_room_is_counted() {
    let mut world = World::new(true);
    let over = u32::try_from(crate::flow_groups::usage::MAX_USES).unwrap() + 3;
    for n in 0..over {
        let peer = format!("10.0.{}.{}", 16 + n / 250, n % 250 + 1);
        world.connect(1, &peer, 5432);
        if n % 1_000 == 999 {
            world.wait(10);
        }
    }
    world.wait(10);
    let audit = world.engine.audit();
    assert_eq!((audit.basis.uses_dropped, audit.basis.rules_dropped), (3, 0));
    let pod = audit.pods.iter().find(|pod| &*pod.pod == "cart-1").unwrap();
    assert_eq!((pod.uses.len(), pod.uses_left_out), (1_000, 3_096));
}

#[test]
fn who_resolves_a_pods_names_decides_whether_its_groups_are_in_the_way() {
    use crate::facts::{ClusterFact, Dns};
    use crate::testing::{cluster, enforced};
    let told = |dns: Dns| {
        let mut world = World::new(true);
        let pod = crate::facts::PodFacts { dns, ..enforced(1) };
        world.feed(cluster(ClusterFact::Pod(std::sync::Arc::new(pod))));
        world.wait(1);
        let audit = world.engine.audit();
        let pod = audit.pods.into_iter().find(|pod| &*pod.pod == "cart-1").unwrap();
        (pod.problems.into_iter().map(|problem| problem.text).collect::<Vec<_>>(), pod.cannot_tell)
    };
    let named = |servers: &[&str]| Dns::Named(servers.iter().map(|ip| ip.parse().unwrap()).collect());
    let (problems, open) = told(named(&["10.0.5.53"]));
    assert!(problems.len() == 2 && problems[0].contains("udp 53 to 10.0.5.53/32"), "{problems:?}");
    assert_eq!(open, Vec::<String>::new());
    // AWS's own is not filtered, and one that may be asked is enough.
    assert_eq!(told(named(&["10.0.0.2"])), (vec![], vec![]));
    assert_eq!(told(named(&["10.0.5.53", "169.254.169.253"])), (vec![], vec![]));
    for (dns, part) in [(Dns::Node, "node's resolvers"), (Dns::Unknown, "dnsPolicy is not known")] {
        let (problems, open) = told(dns);
        assert!(problems.is_empty() && open.len() == 2 && open[0].contains(part), "{open:?}");
    }
}
