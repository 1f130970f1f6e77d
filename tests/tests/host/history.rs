//! The history of a running agent: what `sekisho timeline` tells of it, and what becomes of it when the disk is full or
//! cannot be written.

use std::fs::{self, File};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use serde_json::{Value, json};
use system_tests::metrics::{self, Metrics};
use system_tests::rows::Rows;
use system_tests::{Agent, Lab, Pod, Sum, Wire, agent, scale};

/// Bytes of a disk that is made for a test: what ext4 needs for itself, and some files of a history.
const DISK_BYTES: u64 = 64 << 20;
/// Between two looks at something that must come.
const LOOK: Duration = Duration::from_millis(50);

fn sekisho(arguments: &[&str]) -> Result<Output> {
    let program = agent::program()?;
    Command::new(&program).args(arguments).output().with_context(|| format!("run {} {arguments:?}", program.display()))
}

fn timeline(data: &Path, arguments: &[&str]) -> Result<Output> {
    let data = data.to_str().context("a path of UTF-8")?;
    sekisho(&[&["timeline", "--data-dir", data], arguments].concat())
}

fn lines(output: &Output) -> Vec<String> {
    String::from_utf8_lossy(&output.stdout).lines().map(str::to_owned).collect()
}

fn wait_for(what: &str, mut wanted: impl FnMut() -> Result<bool>) -> Result<()> {
    let deadline = Instant::now() + scale::deadline();
    while !wanted()? {
        ensure!(Instant::now() < deadline, "{what} did not come in {:?}", scale::deadline());
        std::thread::sleep(LOOK);
    }
    Ok(())
}

/// While the agent runs, and after it: the client's own count is what the history tells of its pod, and nothing else.
#[test]
fn timeline_tells_what_the_clients_did() -> Result<()> {
    let lab = Lab::new(Wire::Veth)?;
    let (web, caller) = (Pod::new()?, Pod::new()?);
    let agent = Agent::start()?;
    let data = agent.socket().parent().context("a directory")?.join("data");
    let (mut server, mut client) = (web.actor(&lab.server)?, caller.actor(&lab.client)?);
    let address = server.serve_http(lab.server_v4(0))?;
    let load = client.load_http(address, 50, 4)?;

    let by_caller = ["--uid", &caller.uid, "--kind", "flow", "-o", "json"];
    wait_for("the client's connections in the history", || {
        let told = timeline(&data, &by_caller)?;
        let said = String::from_utf8_lossy(&told.stderr);
        // The first row makes the first file.
        if said.contains("no history is in") {
            return Ok(false);
        }
        ensure!(told.status.success(), "timeline: {said}");
        Ok(Sum::over(Rows::parse(&lines(&told))?.flows_of(&caller)) == load.into())
    })?;
    let finished = agent.finish()?;
    let data = finished.home.path().join("data");

    // The same rows as standard output showed, in the same form.
    let everything = timeline(&data, &["-o", "json"])?;
    let stored: std::collections::BTreeSet<String> = lines(&everything).into_iter().collect();
    let printed = finished.stdout.lines().filter(|line| line.contains("\"kind\":\"flow\"")).collect::<Vec<_>>();
    ensure!(!printed.is_empty(), "no flows were printed");
    for line in printed {
        ensure!(stored.contains(line), "not in the history: {line}");
    }
    let by_address = timeline(&data, &["--ip", &address.ip().to_string(), "--kind", "flow", "-o", "json"])?;
    assert_eq!(Sum::over(Rows::parse(&lines(&by_address))?.flows_of(&caller)), load.into());

    let summary = timeline(&data, &["--uid", &caller.uid, "--summary", "-o", "json"])?;
    let summary: Value = serde_json::from_slice(&summary.stdout).context("a summary")?;
    assert_eq!(summary["connections"], 50, "{summary}");
    assert_eq!(summary["peers"][0]["ip"], address.ip().to_string(), "{summary}");

    let text = timeline(&data, &["--uid", &caller.uid])?;
    ensure!(lines(&text).first().is_some_and(|line| line.starts_with("# ")), "no heading: {text:?}");
    let nobody = timeline(&data, &["--uid", "nobody", "--kind", "flow"])?;
    ensure!(nobody.status.success() && nobody.stdout.is_empty(), "{nobody:?}");
    let said = String::from_utf8_lossy(&nobody.stderr).into_owned();
    ensure!(said.contains("nothing was found") && said.contains("covers"), "{said}");
    Ok(())
}

/// An agent whose data directory is a file system of its own, in a mount namespace of its own that goes with it.
struct Small {
    child: Child,
    home: tempfile::TempDir,
    metrics: std::net::SocketAddr,
}

impl Small {
    /// In memory, with these options.
    fn start(options: &str) -> Result<Self> {
        let home = tempfile::tempdir().context("make a directory")?;
        Self::on(home, &format!("mount -t tmpfs -o {options} tmpfs"))
    }

    /// On a disk of its own, which the kernel turns read-only when it is broken.
    fn on_disk() -> Result<Self> {
        let home = tempfile::tempdir().context("make a directory")?;
        let image = home.path().join("disk");
        File::create(&image).and_then(|file| file.set_len(DISK_BYTES)).context("make a disk")?;
        let made = Command::new("mkfs.ext4").args(["-q", "-F"]).arg(&image).output().context("run mkfs.ext4")?;
        ensure!(made.status.success(), "mkfs.ext4: {}", String::from_utf8_lossy(&made.stderr));
        let image = image.to_str().context("a path of UTF-8")?;
        let mount = format!("mount -t ext4 -o loop,errors=remount-ro '{image}'");
        Self::on(home, &mount)
    }

    /// The disk breaks, as far as its file system knows.
    fn break_disk(&self) -> Result<()> {
        let mounts = fs::read_to_string(format!("/proc/{}/mounts", self.child.id())).context("read mounts")?;
        let data = self.home.path().join("data");
        let mut mounts = mounts.lines().map(|line| line.split(' ').collect::<Vec<_>>());
        let mount = mounts.find(|mount| mount.get(1).is_some_and(|at| Path::new(at) == data)).context("no mount")?;
        let device = mount.first().and_then(|device| device.strip_prefix("/dev/")).context("no device")?;
        fs::write(format!("/sys/fs/ext4/{device}/trigger_fs_error"), "1").context("break the disk")
    }

    /// In a home, with what mounts a data directory there.
    fn on(home: tempfile::TempDir, mount: &str) -> Result<Self> {
        let data = home.path().join("data");
        fs::create_dir(&data).context("make a directory")?;
        let metrics = agent::free_port()?;
        let configuration = agent::write_configuration(home.path(), metrics, json!({}))?;
        let child = Command::new("unshare")
            .args(["--mount", "--propagation", "private", "sh", "-c"])
            .arg(format!("{mount} \"$1\" && exec \"$2\" run -o none --config \"$3\""))
            .arg("sh")
            .args([&data, &agent::program()?, &configuration])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(File::create(home.path().join("stderr")).context("create a file")?)
            .spawn()
            .context("start an agent by unshare")?;
        let mut small = Self { child, home, metrics };
        wait_for("readiness", || {
            if let Some(status) = small.child.try_wait()? {
                bail!("the agent ended with {status}: {}", small.stderr());
            }
            Ok(metrics::get(metrics, "/readyz").is_ok_and(|(status, _)| status == 200))
        })?;
        Ok(small)
    }

    fn stderr(&self) -> String {
        fs::read_to_string(self.home.path().join("stderr")).unwrap_or_default()
    }

    /// The data directory as the agent sees it.
    fn data(&self) -> PathBuf {
        let data = self.home.path().join("data");
        Path::new(&format!("/proc/{}/root", self.child.id())).join(data.strip_prefix("/").unwrap_or(&data))
    }

    fn value(&self, series: &str) -> Result<f64> {
        let scrape = Metrics::scrape(self.metrics)?;
        let (name, fate) = series.split_once(' ').map_or((series, None), |(name, fate)| (name, Some(fate)));
        let mut samples = scrape.samples(name).filter(|sample| fate.is_none_or(|fate| sample.labels["fate"] == fate));
        Ok(samples.next().with_context(|| format!("no {series}"))?.value)
    }

    /// Where the data directory is what the agent sees.
    fn timeline(&self, arguments: &[&str]) -> Result<Output> {
        let mut command = Command::new("nsenter");
        command.args(["--mount", "--target"]).arg(self.child.id().to_string()).arg(agent::program()?);
        command.args(["timeline", "--data-dir"]).arg(self.home.path().join("data")).args(arguments);
        command.output().context("run sekisho timeline by nsenter")
    }

    fn doctor(&self, arguments: &[&str]) -> Result<Output> {
        let socket = self.home.path().join("agent.sock");
        let socket = socket.to_str().context("a path of UTF-8")?;
        sekisho(&[&["doctor", "-o", "json", "--socket", socket], arguments].concat())
    }
}

impl Drop for Small {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("the agent's standard error:\n{}", self.stderr());
        }
        // Both fail only when it has ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Rows are lost, and it is said everywhere: in the metrics, by doctor, and in books that balance.
fn costs_rows(small: &Small, mut load: impl FnMut() -> Result<()>) -> Result<()> {
    wait_for("lost rows", || {
        load()?;
        Ok(small.value("sekisho_history_rows_total lost")? > 0.0)
    })?;
    ensure!(small.value("sekisho_history_writable")? < 0.5, "it says that it can be written");
    wait_for("doctor to say so", || {
        let doctor: Value = serde_json::from_slice(&small.doctor(&[])?.stdout).context("doctor prints no JSON")?;
        let checks = doctor["checks"].as_array().context("checks")?;
        let history = checks.iter().find(|check| check["name"] == "history").context("a check of the history")?;
        Ok(history["state"] == "degraded")
    })?;
    wait_for("the loss in books that balance", || {
        let books: Value = serde_json::from_slice(&small.doctor(&["--books"])?.stdout).context("no books")?;
        ensure!(books["balanced"] == true, "{books}");
        let books = books["books"].as_array().context("books")?;
        Ok(books.iter().any(|book| book["fates"]["lost_store"].as_u64() > Some(0)))
    })?;
    Ok(())
}

/// Somebody fills the disk: the agent goes on, its rows are lost and counted, its books balance; and it stores again once
/// there is room.
#[test]
fn a_full_disk_costs_rows_that_are_counted() -> Result<()> {
    let lab = Lab::new(Wire::Veth)?;
    let (web, caller) = (Pod::new()?, Pod::new()?);
    let small = Small::start("size=8m")?;
    let (mut server, mut client) = (web.actor(&lab.server)?, caller.actor(&lab.client)?);
    let address = server.serve_http(lab.server_v4(0))?;
    client.load_http(address, 20, 4)?;
    wait_for("stored rows", || Ok(small.value("sekisho_history_rows_total stored")? > 0.0))?;

    let filler = small.data().join("filler");
    let mut file = File::create(&filler).context("create a file that fills the disk")?;
    while file.write_all(&[0; 4_096]).is_ok() {}
    drop(file);
    costs_rows(&small, || client.load_http(address, 20, 4).map(drop))?;

    fs::remove_file(&filler).context("make room")?;
    let before = small.value("sekisho_history_rows_total stored")?;
    wait_for("stored rows again", || {
        client.load_http(address, 20, 4)?;
        Ok(small.value("sekisho_history_rows_total stored")? > before && small.value("sekisho_history_writable")? > 0.5)
    })?;
    let said = small.stderr().matches("the history cannot be written").count();
    ensure!(said <= 3, "the log says so {said} times: {}", small.stderr());
    Ok(())
}

/// The disk breaks, and the kernel turns it read-only under the running agent: the agent goes on, its rows are lost and
/// counted, its books balance, what was stored before can be read, and it stops as ever.
#[test]
fn a_disk_that_turns_read_only_costs_rows_that_are_counted() -> Result<()> {
    let lab = Lab::new(Wire::Veth)?;
    let (web, caller) = (Pod::new()?, Pod::new()?);
    let mut small = Small::on_disk()?;
    let (mut server, mut client) = (web.actor(&lab.server)?, caller.actor(&lab.client)?);
    let address = server.serve_http(lab.server_v4(0))?;
    let stored = |small: &Small| -> Result<u64> {
        let told = small.timeline(&["--uid", &caller.uid, "--kind", "flow", "-o", "json"])?;
        Ok(Sum::over(Rows::parse(&lines(&told))?.flows_of(&caller)).connections)
    };
    client.load_http(address, 20, 4)?;
    wait_for("stored rows", || Ok(stored(&small)? == 20))?;

    small.break_disk()?;
    let probe = small.data().join("probe");
    ensure!(File::create(&probe).is_err(), "the disk can be written");
    costs_rows(&small, || client.load_http(address, 20, 4).map(drop))?;
    assert_eq!(stored(&small)?, 20, "what was stored before it broke");
    let said = small.stderr().matches("the history cannot be written").count();
    ensure!(said == 1, "the log says so {said} times: {}", small.stderr());

    let pid = rustix::process::Pid::from_child(&small.child);
    rustix::process::kill_process(pid, rustix::process::Signal::TERM).context("stop the agent")?;
    let status = small.child.wait().context("wait for the agent")?;
    ensure!(status.success(), "the agent ended with {status}: {}", small.stderr());
    Ok(())
}

/// Nobody can write there: said once, and the agent goes on without a history.
#[test]
fn a_read_only_directory_is_said_once() -> Result<()> {
    let small = Small::start("size=8m,ro")?;
    ensure!(small.value("sekisho_history_writable")? < 0.5, "it says that it can be written");
    let stderr = small.stderr();
    assert_eq!(stderr.matches("no history is kept").count(), 1, "{stderr}");
    ensure!(stderr.contains("data_dir"), "no cure: {stderr}");
    Ok(())
}
