//! An agent over its budget of CPU tells fewer of the new connections, and no byte, connection, failure or request less.

use std::net::SocketAddr;
use std::time::Instant;

use anyhow::{Result, ensure};
use serde_json::json;
use system_tests::lab::IMDS_V4;
use system_tests::metadata_server::Behaviour;
use system_tests::protocol::{Load, Op};
use system_tests::{Agent, Lab, MetadataServer, Pod, Sum, Wire, scale};

#[test]
fn over_its_budget_of_cpu_connections_are_summed_up_and_nothing_else_is() -> Result<()> {
    let batch = scale::count("connections of a batch", 500, 100);
    let lab = Lab::new(Wire::Veth)?;
    let services = MetadataServer::start(&lab.server, Behaviour::default())?;
    let (web, caller) = (Pod::new()?, Pod::new()?);
    // Some 3,000 connections a second: every machine makes more.
    let agent = Agent::with(json!({ "kernel": { "cpu_percent": 1 } }))?;
    let (mut server, mut client) = (web.actor(&lab.server)?, caller.actor(&lab.client)?);
    let address = server.serve_http(lab.server_v4(0))?;
    let echo: Vec<SocketAddr> = server.ask(&Op::ServeUdp { address: lab.server_v4(0), sockets: 1 })?;
    let imds = SocketAddr::from((IMDS_V4, 80));

    let (mut sum, mut datagrams, mut asked, mut refused) = (Sum::default(), Sum::default(), 0, 0);
    let add = |sum: &mut Sum, load: Load| {
        sum.connections += load.connections;
        sum.sent += load.sent;
        sum.received += load.received;
    };
    let deadline = Instant::now() + scale::deadline();
    loop {
        add(&mut sum, client.load_http(address, batch, 8)?);
        let op = Op::LoadUdp { peers: echo.clone(), sockets: batch, rounds: 1, interleaved: false, connected: true };
        add(&mut datagrams, client.ask(&op)?);
        client.exchange(imds, &["GET /latest/meta-data/instance-id HTTP/1.0\r\n\r\n"])?;
        asked += 1;
        client.try_connect("refused", lab.server_v4(81))?;
        client.close("refused")?;
        refused += 1;
        let books = agent.books_with("tcp", 1)?;
        if books.of("tcp")?.fate("sampled")? > 0 && books.of("udp")?.fate("sampled")? > 0 {
            break;
        }
        ensure!(Instant::now() < deadline, "nothing was sampled: {books:?}");
    }
    // Once more, with what is summed up from the first one on.
    add(&mut sum, client.load_http(address, batch, 8)?);
    services.stop()?;
    server.stop_serving()?;
    lab.wait_until_closed()?;
    let books = agent.settled_books_with("tcp", sum.connections)?;
    books.check()?;
    let (tcp, metadata) = (books.of("tcp")?, books.of("metadata")?);
    println!("{tcp:?}");
    ensure!(tcp.lost() == 0, "{tcp:?}");
    ensure!(metadata.fate("sampled")? == 0 && metadata.fate("suppressed")? == 0, "{metadata:?}");
    let finished = agent.finish()?;
    ensure!(finished.stderr.contains("over its budget of CPU"), "not said: {}", finished.stderr);

    let rows = finished.rows;
    let failed = rows.flows_of(&caller).filter(|flow| flow.outcome.as_deref() == Some("refused") && !flow.merged);
    assert_eq!(failed.map(|flow| flow.connections).sum::<u64>(), refused, "{}", rows.show(&caller));
    assert_eq!(rows.metadata_of(&caller).filter(|row| row.status == Some(200)).count() as u64, asked);
    // Requests to the metadata service are connections, too.
    let all = Sum::over(rows.flows_of(&caller)).connections;
    assert_eq!(all, sum.connections + datagrams.connections + refused + asked, "{}", rows.show(&caller));
    // The server moved nothing else.
    let served = Sum::over(rows.flows_of(&web));
    let bytes = (sum.received + datagrams.received, sum.sent + datagrams.sent);
    assert_eq!((served.sent, served.received), bytes, "{}", rows.show(&web));
    Ok(())
}
