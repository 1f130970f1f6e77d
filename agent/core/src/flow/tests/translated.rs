//! Connections to services: what stands behind them is asked for once a fold, and told only when it is one and certain.

use std::net::SocketAddr;

use super::*;
use crate::backends::{Backend, Connection};
use crate::engine::Engine;
use crate::facts::{HostFact, ServiceFacts, ServicePort, Source};
use crate::output::ActualPeer;

const SERVICE: &str = "172.20.0.9";

fn service() -> ServiceFacts {
    ServiceFacts {
        namespace: "shop".into(),
        name: "web".into(),
        cluster_ips: vec![SERVICE.parse().unwrap()],
        outer_ips: Vec::new(),
        ports: vec![ServicePort { protocol: Protocol::Tcp, port: 80, node_port: Some(30_080) }],
    }
}

fn stands(error: Option<&str>) -> Input {
    let error = error.map(ToOwned::to_owned);
    cluster(ClusterFact::Source { source: Source::Services, fresh_at: Some(WallNs(0)), error })
}

fn world() -> Engine {
    let mut engine = engine();
    let services = cluster(ClusterFact::ServicesReplaced(vec![service().into()]));
    feed(&mut engine, [services, stands(None), Input::NodeAddresses(vec!["10.0.0.7".parse().unwrap()])]);
    engine
}

fn to(cookie: u64, port: u16, remote: &str, remote_port: u16) -> TcpFact {
    TcpFact { ends: ends("10.0.0.1", port, remote, remote_port), ..tcp(cookie) }
}

fn to_service(cookie: u64, port: u16) -> Input {
    Input::Tcp(to(cookie, port, SERVICE, 80))
}

fn answer(of: Connection, backend: &str) -> Backend {
    Backend { of, backend: backend.parse().unwrap() }
}

fn told(backends: Vec<Backend>) -> Input {
    Input::Host(Box::new(HostFact::Backends(backends)))
}

/// The rows of a fold whose question is answered by `backend`, port by port.
fn folded(
    engine: &mut Engine,
    inputs: Vec<Input>,
    second: u64,
    backend: impl Fn(u16) -> Option<&'static str>,
) -> Vec<FlowRow> {
    assert!(flows(&feed(engine, inputs)).is_empty());
    assert!(flows(&feed(engine, [tick(second)])).is_empty(), "the fold waits");
    let mut asked = engine.asks_backends().unwrap();
    asked.sort_unstable();
    let backends = asked.into_iter().filter_map(|of| Some(answer(of, backend(of.local.port())?)));
    let outputs = feed(engine, [told(backends.collect())]);
    flows(&outputs).into_iter().cloned().collect()
}

fn actual(ip: &str, port: u16) -> ActualPeer {
    ActualPeer { ip: ip.parse().unwrap(), port }
}

#[test]
fn a_services_address_has_its_name_while_that_is_recent() {
    let mut engine = world();
    let rows = fold(&mut engine, [to_service(1, 40_000)]);
    let peer = &rows[0].peer;
    assert_eq!((peer.class, peer.name.as_deref()), (PeerClass::Service, Some("web.shop.svc")));
    assert_eq!((peer.namespace.as_deref(), peer.pod.as_deref()), (Some("shop"), None));
    // Nobody has said for long that it is still so: the address is a service's, and whose is not known.
    let rows = fold(&mut engine, [stands(Some("gone")), to_service(2, 40_000)]);
    assert_eq!((rows[0].peer.class, &rows[0].peer.name, &rows[0].peer.namespace), (PeerClass::Service, &None, &None));
}

#[test]
fn the_one_backend_of_a_row_is_told() {
    let mut engine = world();
    let inputs = vec![to_service(1, 40_000), to_service(2, 40_001), Input::Tcp(tcp(3))];
    let rows = folded(&mut engine, inputs, 11, |_| Some("10.0.1.1:8080"));
    assert_eq!(rows.iter().map(|row| row.actual_peer).collect::<Vec<_>>(), [Some(actual("10.0.1.1", 8_080)), None]);
    assert_eq!(rows[0].connections, 2);

    // Two backends, or one that is not known: nothing is said, and nothing is kept of the fold before.
    let inputs = vec![to_service(4, 40_002), to_service(5, 40_003)];
    let two = |port| Some(if port == 40_002 { "10.0.1.1:8080" } else { "10.0.1.2:8080" });
    assert_eq!(folded(&mut engine, inputs, 21, two)[0].actual_peer, None);
    let inputs = vec![to_service(6, 40_000), to_service(7, 40_001)];
    let one = |port| (port == 40_000).then_some("10.0.1.1:8080");
    assert_eq!(folded(&mut engine, inputs, 31, one)[0].actual_peer, None);
}

#[test]
fn a_port_used_twice_tells_nothing_of_the_first_backend() {
    let mut engine = world();
    // In one row, and in two.
    let reset = Input::Tcp(TcpFact { outcome: Outcome::Reset, ..to(3, 40_001, SERVICE, 80) });
    let inputs = vec![to_service(1, 40_000), to_service(2, 40_000), reset, to_service(4, 40_001)];
    feed(&mut engine, inputs);
    feed(&mut engine, [tick(11)]);
    assert_eq!(engine.asks_backends(), None, "nothing could be told");
    let outputs = feed(&mut engine, [tick(12)]);
    assert!(flows(&outputs).iter().all(|row| row.actual_peer.is_none()));
}

#[test]
fn node_ports_hairpins_and_what_is_not_translated() {
    let mut engine = world();
    let open = |fact: TcpFact| Input::Tcp(TcpFact { open: true, ..fact });
    let inputs = vec![
        // By a port of this node; by the same port of another node, which translates it there; by another port here.
        open(to(1, 40_000, "10.0.0.7", 30_080)),
        open(to(2, 40_001, "10.0.0.8", 30_080)),
        open(to(3, 40_002, "10.0.0.7", 22)),
        // To itself by way of the service.
        to_service(4, 40_003),
        // Came in; never left.
        Input::Tcp(TcpFact { direction: Inbound, ends: ends("10.0.0.1", 80, SERVICE, 80), ..tcp(5) }),
        Input::Attempt(AttemptFact { ends: ends("0.0.0.0", 0, SERVICE, 80), ..attempt(6) }),
    ];
    let backend = |port| Some(if port == 40_003 { "10.0.0.1:8080" } else { "10.0.1.1:8080" });
    let rows = folded(&mut engine, inputs, 11, backend);
    let actual_peers: Vec<_> = rows.iter().map(|row| row.actual_peer).collect();
    assert_eq!(
        actual_peers,
        [Some(actual("10.0.1.1", 8_080)), None, None, Some(actual("10.0.0.1", 8_080)), None, None]
    );
    assert_eq!(rows[0].peer.class, PeerClass::NodeLocal);
}

#[test]
fn a_fold_waits_a_moment_and_not_for_ever() {
    let mut engine = world();
    feed(&mut engine, [to_service(1, 40_000), tick(11)]);
    let asked = engine.asks_backends().unwrap();
    let remote: SocketAddr = format!("{SERVICE}:80").parse().unwrap();
    assert_eq!(asked.iter().map(|of| (of.local.port(), of.remote)).collect::<Vec<_>>(), [(40_000, remote)]);
    let outputs = feed(&mut engine, [tick(12)]);
    assert_eq!(flows(&outputs).iter().map(|row| row.actual_peer).collect::<Vec<_>>(), [None]);
    // The answer comes when it is too late: no fold is closed by it.
    feed(&mut engine, [to_service(2, 40_001)]);
    assert!(feed(&mut engine, [told(vec![answer(asked[0], "10.0.1.1:80")])]).is_empty());
    let outputs = feed(&mut engine, [Input::Stop]);
    assert_eq!(flows(&outputs).len(), 1);
}
