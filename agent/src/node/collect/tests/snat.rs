//! Ports of translated connections, from what the kernel would tell.

use std::io;
use std::net::SocketAddr;

use super::*;
use crate::node::collect::snat::Snat;
use crate::node::collect::translations::Translation;

fn snat(ip: &str) -> Scope {
    Scope::Snat(ip.into())
}

fn at(text: &str) -> SocketAddr {
    text.parse().expect("an address")
}

/// So many connections to one service, with ports from the first on.
fn connections(protocol: u8, local: &str, remote: &str, count: u16) -> impl Iterator<Item = Translation> {
    let (local, remote) = (at(local), at(remote));
    (0..count).map(move |number| Translation {
        protocol,
        remote,
        local: SocketAddr::new(local.ip(), local.port() + number),
    })
}

fn tell(
    take: &mut dyn FnMut(Translation) -> io::Result<()>,
    translations: impl Iterator<Item = Translation>,
) -> Result<(), Error> {
    for translation in translations {
        take(translation).map_err(|source| Error::Kernel { what: "list".to_owned(), source })?;
    }
    Ok(())
}

fn tracked(count: &str) -> Fixture {
    let node = Fixture::new();
    node.put("proc/sys/net/netfilter/nf_conntrack_count", count);
    node
}

#[test]
fn of_each_address_the_most_crowded_service_counts() {
    let node = tracked("900\n");
    let look = Snat::new(&node.roots, |take| {
        tell(take, connections(6, "10.0.0.5:2000", "192.0.2.7:443", 300))?;
        tell(take, connections(6, "10.0.0.5:2000", "192.0.2.7:80", 299))?;
        tell(take, connections(17, "10.0.0.5:2000", "192.0.2.2:53", 301))?;
        // Two services of one address, and ports that nobody picks, are none of these.
        tell(take, connections(6, "10.0.0.5:1", "192.0.2.7:443", 1_023))?;
        tell(take, connections(1, "10.0.0.5:2000", "192.0.2.7:443", 500))?;
        tell(take, connections(6, "10.0.1.9:40000", "192.0.2.7:443", 2))
    });
    let seen = Seen::by(Collector::Snat, look);
    assert_eq!(seen.error, None);
    let ports = |ip: &str| seen.figures(Resource::EphemeralPorts, &snat(ip));
    assert_eq!(ports("10.0.0.5"), Some((Some(301), Limit::Of(64_512))));
    assert_eq!(ports("10.0.1.9"), Some((Some(2), Limit::Of(64_512))));
    assert_eq!(seen.samples.len(), 2);
    assert_eq!(&*seen.samples[0].source, "conntrack: UDP to 192.0.2.2:53");
}

#[test]
fn what_finds_no_room_makes_it_a_least_figure() {
    let node = tracked("9000000\n");
    let look = Snat::new(&node.roots, |take| {
        for host in 0..10_u8 {
            tell(take, connections(6, "10.0.0.5:2000", &format!("192.0.2.{host}:443"), 60_000))?;
        }
        Ok(())
    });
    let seen = Seen::by(Collector::Snat, look);
    assert_eq!((seen.error, seen.samples.len()), (None, 1));
    assert_eq!(seen.samples[0].used, Some(60_000));
    assert!(seen.samples[0].source.ends_with(", at least"), "{}", seen.samples[0].source);
    let look = Snat::new(&node.roots, |take| {
        for host in 0..=u16::MAX {
            tell(take, connections(6, "10.0.0.5:2000", &format!("10.1.{}.{}:443", host >> 8, host & 255), 2))?;
        }
        tell(take, connections(6, "10.0.0.6:2000", "192.0.2.9:443", 9))
    });
    let seen = Seen::by(Collector::Snat, look);
    assert_eq!((seen.samples.len(), seen.samples[0].used), (1, Some(2)));
    assert!(seen.samples[0].source.ends_with(", at least"), "{}", seen.samples[0].source);
}

#[test]
fn only_a_few_addresses_are_told_and_those_the_most_crowded() {
    let node = tracked("900\n");
    let look = Snat::new(&node.roots, |take| {
        (1..=20_u16).try_for_each(|n| tell(take, connections(6, &format!("10.0.0.{n}:2000"), "192.0.2.7:443", n)))
    });
    let seen = Seen::by(Collector::Snat, look);
    assert_eq!(
        seen.samples.iter().map(|sample| sample.used).collect::<Vec<_>>(),
        [20, 19, 18, 17, 16, 15, 14, 13].map(Some)
    );
}

#[test]
fn without_tracking_or_permission_the_node_has_no_such_thing() {
    let never: super::super::snat::Ask = |_| panic!("nobody is asked");
    let absent = |node: &Fixture, ask| {
        let mut look = Snat::new(&node.roots, ask);
        let mut facts = Vec::new();
        let result = look.look(&mut facts);
        (result.map_err(|error| error.is_absent()), facts.len())
    };
    assert_eq!(absent(&Fixture::new(), never), (Err(true), 0));
    assert_eq!(absent(&tracked("0\n"), never), (Ok(()), 1), "an empty table needs no walk");
    let denied: super::super::snat::Ask =
        |_| Err(Error::Kernel { what: "list".to_owned(), source: io::Error::from_raw_os_error(libc::EPERM) });
    assert_eq!(absent(&tracked("5\n"), denied), (Err(true), 0));
    let broken: super::super::snat::Ask =
        |_| Err(Error::Kernel { what: "list".to_owned(), source: io::Error::from_raw_os_error(libc::ENOBUFS) });
    assert_eq!(absent(&tracked("5\n"), broken), (Err(false), 0));
    assert_eq!(absent(&tracked("many\n"), never), (Err(false), 0));
}
