//! UDP beyond the plain: segmentation offload, one direction, short-lived sockets, and raw sockets beside them.

use std::net::SocketAddr;

use anyhow::{Result, ensure};
use system_tests::protocol::{Moved, Op};
use system_tests::{Agent, Lab, Load, Pod, Sum, Wire};

/// `IPPROTO_UDP`.
const UDP: u32 = 17;

#[test]
fn segmentation_offload_counts_every_byte() -> Result<()> {
    let lab = Lab::new(Wire::Veth)?;
    let (echo, caller) = (Pod::new()?, Pod::new()?);
    let agent = Agent::start()?;
    let (mut server, mut client) = (echo.actor(&lab.server)?, caller.actor(&lab.client)?);

    let address = server.ask(&Op::UdpBind { socket: "s".into(), address: lab.server_v4(0) })?;
    client.ask::<SocketAddr>(&Op::UdpConnect { socket: "c".into(), address })?;
    let op = Op::SendDatagram { socket: "c".into(), to: None, bytes: 14_100, segment: Some(1_000) };
    assert_eq!(client.ask::<Moved>(&op)?, Moved { bytes: 14_100, errno: None });
    let mut received = 0;
    for _ in 0..15 {
        received += server.receive_datagram("s")?.bytes;
    }
    assert_eq!(received, 14_100);
    client.close("c")?;
    server.close("s")?;
    lab.wait_until_closed()?;

    let rows = agent.finish()?.rows;
    // Nothing came back: one direction only.
    let outbound = rows.sum(&caller, "outbound", "udp", "one_way");
    let inbound = rows.sum(&echo, "inbound", "udp", "one_way");
    assert_eq!(outbound, Sum { connections: 1, sent: 14_100, received: 0 }, "{}", rows.show(&caller));
    assert_eq!(inbound, Sum { connections: 1, sent: 0, received: 14_100 }, "{}", rows.show(&echo));
    Ok(())
}

#[test]
fn short_lived_sockets_as_of_a_resolver() -> Result<()> {
    let lab = Lab::new(Wire::Veth)?;
    let (dns, caller) = (Pod::new()?, Pod::new()?);
    let agent = Agent::start()?;
    let (mut server, mut client) = (dns.actor(&lab.server)?, caller.actor(&lab.client)?);

    let peers: Vec<SocketAddr> = server.ask(&Op::ServeUdp { address: lab.server_v4(53), sockets: 1 })?;
    let load: Load =
        client.ask(&Op::LoadUdp { peers, sockets: 1_000, rounds: 1, interleaved: false, connected: false })?;
    assert_eq!(server.stop_serving()?.received, load.sent);
    lab.wait_until_closed()?;

    let rows = agent.finish()?.rows;
    let outbound = rows.sum(&caller, "outbound", "udp", "established");
    assert_eq!(outbound, load.into(), "{}", rows.show(&caller));
    ensure!(rows.flows_of(&caller).all(|flow| flow.service_port == Some(53)), "{}", rows.show(&caller));
    // The kernel may give a port to a second socket of the client: the server then sees one flow go on.
    let inbound = Sum::over(rows.flows_of(&dns));
    assert_eq!((inbound.sent, inbound.received), (load.received, load.sent), "{}", rows.show(&dns));
    Ok(())
}

#[test]
fn raw_and_packet_sockets_count_nothing_twice() -> Result<()> {
    let lab = Lab::new(Wire::Veth)?;
    let (echo, caller, sniffer) = (Pod::new()?, Pod::new()?, Pod::new()?);
    let agent = Agent::start()?;
    let (mut server, mut client) = (echo.actor(&lab.server)?, caller.actor(&lab.client)?);
    let mut watcher = sniffer.actor(&lab.server)?;
    watcher.ask::<()>(&Op::OpenRaw { socket: "raw".into(), protocol: UDP })?;
    watcher.ask::<()>(&Op::OpenPacket { socket: "packet".into() })?;

    let peers: Vec<SocketAddr> = server.ask(&Op::ServeUdp { address: lab.server_v4(0), sockets: 1 })?;
    let load: Load = client.ask(&Op::LoadUdp { peers, sockets: 20, rounds: 5, interleaved: true, connected: true })?;
    assert_eq!(server.stop_serving()?, load.mirrored());
    watcher.end()?;
    lab.wait_until_closed()?;

    let rows = agent.finish()?.rows;
    assert_eq!(rows.sum(&caller, "outbound", "udp", "established"), load.into(), "{}", rows.show(&caller));
    assert_eq!(rows.sum(&echo, "inbound", "udp", "established"), load.mirrored().into(), "{}", rows.show(&echo));
    assert_eq!(Sum::over(rows.flows_of(&sniffer)), Sum::default(), "{}", rows.show(&sniffer));
    Ok(())
}
