//! Processes that are gone before anybody could look at them.

use anyhow::{Context, Result, ensure};
use system_tests::{Agent, Lab, Pod, Sum, Wire, actor};

/// Bytes that a one-shot process sends.
const BYTES: u64 = 64;

#[test]
fn a_process_of_5_ms_with_one_connection_is_named() -> Result<()> {
    const SHOTS: u64 = 20;
    let lab = Lab::new(Wire::Veth)?;
    let (web, caller) = (Pod::new()?, Pod::new()?);
    let agent = Agent::start()?;
    let (mut server, mut client) = (web.actor(&lab.server)?, caller.actor(&lab.client)?);

    let address = server.listen("listener", lab.server_v4(0))?;
    let mut shots = Vec::new();
    for _ in 0..SHOTS {
        client.tell(&system_tests::protocol::Op::RunOneShot { server: address })?;
        server.accept("listener", "c")?;
        ensure!(server.receive_to_end("c")?.bytes == BYTES, "a one-shot process sent something else");
        server.close("c")?;
        shots.push(client.answer::<system_tests::protocol::OneShot>()?.pid);
    }
    server.close("listener")?;
    lab.wait_until_closed()?;

    let rows = agent.finish()?.rows;
    let sum = Sum::over(rows.flows_of(&caller));
    assert_eq!(sum, Sum { connections: SHOTS, sent: SHOTS * BYTES, received: 0 }, "{}", rows.show(&caller));
    let program = actor::program()?.canonicalize().context("find the actor's program")?;
    let mut named = 0;
    for flow in rows.flows_of(&caller) {
        let process = flow.who.process.as_ref().with_context(|| format!("no process: {flow}"))?;
        ensure!(shots.contains(&process.pid) && process.by == "connect", "not a one-shot process: {flow}");
        ensure!(process.exe.as_deref().map(std::path::Path::new) == Some(&program), "wrong program: {process:?}");
        let ancestors: Vec<u32> = process.ancestors.iter().map(|ancestor| ancestor.pid).collect();
        ensure!(ancestors.starts_with(&[client.pid(), std::process::id()]), "wrong ancestry: {process:?}");
        ensure!(ancestors.len() >= 4 || ancestors.last() == Some(&1), "an ancestry too short: {process:?}");
        // A connection that two folds saw is in a row of open ones too.
        named += if flow.connections > 0 { flow.processes } else { 0 };
    }
    assert_eq!(named, SHOTS, "{}", rows.show(&caller));
    Ok(())
}
