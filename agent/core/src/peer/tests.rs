//! Classes by address, port and the node's own addresses.

use proptest::prelude::*;

use super::*;

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

#[test]
fn classes_by_table() {
    use PeerClass::{Imds, Internet, NodeLocal, PodIdentity, Unknown};
    let node =
        NodeAddresses::new(&[ip("10.0.3.7"), ip("169.254.170.23"), ip("2600:1f13:abc:1::7"), ip("::ffff:10.0.4.7")]);
    let cases: &[(&str, Option<u16>, PeerClass)] = &[
        ("169.254.169.254", Some(80), Imds),
        ("::ffff:169.254.169.254", Some(80), Imds),
        ("fd00:ec2::254", Some(80), Imds),
        ("169.254.169.254", Some(53), Unknown),
        ("169.254.169.254", None, Unknown),
        ("169.254.170.23", Some(80), PodIdentity),
        ("fd00:ec2::23", Some(80), PodIdentity),
        ("169.254.170.23", Some(2703), NodeLocal),
        ("fd00:ec2::23", Some(2703), Unknown),
        ("127.0.0.1", Some(80), NodeLocal),
        ("127.9.9.9", None, NodeLocal),
        ("::1", Some(1), NodeLocal),
        ("10.0.3.7", Some(10250), NodeLocal),
        ("10.0.4.7", None, NodeLocal),
        ("2600:1f13:abc:1::7", None, NodeLocal),
        // The node's neighbourhood may be the VPC.
        ("2600:1f13:abc:ffff::1", Some(443), Unknown),
        ("2600:1f13:fff:1::1", Some(443), Internet),
        ("10.0.3.8", Some(443), Unknown),
        ("172.16.0.1", Some(443), Unknown),
        ("172.15.255.255", Some(443), Internet),
        ("172.32.0.0", Some(443), Internet),
        ("192.168.1.1", Some(443), Unknown),
        ("100.64.0.1", Some(443), Unknown),
        ("100.63.255.255", Some(443), Internet),
        ("100.128.0.0", Some(443), Internet),
        ("198.18.0.1", Some(443), Unknown),
        ("198.20.0.1", Some(443), Internet),
        ("192.0.2.1", Some(443), Unknown),
        ("203.0.113.9", Some(443), Unknown),
        ("224.0.0.251", Some(5353), Unknown),
        ("255.255.255.255", Some(67), Unknown),
        ("0.0.0.0", None, Unknown),
        ("93.184.216.34", Some(443), Internet),
        ("8.8.8.8", None, Internet),
        ("::", None, Unknown),
        ("fe80::1", Some(443), Unknown),
        ("fc00::1", Some(443), Unknown),
        ("ff02::fb", Some(5353), Unknown),
        ("2001:db8::1", Some(443), Unknown),
        ("2001:0:1::1", Some(443), Unknown),
        ("2002:a00:1::1", Some(443), Unknown),
        ("64:ff9b::808:808", Some(443), Unknown),
        ("2606:4700::1111", Some(443), Internet),
        ("2a00:1450:4001::1", Some(443), Internet),
    ];
    for (address, port, expected) in cases {
        assert_eq!(classify(ip(address), *port, &node), *expected, "{address} {port:?}");
    }
}

#[test]
fn a_vpc_of_public_looking_addresses_is_not_the_internet() {
    let node = NodeAddresses::new(&[ip("11.5.0.9")]);
    assert_eq!(classify(ip("11.5.200.1"), Some(443), &node), PeerClass::Unknown);
    assert_eq!(classify(ip("11.6.0.1"), Some(443), &node), PeerClass::Internet);
}

proptest! {
    /// What the standard library knows to be special is never called internet.
    #[test]
    fn special_addresses_are_never_internet(bits: u32, wide: u128) {
        let node = NodeAddresses::default();
        let v4 = Ipv4Addr::from_bits(bits);
        if v4.is_private() || v4.is_link_local() || v4.is_multicast() || v4.is_broadcast() || v4.is_documentation()
            || v4.is_loopback() || v4.is_unspecified()
        {
            prop_assert_ne!(classify(IpAddr::V4(v4), Some(443), &node), PeerClass::Internet);
        }
        let v6 = Ipv6Addr::from_bits(wide);
        if v6.is_multicast() || v6.is_unique_local() || v6.is_unicast_link_local() {
            prop_assert_ne!(classify(IpAddr::V6(v6), Some(443), &node), PeerClass::Internet);
        }
    }
}
