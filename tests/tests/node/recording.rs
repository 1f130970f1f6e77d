//! What a run recorded leads to the same lines once more, and holds no secret.

use std::net::SocketAddr;
use std::process::{Command, Output};

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use system_tests::lab::IMDS_V4;
use system_tests::metadata_server::{Behaviour, ROLE_KEY};
use system_tests::node::account;
use system_tests::{MetadataServer, Node, NodePod, Pod, Wiring, agent};

const CREDENTIALS: &str = "/latest/meta-data/iam/security-credentials/eks-node-role";

fn replay(arguments: &[&str]) -> Result<Output> {
    Command::new(agent::program()?).arg("replay").args(arguments).output().context("run sekisho replay")
}

/// Takes the node role's credentials, with a session token.
fn take(pod: &NodePod) -> Result<()> {
    let imds = SocketAddr::from((IMDS_V4, 80));
    let put = "PUT /latest/api/token HTTP/1.1\r\nHost: imds\r\nX-aws-ec2-metadata-token-ttl-seconds: 600\r\n\
               Connection: close\r\n\r\n";
    let mut client = pod.actor()?;
    let answer = client.exchange(imds, &[put])?.answer;
    let token = answer.split_once("\r\n\r\n").context("an answer without a body")?.1.to_owned();
    let get = format!(
        "GET {CREDENTIALS} HTTP/1.1\r\nHost: imds\r\nX-aws-ec2-metadata-token: {token}\r\nConnection: close\r\n\r\n"
    );
    let answer = client.exchange(imds, &[&get])?.answer;
    ensure!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    client.end()
}

fn kinds(lines: &[&str]) -> Result<std::collections::BTreeSet<String>> {
    let kind = |line: &&str| -> Result<String> {
        let row: Value = serde_json::from_str(line).with_context(|| format!("a row: {line}"))?;
        Ok(row["kind"].as_str().context("a kind")?.to_owned())
    };
    lines.iter().map(kind).collect()
}

/// A run with pods, objects, traffic and findings of the run before it: the same lines in the same order, to the microsecond.
#[test]
fn a_replay_says_what_the_agent_said() -> Result<()> {
    let mut node = Node::new()?;
    node.put(&account("shop", "default", None))?;
    let (taker, caller) = (node.pod("shop", "taker", Wiring::Plain)?, node.pod("shop", "caller", Wiring::Plain)?);
    node.admit(&caller)?;
    let services = MetadataServer::start(&node.network, Behaviour::default())?;
    let home = tempfile::tempdir().context("make a directory")?;
    let configuration = json!({ "data_dir": home.path().join("data"), "processes": { "arguments": true } });
    let file = home.path().join("run.recording");
    let file = file.to_str().context("a path of UTF-8")?;

    let before = node.agent(configuration.clone())?;
    take(&taker)?;
    before.wait_for_findings("open", &["node-credentials-taken taker"])?;
    before.finish()?;

    let agent = node.agent_with_arguments(configuration.clone(), &["--record", file])?;
    let outside = Pod::new()?;
    let mut server = node.vpc_actor(&outside)?;
    let address = server.serve_http(Node::vpc_address(8080))?;
    let mut client = caller.actor()?;
    client.load_http(address, 200, 8)?;
    take(&caller)?;
    agent.wait_for_findings("open", &["node-credentials-taken taker", "node-credentials-taken caller"])?;
    node.end(taker)?;
    agent.wait_for_findings("resolved", &["node-credentials-taken taker"])?;
    client.end()?;
    let secret = services.canary().to_owned();
    services.stop()?;
    let finished = agent.finish()?;

    let again = replay(&[file, "-o", "json"])?;
    ensure!(again.status.success(), "{}", String::from_utf8_lossy(&again.stderr));
    let again = String::from_utf8(again.stdout).context("text")?;
    let (said, again): (Vec<_>, Vec<_>) = (finished.stdout.lines().collect(), again.lines().collect());
    for (number, (said, again)) in said.iter().zip(&again).enumerate() {
        ensure!(said == again, "line {number} differs:\n{said}\n{again}");
    }
    assert_eq!(said.len(), again.len());
    let kinds = kinds(&said)?;
    for kind in ["flow", "metadata", "process", "finding", "gap"] {
        ensure!(kinds.contains(kind), "no {kind} among {kinds:?}");
    }

    let inputs = replay(&[file, "--inputs"])?;
    let inputs = String::from_utf8(inputs.stdout).context("text")?;
    for wanted in [ROLE_KEY, "\"restored\":", "\"Cluster\":", "\"Host\":", "\"ExeResolved\":", "\"KernelTotals\":"] {
        ensure!(inputs.contains(wanted), "no {wanted} in the recording");
    }
    ensure!(!inputs.contains(&secret), "the planted secret stands in the recording");

    // It is not written over.
    let second = Command::new(agent::program()?)
        .args(["run", "--standalone", "-o", "none", "--metrics-listen", "off", "--duration", "1", "--record", file])
        .arg("--data-dir")
        .arg(home.path().join("other"))
        .arg("--socket")
        .arg(home.path().join("other.sock"))
        .output()
        .context("run a second agent")?;
    let said = String::from_utf8_lossy(&second.stderr);
    ensure!(second.status.code() == Some(3) && said.contains("name a new file"), "{said}");
    Ok(())
}
