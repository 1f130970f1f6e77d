//! After SIGTERM nothing is left.

use anyhow::{Result, ensure};
use system_tests::bpf::Objects;
use system_tests::{Agent, Lab, Pod, Wire, scale};

#[test]
fn a_stopped_agent_leaves_nothing() -> Result<()> {
    let before = Objects::loaded()?;
    let lab = Lab::new(Wire::Veth)?;
    let (web, caller) = (Pod::new()?, Pod::new()?);
    let agent = Agent::start()?;
    let pid = agent.pid();
    let held = Objects::held_by(pid)?;
    ensure!(!held.programs.is_empty() && !held.maps.is_empty(), "the agent holds no programs or maps: {held:?}");
    let (mut server, mut client) = (web.actor(&lab.server)?, caller.actor(&lab.client)?);
    let address = server.serve_http(lab.server_v4(0))?;
    client.load_http(address, 50, 4)?;
    ensure!(agent.socket().exists(), "the agent has no socket");

    let finished = agent.finish()?;

    ensure!(!finished.home.path().join("agent.sock").exists(), "the socket is still there");
    wait_until_gone(&held)?;
    if scale::slow() {
        // Nobody else loads programs in a machine of the kernel matrix.
        let after = Objects::loaded()?;
        ensure!(after == before, "before {before:?}, after {after:?}");
    }
    ensure!(children_of(pid)?.is_empty(), "children are left");
    Ok(())
}

/// The kernel frees programs and maps soon after the last descriptor is closed, not at once.
fn wait_until_gone(held: &Objects) -> Result<()> {
    let deadline = std::time::Instant::now() + scale::deadline();
    loop {
        let left = held.also_in(&Objects::loaded()?);
        if left == Objects::default() {
            return Ok(());
        }
        ensure!(std::time::Instant::now() < deadline, "still loaded: {left:?}");
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
}

/// Processes whose parent is, or was before it ended, `pid`: the agent runs in its own session of none.
fn children_of(pid: u32) -> Result<Vec<u32>> {
    let mut children = Vec::new();
    for entry in std::fs::read_dir("/proc")? {
        let entry = entry?;
        let Some(child) = entry.file_name().to_str().and_then(|name| name.parse().ok()) else { continue };
        let stat = std::fs::read_to_string(entry.path().join("stat")).unwrap_or_default();
        let parent = stat.rsplit_once(") ").and_then(|(_, rest)| rest.split(' ').nth(1)?.parse::<u32>().ok());
        if parent == Some(pid) {
            children.push(child);
        }
    }
    Ok(children)
}
