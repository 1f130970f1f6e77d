//! The daemon, its client `ctr`, and tasks in it.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use rustix::process::{Pid, Signal};
use serde_json::Value;
use tempfile::TempDir;

use super::manifest::Manifest;
use super::spec::{self, Places, USUAL_CAPABILITIES};
use crate::netns::Namespace;
use crate::scale::{self, LOOK};

/// Names the directory that containerd, runc and their library are unpacked in.
const PROGRAMS: &str = "SEKISHO_CONTAINERD";
/// Names the image.
const IMAGE: &str = "SEKISHO_IMAGE";
/// Where shims have their sockets, whatever the daemon's directories are.
const SHIMS: [&str; 2] = ["/run/containerd/s", "/run/containerd"];

/// A daemon with the agent's image in it.
#[derive(Debug)]
pub struct Containerd {
    child: Child,
    home: TempDir,
    programs: PathBuf,
    /// The image's name in it.
    image: String,
    /// Of [`SHIMS`], those that were there before.
    present: Vec<&'static str>,
    tasks: std::cell::Cell<u32>,
}

/// A container that was started.
#[derive(Debug)]
pub struct Task<'a> {
    daemon: &'a Containerd,
    id: String,
    pid: u32,
    /// What stands for the node's directories.
    home: PathBuf,
    root: PathBuf,
    ended: bool,
}

/// How a container ended.
#[derive(Debug)]
pub struct Exit {
    /// Its exit code.
    pub code: i32,
    /// Both its outputs.
    pub output: String,
}

impl Containerd {
    /// Starts it and imports the image.
    pub fn start() -> Result<Self> {
        let variable = |name: &str| {
            std::env::var_os(name).map(PathBuf::from).with_context(|| {
                format!("{name} is not set: run `cargo xtask test --only image`, which makes the image and sets it")
            })
        };
        let (programs, image) = (variable(PROGRAMS)?, variable(IMAGE)?);
        let home = tempfile::Builder::new().prefix("sekisho-image-").tempdir().context("make a directory")?;
        let [root, state, socket] = ["root", "state", "sock"].map(|name| home.path().join(name));
        let config = format!(
            "version = 2\nroot = '{}'\nstate = '{}'\ndisabled_plugins = ['io.containerd.grpc.v1.cri']\n\
             [grpc]\naddress = '{}'\n",
            root.display(),
            state.display(),
            socket.display(),
        );
        let path = home.path().join("containerd.toml");
        fs::write(&path, config).context("configure containerd")?;
        let log = File::create(home.path().join("log")).context("create a log")?;
        let present = SHIMS.into_iter().filter(|path| Path::new(path).exists()).collect();
        let mut command = Command::new(programs.join("usr/bin/containerd"));
        command.args(["--log-level", "warn", "--config"]).arg(&path).stdin(Stdio::null());
        command.stdout(log.try_clone().context("create a log")?).stderr(log);
        with_programs(&mut command, &programs);
        let child = command.spawn().context("start containerd")?;
        let mut daemon =
            Self { child, home, programs, image: String::new(), present, tasks: std::cell::Cell::default() };
        daemon.wait()?;
        daemon.ctr(["image", "import"].map(OsStr::new).into_iter().chain([image.as_os_str()]))?;
        let images = daemon.ctr(["image", "ls", "--quiet"])?;
        let mut names = images.lines();
        names.next().context("the archive holds no image with a name")?.clone_into(&mut daemon.image);
        ensure!(names.next().is_none(), "the archive holds more than one image: {images}");
        Ok(daemon)
    }

    fn wait(&mut self) -> Result<()> {
        let deadline = Instant::now() + scale::deadline();
        while self.ctr(["version"]).is_err() {
            let ended = self.child.try_wait().context("look at containerd")?;
            ensure!(ended.is_none() && Instant::now() < deadline, "containerd did not start: {}", self.log());
            std::thread::sleep(LOOK);
        }
        Ok(())
    }

    fn log(&self) -> String {
        fs::read_to_string(self.home.path().join("log")).unwrap_or_default()
    }

    /// Name of the image, as a kubelet would look for it.
    pub fn image(&self) -> &str {
        &self.image
    }

    /// Starts what a manifest says in a network namespace that stands for the node's.
    pub fn start_task(&self, manifest: &Manifest, network: &Namespace) -> Result<Task<'_>> {
        let mut task = self.prepare(manifest, network)?;
        let pid_file = task.home.join("pid");
        let log = format!("file://{}", task.home.join("log").display());
        let spec = task.home.join("spec.json");
        let mut command = self.command();
        command.args(["run", "--detach", "--log-uri", &log, "--pid-file"]).arg(&pid_file);
        command.arg("--runc-root").arg(self.home.path().join("runc")).arg("--config").arg(&spec).arg(&task.id);
        said(&mut command)?;
        let pid = fs::read_to_string(&pid_file).context("read the pid of a task")?;
        task.pid = pid.trim().parse().context("read the pid of a task")?;
        Ok(task)
    }

    /// Runs what a manifest says to its end.
    pub fn run(&self, manifest: &Manifest, network: &Namespace) -> Result<Exit> {
        let mut task = self.prepare(manifest, network)?;
        let mut command = self.command();
        command.arg("run").arg("--fifo-dir").arg(task.home.join("fifo"));
        command.arg("--runc-root").arg(self.home.path().join("runc"));
        command.arg("--config").arg(task.home.join("spec.json")).arg(&task.id);
        // The client waits for the last word of both outputs, which a log of the shim's does not.
        let output = command.output().context("run a container")?;
        task.ended = true;
        let code = output.status.code().context("ctr was killed")?;
        let texts = [&output.stdout, &output.stderr].map(|text| String::from_utf8_lossy(text).into_owned());
        Ok(Exit { code, output: texts.concat() })
    }

    /// Mounts the image's root, and has containerd specify a container with its defaults, which are changed as for the kubelet.
    fn prepare(&self, manifest: &Manifest, network: &Namespace) -> Result<Task<'_>> {
        let number = self.tasks.get() + 1;
        self.tasks.set(number);
        let id = format!("sekisho-test-{}-{number}", std::process::id());
        let home = self.home.path().join(&id);
        let root = home.join("rootfs");
        fs::create_dir_all(&root).with_context(|| format!("create {}", root.display()))?;
        let task = Task { daemon: self, id, pid: 0, home, root, ended: false };
        said(self.command().args(["image", "mount", "--rw", &self.image]).arg(&task.root))?;

        let draft = format!("{}-draft", task.id);
        let mut create = self.command();
        create.args(["container", "create", "--seccomp", "--read-only"]);
        for name in USUAL_CAPABILITIES {
            create.args(["--cap-drop", name]);
        }
        for name in &manifest.capabilities {
            create.args(["--cap-add", name]);
        }
        said(create.args([&self.image, &draft]).args(&manifest.args))?;
        let drafted: Value = serde_json::from_str(&self.ctr(["container", "info", "--spec", &draft])?)
            .context("read what containerd specified")?;
        self.ctr(["container", "rm", &draft])?;
        let places =
            Places { root: &task.root, home: &task.home, network: &network.path(), cgroup: &format!("/{}", task.id) };
        let spec = spec::adapt(drafted, manifest, &places)?;
        fs::write(task.home.join("spec.json"), spec.to_string()).context("write a specification")?;
        Ok(task)
    }

    fn ctr(&self, arguments: impl IntoIterator<Item = impl AsRef<OsStr>>) -> Result<String> {
        said(self.command().args(arguments))
    }

    fn command(&self) -> Command {
        let mut command = Command::new(self.programs.join("usr/bin/ctr"));
        command.arg("--address").arg(self.home.path().join("sock")).stdin(Stdio::null());
        with_programs(&mut command, &self.programs);
        command
    }
}

impl Drop for Containerd {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("containerd's log:\n{}", self.log());
        }
        // Shims outlive the daemon on purpose. Those that serve this one name its socket.
        let socket = self.home.path().join("sock");
        for pid in processes_with(socket.as_os_str()) {
            let _ = rustix::process::kill_process(pid, Signal::KILL);
        }
        // Both fail only when it has ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
        if let Err(error) = unmount_below(self.home.path()) {
            eprintln!("{error:#}");
        }
        for path in SHIMS.into_iter().filter(|path| !self.present.contains(path)) {
            // Stays when another daemon has come to use it.
            let _ = fs::remove_dir(path);
        }
    }
}

impl Task<'_> {
    /// Process id of its first process, on the machine.
    pub fn pid(&self) -> u32 {
        self.pid
    }

    /// The image's root as the container has it, without what is mounted in it.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// What stands for a directory of the node.
    pub fn host_path(&self, path: &Path) -> PathBuf {
        spec::host_path(&self.home, path)
    }

    /// What it wrote so far.
    pub fn log(&self) -> String {
        fs::read_to_string(self.home.join("log")).unwrap_or_default()
    }

    /// Runs a command in it, as `kubectl exec` does.
    pub fn exec(&self, arguments: &[&str]) -> Result<Output> {
        let mut command = self.daemon.command();
        let number = self.daemon.tasks.get() + 1;
        self.daemon.tasks.set(number);
        command.args(["task", "exec", "--exec-id", &format!("exec-{number}"), "--fifo-dir"]);
        command.arg(self.home.join("fifo")).arg(&self.id).args(arguments);
        command.output().with_context(|| format!("run {arguments:?} in a container"))
    }

    /// Sends SIGTERM, and waits for its end as long as the kubelet would; its exit code.
    pub fn terminate(&mut self, grace: Duration) -> Result<i32> {
        self.daemon.ctr(["task", "kill", "--signal", "SIGTERM", &self.id])?;
        self.wait(grace)
    }

    /// Waits for its end; its exit code.
    fn wait(&mut self, deadline: Duration) -> Result<i32> {
        let deadline = Instant::now() + deadline;
        loop {
            let listed = self.daemon.ctr(["task", "ls"])?;
            let line = listed.lines().find(|line| line.starts_with(&self.id)).context("the task is gone")?;
            if line.ends_with("STOPPED") {
                break;
            }
            ensure!(Instant::now() < deadline, "the container did not end: {}", self.log());
            std::thread::sleep(LOOK);
        }
        let mut delete = self.daemon.command();
        let deleted = delete.args(["task", "delete", &self.id]).output().context("delete a task")?;
        self.ended = true;
        let said = String::from_utf8_lossy(&deleted.stderr);
        ensure!(deleted.status.success(), "delete a task: {said}");
        // The client tells the code in words, and only when it is not 0.
        let Some((_, code)) = said.split_once("exit with non-zero exit code ") else { return Ok(0) };
        let digits = code.split(|c: char| !c.is_ascii_digit()).next().unwrap_or_default();
        digits.parse().with_context(|| format!("read an exit code in {said:?}"))
    }
}

impl Drop for Task<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("log of {}:\n{}", self.id, self.log());
        }
        if !self.ended {
            let _ = self.daemon.ctr(["task", "delete", "--force", &self.id]);
        }
        let _ = self.daemon.ctr(["container", "rm", &self.id]);
        let _ = said(self.daemon.command().args(["image", "unmount", "--rm"]).arg(&self.root));
    }
}

/// Lets a program find the others and the library that is not on every machine.
fn with_programs(command: &mut Command, programs: &Path) {
    let libraries = ["x86_64", "aarch64"].map(|arch| programs.join("usr/lib").join(format!("{arch}-linux-gnu")));
    let path = ["usr/bin", "usr/sbin"].map(|directory| programs.join(directory)).into_iter();
    let system = std::env::var_os("PATH").unwrap_or_default();
    let path = std::env::join_paths(path.chain(std::env::split_paths(&system)));
    command.env("PATH", path.unwrap_or(system));
    command.env("LD_LIBRARY_PATH", std::env::join_paths(libraries).unwrap_or_default());
}

/// Standard output of a command that must succeed.
fn said(command: &mut Command) -> Result<String> {
    let output = command.output().with_context(|| format!("run {command:?}"))?;
    let stderr = String::from_utf8_lossy(&output.stderr);
    if !output.status.success() {
        bail!("{command:?} failed: {}: {stderr}", output.status);
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Processes with a word among their arguments.
fn processes_with(word: &OsStr) -> Vec<Pid> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    let is_named = |path: &Path| {
        fs::read(path.join("cmdline"))
            .is_ok_and(|line| line.split(|byte| *byte == 0).any(|argument| argument == word.as_encoded_bytes()))
    };
    entries
        .filter(|entry| is_named(&entry.path()))
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok().and_then(Pid::from_raw))
        .filter(|pid| *pid != rustix::process::getpid())
        .collect()
}

/// Unmounts everything below a directory, the last mounted first.
fn unmount_below(directory: &Path) -> Result<()> {
    let text = fs::read_to_string("/proc/self/mountinfo").context("read /proc/self/mountinfo")?;
    let mounts: Vec<_> = text.lines().filter_map(|line| line.split(' ').nth(4)).collect();
    for mount in mounts.iter().rev().filter(|mount| Path::new(mount).starts_with(directory)) {
        rustix::mount::unmount(*mount, rustix::mount::UnmountFlags::DETACH)
            .with_context(|| format!("unmount {mount}"))?;
    }
    Ok(())
}
