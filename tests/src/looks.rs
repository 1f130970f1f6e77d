//! What the agent's looks at the node tell, by `sekisho internal looks`, and where the pids controller is on this machine.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use crate::cgroup::{self, Pod};
use crate::{agent, scale};

/// All facts of one look at everything.
#[derive(Debug)]
pub struct Looks(Vec<Value>);

/// A limit of threads on a pod, with the version 1 groups that it took, if any; gone with its guard.
#[derive(Debug)]
pub struct PidsLimit {
    /// The pod's group where the controller is.
    pod: PathBuf,
    /// The container's group there.
    container: PathBuf,
    is_v1: bool,
}

// === impl Looks ===

impl Looks {
    /// Looks once at everything.
    pub fn take() -> Result<Self> {
        let program = agent::program()?;
        let output = Command::new(&program).args(["internal", "looks"]).output().context("run sekisho")?;
        ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let text = String::from_utf8(output.stdout).context("looks are text")?;
        let lines = text.lines().map(serde_json::from_str).collect::<Result<_, _>>().context("looks are JSON")?;
        Ok(Self(lines))
    }

    /// The sample of a resource in a scope, as JSON shows the scope.
    pub fn sample(&self, resource: &str, scope: &Value) -> Option<&Value> {
        let samples = self.0.iter().filter_map(|fact| fact["Samples"]["samples"].as_array()).flatten();
        samples.into_iter().find(|sample| sample["resource"] == resource && sample["scope"] == *scope)
    }

    /// Used and limit of such a sample.
    pub fn figures(&self, resource: &str, scope: &Value) -> Result<(u64, u64)> {
        let sample = self.sample(resource, scope).with_context(|| format!("no {resource} of {scope}: {:?}", self.0))?;
        let used = sample["used"].as_u64().with_context(|| format!("not known how much: {sample}"))?;
        let limit = sample["limit"]["Of"].as_u64().with_context(|| format!("no limit: {sample}"))?;
        Ok((used, limit))
    }

    /// A counter in a scope.
    pub fn counter(&self, name: &str, scope: &Value) -> Option<u64> {
        let counters = self.0.iter().filter_map(|fact| fact["Counters"]["counters"].as_array()).flatten();
        let mut found = counters.into_iter().filter(|counter| counter["name"] == name && counter["scope"] == *scope);
        found.next()?["value"].as_u64()
    }

    /// All interfaces.
    pub fn links(&self) -> Result<&Vec<Value>> {
        self.0.iter().find_map(|fact| fact["Links"].as_array()).context("no interfaces were told")
    }
}

/// A pod's scope, as JSON shows it.
pub fn pod_scope(pod: &Pod) -> Value {
    serde_json::json!({ "Pod": pod.uid })
}

// === impl PidsLimit ===

impl PidsLimit {
    /// Limits a pod to so many threads. Its processes have to [`PidsLimit::enter`] where the controller is of version 1.
    pub fn new(pod: &Pod, threads: u32) -> Result<Self> {
        let root = cgroup::mount_point()?;
        let below = pod.directory().strip_prefix(&root).context("a pod outside of the tree")?.to_owned();
        let controllers = fs::read_to_string(root.join("cgroup.controllers")).context("read cgroup.controllers")?;
        let is_v1 = !controllers.split_whitespace().any(|controller| controller == "pids");
        let root = if is_v1 { v1_mount()? } else { root };
        let container = root.join(&below);
        let pod = container.parent().context("a container outside of a pod")?.to_owned();
        if is_v1 {
            fs::create_dir_all(&container).with_context(|| format!("create {}", container.display()))?;
        } else {
            for directory in
                pod.ancestors().skip(1).take_while(|path| path.starts_with(&root)).collect::<Vec<_>>().iter().rev()
            {
                let control = directory.join("cgroup.subtree_control");
                fs::write(&control, "+pids").with_context(|| format!("write {}", control.display()))?;
            }
        }
        let limit = Self { pod, container, is_v1 };
        let max = limit.pod.join("pids.max");
        fs::write(&max, threads.to_string()).with_context(|| format!("write {}", max.display()))?;
        Ok(limit)
    }

    /// Puts a process of the pod's container under the limit.
    pub fn enter(&self, pid: u32) -> Result<()> {
        if self.is_v1 {
            fs::write(self.container.join("cgroup.procs"), pid.to_string()).context("enter the limited group")?;
        }
        Ok(())
    }

    /// Threads that the kernel counts now.
    pub fn current(&self) -> Result<u64> {
        let text = fs::read_to_string(self.pod.join("pids.current")).context("read pids.current")?;
        text.trim().parse().context("pids.current is a number")
    }
}

impl Drop for PidsLimit {
    fn drop(&mut self) {
        if !self.is_v1 {
            return;
        }
        let deadline = Instant::now() + scale::deadline();
        for directory in self.container.ancestors().take(4) {
            // The container's and the pod's are ours, and busy until their processes are gone; those above may be shared.
            let is_ours = directory.starts_with(&self.pod);
            while fs::remove_dir(directory).is_err() && is_ours && directory.exists() && Instant::now() < deadline {
                std::thread::sleep(scale::LOOK);
            }
        }
    }
}

/// Where the version 1 tree of the pids controller is mounted.
fn v1_mount() -> Result<PathBuf> {
    let text = fs::read_to_string("/proc/self/mountinfo").context("read /proc/self/mountinfo")?;
    let is_pids = |options: &str| options.split(',').any(|option| option == "pids");
    text.lines()
        .find_map(|line| {
            let (mount, file_system) = line.split_once(" - ")?;
            let mut words = file_system.split(' ');
            let found = words.next() == Some("cgroup") && is_pids(words.nth(1)?);
            found.then(|| mount.split(' ').nth(4).map(|path| Path::new(path).to_owned()))?
        })
        .context("no pids controller is mounted")
}
