//! What the kernel's totals say, by ledger.

use agent_ebpf::shared::{FATES, KINDS};
use agent_ebpf::wire::Kind;

use super::{LEDGERS, Ledger};
use crate::input::KernelTotals;

/// Counts of the kernel that belong to an earlier run.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Earlier {
    pub(super) seen: u64,
    pub(super) written: u64,
    pub(super) merged: u64,
    /// Of the merged ones.
    pub(super) sampled: u64,
    pub(super) suppressed: u64,
    pub(super) lost_ring: u64,
    /// Not written, and told by nobody: merged, suppressed or lost while nobody watched. Counts as lost to full rings.
    pub(super) untold: u64,
    /// Written by programs that others replaced, and not told before.
    pub(super) left: u64,
}

/// The kernel's counts by ledger and fate.
pub(super) fn by_ledger(totals: &KernelTotals) -> [[u64; FATES]; LEDGERS] {
    let mut sums = [[0_u64; FATES]; LEDGERS];
    for (kind, counts) in Kind::ALL.iter().zip(totals.records.iter().take(KINDS)) {
        if let Some(sum) = sums.get_mut(Ledger::of(*kind) as usize) {
            for (sum, count) in sum.iter_mut().zip(counts) {
                *sum = sum.saturating_add(*count);
            }
        }
    }
    sums
}

/// Of the merged records of a ledger, those that spared the agent's CPU.
pub(super) fn sampled(totals: &KernelTotals, ledger: Ledger) -> u64 {
    match ledger {
        Ledger::Tcp => totals.sampled_tcp,
        Ledger::Udp => totals.sampled_udp,
        _ => 0,
    }
}
