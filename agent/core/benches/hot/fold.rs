//! Connections' ends into the rows of a fold, and the fold's end. The size is how many peers there are, each of which is a
//! row of its own; the unit is a connection.

use std::net::IpAddr;

use agent_core::engine::{Engine, EngineConfig};
use agent_core::input::{Ends, ExecFact, Input, NamedProcess, TcpFact};
use agent_core::output::Output;
use agent_core::time::{BootNs, WallNs};
use agent_ebpf::wire::{Direction, Outcome, Owner};

use crate::Once;

/// Connections of a fold.
const RECORDS: u32 = 20_000;
/// Processes that make them.
const PROCESSES: u32 = 20;

pub(crate) fn fold(size: u32) -> Once {
    let mut engine = Engine::new(EngineConfig::default());
    let mut outputs = Vec::new();
    engine.handle(Input::Tick { boot: BootNs(1), wall: WallNs(1) }, &mut outputs);
    engine.handle(Input::CgroupPresent { id: 77, path: "/system.slice/app.service".to_owned() }, &mut outputs);
    for pid in 10..10 + PROCESSES {
        engine.handle(Input::Exec(exec(pid)), &mut outputs);
    }
    Box::new(move || {
        outputs.clear();
        for n in 0..RECORDS {
            engine.handle(Input::Tcp(tcp(n, (10 + n % PROCESSES, n % size))), &mut outputs);
        }
        engine.handle(Input::Stop, &mut outputs);
        let counted: u64 =
            outputs.iter().map(|output| if let Output::Flow(row) = output { row.connections } else { 0 }).sum();
        if counted != u64::from(RECORDS) {
            return Err(format!("rows tell of {counted} of {RECORDS} connections").into());
        }
        Ok(counted)
    })
}

fn owner(tgid: u32) -> Owner {
    Owner { start_ns: u64::from(tgid) * 1_000_000_007, tgid, pad: 0 }
}

fn exec(tgid: u32) -> ExecFact {
    ExecFact {
        time: BootNs(2),
        cgroup_id: 77,
        process: NamedProcess { owner: owner(tgid), comm: "client".to_owned() },
        parent: Some(owner(tgid - 1)),
        path: "/usr/local/bin/client".to_owned(),
        path_cut: false,
        args: Vec::new(),
        uid: 0,
    }
}

fn tcp(n: u32, (tgid, peer): (u32, u32)) -> TcpFact {
    TcpFact {
        time: BootNs(u64::from(n)),
        cgroup_id: 77,
        cookie: u64::from(n),
        start: Some(BootNs(1)),
        open: false,
        first: true,
        established: true,
        preexisting: false,
        direction: Direction::Outbound,
        outcome: Outcome::Established,
        bytes_sent: 100,
        bytes_received: 1_000,
        retransmits: 0,
        srtt_us: Some(300),
        connected: Some(owner(tgid)),
        listened: None,
        closed: Some(owner(tgid)),
        ends: Ends {
            local: IpAddr::from([10, 0, 0, 1]),
            local_port: u16::try_from(n % 30_000).unwrap_or_default(),
            remote: IpAddr::from((0x0a01_0000 + peer).to_be_bytes()),
            remote_port: 443,
            netns: 1,
        },
    }
}
