//! Looks at nodes made for the test: trees of files with the figures that a kernel would show.

use std::fs;
use std::path::Path;
use std::sync::Arc;

use agent_core::capacity::{Collector, Counter, CounterName, Limit, Resource, Sample, Scope};
use agent_core::facts::HostFact;
use tempfile::TempDir;

use super::pods::Shared;
use super::*;

mod addresses;
mod devices;
mod nodes;
mod ports;
mod processes;
mod snat;

/// The uid of a pod of the fixtures, by number.
fn uid(number: u8) -> String {
    format!("0f5a7c6e-1111-2222-3333-4444555566{number:02}")
}

/// A container's scope, by number.
fn scope(number: u8) -> String {
    format!("cri-containerd-{number:064x}.scope")
}

/// A burstable pod's slice, below the root of the tree.
fn slice(number: u8) -> String {
    let uid = uid(number).replace('-', "_");
    format!("kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod{uid}.slice")
}

/// A node in a directory.
struct Fixture {
    root: TempDir,
    roots: Roots,
}

impl Fixture {
    fn new() -> Self {
        let root = TempDir::new().expect("a directory");
        let roots = Roots::of_fixture(root.path());
        for directory in [&roots.proc, &roots.sys, &roots.cgroup, &roots.etc, &roots.run] {
            fs::create_dir(directory).expect("a directory");
        }
        Self { root, roots }
    }

    /// Writes a file and the directories above it.
    fn put(&self, path: &str, text: &str) -> &Self {
        let path = self.root.path().join(path);
        fs::create_dir_all(path.parent().expect("a parent")).expect("directories");
        fs::write(path, text).expect("a file");
        self
    }

    fn remove(&self, path: &str) {
        let path = self.root.path().join(path);
        if path.is_dir() { fs::remove_dir_all(path) } else { fs::remove_file(path) }.expect("it was there");
    }

    /// A pod with one container and these processes.
    fn pod(&self, number: u8, pids: &[u32]) -> &Self {
        let path = format!("cgroup/{}/{}", slice(number), scope(number));
        let list: Vec<String> = pids.iter().map(ToString::to_string).collect();
        self.put(&format!("{path}/cgroup.procs"), &list.join("\n"));
        self.put(&format!("cgroup/{}/cgroup.procs", slice(number)), "")
    }

    /// Threads of a cgroup.
    fn pids(&self, path: &str, current: &str, max: &str, refused: u64) -> &Self {
        self.put(&format!("cgroup/{path}/pids.current"), &format!("{current}\n"));
        self.put(&format!("cgroup/{path}/pids.max"), &format!("{max}\n"));
        self.put(&format!("cgroup/{path}/pids.events"), &format!("max {refused}\n"))
    }

    /// A process with so many open files of at most so many.
    fn process(&self, pid: u32, comm: &str, files: u32, limit: &str) -> &Self {
        self.put(&format!("proc/{pid}/comm"), &format!("{comm}\n"));
        self.put(
            &format!("proc/{pid}/limits"),
            &format!(
                "Limit                     Soft Limit           Hard Limit           Units     \n\
                 Max processes             15231                15231                processes \n\
                 Max open files            {limit:<20} 1048576              files     \n"
            ),
        );
        for file in 0..files {
            self.put(&format!("proc/{pid}/fd/{file}"), "");
        }
        self
    }

    fn pods(&self) -> Arc<Shared> {
        Arc::new(Shared::new(&self.roots))
    }
}

/// What a look tells, in parts.
#[derive(Debug, Default)]
struct Seen {
    samples: Vec<Sample>,
    counters: Vec<Counter>,
    error: Option<String>,
    absent: bool,
}

impl Seen {
    fn by(collector: Collector, mut look: impl Look) -> Self {
        Self::again(collector, &mut look)
    }

    fn again(expected: Collector, look: &mut impl Look) -> Self {
        let mut facts = Vec::new();
        let result = look.look(&mut facts);
        let absent = result.as_ref().is_err_and(Error::is_absent);
        let mut seen = Self { error: result.err().map(|error| error.chain()), absent, ..Self::default() };
        for fact in facts {
            match fact {
                HostFact::Samples { collector, samples } => {
                    assert_eq!(collector, expected);
                    seen.samples.extend(samples);
                }
                HostFact::Counters { collector, counters } => {
                    assert_eq!(collector, expected);
                    seen.counters.extend(counters);
                }
                _ => {}
            }
        }
        seen
    }

    /// Used and limit of a resource in a scope; `None`: not told.
    fn figures(&self, resource: Resource, scope: &Scope) -> Option<(Option<u64>, Limit)> {
        let mut found = self.samples.iter().filter(|sample| sample.resource == resource && sample.scope == *scope);
        let sample = found.next()?;
        assert_eq!(found.next(), None, "told once");
        Some((sample.used, sample.limit))
    }

    fn counter(&self, name: CounterName, scope: &Scope) -> Option<u64> {
        self.counters.iter().find(|counter| counter.name == name && counter.scope == *scope).map(|found| found.value)
    }
}

fn pod(number: u8) -> Scope {
    Scope::Pod(uid(number).into())
}

const CONNTRACK: &str = "entries  clashres found new invalid ignore delete chainlength insert insert_failed drop \
                         early_drop icmp_error  expect_new expect_create expect_delete search_restart\n\
                         0000abcd  00000000 00000000 00000000 0000019f 00000000 00000000 00000000 00000000 00000010 \
                         00000003 00000001 00000000  00000000 00000000 00000000 00000000\n\
                         0000abcd  00000000 00000000 00000000 00000000 00000000 00000000 00000000 00000000 00000001 \
                         00000000 00000002 00000000  00000000 00000000 00000000 00000000\n";

#[test]
fn connection_tracking() {
    let node = Fixture::new();
    node.put("proc/sys/net/netfilter/nf_conntrack_count", "43981\n");
    node.put("proc/sys/net/netfilter/nf_conntrack_max", "131072\n");
    node.put("proc/self/net/stat/nf_conntrack", CONNTRACK);
    let look = || Seen::by(Collector::Conntrack, conntrack::Conntrack::new(&node.roots));
    let seen = look();
    assert_eq!(seen.error, None);
    assert_eq!(seen.figures(Resource::ConntrackEntries, &Scope::Node), Some((Some(43_981), Limit::Of(131_072))));
    assert_eq!(seen.counter(CounterName::ConntrackDrop, &Scope::Node), Some(6));
    assert_eq!(seen.counter(CounterName::ConntrackInsertFailed, &Scope::Node), Some(17));

    node.put("proc/self/net/stat/nf_conntrack", "entries drop\nzz 1\n00 zz\n");
    let seen = look();
    assert!(seen.error.as_deref().is_some_and(|error| error.contains("net/stat/nf_conntrack")), "{seen:?}");
    assert!(seen.figures(Resource::ConntrackEntries, &Scope::Node).is_some(), "the rest is right");
    assert_eq!(seen.counters, []);

    node.put("proc/sys/net/netfilter/nf_conntrack_count", "many\n");
    let seen = look();
    let error = seen.error.expect("an error");
    assert!(error.ends_with(r#"nf_conntrack_count: expected a number, not "many""#), "{error}");
    assert_eq!(seen.samples, [], "absent is not zero");

    node.remove("proc/sys/net/netfilter");
    assert!(look().absent);
}

#[test]
fn older_kernels_have_fewer_columns() {
    let node = Fixture::new();
    node.put("proc/sys/net/netfilter/nf_conntrack_count", "0\n");
    node.put("proc/sys/net/netfilter/nf_conntrack_max", "0\n");
    node.put("proc/self/net/stat/nf_conntrack", "entries drop\n00 0a\n");
    let seen = Seen::by(Collector::Conntrack, conntrack::Conntrack::new(&node.roots));
    assert_eq!(seen.error, None);
    assert_eq!(seen.figures(Resource::ConntrackEntries, &Scope::Node), Some((Some(0), Limit::Unlimited)));
    assert_eq!(seen.counter(CounterName::ConntrackDrop, &Scope::Node), Some(10));
    assert_eq!(seen.counter(CounterName::ConntrackInsertFailed, &Scope::Node), None);
}

#[test]
fn the_fuller_neighbour_table_is_told() {
    let node = Fixture::new();
    let head = "entries  allocs   destroys table_fulls\n";
    node.put("proc/self/net/stat/arp_cache", &format!("{head}00000020 0 0 00000001\n00000020 0 0 00000002\n"));
    node.put("proc/sys/net/ipv4/neigh/default/gc_thresh3", "1024\n");
    let look = || Seen::by(Collector::Neighbours, neighbours::Neighbours::new(&node.roots));
    let entries = |seen: &Seen| seen.figures(Resource::NeighbourEntries, &Scope::Node);
    let seen = look();
    assert_eq!((&seen.error, entries(&seen)), (&None, Some((Some(32), Limit::Of(1_024)))), "no IPv6 here");
    node.put("proc/self/net/stat/ndisc_cache", &format!("{head}000003f0 0 0 00000004\n"));
    node.put("proc/sys/net/ipv6/neigh/default/gc_thresh3", "1024\n");
    let seen = look();
    assert_eq!(entries(&seen), Some((Some(1_008), Limit::Of(1_024))));
    assert_eq!(seen.counter(CounterName::NeighbourTableFull, &Scope::Node), Some(7));
    node.put("proc/self/net/stat/arp_cache", "entries\n");
    let seen = look();
    assert!(seen.error.as_deref().is_some_and(|error| error.contains("arp_cache")), "{seen:?}");
    assert_eq!(entries(&seen), Some((Some(1_008), Limit::Of(1_024))), "the other table is right");
}
