//! Ports that the node gives to connections of pods when it puts an address of its own in place of theirs (SNAT).
//!
//! Two connections from one address to one remote address and port need two ports, whichever pods they are of: pods that
//! have thousands of ports each share those of the node's address here. The kernel picks from 1,024 to 65,535
//! (`nf_nat_l4proto_unique_tuple` of `net/netfilter/nf_nat_core.c`), whatever `ip_local_port_range` is. It gives up after
//! some tries, so connections fail (`conntrack_insert_failed`) before the very last port is taken.
//!
//! The kernel walks its whole table for this and tells each translated connection: 48,000 of them took 70 ms of processor
//! time in all (kernel 6.18), 1.5 µs each. So it is done once a minute.

use std::collections::{BTreeMap, HashMap};
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;

use agent_core::capacity::{Collector, Limit, Resource, Sample, Scope};
use agent_core::facts::HostFact;

use super::translations::Translation;
use super::{Error, Look, Roots, read};

/// Ports that the kernel picks from.
const LOWEST: u16 = 1_024;
const PORTS: u64 = 65_536 - LOWEST as u64;
/// Translated connections counted in one look: four remote services at their end, and 0.4 s of processor time.
const MAX_CONNECTIONS: u64 = 262_144;
/// Most remote services told apart, at about 60 bytes: 4 MiB for the time of a look.
const MAX_TRIPLES: usize = 65_536;
/// Addresses of the node that are told: it has one for this, or one for each interface.
const MAX_ADDRESSES: usize = 8;
const TCP: u8 = 6;
const UDP: u8 = 17;

/// Hands over all translated connections.
pub(super) type Ask = fn(&mut dyn FnMut(Translation) -> io::Result<()>) -> Result<(), Error>;

/// Looks at translated connections.
pub(super) struct Snat {
    proc: PathBuf,
    pub(super) ask: Ask,
}

/// How many connections share a triple. Bounded by the constants above.
#[derive(Default)]
struct Crowds {
    ports: HashMap<(u8, IpAddr, SocketAddr), u64>,
    seen: u64,
    /// Some found no room.
    is_cut: bool,
}

// === impl Snat ===

impl Snat {
    pub(super) fn new(roots: &Roots, ask: Ask) -> Self {
        Self { proc: roots.proc.clone(), ask }
    }
}

impl Look for Snat {
    fn look(&mut self, facts: &mut Vec<HostFact>) -> Result<(), Error> {
        // Asking makes a kernel load its module, so that is asked first.
        let count = self.proc.join("sys/net/netfilter/nf_conntrack_count");
        let text = read::text_or_absent(&count, "the kernel tracks no connections here")?;
        let connections: u64 = read::parse(&count, text.trim())?;
        let mut crowds = Crowds::default();
        if connections > 0 {
            let asked = (self.ask)(&mut |translation| crowds.take(translation));
            match asked {
                Err(Error::Kernel { source, .. }) if source.raw_os_error() == Some(libc::EPERM) => {
                    return Err(Error::Absent("listing translated connections takes CAP_NET_ADMIN".to_owned()));
                }
                Err(error) if !crowds.is_cut => return Err(error),
                _ => {}
            }
        }
        facts.push(HostFact::Samples { collector: Collector::Snat, samples: crowds.samples() });
        Ok(())
    }
}

// === impl Crowds ===

impl Crowds {
    fn take(&mut self, translation: Translation) -> io::Result<()> {
        self.seen += 1;
        if self.seen > MAX_CONNECTIONS {
            self.is_cut = true;
            return Err(io::Error::other("enough"));
        }
        let Translation { protocol, remote, local } = translation;
        // A port below is one of those that a program without privilege cannot have chosen either.
        if !matches!(protocol, TCP | UDP) || local.port() < LOWEST {
            return Ok(());
        }
        let key = (protocol, local.ip(), remote);
        if let Some(ports) = self.ports.get_mut(&key) {
            *ports += 1;
        } else if self.ports.len() < MAX_TRIPLES {
            self.ports.insert(key, 1);
        } else {
            self.is_cut = true;
        }
        Ok(())
    }

    /// Of each address the most crowded remote service; of many addresses those.
    fn samples(self) -> Vec<Sample> {
        let mut worst: BTreeMap<IpAddr, (u64, SocketAddr, u8)> = BTreeMap::new();
        for ((protocol, local, remote), ports) in self.ports {
            let crowd = (ports, remote, protocol);
            let known = worst.entry(local).or_insert(crowd);
            *known = crowd.max(*known);
        }
        let mut worst: Vec<_> = worst.into_iter().collect();
        worst.sort_by_key(|(local, (ports, ..))| (std::cmp::Reverse(*ports), *local));
        let least = if self.is_cut { ", at least" } else { "" };
        let sample = |(local, (ports, remote, protocol)): (IpAddr, (u64, SocketAddr, u8))| Sample {
            resource: Resource::EphemeralPorts,
            scope: Scope::Snat(local.to_string().into()),
            used: Some(ports),
            limit: Limit::Of(PORTS),
            source: format!("conntrack: {} to {remote}{least}", if protocol == TCP { "TCP" } else { "UDP" }).into(),
        };
        worst.into_iter().take(MAX_ADDRESSES).map(sample).collect()
    }
}
