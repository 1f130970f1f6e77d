//! Real clients of the metadata services: every request that the services logged is a row.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};
use system_tests::agent::Agent;
use system_tests::exchanges::{self, Row};
use system_tests::metadata_server::{Behaviour, POD_KEY, ROLE, ROLE_KEY};
use system_tests::rows::Metadata;
use system_tests::{Lab, MetadataServer, Pod, Wire};

/// Names the Python of the environment that `cargo xtask setup` made.
const PYTHON: &str = "SEKISHO_PYTHON";

/// What came of one client.
struct Seen {
    printed: String,
    pod: Pod,
    rows: Vec<Metadata>,
}

/// Runs a client in a pod; its requests as the services logged them must be the rows.
fn run(behaviour: Behaviour, program: &Path, configure: impl FnOnce(&mut Command, &MetadataServer)) -> Result<Seen> {
    let lab = Lab::new(Wire::Veth)?;
    let services = MetadataServer::start(&lab.server, behaviour)?;
    let pod = Pod::new()?;
    let agent = Agent::start()?;
    let home = tempfile::tempdir()?;
    let mut command = pod.command(&lab.client, program)?;
    // Nothing of the user who runs the tests: no profile, no proxy, no credentials.
    command.env_clear().env("PATH", "/usr/bin:/bin").env("HOME", home.path()).env("AWS_DEFAULT_REGION", "eu-central-1");
    configure(&mut command, &services);
    let output = command.output().with_context(|| format!("run {}", program.display()))?;
    let secret = services.canary().to_owned();
    let log = services.stop()?;
    lab.wait_until_closed()?;
    let metrics = agent.metrics()?.text;
    let finished = agent.finish()?;

    let printed = String::from_utf8_lossy(&output.stdout).into_owned();
    ensure!(output.status.success(), "{}: {}", program.display(), String::from_utf8_lossy(&output.stderr));
    ensure!(!log.is_empty(), "{} asked nothing", program.display());
    let expected: Vec<_> = log.iter().map(Row::logged).collect();
    exchanges::compare(&expected, finished.rows.metadata_of(&pod).map(Row::of))?;
    ensure!(finished.leaks(&secret)?.is_empty() && !metrics.contains(&secret), "the planted secret leaked");
    let rows: Vec<Metadata> = finished.rows.metadata_of(&pod).cloned().collect();
    for row in rows.iter().filter(|row| row.category.as_deref() == Some("role_credentials")) {
        ensure!(row.role.as_deref() == Some(ROLE), "wrong role: {row:?}");
    }
    Ok(Seen { printed, pod, rows })
}

impl Seen {
    /// Every row names a process of this program.
    fn named(&self, comm: &str) -> Result<()> {
        for row in &self.rows {
            ensure!(row.who.container == self.pod.container, "wrong container: {row:?}");
            let process = row.who.process.as_ref().with_context(|| format!("no process: {row:?}"))?;
            ensure!(process.comm.starts_with(comm), "not {comm}: {row:?}");
            ensure!(process.exe.is_some(), "no program: {row:?}");
        }
        Ok(())
    }

    fn versions(&self) -> Vec<&str> {
        let mut versions: Vec<_> = self.rows.iter().map(|row| row.version.as_str()).collect();
        versions.sort_unstable();
        versions.dedup();
        versions
    }
}

pub(super) fn python() -> Result<PathBuf> {
    let path = std::env::var_os(PYTHON)
        .map_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/python/bin/python"), PathBuf::from);
    ensure!(path.exists(), "{} does not exist: run `cargo xtask setup`, or set {PYTHON}", path.display());
    Ok(path)
}

fn curl() -> Result<PathBuf> {
    let path = PathBuf::from("/usr/bin/curl");
    ensure!(path.exists(), "curl is not installed: run `cargo xtask setup`");
    Ok(path)
}

#[test]
fn curl_with_a_token() -> Result<()> {
    let script = "
        token=$(curl -sf -X PUT -H 'X-aws-ec2-metadata-token-ttl-seconds: 60' http://169.254.169.254/latest/api/token)
        base=http://169.254.169.254/latest/meta-data/iam/security-credentials/
        curl -sf -H \"X-aws-ec2-metadata-token: $token\" $base$(curl -sf -H \"X-aws-ec2-metadata-token: $token\" $base)
        curl -s -H \"X-aws-ec2-metadata-token: $token\" http://[fd00:ec2::254]/latest/user-data -o /dev/null
    ";
    curl()?;
    let behaviour = Behaviour { tokens_required: true, ..Behaviour::default() };
    let seen = run(behaviour, Path::new("/bin/sh"), |command, _| {
        command.args(["-ec", script]);
    })?;
    ensure!(seen.printed.contains(ROLE_KEY), "curl printed {}", seen.printed);
    assert_eq!(seen.versions(), ["v2"]);
    seen.named("curl")
}

#[test]
fn curl_without_a_token() -> Result<()> {
    // Several requests on one connection.
    let seen = run(Behaviour::default(), &curl()?, |command, _| {
        command.args([
            "-s",
            "http://169.254.169.254/latest/meta-data/iam/security-credentials/eks-node-role",
            "http://169.254.169.254/latest/meta-data/instance-id",
            "http://169.254.169.254/latest/meta-data/no-such-thing",
            "http://169.254.170.23/v1/credentials",
        ]);
    })?;
    ensure!(seen.printed.contains(ROLE_KEY), "curl printed {}", seen.printed);
    assert_eq!(seen.rows.iter().filter(|row| row.outcome == "not_found").count(), 1);
    seen.named("curl")
}

/// Prints the access key id of the credentials that boto3 finds.
const BOTO3: &str = "
import boto3
print(boto3.Session().get_credentials().get_frozen_credentials().access_key)
";

#[test]
fn boto3_on_the_node_role() -> Result<()> {
    let behaviour = Behaviour { tokens_required: true, ..Behaviour::default() };
    let seen = run(behaviour, &python()?, |command, _| {
        command.args(["-c", BOTO3]);
    })?;
    assert_eq!(seen.printed.trim(), ROLE_KEY);
    assert_eq!(seen.versions(), ["v2"]);
    seen.named("python")
}

#[test]
fn boto3_on_pod_identity() -> Result<()> {
    let seen = run(Behaviour::default(), &python()?, |command, services| {
        command
            .env("AWS_CONTAINER_CREDENTIALS_FULL_URI", "http://169.254.170.23/v1/credentials")
            .env("AWS_CONTAINER_AUTHORIZATION_TOKEN", format!("eyJhbGciOiJSUzI1NiJ9.{}", services.canary()))
            .args(["-c", BOTO3]);
    })?;
    assert_eq!(seen.printed.trim(), POD_KEY);
    assert_eq!(seen.versions(), ["none"]);
    seen.named("python")
}

#[test]
fn aws_cli_on_the_node_role() -> Result<()> {
    let aws = python()?.with_file_name("aws");
    let behaviour = Behaviour { tokens_required: true, ..Behaviour::default() };
    let seen = run(behaviour, &aws, |command, _| {
        command.args(["configure", "list"]);
    })?;
    // It shows the last four characters, and where they come from.
    ensure!(seen.printed.contains("iam-role") && seen.printed.contains(&ROLE_KEY[16..]), "printed {}", seen.printed);
    assert_eq!(seen.versions(), ["v2"]);
    seen.named("aws")
}
