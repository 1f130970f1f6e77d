//! Cgroup ids and what stands behind them.

use std::collections::VecDeque;
use std::sync::Arc;

use super::{CgroupIdentity, ROOT_ID, parse};
use crate::fast::FastMap;
use crate::time::BootNs;

/// Most cgroups kept, the gone included. A node of 250 pods with five containers each and 500 units has under 2,000; an
/// entry is about 250 bytes: 4 MiB at most.
pub const MAX_CGROUPS: usize = 16_384;
/// How long a cgroup is remembered after it is gone: sockets outlive it, and records come late. Five minutes.
pub const REMEMBER_GONE_NS: u64 = 300 * 1_000_000_000;

/// Cgroup id (inode of its directory) to identity.
#[derive(Debug, Default)]
pub struct CgroupIndex {
    entries: FastMap<u64, Entry>,
    /// Gone cgroups, the one gone longest in front. An entry that came back stays here as a no-op.
    gone: VecDeque<(BootNs, u64)>,
    refused: u64,
}

#[derive(Debug)]
struct Entry {
    identity: Arc<CgroupIdentity>,
    gone: Option<BootNs>,
}

impl CgroupIndex {
    /// A cgroup appeared, or was there already. Returns whether this changed what is known of the id.
    pub fn present(&mut self, id: u64, path: &str) -> bool {
        let identity = parse(path);
        if let Some(entry) = self.entries.get_mut(&id) {
            entry.gone = None;
            if *entry.identity == identity {
                return false;
            }
            entry.identity = Arc::new(identity);
            return true;
        }
        if self.entries.len() >= MAX_CGROUPS && !self.drop_longest_gone() {
            self.refused += 1;
            return false;
        }
        self.entries.insert(id, Entry { identity: Arc::new(identity), gone: None });
        true
    }

    /// A cgroup vanished. It is remembered for [`REMEMBER_GONE_NS`].
    pub fn gone(&mut self, id: u64, time: BootNs) {
        let Some(entry) = self.entries.get_mut(&id) else { return };
        if entry.gone.is_none() {
            entry.gone = Some(time);
            self.gone.push_back((time, id));
        }
        // Only cgroups that came back leave no-ops behind; ids are not used twice, so this is for safety.
        if self.gone.len() > 2 * MAX_CGROUPS {
            let entries = &self.entries;
            self.gone.retain(|(time, id)| entries.get(id).is_some_and(|entry| entry.gone == Some(*time)));
        }
    }

    /// Forgets what has been gone for long; returns whether anything was forgotten.
    pub fn expire(&mut self, now: BootNs) -> bool {
        let before = self.entries.len();
        while let Some(&(time, id)) = self.gone.front()
            && now.since(time) > REMEMBER_GONE_NS
        {
            self.gone.pop_front();
            if self.entries.get(&id).is_some_and(|entry| entry.gone == Some(time)) {
                self.entries.remove(&id);
            }
        }
        self.entries.len() != before
    }

    /// What stands behind an id; `None` when it was never told, or forgotten.
    pub fn get(&self, id: u64) -> Option<Arc<CgroupIdentity>> {
        match self.entries.get(&id) {
            Some(entry) => Some(Arc::clone(&entry.identity)),
            None if id == ROOT_ID => Some(Arc::new(CgroupIdentity::Root)),
            None => None,
        }
    }

    /// The cgroups that are there, without those that are only remembered.
    pub fn living(&self) -> impl Iterator<Item = &CgroupIdentity> {
        self.entries.values().filter(|entry| entry.gone.is_none()).map(|entry| &*entry.identity)
    }

    /// Cgroups known, the remembered ones included.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether none is known.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Cgroups that found the index full of live ones.
    pub fn refused(&self) -> u64 {
        self.refused
    }

    fn drop_longest_gone(&mut self) -> bool {
        while let Some((time, id)) = self.gone.pop_front() {
            if self.entries.get(&id).is_some_and(|entry| entry.gone == Some(time)) {
                self.entries.remove(&id);
                return true;
            }
        }
        false
    }
}
