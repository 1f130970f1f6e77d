//! Plans against published figures.

use super::super::instances::{instance_type, instance_types};
use super::*;

fn of(name: &str) -> InstanceType {
    instance_type(name).unwrap_or_else(|| panic!("{name}"))
}

fn ask(pods: u32, settings: Settings) -> Ask {
    Ask { pods, host_network_pods: HOST_NETWORK_PODS, settings, max_pods: None, fleet: None }
}

#[test]
fn max_pods_follow_the_published_list() {
    // misc/eni-max-pods.txt of the CNI.
    for (name, max_pods) in [
        ("t3.small", 11),
        ("m5.large", 29),
        ("m5.xlarge", 58),
        ("m5.4xlarge", 234),
        ("m5.24xlarge", 737),
        ("c7g.xlarge", 58),
        ("m6g.medium", 8),
        ("p4d.24xlarge", 737),
    ] {
        assert_eq!(recommended_max_pods(&of(name), &Settings::default()), max_pods, "{name}");
    }
    let prefixes = Settings { prefix_delegation: true, ..Settings::default() };
    for (name, max_pods) in [("m5.large", 110), ("m5.4xlarge", 110), ("m5.8xlarge", 250), ("m6g.medium", 98)] {
        assert_eq!(recommended_max_pods(&of(name), &prefixes), max_pods, "{name}");
    }
    let custom = Settings { custom_networking: true, ..Settings::default() };
    assert_eq!(recommended_max_pods(&of("m5.large"), &custom), 20);
}

#[test]
fn pods_beyond_the_limit_are_an_answer() {
    let answer = plan(&of("m5.large"), &ask(100, Settings::default()));
    assert_eq!((answer.fits, answer.pods, answer.pods_fit, answer.stopped_by), (false, 100, 27, "pods"));
    // The figures are for the pods that fit.
    assert_eq!((answer.holding.interfaces, answer.holding.addresses_held), (3, 30));
    let trunk = plan(&of("m5.large"), &ask(27, Settings { pod_eni: true, ..Settings::default() }));
    assert_eq!((trunk.fits, trunk.pods_fit, trunk.stopped_by), (false, 18, "pod_ips"));
    assert_eq!(trunk.branch_interfaces, 9);
    let none = plan(&of("m5.large"), &Ask { max_pods: Some(1), ..ask(1, Settings::default()) });
    assert_eq!((none.fits, none.pods_fit, none.stopped_by), (false, 0, "pods"));
}

#[test]
fn volumes_follow_the_interfaces() {
    assert_eq!(plan(&of("m5.4xlarge"), &ask(3, Settings::default())).volume_slots, 25);
    assert_eq!(plan(&of("m5.large"), &ask(27, Settings::default())).volume_slots, 24);
    assert_eq!(plan(&of("c7a.large"), &ask(27, Settings::default())).volume_slots, 31);
}

#[test]
fn a_fleet_is_measured_with_both_settings() {
    let fleet = Some(Fleet { nodes: 100, subnet_free_ips: 4_091 });
    let answer = plan(&of("m5.4xlarge"), &Ask { fleet, ..ask(3, Settings::default()) });
    let fleet = answer.fleet.expect("asked for");
    assert_eq!((fleet.addresses_per_node, fleet.nodes_fit, fleet.fits), (60, 68, false));
    assert_eq!((fleet.addresses_per_node_recommended, fleet.nodes_fit_recommended), (6, 681));
    assert!(fleet.fits_recommended);
    let recommended = answer.recommended.expect("60 are too many");
    assert_eq!((recommended.warm_ip_target, recommended.minimum_ip_target), (2, 3));
    assert_eq!((recommended.addresses_saved, recommended.burst_pods), (54, 2));
    assert_eq!((recommended.ec2_calls_before, recommended.ec2_calls), (2, 3));
    // Under custom networking the first interface is elsewhere.
    let custom = Settings { custom_networking: true, ..Settings::default() };
    let fleet = Some(Fleet { nodes: 1, subnet_free_ips: 0 });
    let answer = plan(&of("m5.large"), &Ask { fleet, ..ask(3, custom) });
    assert_eq!(answer.fleet.map(|fleet| (fleet.addresses_per_node, fleet.nodes_fit)), Some((20, 0)));
}

#[test]
fn what_the_cni_decides_by_itself_is_a_range() {
    let swinging = Settings { warm_eni_target: 0, ..Settings::default() };
    let answer = plan(&of("m5.large"), &ask(9, swinging));
    assert_eq!(answer.holding.pod_addresses_held, 9);
    assert_eq!(answer.at_most.map(|most| most.pod_addresses_held), Some(18));
    assert_eq!(plan(&of("m5.large"), &ask(8, swinging)).at_most, None);
}

#[test]
fn every_type_has_a_plan_for_any_numbers() {
    for of in instance_types() {
        for pods in [0, 1, 110, u32::MAX] {
            for settings in [
                Settings::default(),
                Settings { prefix_delegation: true, warm_prefix_target: u32::MAX, ..Settings::default() },
                Settings {
                    warm_ip_target: u32::MAX,
                    minimum_ip_target: u32::MAX,
                    pod_eni: true,
                    ..Settings::default()
                },
                Settings { max_eni: Some(0), custom_networking: true, warm_eni_target: 0, ..Settings::default() },
            ] {
                let fleet = Some(Fleet { nodes: u32::MAX, subnet_free_ips: u64::MAX });
                let answer = plan(&of, &Ask { fleet, max_pods: Some(pods), ..ask(pods, settings) });
                assert!(answer.holding.interfaces <= of.interfaces.max(1), "{answer:?}");
                assert!(answer.volume_slots >= 1 && answer.pods_fit <= pods, "{answer:?}");
            }
        }
    }
}

#[test]
fn with_ipv6_a_node_holds_one_prefix_and_max_pods_binds() {
    let ipv6 = Settings { ipv6: true, warm_ip_target: 500, ..Settings::default() };
    let answer = plan(&of("m5.large"), &ask(100, ipv6));
    assert_eq!((answer.ip_family, answer.fits, answer.pods_fit, answer.stopped_by), ("ipv6", true, 108, "pods"));
    let holding = PlanHolding { interfaces: 1, addresses_held: 1, pod_addresses_held: 0, prefixes_held: 1 };
    assert_eq!((answer.holding, answer.at_most, answer.recommended), (holding, None, None));
    assert!(answer.notes.iter().any(|note| note.contains("max-pods binds")), "{:?}", answer.notes);
    let fleet = Some(Fleet { nodes: 50, subnet_free_ips: 99 });
    let trunk = Settings { pod_eni: true, ..ipv6 };
    let answer = plan(&of("m5.large"), &Ask { fleet, ..ask(1, trunk) });
    assert_eq!((answer.holding.interfaces, answer.fleet.map(|fleet| fleet.nodes_fit)), (2, Some(49)));
    // The first interface stays alone where only one may be attached, or no trunk can be.
    for (name, max_eni) in [("m5.large", Some(1)), ("t3.medium", None)] {
        let answer = plan(&of(name), &ask(1, Settings { max_eni, ..trunk }));
        assert_eq!(answer.holding.interfaces, 1, "{name}");
    }
    let xen = plan(&of("c4.large"), &ask(1, ipv6));
    assert_eq!((xen.fits, xen.pods_fit, xen.stopped_by, xen.holding.prefixes_held), (false, 0, "pod_ips", 0));
    assert!(xen.notes.iter().any(|note| note.contains("does not run with IPv6")), "{:?}", xen.notes);
    assert_eq!(plan(&of("m5.metal"), &ask(1, ipv6)).pods_fit, 248, "bare metal has prefixes");
}

#[test]
fn notes_say_what_a_reader_should_know_and_nothing_else() {
    let notes = |name: &str, settings, fleet| plan(&of(name), &Ask { fleet, ..ask(3, settings) }).notes;
    let fleet = Some(Fleet { nodes: 1, subnet_free_ips: 100 });
    let plain = Settings::default();
    assert_eq!(notes("m5.large", plain, fleet), Vec::<&str>::new());
    for (name, settings, fleet, expected) in [
        ("c4.large", Settings { prefix_delegation: true, ..plain }, None, "falls back to single addresses"),
        ("t3.medium", Settings { pod_eni: true, ..plain }, None, "no trunk"),
        ("m5.large", Settings { minimum_ip_target: 9, ..plain }, None, "ends at its value"),
        ("m5.large", Settings { prefix_delegation: true, ..plain }, None, "16 addresses in a row"),
        ("m5.large", Settings { custom_networking: true, ..plain }, fleet, "from the node's subnet"),
        ("m5.large", Settings { ipv6: true, pod_eni: true, ..plain }, None, "max-pods binds"),
    ] {
        let notes = notes(name, settings, fleet);
        assert!(matches!(notes[..], [note] if note.contains(expected)), "{name} {settings:?}: {notes:?}");
    }
    for (name, settings) in [
        ("m5.large", Settings { pod_eni: true, ..plain }),
        ("m5.large", Settings { minimum_ip_target: 9, warm_ip_target: 1, ..plain }),
        ("m5.large", Settings { custom_networking: true, ..plain }),
    ] {
        assert_eq!(notes(name, settings, None), Vec::<&str>::new(), "{settings:?}");
    }
    let both = notes("t3.medium", Settings { ipv6: true, pod_eni: true, ..plain }, None);
    assert!(both.len() == 2 && both[1].contains("no trunk"), "{both:?}");
}
