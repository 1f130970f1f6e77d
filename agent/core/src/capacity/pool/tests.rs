//! Published figures, and the model against a simulator of the loop.

mod simulator;

use proptest::prelude::*;

use self::simulator::{Seen, Simulator};
use super::*;
use crate::capacity::instances::{instance_type, instance_types};

fn of(name: &str) -> InstanceType {
    instance_type(name).unwrap_or_else(|| panic!("{name}"))
}

/// The kubelet's limit by AWS's formula.
fn usual_max_pods(of: &InstanceType) -> u32 {
    of.interfaces * (of.ipv4_per_interface - 1) + 2
}

#[track_caller]
fn held(name: &str, settings: Settings, pods: u32) -> Holding {
    let of = of(name);
    Pool::new(&of, &settings, usual_max_pods(&of)).from_empty(pods).exact().expect("one answer")
}

#[test]
fn the_cni_s_own_examples_come_out() {
    // docs/eni-and-ip-target.md.
    let defaults = Settings::default();
    assert_eq!(held("t3.small", defaults, 0), Holding { interfaces: 1, addresses: 3, prefixes: 0 });
    assert_eq!(held("t3.small", defaults, 5), Holding { interfaces: 3, addresses: 9, prefixes: 0 });
    assert_eq!(held("p3dn.24xlarge", defaults, 3), Holding { interfaces: 2, addresses: 98, prefixes: 0 });
    let targets = Settings { warm_ip_target: 5, minimum_ip_target: 10, ..defaults };
    assert_eq!(held("m5.large", targets, 7).addresses, 12);
    assert_eq!(held("m5.large", targets, 0).addresses, 10);
}

#[test]
fn the_table_from_the_field_comes_out() {
    for (name, addresses) in [("m5.large", 20), ("m5.xlarge", 30), ("m5.2xlarge", 30), ("m5.4xlarge", 60)] {
        let held = held(name, Settings::default(), 3);
        assert_eq!((held.interfaces, held.total()), (2, addresses), "{name}");
    }
}

#[test]
fn prefixes_come_by_sixteen() {
    let settings = Settings { prefix_delegation: true, ..Settings::default() };
    assert_eq!(held("m5.large", settings, 0), Holding { interfaces: 1, addresses: 16, prefixes: 1 });
    assert_eq!(held("m5.large", settings, 1), Holding { interfaces: 1, addresses: 32, prefixes: 2 });
    assert_eq!(held("m5.large", settings, 16), Holding { interfaces: 1, addresses: 32, prefixes: 2 });
    // The kubelet's limit is reached: 29.
    assert_eq!(held("m5.large", settings, 17), Holding { interfaces: 1, addresses: 32, prefixes: 2 });
    let targets = Settings { warm_ip_target: 16, ..settings };
    assert_eq!(held("m5.4xlarge", targets, 17), Holding { interfaces: 1, addresses: 48, prefixes: 3 });
    // Xen types have no prefixes.
    assert_eq!(held("m4.large", settings, 3).prefixes, 0);
}

#[test]
fn the_trunk_and_the_first_interface_take_their_places() {
    let defaults = Settings::default();
    let trunk = Settings { pod_eni: true, ..defaults };
    assert_eq!(held("m5.large", trunk, 3), Holding { interfaces: 3, addresses: 18, prefixes: 0 });
    assert_eq!(held("m5.large", trunk, 18), Holding { interfaces: 3, addresses: 18, prefixes: 0 });
    // No trunk on types that have none, or without a place for it.
    assert_eq!(held("t3.medium", trunk, 0).interfaces, 1);
    assert_eq!(held("m5.large", Settings { max_eni: Some(1), ..trunk }, 3).interfaces, 1);
    let custom = Settings { custom_networking: true, ..defaults };
    assert_eq!(held("m5.large", custom, 0), Holding { interfaces: 2, addresses: 9, prefixes: 0 });
    assert_eq!(held("m5.large", custom, 3), Holding { interfaces: 3, addresses: 18, prefixes: 0 });
    let both = Settings { pod_eni: true, ..custom };
    assert_eq!(held("m5.large", both, 3), Holding { interfaces: 3, addresses: 9, prefixes: 0 });
    assert_eq!(held("m5.4xlarge", Settings { max_eni: Some(1), ..defaults }, 3).total(), 30);
}

#[test]
fn a_minimum_alone_ends_the_growth() {
    let settings = Settings { minimum_ip_target: 10, ..Settings::default() };
    let of = of("m5.large");
    let pool = Pool::new(&of, &settings, 29);
    assert_eq!((pool.reachable(), pool.carried()), (10, 27));
    assert_eq!(pool.from_empty(20).exact().map(|held| held.addresses), Some(10));
}

#[test]
fn no_chunk_as_a_target_swings_when_chunks_are_full() {
    let settings = Settings { warm_eni_target: 0, ..Settings::default() };
    let pool = Pool::new(&of("m5.large"), &settings, 29);
    assert_eq!(pool.from_empty(8).exact().map(|held| held.addresses), Some(9));
    let swinging = pool.from_empty(9);
    assert_eq!((swinging.low.addresses, swinging.high.addresses), (9, 18));
}

#[test]
fn calls_are_what_a_start_one_by_one_takes() {
    let of = of("m5.4xlarge");
    let defaults = Pool::new(&of, &Settings::default(), 234);
    assert_eq!(defaults.calls(0), Calls { assign: 1, attach: 0 });
    assert_eq!(defaults.calls(3), Calls { assign: 1, attach: 1 });
    let targets = Settings { warm_ip_target: 2, minimum_ip_target: 3, ..Settings::default() };
    // Three at once, then one for the second and the third pod each.
    assert_eq!(Pool::new(&of, &targets, 234).calls(3), Calls { assign: 3, attach: 0 });
}

#[test]
fn fewer_are_recommended_only_where_fewer_are_held() {
    let m5 = of("m5.4xlarge");
    let found = recommend(&m5, &Settings::default(), 234, 3).expect("60 are more than needed");
    assert_eq!((found.settings.warm_ip_target, found.settings.minimum_ip_target), (2, 3));
    assert_eq!((found.held.high.total(), found.burst), (6, 2));
    assert_eq!(recommend(&m5, &found.settings, 234, 3), None);
    for of in instance_types() {
        for pods in [0, 1, 10, 100] {
            let max_pods = usual_max_pods(&of);
            let Some(found) = recommend(&of, &Settings::default(), max_pods, pods) else { continue };
            let before = Pool::new(&of, &Settings::default(), max_pods).from_empty(pods);
            assert!(found.held.high.total() < before.low.total(), "{} {pods}", of.name);
            let pool = Pool::new(&of, &found.settings, max_pods);
            assert!(pool.reachable() >= pods.min(pool.carried()), "{} {pods}", of.name);
        }
    }
}

/// Types of every shape: few and many interfaces, few and many addresses, with and without trunk, Xen.
const SHAPES: [&str; 8] =
    ["t3.small", "m6g.medium", "m5.large", "m5.xlarge", "m5.4xlarge", "m4.large", "p5.48xlarge", "m7i.48xlarge"];

fn settings() -> impl Strategy<Value = Settings> {
    let targets = prop_oneof![
        // Chunks, as shipped or near it.
        (0..4_u32).prop_map(|warm| (warm, 0, 0)),
        // Addresses.
        (0..40_u32, 0..60_u32).prop_map(|(warm, minimum)| (1, warm, minimum)),
    ];
    let most = prop_oneof![3 => Just(None), 1 => (1..6_u32).prop_map(Some)];
    (targets, 0..4_u32, most, any::<bool>(), any::<bool>(), any::<bool>()).prop_map(
        |((eni, ip, minimum), prefix, max_eni, prefix_delegation, pod_eni, custom_networking)| Settings {
            ipv6: false,
            warm_eni_target: eni,
            warm_ip_target: ip,
            minimum_ip_target: minimum,
            warm_prefix_target: prefix,
            max_eni,
            prefix_delegation,
            pod_eni,
            custom_networking,
        },
    )
}

fn max_pods(of: &InstanceType, pick: u32) -> u32 {
    match pick {
        0 => 110,
        1 => 20,
        _ => usual_max_pods(of),
    }
}

fn within(seen: &Seen, held: &Held) -> bool {
    let Held { low, high } = held;
    seen.least.addresses >= low.addresses
        && seen.most.addresses <= high.addresses
        && seen.least.interfaces >= low.interfaces
        && seen.most.interfaces <= high.interfaces
        && seen.least.prefixes >= low.prefixes
        && seen.most.prefixes <= high.prefixes
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn from_empty_is_where_the_loop_ends(
        shape in 0..SHAPES.len(),
        settings in settings(),
        limit in 0..3_u32,
        starts in prop::collection::vec((0..8_u32, 1..12_u32), 0..12),
        seed in any::<u64>(),
    ) {
        let of = of(SHAPES[shape]);
        let max_pods = max_pods(&of, limit);
        let pool = Pool::new(&of, &settings, max_pods);
        let mut simulator = Simulator::new(&of, &settings, max_pods, seed);
        for (steps, pods) in starts {
            simulator.run(steps);
            simulator.start(pods);
        }
        let seen = simulator.settle();
        let held = pool.from_empty(simulator.pods());
        prop_assert!(within(&seen, &held), "seen {seen:?}, said {held:?}");
        // It swings or depends on chance only where the documentation says so.
        let chunks = settings.warm_ip_target == 0 && settings.minimum_ip_target == 0;
        let prefixes = prefix_delegation(&of, &settings);
        let warm = if prefixes { settings.warm_prefix_target } else { settings.warm_eni_target };
        let may_differ = chunks && (warm == 0 || (prefixes && warm > 1)) || held.high.addresses > max_pods;
        prop_assert!(may_differ || held.exact().is_some(), "{held:?}");
        prop_assert!(seen.most.addresses <= pool.carried());
        prop_assert!(seen.most.interfaces <= of.interfaces);
    }

    #[test]
    fn after_stops_it_is_within_the_range(
        shape in 0..SHAPES.len(),
        settings in settings(),
        limit in 0..3_u32,
        changes in prop::collection::vec((0..16_u32, -20..20_i32), 1..16),
        seed in any::<u64>(),
    ) {
        let of = of(SHAPES[shape]);
        let max_pods = max_pods(&of, limit);
        let pool = Pool::new(&of, &settings, max_pods);
        let mut simulator = Simulator::new(&of, &settings, max_pods, seed);
        let mut peak = 0;
        for (steps, change) in changes {
            simulator.run(steps);
            if change < 0 { simulator.stop(change.unsigned_abs()) } else { simulator.start(change.unsigned_abs()) }
            // Those that wait get their addresses later.
            peak = peak.max(simulator.wanted());
        }
        let seen = simulator.settle();
        let held = pool.after_stops(simulator.pods(), peak);
        prop_assert!(within(&seen, &held), "seen {seen:?}, said {held:?}, peak {peak}, pods {}", simulator.pods());
        prop_assert!(held.high.addresses <= pool.carried() && held.high.interfaces <= of.interfaces.max(1));
    }

    #[test]
    fn more_of_one_target_or_of_pods_never_holds_less(
        shape in 0..SHAPES.len(),
        settings in settings(),
        pods in 0..300_u32,
        more in 1..20_u32,
        limit in 0..3_u32,
    ) {
        let of = of(SHAPES[shape]);
        let max_pods = max_pods(&of, limit);
        let addresses = settings.warm_ip_target + settings.minimum_ip_target > 0;
        let least = |settings: Settings, pods| Pool::new(&of, &settings, max_pods).from_empty(pods).low.addresses;
        let now = least(settings, pods);
        prop_assert!(least(settings, pods + more) >= now);
        let mut raised = vec![Settings { warm_eni_target: settings.warm_eni_target + more, ..settings }];
        raised.push(Settings { warm_prefix_target: settings.warm_prefix_target + more, ..settings });
        if addresses {
            raised.push(Settings { warm_ip_target: settings.warm_ip_target + more, ..settings });
            raised.push(Settings { minimum_ip_target: settings.minimum_ip_target + more, ..settings });
        }
        for settings in raised {
            prop_assert!(least(settings, pods) >= now, "{settings:?}");
        }
    }
}

#[test]
fn every_type_holds_no_more_than_it_can() {
    for of in instance_types() {
        for prefix_delegation in [false, true] {
            for custom_networking in [false, true] {
                let settings = Settings {
                    prefix_delegation,
                    custom_networking,
                    pod_eni: true,
                    warm_ip_target: u32::MAX,
                    ..Settings::default()
                };
                let pool = Pool::new(&of, &settings, u32::MAX);
                let held = pool.from_empty(u32::MAX);
                assert!(held.high.addresses <= pool.carried(), "{}", of.name);
                assert!(held.high.interfaces <= of.interfaces.max(1), "{}", of.name);
                assert!(pool.after_stops(0, u32::MAX).high.addresses <= pool.carried(), "{}", of.name);
            }
        }
    }
}
