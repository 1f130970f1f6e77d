//! Threads: of the node against `pid_max` and `threads-max`, of each cgroup on the way to a pod, and of each pod, against
//! `pids.max`. The kernel's pids controller counts tasks, which are threads; so does everything here. And the containers
//! of the node, which are counted on the same walk, against what a bill includes.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use agent_core::capacity::{Collector, Counter, CounterName, Limit, Resource, Sample, Scope};
use agent_core::facts::HostFact;
use procfs::process::MountInfos;
use procfs::{FromRead, LoadAverage};

use super::pods::{Index, Pod, Shared};
use super::{Error, Look, Roots, read};

/// What a cgroup without the pids controller lacks.
const CURRENT: &str = "pids.current";

/// Looks at threads.
pub(super) struct Threads {
    proc: PathBuf,
    cgroup: PathBuf,
    pods: Arc<Shared>,
    /// Containers that a bill includes; 0: nobody said.
    allotment: u32,
}

/// Threads of one cgroup.
#[derive(Clone, Copy)]
struct Tasks {
    used: u64,
    limit: Limit,
    refused: Option<u64>,
}

// === impl Threads ===

impl Threads {
    pub(super) fn new(roots: &Roots, pods: Arc<Shared>, allotment: u32) -> Self {
        Self { proc: roots.proc.clone(), cgroup: roots.cgroup.clone(), pods, allotment }
    }

    /// Containers without the pods' sandboxes, of which each pod has one: nobody bills for those.
    fn containers(&self, index: &Index) -> Sample {
        let containers = index.pods.iter().map(|pod| pod.containers.len().saturating_sub(1) as u64).sum();
        Sample {
            resource: Resource::Containers,
            scope: Scope::Node,
            used: Some(containers),
            limit: if self.allotment == 0 { Limit::Unknown } else { Limit::Of(self.allotment.into()) },
            source: "cgroups below pods, less a sandbox each".into(),
        }
    }

    fn node(&self) -> Result<Sample, Error> {
        let path = self.proc.join("loadavg");
        let load = LoadAverage::from_read(read::text(&path)?.as_bytes())
            .map_err(|error| read::malformed(&path, error.to_string()))?;
        let sysctl = self.proc.join("sys/kernel");
        let limits: [(&str, u64); 2] = [
            ("kernel.pid_max", read::number(&sysctl.join("pid_max"))?),
            ("kernel.threads-max", read::number(&sysctl.join("threads-max"))?),
        ];
        // Both bind; the lower one first.
        let (name, limit) = if limits[0].1 <= limits[1].1 { limits[0] } else { limits[1] };
        Ok(Sample {
            resource: Resource::Threads,
            scope: Scope::Node,
            used: Some(load.max.into()),
            limit: Limit::Of(limit),
            source: format!("loadavg, {name}").into(),
        })
    }

    /// Where `pids.*` stand: in the cgroup2 tree, or on a node with both versions in the version 1 tree of that controller.
    fn pids_root(&self) -> PathBuf {
        let controllers = read::text(&self.cgroup.join("cgroup.controllers")).unwrap_or_default();
        if controllers.split_whitespace().any(|controller| controller == "pids") {
            return self.cgroup.clone();
        }
        let mounts = MountInfos::from_file(self.proc.join("self/mountinfo"));
        let v1 = mounts.ok().and_then(|mounts| {
            let is_pids = |mount: &procfs::process::MountInfo| {
                mount.fs_type == "cgroup" && mount.super_options.contains_key("pids")
            };
            mounts.iter().find(|mount| is_pids(mount)).map(|mount| mount.mount_point.clone())
        });
        v1.filter(|path| fs::metadata(path).is_ok()).unwrap_or_else(|| self.cgroup.clone())
    }
}

impl Look for Threads {
    fn look(&mut self, facts: &mut Vec<HostFact>) -> Result<(), Error> {
        let mut result = Ok(());
        let mut samples = Vec::new();
        let mut counters = Vec::new();
        match self.node() {
            Ok(sample) => samples.push(sample),
            Err(error) => read::keep_first(&mut result, error),
        }
        match self.pods.index() {
            Ok(index) => {
                samples.push(self.containers(&index));
                let mut seen = Cgroups { root: self.pids_root(), samples, counters, result };
                seen.slices(&index);
                for pod in &index.pods {
                    seen.pod(pod);
                }
                (samples, counters, result) = (seen.samples, seen.counters, seen.result);
            }
            Err(error) => read::keep_first(&mut result, error),
        }
        facts.push(HostFact::Samples { collector: Collector::Threads, samples });
        facts.push(HostFact::Counters { collector: Collector::Threads, counters });
        result
    }
}

/// What the cgroups tell, while it is gathered.
struct Cgroups {
    root: PathBuf,
    samples: Vec<Sample>,
    counters: Vec<Counter>,
    result: Result<(), Error>,
}

// === impl Cgroups ===

impl Cgroups {
    fn slices(&mut self, index: &Index) {
        for path in &index.slices {
            let Some(tasks) = self.tasks(path) else { continue };
            let scope = Scope::Slice(path.to_string_lossy().into());
            self.refused(&scope, tasks.refused);
            self.sample(scope, &tasks, &path.to_string_lossy());
        }
    }

    /// A pod by its own cgroup, or by the container of it that has least headroom: a runtime may limit containers, too.
    fn pod(&mut self, pod: &Pod) {
        let Some(own) = self.tasks(&pod.path) else { return };
        let scope = Scope::Pod(Arc::clone(&pod.uid));
        let (mut binding, mut source) = (own, pod.path.clone());
        let mut below = 0_u64;
        for path in &pod.containers {
            let Some(tasks) = self.tasks(path) else { continue };
            below = below.saturating_add(tasks.refused.unwrap_or(0));
            if tasks.headroom() < binding.headroom() {
                (binding, source) = (tasks, path.clone());
            }
        }
        // Up to Linux 6.10 a refusal counts where the fork was tried, since then wherever the limit stands and above it.
        self.refused(&scope, own.refused.map(|own| own.max(below)));
        self.sample(scope, &binding, &source.to_string_lossy());
    }

    fn sample(&mut self, scope: Scope, tasks: &Tasks, path: &str) {
        self.samples.push(Sample {
            resource: Resource::Threads,
            scope,
            used: Some(tasks.used),
            limit: tasks.limit,
            source: format!("pids.current, pids.max of /{path}").into(),
        });
    }

    fn refused(&mut self, scope: &Scope, value: Option<u64>) {
        if let Some(value) = value {
            self.counters.push(Counter { name: CounterName::ForksRefused, scope: scope.clone(), value });
        }
    }

    /// `None`: gone, without the controller, or in error, which is kept.
    fn tasks(&mut self, path: &Path) -> Option<Tasks> {
        match tasks(&self.root.join(path)) {
            Ok(tasks) => Some(tasks),
            Err(error) => {
                if !read::is_gone(&error) {
                    read::keep_first(&mut self.result, error);
                }
                None
            }
        }
    }
}

// === impl Tasks ===

impl Tasks {
    fn headroom(&self) -> u64 {
        match self.limit {
            Limit::Of(limit) => limit.saturating_sub(self.used),
            Limit::Unlimited | Limit::Unknown => u64::MAX,
        }
    }
}

fn tasks(directory: &Path) -> Result<Tasks, Error> {
    let used = read::number(&directory.join(CURRENT))?;
    let path = directory.join("pids.max");
    let limit = match read::text(&path)?.trim() {
        "max" => Limit::Unlimited,
        number => Limit::Of(read::parse(&path, number)?),
    };
    // Older kernels have none at the root of the tree; nothing else rests on it.
    let events = read::text(&directory.join("pids.events")).unwrap_or_default();
    let refused = events.lines().find_map(|line| line.strip_prefix("max ")?.parse().ok());
    Ok(Tasks { used, limit, refused })
}
