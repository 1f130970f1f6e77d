//! What the kernel tells by other ways than files, against the tools that people ask: drivers' counters against `ethtool`,
//! translated connections against `conntrack`.

use std::collections::BTreeMap;
use std::process::Command;
use std::sync::Arc;

use anyhow::{Context, Result, bail, ensure};
use serde_json::json;
use system_tests::looks::Looks;
use system_tests::node::{Node, VPC_IP, Wiring};
use system_tests::{Lab, Wire, agent};

use super::ceilings::tool;

/// A driver's counters, in its order.
type Counters = Vec<(String, u64)>;

/// As `ethtool -S` prints them.
fn by_ethtool(interface: &str) -> Result<Counters> {
    let text = tool("ethtool", &["-S", interface])?;
    let mut lines = text.lines();
    ensure!(lines.next() == Some("NIC statistics:"), "{text}");
    lines
        .map(|line| {
            let (name, value) = line.trim().rsplit_once(": ").with_context(|| format!("a counter: {line}"))?;
            Ok((name.to_owned(), value.parse().with_context(|| format!("a number: {line}"))?))
        })
        .collect()
}

/// As the agent's look at ENA interfaces reads them.
fn by_agent(interface: &str) -> Result<Counters> {
    let output = Command::new(agent::program()?).args(["internal", "counters", interface]).output()?;
    ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).context("counters are JSON")
}

/// The veth driver numbers its counters by queue and tells the other end's index: many names, some of nearly the greatest
/// length, and values that are not all 0.
#[test]
fn drivers_counters_agree_with_ethtool() -> Result<()> {
    let lab = Lab::new(Wire::Veth)?;
    let (mut compared, mut counted) = (0, 0);
    for network in [&lab.client, &lab.server] {
        let names = network.run(|| {
            let links: Vec<serde_json::Value> = serde_json::from_str(&tool("ip", &["-j", "link"])?)?;
            Ok(links.iter().filter_map(|link| link["ifname"].as_str().map(ToOwned::to_owned)).collect::<Vec<_>>())
        })?;
        for name in names.iter().filter(|name| *name != "lo") {
            let (before, told, after) = network.run(|| Ok((by_ethtool(name)?, by_agent(name)?, by_ethtool(name)?)))?;
            let names = |counters: &Counters| counters.iter().map(|(name, _)| name.clone()).collect::<Vec<_>>();
            assert_eq!(names(&told), names(&before), "{name}");
            for (((counter, told), (_, before)), (_, after)) in told.iter().zip(&before).zip(&after) {
                ensure!((before..=after).contains(&told), "{name} {counter}: {told} is not in {before} to {after}");
                counted += u32::from(*told > 0);
            }
            compared += told.len();
        }
    }
    ensure!(compared > 10 && counted >= 2, "{compared} counters were compared, {counted} of them not 0");
    Ok(())
}

/// Whatever interfaces this machine has: the same counters, or none for both.
#[test]
fn this_machine_s_own_interfaces_agree_with_ethtool() -> Result<()> {
    let links: Vec<serde_json::Value> = serde_json::from_str(&tool("ip", &["-j", "link"])?)?;
    for name in links.iter().filter_map(|link| link["ifname"].as_str()) {
        match (by_ethtool(name), by_agent(name)) {
            (Ok(theirs), Ok(ours)) => {
                let names = |counters: &Counters| counters.iter().map(|(name, _)| name.clone()).collect::<Vec<_>>();
                assert_eq!(names(&ours), names(&theirs), "{name}");
            }
            // Without counters one of them says that there are none, and the other that the driver has no such thing.
            (Err(_), Ok(ours)) => assert_eq!(ours, [], "{name}"),
            (Err(_), Err(_)) => {}
            (Ok(theirs), Err(error)) => bail!("{name} has {} counters: {error:#}", theirs.len()),
        }
    }
    Ok(())
}

#[test]
fn ports_of_translated_connections_agree_with_conntrack() -> Result<()> {
    let mut node = Node::new()?;
    let masquerade = "add table ip nat; add chain ip nat out { type nat hook postrouting priority 100; }; \
                      add rule ip nat out oifname \"eth0\" masquerade fully-random";
    node.network.run(|| tool("nft", &[masquerade]))?;
    let pods = [node.pod("shop", "cart-0", Wiring::Plain)?, node.pod("shop", "cart-1", Wiring::Plain)?];
    let mut actors = [pods[0].actor()?, pods[1].actor()?];
    let group = system_tests::Pod::new()?;
    let mut server = node.vpc_actor(&group)?;
    let (database, other) = (Node::vpc_address(5_432), Node::vpc_address(80));
    for (name, address) in [("database", database), ("other", other)] {
        server.listen(name, address)?;
    }
    let wanted = [(0, database, 30), (1, database, 20), (1, other, 5)];
    for (actor, address, count) in wanted {
        for number in 0..count {
            actors[actor].connect(&format!("c{}-{number}", address.port()), address)?;
        }
    }
    let network = Arc::clone(&node.network);
    let (listed, looks) =
        network.run(|| Ok((tool("conntrack", &["-L", "-p", "tcp", "--src-nat"])?, Looks::take()?)))?;
    // By the address that they leave with and the service: the answers come to that address.
    let mut by_service: BTreeMap<(&str, &str), u64> = BTreeMap::new();
    for line in listed.lines() {
        let field =
            |name: &str, nth: usize| line.split_whitespace().filter_map(|word| word.strip_prefix(name)).nth(nth);
        let (Some(local), Some(service)) = (field("dst=", 1), field("sport=", 1)) else { bail!("{line}") };
        *by_service.entry((local, service)).or_default() += 1;
    }
    assert_eq!(by_service, BTreeMap::from([(("10.79.0.1", "5432"), 50), (("10.79.0.1", "80"), 5)]), "{listed}");
    let scope = json!({ "Snat": "10.79.0.1" });
    assert_eq!(looks.figures("ephemeral_ports", &scope)?, (50, 64_512));
    let source = looks.sample("ephemeral_ports", &scope).context("told")?["source"].clone();
    assert_eq!(source, format!("conntrack: TCP to {VPC_IP}:5432"));
    // The pods themselves have no more than their own.
    let own = looks.figures("ephemeral_ports", &system_tests::looks::pod_scope(&pods[0].container))?;
    assert_eq!(own.0, 30);
    Ok(())
}
