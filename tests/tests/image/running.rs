//! The agent under the manifest: it sees what is done, answers, writes its data alone, and stops when told.

use std::collections::BTreeSet;
use std::fs;
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use system_tests::container::{Containerd, Manifest, Task, Volume};
use system_tests::metrics::{self, Metrics};
use system_tests::netns::Namespace;
use system_tests::{Lab, Pod, Rows, Sum, Wire, scale};

use super::contents::files;

/// Where the manifest's probes ask.
const ENDPOINT: ([u8; 4], u16) = ([127, 0, 0, 1], 9847);
/// Where the agent keeps what survives it.
const DATA: &str = "/var/lib/sekisho";

fn endpoint() -> SocketAddr {
    SocketAddr::from(ENDPOINT)
}

pub(super) fn wait_until_ready(task: &Task<'_>, network: &Namespace) -> Result<()> {
    let deadline = Instant::now() + scale::deadline();
    while !network.run(|| metrics::get(endpoint(), "/readyz")).is_ok_and(|(status, _)| status == 200) {
        ensure!(Path::new(&format!("/proc/{}", task.pid())).exists(), "the agent ended: {}", task.log());
        ensure!(Instant::now() < deadline, "not ready: {}", task.log());
        std::thread::sleep(scale::LOOK);
    }
    Ok(())
}

#[test]
fn under_the_manifest_the_agent_sees_traffic_answers_and_writes_its_data_alone() -> Result<()> {
    works(&Manifest::shipped()?)
}

/// It sees traffic, answers, and writes its data alone.
pub(super) fn works(manifest: &Manifest) -> Result<()> {
    let lab = Lab::new(Wire::Veth)?;
    let (web, caller) = (Pod::new()?, Pod::new()?);
    let containerd = Containerd::start()?;
    let mut task = containerd.start_task(manifest, &lab.client)?;
    let before = files(task.root())?;
    wait_until_ready(&task, &lab.client)?;

    let (mut server, mut client) = (web.actor(&lab.server)?, caller.actor(&lab.client)?);
    let address = server.serve_http(lab.server_v4(0))?;
    let load = client.load_http(address, 50, 4)?;
    ensure!(server.stop_serving()? == load.mirrored(), "client and server differ");
    let deadline = Instant::now() + scale::deadline();
    loop {
        let told = task.exec(&["sekisho", "timeline", "--uid", &caller.uid, "--kind", "flow", "-o", "json"])?;
        let lines: Vec<_> = String::from_utf8_lossy(&told.stdout).lines().map(str::to_owned).collect();
        if Sum::over(Rows::parse(&lines)?.flows_of(&caller)) == load.into() {
            break;
        }
        ensure!(Instant::now() < deadline, "50 connections are not told: {told:?}");
        std::thread::sleep(scale::LOOK);
    }

    assert_eq!(lab.client.run(|| metrics::get(endpoint(), "/healthz"))?.0, 200);
    let metrics = lab.client.run(|| Metrics::scrape(endpoint()))?;
    assert_eq!(metrics.samples("sekisho_build_info").count(), 1);
    let probes: Vec<_> = metrics.samples("sekisho_probe_attached").collect();
    assert!(!probes.is_empty() && probes.iter().all(|probe| probe.value > 0.0), "{probes:?}");
    let (status, _) = lab.server.run(|| Ok(metrics::get(lab.client_v4(ENDPOINT.1), "/metrics").unwrap_or_default()))?;
    assert_eq!(status, 0, "a neighbour gets nothing");
    let doctor = task.exec(&["sekisho", "doctor", "-o", "json"])?;
    let doctor: Value = serde_json::from_slice(&doctor.stdout).with_context(|| format!("{doctor:?}"))?;
    let wrong = |list: &str| {
        let found = doctor[list].as_array().into_iter().flatten().filter(|one| one["state"] != "ok");
        found.cloned().collect::<Vec<_>>()
    };
    assert_eq!(wrong("checks"), [Value::Null; 0], "degraded under the manifest");
    assert_eq!(wrong("probes"), [Value::Null; 0], "degraded under the manifest");

    only_these_can_be_written(&task, manifest)?;
    let pid = task.pid();
    let grace = Duration::from_secs(manifest.grace_s);
    assert_eq!(task.terminate(grace)?, 0, "{}", task.log());
    assert!(!Path::new(&format!("/proc/{pid}")).exists());
    assert_eq!(files(task.root())?, before, "files of the image came or went");
    let data = task.host_path(Path::new(DATA));
    let kept = files(&data)?;
    assert!(!kept.is_empty(), "its data is on the node");
    // As the kubelet does, the test made it for all to read.
    assert_eq!(fs::metadata(&data)?.permissions().mode() & 0o777, 0o700, "others may look into its data");
    assert_eq!(files(&task.host_path(Path::new("/run/aws-node")))?, BTreeSet::new());
    Ok(())
}

/// By the container's own table of mounts: what can be written is the data directory, the socket's, and what is no file.
fn only_these_can_be_written(task: &Task<'_>, manifest: &Manifest) -> Result<()> {
    let path = format!("/proc/{}/mountinfo", task.pid());
    let table = fs::read_to_string(&path).with_context(|| format!("read {path}"))?;
    let mut writable: BTreeSet<PathBuf> = BTreeSet::new();
    for line in table.lines() {
        let mut fields = line.split(' ').skip(4);
        let (mount, options) = fields.next().zip(fields.next()).context("a mount")?;
        if options.split(',').all(|option| option != "ro") {
            writable.insert(mount.into());
        }
    }
    let own = manifest.mounts.iter().filter(|mount| !mount.read_only);
    let mut expected: BTreeSet<PathBuf> = own.map(|mount| PathBuf::from(&mount.path)).collect();
    // The runtime's: devices, the container's own processes (with sysctls read-only) and what it hides in there.
    writable.retain(|mount| !mount.starts_with("/dev") && !mount.starts_with("/proc"));
    expected.retain(|mount| !mount.starts_with("/dev"));
    assert_eq!(writable, expected);
    let host = manifest.mounts.iter().filter(|mount| matches!(mount.volume, Volume::HostPath(_)) && !mount.read_only);
    assert_eq!(host.map(|mount| mount.path.as_str()).collect::<Vec<_>>(), [DATA], "of the node");
    let in_memory = files(Path::new(&format!("/proc/{}/root/dev/shm", task.pid())))?;
    assert_eq!(in_memory, BTreeSet::new());
    Ok(())
}
