//! Ephemeral ports and listeners' queues, of each pod and of the node's own network namespace.
//!
//! A port is used up per local address, remote address and remote port: two connections to one database share no port, two
//! to different ones may. So what counts is the most crowded of these triples, against the range of the namespace.
//!
//! Reading a table of connections costs the kernel a walk over all hash buckets of the node, whatever the namespace. So
//! each namespace's own count of sockets comes first, and only the most crowded ones' tables are read, and some of the
//! others in turn. Which range a namespace has shows from inside alone, which takes `CAP_SYS_ADMIN`. Without it the
//! kernel's default is assumed, with which every namespace begins; where ports outside of it are in use the limit is
//! unknown, and the pod's sysctls may tell it to whoever knows the pod.
//!
//! A socket for datagrams holds its port whomever it talks to. Of both protocols the one counts that has used up more.

use std::fs;
use std::ops::RangeInclusive;
use std::os::fd::AsFd as _;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use agent_core::capacity::{Collector, Counter, CounterName, Limit, Resource, Sample, Scope};
use agent_core::facts::HostFact;

use self::connections::{Crowd, crowd, datagram_ports};
use super::pods::{Index, Pod, Shared};
use super::{Error, Look, Roots, read, table};

mod connections;

/// Range of a new network namespace, `inet_init_net` of the kernel.
const DEFAULT_RANGE: RangeInclusive<u16> = 32_768..=60_999;
/// Tables read in one look: the most crowded ones, and as many of the others, in turn. Each is a walk over the node's hash
/// table, which takes about a millisecond with 262,144 buckets.
const CROWDED_TABLES: usize = 6;
const OTHER_TABLES: usize = 2;
/// Processes tried of a pod: one that ends meanwhile is no reason to know nothing.
const TRIES: usize = 4;

/// Looks at ports.
pub(super) struct Ports {
    proc: PathBuf,
    pods: Arc<Shared>,
    looks: usize,
}

/// A pod's network namespace.
struct Namespace {
    scope: Scope,
    /// Directory of a process in it.
    process: PathBuf,
    sockets: Sockets,
}

/// Sockets that may hold a port.
#[derive(Clone, Copy, Default)]
struct Sockets {
    tcp: u64,
    udp: u64,
}

/// What is gathered.
#[derive(Default)]
struct Seen {
    samples: Vec<Sample>,
    counters: Vec<Counter>,
    first_error: Option<Error>,
}

// === impl Ports ===

impl Ports {
    pub(super) fn new(roots: &Roots, pods: Arc<Shared>) -> Self {
        Self { proc: roots.proc.clone(), pods, looks: 0 }
    }

    /// The node's own namespace, whose range is at hand.
    fn node(&self, seen: &mut Seen) {
        let own = self.proc.join("self");
        seen.listeners(&own, &Scope::Node);
        let Some(range) = seen.kept(read_range(&self.proc)) else { return };
        // How many sockets there are only says which tables need not be read.
        let sockets = seen.kept(sockets(&own)).unwrap_or_default();
        seen.namespace(Scope::Node, &own, sockets, Some(&range));
    }

    /// The pods' namespaces, through a process each; those that use the node's are the node's.
    fn namespaces(&self, index: &Index, seen: &mut Seen) -> Vec<Namespace> {
        let inode = |process: &Path| fs::metadata(process.join("net/dev")).ok().map(|metadata| metadata.ino());
        let own = inode(&self.proc.join("self"));
        let namespace = |pod: &Pod| {
            let mut processes = pod.pids.iter().take(TRIES).map(|pid| self.proc.join(pid.to_string()));
            let (process, inode) = processes.find_map(|process| inode(&process).map(|inode| (process, inode)))?;
            if Some(inode) == own {
                return None;
            }
            let scope = Scope::Pod(Arc::clone(&pod.uid));
            seen.listeners(&process, &scope);
            let sockets = seen.kept(sockets(&process))?;
            Some(Namespace { scope, process, sockets })
        };
        index.pods.iter().filter_map(namespace).collect()
    }

    /// Those whose tables are read in this look.
    fn chosen(&mut self, mut namespaces: Vec<Namespace>) -> Vec<Namespace> {
        namespaces.retain(|namespace| namespace.sockets.all() > 0);
        namespaces.sort_by_key(|namespace| std::cmp::Reverse(namespace.sockets.all()));
        let mut others = namespaces.split_off(namespaces.len().min(CROWDED_TABLES));
        self.looks = self.looks.wrapping_add(1);
        if !others.is_empty() {
            others.sort_by(|a, b| a.scope.cmp(&b.scope));
            let at = self.looks.wrapping_mul(OTHER_TABLES) % others.len();
            others.rotate_left(at);
            namespaces.extend(others.into_iter().take(OTHER_TABLES));
        }
        namespaces
    }
}

impl Look for Ports {
    fn look(&mut self, facts: &mut Vec<HostFact>) -> Result<(), Error> {
        let mut seen = Seen::default();
        self.node(&mut seen);
        if let Some(index) = seen.kept(self.pods.index()) {
            let namespaces = self.namespaces(&index, &mut seen);
            for Namespace { scope, process, sockets } in self.chosen(namespaces) {
                let range = range_inside(&process, &self.proc);
                seen.namespace(scope, &process, sockets, range.as_ref());
            }
        }
        let Seen { samples, counters, first_error } = seen;
        facts.push(HostFact::Samples { collector: Collector::Ports, samples });
        facts.push(HostFact::Counters { collector: Collector::Ports, counters });
        first_error.map_or(Ok(()), Err)
    }
}

// === impl Seen ===

impl Seen {
    /// The first error stands for all; a process that ended meanwhile is none.
    fn kept<T>(&mut self, result: Result<T, Error>) -> Option<T> {
        match result {
            Ok(value) => Some(value),
            Err(error) => {
                if !read::is_gone(&error) {
                    self.first_error.get_or_insert(error);
                }
                None
            }
        }
    }

    fn listeners(&mut self, process: &Path, scope: &Scope) {
        let path = process.join("net/netstat");
        let Some(text) = self.kept(read::text(&path)) else { return };
        for (counter, name) in
            [("ListenDrops", CounterName::ListenDrops), ("ListenOverflows", CounterName::ListenOverflows)]
        {
            if let Some(value) = self.kept(table::paired(&path, &text, "TcpExt", counter)).flatten() {
                self.counters.push(Counter { name, scope: scope.clone(), value });
            }
        }
    }

    /// Reads a namespace's tables, those of datagrams only where there are so many sockets that they may count more.
    fn namespace(&mut self, scope: Scope, process: &Path, sockets: Sockets, range: Option<&RangeInclusive<u16>>) {
        let how = if range.is_some() { "its own range" } else { "the default range assumed" };
        let crowd = self.kept(crowd(process, range)).flatten();
        let ports = crowd.map_or(0, |crowd| crowd.ports);
        let range = range.unwrap_or(&DEFAULT_RANGE);
        let size = u64::from(range.end() - range.start()) + 1;
        let datagrams = (sockets.udp > ports).then(|| self.kept(datagram_ports(process, range))).flatten();
        let sample = |used, limit, source: String| Sample {
            resource: Resource::EphemeralPorts,
            scope,
            used: Some(used),
            limit,
            source: source.into(),
        };
        self.samples.extend(match (crowd, datagrams) {
            (_, Some(datagrams)) if datagrams > ports => {
                Some(sample(datagrams, Limit::Of(size), format!("net/udp, {how}")))
            }
            (Some(Crowd { local, remote, ports, lowest, highest }), _) => {
                let (limit, how) = if range.contains(&lowest) && range.contains(&highest) {
                    (Limit::Of(size), how)
                } else {
                    (Limit::Unknown, "ports outside of the default range")
                };
                Some(sample(ports, limit, format!("net/tcp: {local} to {remote}, {how}")))
            }
            (None, _) => None,
        });
    }
}

// === impl Sockets ===

impl Sockets {
    fn all(self) -> u64 {
        self.tcp.saturating_add(self.udp)
    }
}

// === helpers ===

/// `ip_local_port_range` of the namespace that this thread is in.
fn read_range(proc: &Path) -> Result<RangeInclusive<u16>, Error> {
    let path = proc.join("sys/net/ipv4/ip_local_port_range");
    let text = read::text(&path)?;
    let mut words = text.split_whitespace();
    let mut word = || read::parse::<u16>(&path, words.next().unwrap_or_default());
    let (lowest, highest) = (word()?, word()?);
    if lowest > highest {
        return Err(read::malformed(&path, format!("is no range: {lowest} to {highest}")));
    }
    Ok(lowest..=highest)
}

/// The same of a process's namespace, on a thread that enters it; `None` where that is not allowed.
fn range_inside(process: &Path, proc: &Path) -> Option<RangeInclusive<u16>> {
    let namespace = fs::File::open(process.join("ns/net")).ok()?;
    std::thread::scope(|scope| {
        // On a node without threads left the range is not known.
        let inside = std::thread::Builder::new().spawn_scoped(scope, || {
            // Namespaces belong to threads, and this one ends here.
            let network = rustix::thread::LinkNameSpaceType::Network;
            rustix::thread::move_into_link_name_space(namespace.as_fd(), Some(network)).ok()?;
            read_range(proc).ok()
        });
        inside.ok()?.join().ok().flatten()
    })
}

/// Sockets of a process's namespace that may hold a port: open ones, and of TCP those that wait for late packets.
fn sockets(process: &Path) -> Result<Sockets, Error> {
    let path = process.join("net/sockstat");
    let text = read::text(&path)?;
    let of = |protocol: &str, names: &[&str]| {
        let line = text.lines().find_map(|line| line.strip_prefix(protocol));
        let mut sum = 0_u64;
        for name in names {
            let value = line.and_then(|line| line.split_whitespace().skip_while(|word| word != name).nth(1));
            let value = value.ok_or_else(|| read::malformed(&path, format!("tells no {name} of {protocol}")))?;
            sum = sum.saturating_add(read::parse(&path, value)?);
        }
        Ok::<_, Error>(sum)
    };
    let (tcp, udp) = (of("TCP:", &["inuse", "tw"])?, of("UDP:", &["inuse"])?);
    // Sockets of IPv6 stand apart, without those that wait, which the line above counts for both.
    let v6 = read::text(&process.join("net/sockstat6")).unwrap_or_default();
    let v6 = |prefix: &str| v6.lines().find_map(|line| line.strip_prefix(prefix)?.trim().parse().ok()).unwrap_or(0);
    Ok(Sockets { tcp: tcp.saturating_add(v6("TCP6: inuse ")), udp: udp.saturating_add(v6("UDP6: inuse ")) })
}
