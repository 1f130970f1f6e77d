//! Pods that wait for their sandboxes, and a subnet that runs dry as the node sees it.

use super::*;
use crate::capacity::{Counter, CounterName};
use crate::finding::{Code, Verdict};

/// Taken on by the kubelet, and no more.
fn waiting(index: u32) -> PodFacts {
    PodFacts { phase: Some(Phase::Pending), started: Some(WallNs(0)), ..pod(index, 0, 0) }
}

/// What the last evaluation said of the subnet: text, and what it rests on.
fn subnet(setting: &Setting) -> Option<(String, Vec<String>)> {
    let judged = setting.capacity.judgements();
    let mut found = judged
        .iter()
        .filter(|judgement| judgement.code == Code::CapacityExhausted && &*judgement.subject.resource == "subnet_ips");
    match &found.next()?.verdict {
        Verdict::Violated(violation) => {
            let evidence = violation.evidence.iter().map(|evidence| format!("{} {}", evidence.object, evidence.value));
            Some((violation.text.clone(), evidence.collect()))
        }
        _ => None,
    }
}

/// Half a minute in which a counter of the CNI reached this.
fn count(setting: &mut Setting, name: CounterName, value: u64) {
    setting.seconds(15);
    let counters = vec![Counter { name, scope: Scope::Node, value }];
    setting.host(HostFact::Counters { collector: Collector::IpamMetrics, counters });
    setting.seconds(15);
}

#[test]
fn only_pods_that_lack_a_sandbox_wait() {
    let mut setting = m5_large();
    assert_eq!(setting.row().pods_waiting, None, "nobody told of pods");
    let address = "10.0.0.9".parse().expect("an address");
    setting.pods([
        waiting(1),
        // Not bound yet, with an address, on the node's network, going, held up by a volume, running.
        PodFacts { started: None, ..waiting(2) },
        PodFacts { ips: vec![address], ..waiting(3) },
        PodFacts { host_network: true, ..waiting(4) },
        PodFacts { deleting: true, ..waiting(5) },
        PodFacts { requests: crate::facts::Requests { claims: 1, ..Default::default() }, ..waiting(6) },
        pod(7, 0, 0),
    ]);
    setting.seconds(59);
    assert_eq!(setting.row().pods_waiting, Some(0), "a minute is not over");
    // A list that says the same does not begin the minute anew.
    setting.pods([waiting(1), waiting(8)]);
    setting.seconds(1);
    assert_eq!(setting.row().pods_waiting, Some(1));
    setting.cluster(ClusterFact::Pod(Arc::new(PodFacts { ips: vec![address], ..waiting(1) })));
    assert_eq!(setting.row().pods_waiting, Some(0));
    setting.seconds(60);
    assert_eq!(setting.row().pods_waiting, Some(1), "the other one by now");
    setting.cluster(ClusterFact::PodGone { uid: Arc::from("uid-8") });
    assert_eq!(setting.row().pods_waiting, Some(0));
    // Gone from the list, and there again: a new wait.
    setting.pods([waiting(9)]);
    setting.pods([]);
    setting.seconds(60);
    setting.pods([waiting(9)]);
    assert_eq!(setting.row().pods_waiting, Some(0));
}

#[test]
fn ec2_s_own_answer_is_a_dry_subnet() {
    let mut setting = m5_large();
    count(&mut setting, CounterName::SubnetFull, 5);
    assert_eq!(subnet(&setting), None, "what was before is no news");
    count(&mut setting, CounterName::SubnetFull, 7);
    let (text, evidence) = subnet(&setting).expect("raised");
    assert_eq!(text, "subnet_ips of node: EC2 had none left for the CNI 2 times");
    assert_eq!(evidence, ["counter SubnetFull grew by 2"]);
    setting.pods([waiting(1), waiting(2)]);
    setting.seconds(90);
    count(&mut setting, CounterName::SubnetFull, 8);
    let (text, evidence) = subnet(&setting).expect("raised");
    assert!(text.ends_with("; 2 pods wait for their sandboxes, shop/cart-1 for 119 s"), "{text}");
    assert_eq!(evidence.len(), 3);
    setting.seconds(331);
    assert_eq!(subnet(&setting), None, "five minutes without another one");
}

#[test]
fn calls_that_go_on_failing_while_pods_wait_are_the_sign_of_it() {
    let failing = |setting: &mut Setting, rounds: u64| {
        for round in 1..=rounds {
            count(setting, CounterName::Ec2CallsFailed, round);
        }
    };
    // Nobody waits.
    let mut setting = m5_large();
    setting.ipam(3, IpamSettings::default());
    setting.pods([pod(1, 0, 0)]);
    failing(&mut setting, 8);
    assert_eq!(subnet(&setting), None);
    // A pod waits, and calls have failed for not long enough, then for long enough.
    let mut setting = m5_large();
    setting.pods([waiting(1)]);
    setting.ipam(3, IpamSettings::default());
    failing(&mut setting, 5);
    assert_eq!(subnet(&setting), None, "{:?}", setting.capacity.judgements());
    count(&mut setting, CounterName::Ec2CallsFailed, 6);
    let (text, evidence) = subnet(&setting).expect("raised");
    assert!(text.contains("failed 5 times") && text.contains("runs dry, or the CNI lacks a permission"), "{text}");
    assert_eq!(evidence.len(), 2, "{evidence:?}");
    // The instance itself is full: then not the subnet.
    setting.ipam(27, IpamSettings::default());
    count(&mut setting, CounterName::Ec2CallsFailed, 7);
    assert_eq!(subnet(&setting), None);
    // Somebody who asked EC2 knows better.
    setting.ipam(3, IpamSettings::default());
    count(&mut setting, CounterName::Ec2CallsFailed, 8);
    assert!(subnet(&setting).is_some());
    setting.read(Collector::Cluster, Resource::SubnetIps, Scope::Subnet(Arc::from("subnet-1")), 10, 250);
    count(&mut setting, CounterName::Ec2CallsFailed, 9);
    assert_eq!(subnet(&setting), None);
}
