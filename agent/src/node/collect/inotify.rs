//! inotify instances and watches of each user, against what a user may have. Off unless asked for: it reads the
//! descriptors of every process, which takes `CAP_SYS_PTRACE` and tens of microseconds for each instance.

use std::collections::HashMap;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use agent_core::capacity::{Collector, Limit, Resource, Sample, Scope};
use agent_core::facts::HostFact;

use super::{Error, Look, Roots, pods, read};

/// What an instance's descriptor leads to.
const INSTANCE: &str = "anon_inode:inotify";
/// How `fdinfo` begins the line of a watch.
const WATCH: &str = "inotify wd:";
/// Most processes, and most descriptors of one, that are looked at.
const MAX_PROCESSES: usize = 131_072;
const MAX_DESCRIPTORS: usize = 65_536;
/// Longest `fdinfo`: 100,000 watches of 100 bytes.
const FDINFO_BYTES_MAX: u64 = 16 << 20;

/// Looks at inotify.
pub(super) struct Inotify {
    proc: PathBuf,
}

/// What a user has.
#[derive(Clone, Copy, Default)]
struct Usage {
    instances: u64,
    watches: u64,
}

// === impl Inotify ===

impl Inotify {
    pub(super) fn new(roots: &Roots) -> Self {
        Self { proc: roots.proc.clone() }
    }
}

impl Look for Inotify {
    fn look(&mut self, facts: &mut Vec<HostFact>) -> Result<(), Error> {
        let sysctl = self.proc.join("sys/fs/inotify");
        let max_watches = read::number(&sysctl.join("max_user_watches"))?;
        let max_instances = read::number(&sysctl.join("max_user_instances"))?;
        let mut result = Ok(());
        let mut users: HashMap<u32, Usage> = HashMap::new();
        for pid in pods::pids_in(&self.proc).take(MAX_PROCESSES) {
            if let Err(error) = process(&self.proc.join(pid.to_string()), &mut users)
                && !read::is_gone(&error)
            {
                read::keep_first(&mut result, error);
            }
        }
        let worst =
            |of: fn(&Usage) -> u64| users.iter().map(|(user, usage)| (of(usage), *user)).max().unwrap_or((0, 0));
        let sample = |resource, (used, user): (u64, u32), max, name| Sample {
            resource,
            scope: Scope::Node,
            used: Some(used),
            limit: Limit::Of(max),
            source: format!("fdinfo of user {user}'s processes, fs.inotify.{name}").into(),
        };
        facts.push(HostFact::Samples {
            collector: Collector::Inotify,
            samples: vec![
                sample(Resource::InotifyInstances, worst(|usage| usage.instances), max_instances, "max_user_instances"),
                sample(Resource::InotifyWatches, worst(|usage| usage.watches), max_watches, "max_user_watches"),
            ],
        });
        result
    }
}

fn process(directory: &Path, users: &mut HashMap<u32, Usage>) -> Result<(), Error> {
    let refused = |path: &Path| {
        let path = path.to_owned();
        move |source| Error::Read { path, source }
    };
    let user = fs::metadata(directory).map_err(refused(directory))?.uid();
    let descriptors = directory.join("fd");
    let entries = fs::read_dir(&descriptors).map_err(refused(&descriptors))?;
    for entry in entries.flatten().take(MAX_DESCRIPTORS) {
        if fs::read_link(entry.path()).is_ok_and(|target| target == Path::new(INSTANCE)) {
            let info = directory.join("fdinfo").join(entry.file_name());
            let usage = users.entry(user).or_default();
            usage.instances += 1;
            match read::text_of_at_most(&info, FDINFO_BYTES_MAX) {
                Ok(text) => usage.watches += text.lines().filter(|line| line.starts_with(WATCH)).count() as u64,
                Err(error) if read::is_gone(&error) => usage.instances -= 1,
                Err(error) => return Err(error),
            }
        }
    }
    Ok(())
}
