//! Answers of the metadata service that die on the node, one hop before the pod that waits for them.

use std::net::SocketAddr;

use anyhow::{Context, Result, ensure};
use serde_json::json;
use system_tests::lab::IMDS_V4;
use system_tests::metadata_server::Behaviour;
use system_tests::{Actor, MetadataServer, Node, NodePod, Wiring};

/// Longer than the first SYN's own patience, so that a lost one is seen as such.
const PATIENCE_MS: u32 = 2_500;
const TOKEN: &str = "PUT /latest/api/token HTTP/1.1\r\nHost: imds\r\nX-aws-ec2-metadata-token-ttl-seconds: 600\r\n\
                     Connection: close\r\n\r\n";

/// What came back.
fn ask(client: &mut Actor, request: &str) -> Result<String> {
    Ok(client.exchange_within(SocketAddr::from((IMDS_V4, 80)), &[request], PATIENCE_MS)?.answer)
}

/// A pod whose handshake comes through and whose answer does not.
fn waits_in_vain(pod: &NodePod) -> Result<()> {
    let mut client = pod.actor()?;
    let answer = ask(&mut client, TOKEN)?;
    ensure!(answer.is_empty(), "the answer came through: {answer:?}");
    client.end()
}

fn node_with_hop_limit(hops: u32) -> Result<(Node, MetadataServer)> {
    let node = Node::with_metadata_beyond()?;
    let services = MetadataServer::start(&node.vpc, Behaviour { hop_limit: Some(hops), ..Behaviour::default() })?;
    Ok((node, services))
}

#[test]
fn a_pod_beyond_the_hop_limit_is_told_until_it_is_gone() -> Result<()> {
    let (mut node, services) = node_with_hop_limit(1)?;
    let on_the_host = node.pod("shop", "on-the-host", Wiring::HostNetwork)?;
    let beyond = node.pod("shop", "beyond", Wiring::Plain)?;
    let elsewhere = node.pod("shop", "elsewhere", Wiring::Plain)?;
    let blocked = node.pod("shop", "blocked", Wiring::Plain)?;
    for pod in [&beyond, &elsewhere] {
        node.admit(pod)?;
    }
    let agent = node.agent(json!({}))?;

    // On the node itself the answer arrives, and tells the limit.
    let answer = ask(&mut on_the_host.actor()?, TOKEN)?;
    ensure!(answer.starts_with("HTTP/1.1 200"), "{answer:?}");
    waits_in_vain(&beyond)?;
    // Innocent: a request that is not for a token, which is answered; and one that never got as far as the service.
    let other_cloud = "GET /computeMetadata/v1/ HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";
    let answer = ask(&mut elsewhere.actor()?, other_cloud)?;
    ensure!(answer.starts_with("HTTP/1.1 404"), "{answer:?}");
    ensure!(ask(&mut blocked.actor()?, TOKEN)?.is_empty(), "nothing finds the way back to it");

    let found = agent.wait_for_findings("open", &["metadata-unanswered beyond"])?;
    let finding = found.iter().find(|finding| finding.state == "open").context("it is open")?;
    assert_eq!((finding.severity.as_str(), finding.cause.as_str()), ("low", "hop_limit"));
    assert!(finding.text.contains("hop limit is 1"), "{}", finding.text);
    node.end(beyond)?;
    agent.wait_for_findings("resolved", &["metadata-unanswered beyond"])?;
    assert!(agent.named_findings("open")?.is_empty(), "{:#?}", agent.findings()?);
    services.stop()?;
    agent.finish()?;
    Ok(())
}

#[test]
fn answers_that_die_on_the_node_are_counted_by_its_own_icmp() -> Result<()> {
    let (mut node, services) = node_with_hop_limit(1)?;
    let beyond = node.pod("shop", "beyond", Wiring::Plain)?;
    node.admit(&beyond)?;
    let mut agent = node.agent(json!({}))?;
    agent.wait_for("the first look at the node's counters", |rows| !rows.capacity.is_empty())?;
    // Nobody on the node has asked, so only the messages tell that it is the limit.
    waits_in_vain(&beyond)?;
    let found = agent.wait_for_findings("open", &["metadata-unanswered beyond"])?;
    assert_eq!(found[0].cause, "hop_limit");
    assert!(found[0].text.contains("ICMP time exceeded"), "{}", found[0].text);
    services.stop()?;
    agent.finish()?;
    Ok(())
}

#[test]
fn two_hops_are_enough_for_a_pod() -> Result<()> {
    let (mut node, services) = node_with_hop_limit(2)?;
    let pod = node.pod("shop", "in-reach", Wiring::Plain)?;
    node.admit(&pod)?;
    let agent = node.agent(json!({}))?;
    let answer = ask(&mut pod.actor()?, TOKEN)?;
    ensure!(answer.starts_with("HTTP/1.1 200"), "{answer:?}");
    services.stop()?;
    let finished = agent.finish()?;
    let of_pod = finished.rows.metadata_of(&pod.container);
    let told: Vec<_> = of_pod.map(|row| (row.category.as_deref(), row.response_ttl)).collect();
    // The node took one of the two.
    assert_eq!(told, [(Some("token"), Some(1))]);
    Ok(())
}
