//! A process of a test: joins a control group and a network namespace, and then does what it is told, line by line.
//!
//! `actor enter CGROUP NETNS PROGRAM…` joins both and becomes the program; `actor serve` obeys [`system_tests::protocol`];
//! `actor once ADDRESS` makes one connection and ends.

mod hold;
mod one_shot;
mod raw;
mod serve;
mod sockets;
mod udp;

use std::fs::File;
use std::io::{BufRead, Write};
use std::os::fd::AsFd;
use std::os::unix::process::CommandExt;
use std::process::Command;

use anyhow::{Context, Result, bail};
use rustix::thread::LinkNameSpaceType;
use serde::Serialize;
use system_tests::protocol::{Answer, Op};

fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match arguments[..] {
        ["enter", cgroup, namespace, program, ref arguments @ ..] => enter(cgroup, namespace, program, arguments),
        ["serve"] => obey(),
        ["once", address] => one_shot::run(address.parse().context("parse an address")?),
        _ => bail!("usage: actor enter CGROUP NETNS PROGRAM… | serve | once ADDRESS"),
    }
}

fn enter(cgroup: &str, namespace: &str, program: &str, arguments: &[&str]) -> Result<()> {
    std::fs::write(format!("{cgroup}/cgroup.procs"), "0").with_context(|| format!("join cgroup {cgroup}"))?;
    let namespace = File::open(namespace).with_context(|| format!("open {namespace}"))?;
    rustix::thread::move_into_link_name_space(namespace.as_fd(), Some(LinkNameSpaceType::Network))
        .context("enter a network namespace")?;
    Err(Command::new(program).args(arguments).exec()).with_context(|| format!("become {program}"))
}

/// Everything that an actor holds.
#[derive(Default)]
struct State {
    sockets: sockets::Sockets,
    held: hold::Held,
    servers: serve::Servers,
}

fn obey() -> Result<()> {
    raise_file_limit()?;
    let mut state = State::default();
    answer(&Ok("ready"))?;
    for line in std::io::stdin().lock().lines() {
        let line = line.context("read an operation")?;
        let op = serde_json::from_str(&line).with_context(|| format!("decode operation {line:?}"))?;
        perform(&mut state, op)?;
    }
    Ok(())
}

/// As many sockets as the hard limit allows: some operations open thousands.
fn raise_file_limit() -> Result<()> {
    let mut limit = rustix::process::getrlimit(rustix::process::Resource::Nofile);
    limit.current = limit.maximum;
    rustix::process::setrlimit(rustix::process::Resource::Nofile, limit).context("raise the limit of open files")
}

fn perform(state: &mut State, op: Op) -> Result<()> {
    let sockets = &mut state.sockets;
    match op {
        Op::Listen { socket, address } => answer(&sockets.listen(socket, address)),
        Op::Accept { listener, socket } => answer(&sockets.accept(&listener, socket)),
        Op::Connect { socket, address, bind, give_up_ms } => {
            answer(&sockets.connect(socket, address, bind, give_up_ms))
        }
        Op::FastOpen { socket, address, bytes } => answer(&sockets.fast_open(socket, address, bytes)),
        Op::Send { socket, bytes } => answer(&sockets.send(&socket, bytes)),
        Op::Receive { socket, bytes } => answer(&sockets.receive(&socket, bytes)),
        Op::ReceiveToEnd { socket } => answer(&sockets.receive_to_end(&socket)),
        Op::Shutdown { socket } => answer(&sockets.shutdown(&socket)),
        Op::Close { socket } => answer(&sockets.close(&socket)),
        Op::Abort { socket } => answer(&sockets.abort(&socket)),
        Op::Disconnect { socket } => answer(&sockets.disconnect(&socket)),
        Op::ForkAndClose { socket, bytes } => answer(&sockets.fork_and_close(&socket, bytes)),
        Op::UdpBind { socket, address } => answer(&sockets.udp_bind(socket, address)),
        Op::UdpConnect { socket, address } => answer(&sockets.udp_connect(socket, address)),
        Op::SendDatagram { socket, to, bytes, segment } => answer(&sockets.send_datagram(&socket, to, bytes, segment)),
        Op::SendText { socket, text } => answer(&sockets.send_text(&socket, &text)),
        Op::ReceiveDatagram { socket } => answer(&sockets.receive_datagram(&socket)),
        Op::OpenRaw { socket, protocol } => answer(&sockets.open_raw(socket, protocol)),
        Op::OpenPacket { socket } => answer(&sockets.open_packet(socket)),
        Op::RunOneShot { server } => answer(&one_shot::start(server)),
        Op::Exchange { server, pieces, deadline_ms } => answer(&sockets::exchange(server, &pieces, deadline_ms)),
        Op::ExchangeMany { server, payload, times } => answer(&sockets::exchange_many(server, &payload, times)),
        Op::ServeHttp { address, threads } => answer(&state.servers.http(address, threads)),
        Op::ServePrefork { address, workers } => answer(&state.servers.prefork(address, workers)),
        Op::LoadHttp { server, connections, in_flight } => answer(&serve::load(server, connections, in_flight)),
        Op::ServeHolding { address } => answer(&state.servers.holding(address)),
        Op::OpenMany { server, connections } => answer(&state.held.open(server, connections)),
        Op::CloseMany => answer(&state.held.close()),
        Op::ServeUdp { address, sockets } => answer(&state.servers.udp(address, sockets)),
        Op::LoadUdp { peers, sockets, rounds, interleaved, connected } => {
            answer(&udp::load(&peers, sockets, rounds, interleaved, connected))
        }
        Op::StopServing => answer(&state.servers.stop()),
    }
}

fn answer<T: Serialize>(result: &Result<T>) -> Result<()> {
    let answer = match result {
        Ok(value) => Answer::Ok(serde_json::to_value(value).context("encode an answer")?),
        Err(error) => Answer::Error(format!("{error:#}")),
    };
    let mut line = serde_json::to_string(&answer).context("encode an answer")?;
    line.push('\n');
    let mut out = std::io::stdout().lock();
    out.write_all(line.as_bytes()).and_then(|()| out.flush()).context("write an answer")
}
