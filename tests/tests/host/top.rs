//! `sekisho top` on a terminal of its own: what it shows of real traffic, and that it gives the terminal back.

use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};
use rustix::process::Signal;
use serde_json::json;
use system_tests::agent::{Agent, program};
use system_tests::screen::Screen;
use system_tests::{Lab, Pod, Wire};

#[test]
fn top_shows_a_pod_outlives_the_agent_and_gives_the_terminal_back() -> Result<()> {
    let lab = Lab::new(Wire::Veth)?;
    let (web, caller) = (Pod::new()?, Pod::new()?);
    let agent = Agent::start()?;
    let socket = agent.socket();
    let (mut server, mut client) = (web.actor(&lab.server)?, caller.actor(&lab.client)?);
    let mut top = Screen::start(&program()?, &["top", "--interval", "1", "--socket", path(&socket)?], (40, 160))?;

    let address = server.serve_http(lab.server_v4(0))?;
    let load = client.load_http(address, 50, 4)?;
    let name = format!("pod-{}", caller.uid);
    top.wait_for("the pod", |lines| lines.iter().any(|line| line.starts_with(&name)))?;
    ensure!(top.is_taken()?, "keys would be echoed over the picture");
    // Of all that happens on this machine the one pod, and all that is known of it, as its own client counted it.
    top.press(&format!("/{}\r", caller.uid))?;
    top.wait_for("the filter", |lines| lines.iter().any(|line| line.contains(" 1-1 of 1  with \"")))?;
    top.press("\r")?;
    let counted = format!(
        "{} bytes sent, {} received, {} connections ended, 0 of them failed",
        load.sent, load.received, load.connections
    );
    // Broken over lines of the frame as it comes.
    let text = |lines: &[String]| lines.join(" ").replace('│', " ").split_whitespace().collect::<Vec<_>>().join(" ");
    top.wait_for("the client's own counts", |lines| text(lines).contains(&counted))?;
    top.press("\u{1b}")?;

    // A smaller terminal has its keys in its last line.
    top.resize((24, 80))?;
    top.wait_for("the smaller picture", |lines| {
        lines.len() == 24 && lines.last().is_some_and(|line| line.starts_with(" q quit"))
    })?;

    let home = agent.finish()?.home;
    top.wait_for("word of the agent's end", |lines| lines.first().is_some_and(|line| line.contains("STALE")))?;
    top.wait_for("the reason", |lines| lines.get(1).is_some_and(|line| line.starts_with("no agent listens on")))?;
    let begin = name.get(..8).context("a name")?;
    ensure!(top.lines().iter().any(|line| line.starts_with(begin)), "the last picture is gone: {:#?}", top.lines());

    let agent = Agent::with(json!({ "socket": socket }))?;
    top.wait_for("the agent's return", |lines| lines.first().is_some_and(|line| line.ends_with("live")))?;
    top.press("q")?;
    ensure!(top.end()?.success(), "top ended with an error");
    agent.finish()?;
    drop(home);
    Ok(())
}

#[test]
fn the_terminal_is_given_back_whatever_ends_top() -> Result<()> {
    let home = tempfile::tempdir().context("make a directory")?;
    let socket = home.path().join("agent.sock");
    let arguments = ["top", "--socket", path(&socket)?];
    let start = || {
        let mut top = Screen::start(&program()?, &arguments, (24, 80))?;
        top.wait_for("word of the missing agent", |lines| lines.iter().any(|line| line.contains("no agent listens")))?;
        ensure!(top.is_taken()?, "the terminal is not taken: this would prove nothing");
        Ok(top)
    };
    for keys in ["q", "\u{3}"] {
        let mut top = start()?;
        top.press(keys)?;
        ensure!(top.end()?.success(), "{keys:?}");
    }
    for signal in [Signal::TERM, Signal::INT, Signal::HUP] {
        let top = start()?;
        top.signal(signal)?;
        ensure!(top.end()?.success(), "{signal:?}");
    }
    Ok(())
}

#[test]
fn top_without_a_terminal_prints_once_or_says_why_not() -> Result<()> {
    let pod = Pod::new()?;
    let lab = Lab::new(Wire::Veth)?;
    let agent = Agent::start()?;
    let actor = pod.actor(&lab.client)?;
    let once = agent.command(&["top", "--once"])?;
    let text = String::from_utf8_lossy(&once.stdout);
    ensure!(once.status.success() && once.stderr.is_empty(), "{once:?}");
    // A pod that is silent is there too. In 80 columns its name is told by its ends.
    let end = pod.uid.get(pod.uid.len() - 8..).context("a uid")?;
    ensure!(text.lines().any(|line| line.starts_with("pod-") && line.contains(end)), "{text}");
    ensure!(text.contains("no open findings") || text.contains("\nfindings: "), "{text}");
    ensure!(!text.contains('\u{1b}') && text.lines().all(|line| line.chars().count() <= 80), "{text}");

    let output = agent.command(&["top"])?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.code() == Some(3) && output.stdout.is_empty(), "{output:?}");
    ensure!(said.contains("needs a terminal") && said.contains("top --once"), "{said}");
    let socket = agent.socket();
    actor.end()?;
    agent.finish()?;

    let mut command = Command::new(program()?);
    let command = command.args(["top", "--once", "--socket", path(&socket)?]).stdin(Stdio::null());
    let output = command.output().context("run top")?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.code() == Some(3) && said.contains("no agent listens on"), "{output:?}");
    Ok(())
}

fn path(path: &std::path::Path) -> Result<&str> {
    path.to_str().context("a path in UTF-8")
}
