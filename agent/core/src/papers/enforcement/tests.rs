//! Names of interfaces, modes, and what makes a pod enforced.

use super::*;
use crate::papers::testing::{at, branch, branch_pod, device, link, pod};

#[test]
fn names_of_host_veths() {
    // The first is a test vector of the CNI's own (`pkg/networkutils/names_test.go`).
    assert_eq!(host_veth("eni", "kube-system", "coredns-57ff979f67-qqbdh", 0), "enib5faff8a083");
    assert_eq!(host_veth("eni", "default", "nginx", 0), "enic440f455693");
    assert_eq!(host_veth("eni", "default", "nginx", 1), "enie48ae9c2f34");
    assert_eq!(host_veth("vlan", "default", "nginx", 0), "vlanc440f455693");
}

#[test]
fn the_mode_is_read_from_the_host_veth() {
    let pod = branch_pod();
    let strict = link(&host_veth("vlan", "shop", "cart-0", 0), "");
    let plain = link(&host_veth("eni", "shop", "cart-0", 0), "");
    let other = link(&host_veth("net", "shop", "cart-0", 0), "");
    let found = |links: &[LinkFacts], prefix| mode(&pod, Some(&Links::new(links, at(300))), prefix);
    assert_eq!(found(&[strict.clone(), device()], "eni"), Ok(Mode::Strict));
    assert_eq!(found(&[plain.clone(), device()], "eni"), Ok(Mode::Standard));
    assert_eq!(found(&[other.clone(), device()], "net"), Ok(Mode::Standard));
    assert_eq!(found(&[other, device()], "eni"), Err(why::MODE));
    // A plain veth without the VLAN device, both veths, none.
    assert_eq!(found(std::slice::from_ref(&plain), "eni"), Err(why::MODE));
    assert_eq!(found(&[strict, plain, device()], "eni"), Err(why::MODE));
    assert_eq!(found(&[device()], "eni"), Err(why::MODE));
    assert_eq!(mode(&pod, None, "eni"), Err(why::LINKS));
}

#[test]
fn enforced_by_address_and_device() {
    let pod = branch_pod();
    let enforced = |pod: &PodFacts, links: &[LinkFacts]| enforcement(pod, Some(&Links::new(links, at(300))));
    assert_eq!(enforced(&pod, &[device()]), Enforcement::Enforced);
    let shouted = link("vlan.eth.7", "02:11:22:33:44:55".to_uppercase().as_str());
    assert_eq!(enforced(&pod, &[shouted]), Enforcement::Enforced);
    // The annotation alone proves nothing.
    let elsewhere = PodFacts { ips: vec!["10.0.0.7".parse().unwrap()], ..branch_pod() };
    assert_eq!(enforced(&elsewhere, &[device()]), Enforcement::Not(Gap::Address));
    assert_eq!(enforced(&pod, &[]), Enforcement::Not(Gap::Device));
    assert_eq!(enforced(&pod, &[link("vlan.eth.7", "02:00:00:00:00:00")]), Enforcement::Not(Gap::Device));
    assert_eq!(enforced(&pod, &[link("vlan.eth.8", "02:11:22:33:44:55")]), Enforcement::Not(Gap::Device));
    assert_eq!(enforcement(&super::super::testing::pod(), None), Enforcement::Not(Gap::Interface));
    let empty = PodFacts { branch: Branch::Interfaces(Vec::new()), ..branch_pod() };
    assert_eq!(enforced(&empty, &[device()]), Enforcement::Not(Gap::Interface));
}

#[test]
fn a_pod_with_an_ipv6_address_and_one_with_several_interfaces() {
    let mut v6 = branch("10.0.1.5", 7);
    v6.ipv6 = Some("2001:db8::5".parse().unwrap());
    v6.ipv4 = None;
    let pod = PodFacts {
        ips: vec!["2001:db8::5".parse().unwrap()],
        branch: Branch::Interfaces(vec![branch("10.0.9.9", 3), v6]),
        ..pod()
    };
    assert_eq!(enforcement(&pod, Some(&Links::new(&[device()], at(300)))), Enforcement::Enforced);
    // The device of the other interface does not count.
    let other = [link("vlan.eth.3", "02:11:22:33:44:55")];
    assert_eq!(enforcement(&pod, Some(&Links::new(&other, at(300)))), Enforcement::Not(Gap::Device));
}

#[test]
fn what_is_not_known_is_said() {
    let cannot = |pod: &PodFacts, links| match enforcement(pod, links) {
        Enforcement::CannotTell(why) => why,
        other => panic!("{other:?}"),
    };
    let links = [device()];
    let now = Links::new(&links, at(300));
    let before = Links::new(&links, at(201));
    assert_eq!(cannot(&branch_pod(), None), why::LINKS);
    // Read when the pod was not there yet: an absent device proves nothing.
    assert_eq!(cannot(&branch_pod(), Some(&before)), why::LINKS_OLD);
    let addressless = PodFacts { ips: Vec::new(), ..branch_pod() };
    assert_eq!(cannot(&addressless, Some(&now)), why::ADDRESS);
    let malformed = PodFacts { branch: Branch::Malformed("not JSON".to_owned()), ..branch_pod() };
    assert_eq!(cannot(&malformed, Some(&now)), why::ANNOTATION);
}
