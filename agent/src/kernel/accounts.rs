//! The kernel's counters and accounts, read into one input.

use agent_core::input::KernelTotals;
use agent_ebpf::shared::{ACCOUNT_WORDS, Account, FATES, KINDS, OVERFLOW_ACCOUNT, counter};
use aya::Ebpf;
use aya::maps::{Array, HashMap, MapData, MapError, PerCpuArray};

use super::Error;

type Words = [u64; ACCOUNT_WORDS];

/// The maps that hold them.
pub(super) struct Accounts {
    counters: PerCpuArray<MapData, [u64; counter::COUNT as usize]>,
    accounts: HashMap<MapData, u64, Words>,
    overflow: Array<MapData, Words>,
}

impl Accounts {
    pub(super) fn take(ebpf: &mut Ebpf) -> Result<Self, Error> {
        Ok(Self {
            counters: take(ebpf, "COUNTERS")?,
            accounts: take(ebpf, "ACCOUNTS")?,
            overflow: take(ebpf, "OVERFLOW")?,
        })
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
        for entry in self.accounts.iter() {
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
            accounts,
        })
    }

    /// Forgets the account of a cgroup that is gone.
    pub(super) fn forget(&mut self, cgroup_id: u64) {
        // Most cgroups never had one.
        let _ = self.accounts.remove(&cgroup_id);
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
    let missing = || MapError::InvalidName { name: name.to_owned() };
    ebpf.take_map(name)
        .ok_or_else(missing)
        .and_then(T::try_from)
        .map_err(|source| Error::Map { map: name, source: Box::new(source) })
}
