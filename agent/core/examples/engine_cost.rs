//! What the Engine costs per record: `cargo run --release -p agent-core --example engine_cost`.
//!
//! Three loads of 100,000 TCP records each: few rows (a busy service), many peers (every record its own row, up to the
//! bound), and many processes (a shell script that starts a client for every connection).

use std::net::IpAddr;
use std::time::{Duration, Instant};

use agent_core::engine::{Engine, EngineConfig};
use agent_core::input::{Ends, ExecFact, Input, NamedProcess, TcpFact};
use agent_core::time::{BootNs, WallNs};
use agent_ebpf::wire::{Direction, Outcome, Owner};

const RECORDS: u32 = 100_000;
const ROUNDS: u32 = 10;

fn main() {
    println!("{:<16} {:>12} {:>14} {:>8}", "load", "ns a record", "ms for closing", "rows");
    measure("few rows", |n| (10, n % 20));
    measure("many peers", |n| (10, n));
    measure("many processes", |n| (10 + n % 20_000, n % 20));
}

/// `load` gives the process and the peer of the n-th record.
fn measure(name: &str, load: impl Fn(u32) -> (u32, u32)) {
    let mut engine = Engine::new(EngineConfig::default());
    let mut outputs = Vec::new();
    engine.handle(Input::Tick { boot: BootNs(1), wall: WallNs(1) }, &mut outputs);
    engine.handle(Input::CgroupPresent { id: 77, path: "/system.slice/app.service".to_owned() }, &mut outputs);
    for pid in 10..20_010 {
        engine.handle(Input::Exec(exec(pid)), &mut outputs);
    }
    let (mut taking, mut closing) = (Duration::MAX, Duration::MAX);
    let mut rows = 0;
    for _ in 0..ROUNDS {
        let inputs: Vec<_> = (0..RECORDS).map(|n| Input::Tcp(tcp(n, load(n)))).collect();
        outputs.clear();
        let start = Instant::now();
        for input in inputs {
            engine.handle(input, &mut outputs);
        }
        taking = taking.min(start.elapsed());
        let start = Instant::now();
        engine.handle(Input::Stop, &mut outputs);
        closing = closing.min(start.elapsed());
        rows = outputs.len();
    }
    let ns = taking.as_nanos() / u128::from(RECORDS);
    println!("{name:<16} {ns:>12} {:>14.2} {rows:>8}", closing.as_secs_f64() * 1e3);
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
