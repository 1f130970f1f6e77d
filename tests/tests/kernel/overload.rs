//! Maps and rings that are far too small: nobody's traffic suffers, totals stay exact, and the books balance.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Result, ensure};
use serde_json::json;
use system_tests::lab::IMDS_V4;
use system_tests::metadata_server::Behaviour;
use system_tests::protocol::Op;
use system_tests::{Agent, Flow, Lab, Load, MetadataServer, Pod, Sum, Wire, scale};

#[test]
fn a_ring_too_small_merges_and_loses_nothing() -> Result<()> {
    let connections = scale::count("HTTP connections", 5_000, 1_000);
    let lab = Lab::new(Wire::Veth)?;
    let (web, caller) = (Pod::new()?, Pod::new()?);
    let agent = Agent::with(json!({ "kernel": { "bulk_ring_bytes": 4096 } }))?;
    let (mut server, mut client) = (web.actor(&lab.server)?, caller.actor(&lab.client)?);

    let address = server.serve_http(lab.server_v4(0))?;
    // A ring of 25 records that nobody empties is full on any machine.
    agent.pause()?;
    let load = client.load_http(address, connections, 16)?;
    assert_eq!(server.stop_serving()?, load.mirrored());
    lab.wait_until_closed()?;
    agent.resume()?;
    let books = agent.books_with("tcp", 2 * load.connections)?;
    let rows = agent.finish()?.rows;

    // The bytes of kernel totals stand in rows of their own, without direction.
    for (pod, direction, load) in [(&caller, "outbound", load), (&web, "inbound", load.mirrored())] {
        assert_eq!(Sum::over(rows.flows_of(pod)), load.into(), "{}", rows.show(pod));
        let mut ended = rows.flows_of(pod).filter(|flow| flow.connections > 0);
        let right = |flow: &Flow| flow.direction == direction && flow.outcome.as_deref() == Some("established");
        ensure!(ended.all(right), "{}", rows.show(pod));
    }
    let merged = Sum::over(rows.flows_of(&caller).filter(|flow| flow.merged)).connections;
    ensure!(merged > 0, "the ring was never full: the test proves nothing{}", rows.show(&caller));
    let tcp = books.of("tcp")?;
    ensure!(tcp.fate("merged")? > 0 && tcp.lost() == 0, "{tcp:?}");
    books.check()
}

#[test]
fn traffic_passes_with_every_map_and_ring_full() -> Result<()> {
    let connections = scale::count("HTTP connections", 2_000, 500);
    let lab = Lab::new(Wire::Veth)?;
    let services = MetadataServer::start(&lab.server, Behaviour::default())?;
    let (web, caller) = (Pod::new()?, Pod::new()?);
    let agent = Agent::with(json!({ "kernel": {
        "metadata_ring_bytes": 4096, "lifecycle_ring_bytes": 4096, "bulk_ring_bytes": 4096, "max_sockets": 16,
    }}))?;
    let (mut server, mut client) = (web.actor(&lab.server)?, caller.actor(&lab.client)?);

    agent.pause()?;
    let held: SocketAddr = server.ask(&Op::ServeHolding { address: lab.server_v4(0) })?;
    let kept: Load = client.ask(&Op::OpenMany { server: held, connections: 100 })?;
    let address = server.serve_http(lab.server_v4(0))?;
    let load = client.load_http(address, connections, 16)?;
    let peers: Vec<SocketAddr> = server.ask(&Op::ServeUdp { address: lab.server_v4(0), sockets: 10 })?;
    let udp: Load =
        client.ask(&Op::LoadUdp { peers, sockets: connections, rounds: 2, interleaved: true, connected: false })?;
    let imds = SocketAddr::from((IMDS_V4, 80));
    let payload = "GET /latest/meta-data/instance-id HTTP/1.0\r\n\r\n".to_owned();
    let answered: u64 = client.ask(&Op::ExchangeMany { server: imds, payload, times: 200 })?;
    client.ask::<()>(&Op::CloseMany)?;

    agent.resume()?;

    // Not one connect, datagram or answer failed.
    let mut all = kept.mirrored();
    all += load.mirrored();
    all += udp.mirrored();
    assert_eq!(server.stop_serving()?, all);
    assert_eq!(answered, 200);
    assert_eq!(services.stop()?.len(), 200);
    agent.finish()?;
    Ok(())
}

#[test]
fn a_flood_costs_nobody_else_a_metadata_record() -> Result<()> {
    let flood = scale::count("requests of the flood", 20_000, 2_000);
    let lab = Lab::new(Wire::Veth)?;
    let services = MetadataServer::start(&lab.server, Behaviour::default())?;
    let (noisy, quiet) = (Pod::new()?, Pod::new()?);
    let agent = Agent::start()?;
    let (mut flooder, mut client) = (noisy.actor(&lab.client)?, quiet.actor(&lab.client)?);
    let imds = SocketAddr::from((IMDS_V4, 80));

    // Every answer has 64 KiB.
    let payload = "GET /latest/user-data HTTP/1.0\r\n\r\n".to_owned();
    flooder.tell(&Op::ExchangeMany { server: imds, payload, times: u32::try_from(flood)? })?;
    let asked = 50;
    for _ in 0..asked {
        let answer = client.exchange(imds, &["GET /latest/meta-data/instance-id HTTP/1.0\r\n\r\n"])?;
        ensure!(answer.answer.contains("i-0123456789abcdef0"), "the service answered {answer:?}");
        // Within any pod's guaranteed share.
        std::thread::sleep(Duration::from_millis(40));
    }
    assert_eq!(flooder.answer::<u64>()?, flood as u64);
    assert_eq!(services.stop()?.len(), flood + asked);
    // Every request has its end at least, and what of the others was suppressed is known once the counters were read.
    let books = agent.settled_books_with("metadata", (flood + asked) as u64)?;
    let rows = agent.finish()?.rows;

    let seen = rows.metadata_of(&quiet).filter(|row| row.status == Some(200) && row.outcome == "ok").count();
    assert_eq!((seen, rows.metadata_of(&quiet).count()), (asked, asked));
    let told = rows.metadata_of(&noisy).count();
    let metadata = books.of("metadata")?;
    println!("{told} of {flood} requests of the flood are told; {metadata:?}");
    ensure!(told >= flood || metadata.fate("suppressed")? > 0, "the rest of the flood is nowhere: {metadata:?}");
    ensure!(metadata.lost() == 0, "the ring was full: {metadata:?}");
    books.check()
}
