//! The kernel's counters and accounts, read into one input.

use agent_core::input::KernelTotals;
use agent_ebpf::shared::{ACCOUNT_WORDS, Account, FATES, KINDS, OVERFLOW_ACCOUNT, counter};
use aya::Ebpf;
use aya::maps::{Array, HashMap, MapData, MapError, PerCpuArray};

use super::Error;

type Words = [u64; ACCOUNT_WORDS];

/// The maps that hold them.
pub(super) struct Accounts {
    pub(super) counters: PerCpuArray<MapData, [u64; counter::COUNT as usize]>,
    pub(super) by_cgroup: HashMap<MapData, u64, Words>,
    pub(super) overflow: Array<MapData, Words>,
    pub(super) live: Array<MapData, u64>,
    pub(super) round: Array<MapData, u32>,
    pub(super) sampling: Array<MapData, u32>,
}

/// Tracked sockets may be miscounted by this much: CPUs tell their balance in batches, and walks take their time.
const LIVE_SLACK: u64 = 4_096;

impl Accounts {
    pub(super) fn take(ebpf: &mut Ebpf) -> Result<Self, Error> {
        Ok(Self {
            counters: take(ebpf, "COUNTERS")?,
            by_cgroup: take(ebpf, "ACCOUNTS")?,
            overflow: take(ebpf, "OVERFLOW")?,
            live: take(ebpf, "LIVE")?,
            round: take(ebpf, "ROUND")?,
            sampling: take(ebpf, "SAMPLING")?,
        })
    }

    /// From now on one in two to the power of `shift` new flows is told.
    pub(super) fn sample(&mut self, shift: u32) -> Result<(), MapError> {
        self.sampling.set(0, shift, 0)
    }

    /// Starts a round of walks.
    pub(super) fn begin_round(&mut self) -> Result<(), MapError> {
        let round = self.round.get(&0, 0)?.wrapping_add(1);
        self.round.set(0, round, 0)
    }

    /// Tracked sockets that walks have come by so far, and how often they put news off.
    pub(super) fn walked(&self) -> Result<(u64, u64), MapError> {
        let cpus = self.counters.get(&0, 0)?;
        let sum = |index: u32| cpus.iter().map(|cpu| cpu[index as usize]).sum();
        Ok((sum(counter::WALKED_SOCKETS), sum(counter::DEFERRED)))
    }

    /// Corrects the count of tracked sockets when a round of walks found another number: sockets that end unseen would
    /// use up the cap.
    pub(super) fn correct_live(&mut self, found: u64) -> Result<(), MapError> {
        // Below zero for a moment, the word wraps: nothing to correct.
        let counted = self.live.get(&0, 0)?.cast_signed();
        if counted > found.saturating_add(LIVE_SLACK).cast_signed() {
            tracing::info!(counted, found, "correcting the number of tracked sockets");
            self.live.set(0, found, 0)?;
        }
        Ok(())
    }

    /// Reads everything. Counters are read before accounts; each only grows, so a later reading never shows less.
    pub(super) fn read(&self) -> Result<KernelTotals, MapError> {
        let mut counts = [0u64; counter::COUNT as usize];
        for cpu in self.counters.get(&0, 0)?.iter() {
            for (count, on_cpu) in counts.iter_mut().zip(cpu) {
                *count += on_cpu;
            }
        }
        let mut records = [[0; FATES]; KINDS];
        for (kind, fates) in counts.chunks_exact(FATES).zip(&mut records) {
            fates.copy_from_slice(kind);
        }
        let at = |index: u32| counts.get(index as usize).copied().unwrap_or(0);
        let mut accounts = Vec::new();
        for entry in &self.by_cgroup {
            let (id, words) = entry?;
            accounts.push((id, account(words)));
        }
        let overflow = account(self.overflow.get(&0, 0)?);
        if overflow != Account::default() {
            accounts.push((OVERFLOW_ACCOUNT, overflow));
        }
        Ok(KernelTotals {
            records,
            untracked_sockets: at(counter::UNTRACKED_SOCKETS),
            untracked_attempts: at(counter::UNTRACKED_ATTEMPTS),
            untracked_peers: at(counter::UNTRACKED_PEERS),
            overflow_accounts: at(counter::OVERFLOW_ACCOUNTS),
            unreadable_packets: at(counter::UNREADABLE_PACKETS),
            sampled_tcp: at(counter::SAMPLED_TCP),
            sampled_udp: at(counter::SAMPLED_UDP),
            accounts,
        })
    }

    /// Forgets the account of a cgroup that is gone.
    pub(super) fn forget(&mut self, cgroup_id: u64) {
        // Most cgroups never had one.
        let _ = self.by_cgroup.remove(&cgroup_id);
    }
}

fn account(words: Words) -> Account {
    zerocopy::transmute!(words)
}

/// Takes a map out of the object as the type it should have.
pub(super) fn take<T: TryFrom<aya::maps::Map, Error = MapError>>(
    ebpf: &mut Ebpf,
    name: &'static str,
) -> Result<T, Error> {
    let map = ebpf.take_map(name).ok_or_else(|| missing(name))?;
    T::try_from(map).map_err(|source| Error::Map { map: name, source: Box::new(source) })
}

/// The object has no such map.
pub(super) fn missing(name: &'static str) -> Error {
    Error::Map { map: name, source: Box::new(MapError::InvalidName { name: name.to_owned() }) }
}
