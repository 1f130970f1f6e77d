//! `observe`, `doctor`, `/metrics`, `/healthz` and `/readyz` of a running agent.

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use system_tests::rows::Rows;
use system_tests::{Agent, Lab, Pod, Sum, Wire, metrics};

#[test]
fn observe_follows_what_run_prints() -> Result<()> {
    let lab = Lab::new(Wire::Veth)?;
    let (web, caller) = (Pod::new()?, Pod::new()?);
    let agent = Agent::start()?;
    let everything = agent.observe(&[])?;
    let flows = agent.observe(&["--kind", "flow"])?;
    let (mut server, mut client) = (web.actor(&lab.server)?, caller.actor(&lab.client)?);

    let address = server.serve_http(lab.server_v4(0))?;
    let load = client.load_http(address, 50, 4)?;
    for observer in [&everything, &flows] {
        observer.wait_for("the client's connections", |lines| {
            Rows::parse(lines).is_ok_and(|rows| Sum::over(rows.flows_of(&caller)) == load.into())
        })?;
    }
    let filtered = Rows::parse(&flows.lines())?;
    ensure!(filtered.metadata.is_empty() && filtered.processes.is_empty(), "--kind flow shows other kinds");

    let printed = agent.finish()?.rows;
    assert_eq!(Sum::over(printed.flows_of(&caller)), load.into(), "{}", printed.show(&caller));
    Ok(())
}

#[test]
fn doctor_says_what_works() -> Result<()> {
    let agent = Agent::start()?;
    let text = agent.command(&["doctor"])?;
    let json = agent.command(&["doctor", "-o", "json"])?;
    agent.finish()?;

    ensure!(text.status.success(), "doctor: {}", String::from_utf8_lossy(&text.stdout));
    let text = String::from_utf8_lossy(&text.stdout).to_lowercase();
    for subject in ["kernel", "btf", "cgroup"] {
        ensure!(text.contains(subject), "doctor does not speak of {subject}: {text}");
    }
    let json: Value = serde_json::from_slice(&json.stdout).context("doctor -o json prints no JSON")?;
    assert_eq!(json["schema"], "sekisho/1", "{json}");
    Ok(())
}

#[test]
fn the_endpoint_serves_what_prometheus_needs() -> Result<()> {
    let agent = Agent::start()?;
    for path in ["/healthz", "/readyz"] {
        assert_eq!(metrics::get(agent.http(), path)?.0, 200, "{path}");
    }
    assert_eq!(metrics::get(agent.http(), "/nothing")?.0, 404);
    let scrape = agent.metrics()?;
    ensure!(scrape.text.trim_end().ends_with("# EOF"), "no OpenMetrics: {}", scrape.text);
    ensure!(scrape.samples("sekisho_build_info").count() == 1, "no build info: {}", scrape.text);
    agent.finish()?;
    Ok(())
}

#[test]
fn connections_are_counted_by_workload_and_outcome() -> Result<()> {
    let lab = Lab::new(Wire::Veth)?;
    let (web, caller) = (Pod::new()?, Pod::new()?);
    let mut agent = Agent::start()?;
    let (mut server, mut client) = (web.actor(&lab.server)?, caller.actor(&lab.client)?);

    let address = server.serve_http(lab.server_v4(0))?;
    let load = client.load_http(address, 50, 4)?;
    agent.wait_for("the client's connections", |rows| Sum::over(rows.flows_of(&caller)) == load.into())?;

    let scrape = agent.metrics()?;
    let counted: f64 = scrape
        .samples("sekisho_connections_total")
        .filter(|sample| sample.labels["direction"] == "outbound" && sample.labels["outcome"] == "established")
        .filter(|sample| sample.labels["workload"].contains(&caller.uid))
        .map(|sample| sample.value)
        .sum();
    ensure!((counted - 50.0).abs() < f64::EPSILON, "{counted} connections: {}", scrape.text);
    agent.finish()?;
    Ok(())
}
