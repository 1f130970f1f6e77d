//! Rows made by hand, with values that differ from field to field.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use agent_core::books::{Ledger, Records};
use agent_core::input::{Category, GapCause, ImdsVersion, MetadataOutcome, Method};
use agent_core::output::{
    ActualPeer, Ancestor, AttributionKind, By, FlowRow, GapRow, Identity, Local, MetadataRow, Output, Peer, PeerClass,
    ProcessRow, ProcessView, Protocol, RttHistogram, Via, Who, Window,
};
use agent_core::time::WallNs;

pub(crate) const SECOND: i64 = 1_000_000_000;
/// 2026-11-22T00:00:00Z.
pub(crate) const DAY: i64 = 1_795_305_600 * SECOND;

pub(crate) fn at(second: i64) -> WallNs {
    WallNs(DAY + second * SECOND)
}

pub(crate) fn identity(pod: u32) -> Arc<Identity> {
    Arc::new(Identity {
        attribution: AttributionKind::Pod,
        why: None,
        namespace: format!("ns-{}", pod % 7),
        pod: format!("pod-{pod}"),
        uid: format!("00000000-0000-4000-8000-{pod:012}"),
        container: format!("{pod:064x}"),
        workload: format!("app-{}", pod / 3),
    })
}

pub(crate) fn process(pid: u32, exe: &str) -> Arc<ProcessView> {
    let ancestor = |pid, comm: &str, exe| Ancestor { pid, comm: comm.to_owned(), exe };
    Arc::new(ProcessView {
        pid,
        exe: Some(exe.to_owned()),
        exe_resolved: Some(format!("/usr{exe}")),
        comm: exe.rsplit('/').next().unwrap_or_default().to_owned(),
        args: Vec::new(),
        ancestors: vec![ancestor(pid - 1, "sh", Some("/bin/sh".to_owned())), ancestor(1, "containerd-shim", None)],
        by: By::Connect,
    })
}

pub(crate) fn who(pod: u32, pid: u32) -> Who {
    Who { identity: identity(pod), process: Some(process(pid, "/bin/curl")) }
}

/// A fold that ends at a second.
pub(crate) fn flow(pod: u32, peer: u32, second: i64) -> Output {
    let mut records = Records::default();
    records.add(Ledger::Tcp, 3);
    Output::Flow(Box::new(FlowRow {
        who: who(pod, 1_000 + pod),
        window: Window { start: at(second - 10), end: at(second) },
        direction: "outbound",
        protocol: Some(Protocol::Tcp),
        local: Local { ip: Some(format!("10.0.{}.{}", pod >> 8, pod & 0xff)) },
        peer: Peer {
            ip: Some(std::net::Ipv4Addr::from(0x0a64_0000 + peer).to_string()),
            class: PeerClass::ClusterPod,
            name: None,
            namespace: Some("shop".to_owned()),
            pod: Some(format!("db-{peer}")),
        },
        actual_peer: Some(ActualPeer { ip: IpAddr::V4((0x0ac8_0000 + peer).into()), port: 8_443 }),
        via: Some(Via::Sidecar),
        service_port: Some(5_432),
        outcome: Some("established"),
        connections: 3,
        open: 0,
        processes: 1,
        bytes_sent: 1_000 + u64::from(peer),
        bytes_received: 70_000,
        retransmits: Some(1),
        rtt_us: Some(431),
        merged: false,
        preexisting: false,
        sg: None,
        rtt: RttHistogram::default(),
        records,
    }))
}

/// A request for credentials; `id` makes it one of its kind.
pub(crate) fn metadata(pod: u32, second: i64, id: u64) -> Output {
    Output::Metadata(Box::new(MetadataRow {
        time: at(second),
        who: who(pod, 2_000),
        service: "imds",
        version: ImdsVersion::V2,
        method: Some(Method::Get),
        category: Some(Category::RoleCredentials),
        role: Some("node-role".to_owned()),
        access_key_id: Some(format!("ASIA{id:016}")),
        forwarded_for: None,
        status: Some(200),
        response_ttl: Some(255),
        response_bytes: Some(1_300),
        outcome: MetadataOutcome::Ok,
        latency_us: Some(1_234),
        local: Local { ip: Some("10.0.0.7".to_owned()) },
        origin: None,
    }))
}

pub(crate) fn exec(pod: u32, second: i64) -> Output {
    Output::Process(Box::new(ProcessRow { time: at(second), who: who(pod, 3_000), uid_number: 1_001 }))
}

pub(crate) fn gap(second: i64) -> Output {
    let records_lost = BTreeMap::from([("tcp", 4)]);
    Output::Gap(GapRow { start: at(second - 5), end: at(second), cause: GapCause::RingFull, records_lost })
}
