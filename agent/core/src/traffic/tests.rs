//! From inputs of the Engine to sums.

use agent_ebpf::wire::{Outcome, Service};

use super::*;
use crate::engine::Engine;
use crate::input::{Input, MetadataFact, MetadataOutcome, Method, RequestFact, TcpFact};
use crate::testing::*;

fn tick_at(second: u64) -> Input {
    let wall = WallNs(i64::try_from(second * SECOND).unwrap());
    Input::Tick { boot: BootNs(second * SECOND), wall }
}

fn of_pod(n: u32, cookie: u64) -> TcpFact {
    TcpFact { cgroup_id: pod_cgroup(n), ..tcp(cookie) }
}

fn row(engine: &Engine, name: &str) -> TrafficRow {
    let (rows, _) = engine.traffic();
    let mut found = rows.iter().filter(|row| row.pod == name || row.uid == name || row.workload == name);
    let row = found.next().unwrap_or_else(|| panic!("{name} is not in {rows:?}")).clone();
    assert_eq!(found.next(), None, "{name} comes once");
    row
}

fn amounts(bytes_sent: u64, bytes_received: u64, connections: u64) -> Amounts {
    Amounts { bytes_sent, bytes_received, connections }
}

#[test]
fn a_fold_shows_beside_the_sums_until_the_next_one() {
    let mut engine = engine();
    feed(&mut engine, [pod_present(1), Input::Tcp(of_pod(1, 1)), Input::Tcp(of_pod(1, 2))]);
    let before = row(&engine, &uid(1));
    assert_eq!((before.total, before.last_fold), (Sums::default(), None), "absent is not zero");
    assert_eq!(engine.traffic().1.window, None);

    feed(&mut engine, [tick_at(11)]);
    let first = row(&engine, &uid(1));
    assert_eq!((first.total.amounts, first.last_fold), (amounts(200, 2_000, 2), Some(amounts(200, 2_000, 2))));
    assert!(first.alive);
    let window = engine.traffic().1.window.expect("a fold is over");
    assert_eq!(window.end.0 - window.start.0, i64::try_from(10 * SECOND).unwrap());

    feed(&mut engine, [Input::Tcp(of_pod(1, 3)), tick_at(21)]);
    let second = row(&engine, &uid(1));
    assert_eq!((second.total.amounts, second.last_fold), (amounts(300, 3_000, 3), Some(amounts(100, 1_000, 1))));
    // Of a fold in which it was silent there is nothing, and that is known.
    feed(&mut engine, [tick_at(31)]);
    let third = row(&engine, &uid(1));
    assert_eq!((third.total.amounts, third.last_fold), (amounts(300, 3_000, 3), Some(Amounts::default())));
}

#[test]
fn failures_and_requests_are_counted_apart() {
    let mut engine = engine();
    let ended = |cookie, outcome| Input::Tcp(TcpFact { outcome, established: false, ..tcp(cookie) });
    let request = |version| {
        let request = RequestFact {
            method: Method::Get,
            category: crate::input::Category::RoleCredentials,
            role: None,
            version,
            forwarded_for: None,
        };
        Input::Metadata(Box::new(MetadataFact {
            time: BootNs(SECOND),
            cgroup_id: CGROUP,
            cookie: 9,
            process: None,
            ancestors: Vec::new(),
            sender_only: true,
            ends: ends("10.0.0.1", 40_000, "169.254.169.254", 80),
            service: Service::Imds,
            request: Some(request),
            response: None,
            outcome: MetadataOutcome::Ok,
            latency_ns: None,
            origin: None,
        }))
    };
    feed(
        &mut engine,
        [
            ended(1, Outcome::Refused),
            ended(2, Outcome::TimedOut),
            ended(3, Outcome::Reset),
            Input::Attempt(attempt(4)),
            Input::Tcp(tcp(5)),
            Input::Tcp(TcpFact { open: true, bytes_sent: 7, bytes_received: 0, ..tcp(6) }),
            request(ImdsVersion::V1),
            request(ImdsVersion::V2),
        ],
    );
    // Requests are rows of their own and need no fold.
    let early = row(&engine, "app.service").total;
    assert_eq!((early.metadata_requests, early.metadata_v1, early.amounts.connections), (2, 1, 0));
    feed(&mut engine, [tick_at(11)]);
    let total = row(&engine, "app.service").total;
    assert_eq!((total.amounts, total.failed), (amounts(407, 4_000, 5), 3));
}

#[test]
fn containers_of_a_pod_are_one_and_get_its_name_when_it_is_known() {
    let mut engine = engine();
    let second = pod_cgroup(1) + 500;
    let Input::CgroupPresent { path, .. } = pod_present(1) else { panic!("a cgroup") };
    let other = path.replace(&container_id(1), &container_id(501));
    assert_ne!(path, other);
    feed(&mut engine, [pod_present(1), Input::CgroupPresent { id: second, path: other }]);
    let of_second = TcpFact { cgroup_id: second, ..tcp(2) };
    feed(&mut engine, [Input::Tcp(of_pod(1, 1)), Input::Tcp(of_second), tick_at(11)]);
    assert_eq!(row(&engine, &uid(1)).total.amounts, amounts(200, 2_000, 2));
    assert_eq!(row(&engine, &uid(1)).last_fold, Some(amounts(200, 2_000, 2)));
    let name = pod(1).name.to_string();
    feed(&mut engine, [pods([pod(1)])]);
    let named = row(&engine, &uid(1));
    assert_eq!((named.pod, named.total.amounts), (name, amounts(200, 2_000, 2)));
}

#[test]
fn silent_pods_show_and_silent_units_do_not() {
    let mut engine = engine();
    feed(&mut engine, [pod_present(3)]);
    let (rows, basis) = engine.traffic();
    assert_eq!(rows.iter().map(|row| &*row.uid).collect::<Vec<_>>(), [uid(3)]);
    assert!(rows[0].alive && basis.since.is_some());
}

#[test]
fn what_has_ended_goes_after_a_while() {
    let mut engine = engine();
    let gone = Input::CgroupGone { id: CGROUP, time: BootNs(12 * SECOND) };
    feed(&mut engine, [Input::Tcp(tcp(1)), tick_at(11), gone, tick_at(100)]);
    assert!(!row(&engine, "app.service").alive);
    feed(&mut engine, [tick_at(132)]);
    assert_eq!(engine.traffic().0, []);
}

#[test]
fn a_churn_of_pods_is_bounded_and_counted() {
    let mut traffic = Traffic::default();
    let pods = u32::try_from(MAX_KEPT).unwrap() + 10;
    for n in 0..pods {
        let identity = Identity { attribution: AttributionKind::Pod, uid: uid(n), ..Identity::default() };
        traffic.kept(&Arc::new(identity), BootNs(u64::from(n))).sums.failed = 1;
        assert!(traffic.kept.len() <= MAX_KEPT);
    }
    assert_eq!(traffic.kept.len() as u64 + traffic.basis().left_out, u64::from(pods));
    assert_eq!(traffic.basis().left_out, MAX_KEPT as u64 / 4);
    let rows = traffic.rows(std::iter::empty(), BootNs(u64::from(pods)));
    assert!(rows.iter().all(|row| row.uid != uid(0)) && rows.iter().any(|row| row.uid == uid(pods - 1)));
}

#[test]
fn rows_go_to_json_and_back() {
    let row = TrafficRow {
        attribution: AttributionKind::Pod,
        why: None,
        namespace: "shop".to_owned(),
        pod: "cart-0".to_owned(),
        uid: uid(1),
        workload: "cart".to_owned(),
        alive: true,
        total: Sums { amounts: amounts(1, 2, 3), failed: 4, metadata_requests: 5, metadata_v1: 6 },
        last_fold: Some(amounts(7, 8, 9)),
    };
    let text = serde_json::to_string(&row).unwrap();
    assert_eq!(
        text,
        "{\"attribution\":\"pod\",\"namespace\":\"shop\",\"pod\":\"cart-0\",\
         \"uid\":\"00000000-0000-4000-8000-000000000001\",\"workload\":\"cart\",\"alive\":true,\
         \"total\":{\"bytes_sent\":1,\"bytes_received\":2,\"connections\":3,\"failed\":4,\"metadata_requests\":5,\
         \"metadata_v1\":6},\"last_fold\":{\"bytes_sent\":7,\"bytes_received\":8,\"connections\":9}}"
    );
    assert_eq!(serde_json::from_str::<TrafficRow>(&text).unwrap(), row);
}
