//! Where every record ended: the books of the agent, which balance at any time.
//!
//! ```text
//! seen = stored + aggregated + merged + sampled + suppressed
//!      + lost_ring + lost_decode + lost_queue + lost_store + pending
//! ```
//!
//! Two sides count on their own: the kernel's, as [`KernelTotals`], records seen and what became of each (written to a ring,
//! merged into an account, suppressed, lost to a full ring); this one, each as it arrives and as it ends. `pending` is between:
//!
//! * *in a probe*: seen, and its fate not yet counted when the totals were read;
//! * *in a ring*: written, and not yet received. A record received after the totals were read was seen and written,
//!   whether or not those totals know it yet; so it counts in both, and `pending` is never negative;
//! * *held*: received, and waiting in the Engine: summed in a fold that is not over, or a row of the next tick.
//!
//! What can go wrong is checked by [`Books::imbalance`]: a record received and never written off, or twice; more received
//! than the kernel wrote; more fates than records seen. The kernel's counters are read one by one while the probes count on,
//! so one reading may be torn. Of two, the later one must know what had happened by the earlier: the last two checks compare
//! this side and the fates as of the reading before with the totals of now.

use std::collections::BTreeMap;

use agent_ebpf::shared::Fate as KernelFate;
use agent_ebpf::wire::Kind;

use self::kernel_side::{Earlier, by_ledger, sampled};
use crate::continuity::{Adopted, Losses};
use crate::input::KernelTotals;

mod kernel_side;

/// Number of ledgers.
pub const LEDGERS: usize = Ledger::ALL.len();
/// Number of fates.
pub const FATES: usize = Fate::ALL.len();

/// A closed set of record kinds, as labels.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Ledger {
    /// Ended and open TCP connections.
    Tcp,
    /// Connects that never became a connection.
    Attempt,
    /// Ended and open UDP flows.
    Udp,
    /// Forks, execs and exits.
    Process,
    /// Cgroups made and removed.
    Cgroup,
    /// Packets and ends of metadata exchanges.
    Metadata,
    /// DNS messages.
    Dns,
    /// Undecodable records that do not even tell their kind: the kernel's counters keep them pending under the true one.
    Unknown,
}

/// Where a record ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Fate {
    /// Put out as a row of its own.
    Stored,
    /// Part of a row, an exchange or a table.
    Aggregated,
    /// Part of a row without peer and process, exact in bytes and count.
    Merged,
    /// Merged likewise, because the agent was at its budget of CPU.
    Sampled,
    /// Not written: its cgroup was over its budget.
    Suppressed,
    /// Not written: its ring was full.
    LostRing,
    /// Refused by the decoder.
    LostDecode,
    /// Read from its ring and dropped before it got here.
    LostQueue,
    /// Put out and not stored.
    LostStore,
}

/// Counts of all records, by kind and fate.
#[derive(Clone, Debug, Default)]
pub struct Books {
    pages: [Page; LEDGERS],
    lost_ring_told: [u64; LEDGERS],
}

/// Records by ledger.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Records([u32; LEDGERS]);

/// One kind's counts at a moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Line {
    /// Records that the probes had to report.
    pub seen: u64,
    /// Records by fate, in the order of [`Fate::ALL`].
    pub fates: [u64; FATES],
    /// Records between being seen and their end.
    pub pending: u64,
}

/// A kind whose books do not balance: a defect of the agent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("books of {} records do not balance: {check}: expected {expected}, found {found}", .ledger.label())]
pub struct Imbalance {
    /// Which kind.
    pub ledger: Ledger,
    /// What was compared.
    pub check: &'static str,
    /// What it should be (or at most be).
    pub expected: u64,
    /// What it is.
    pub found: u64,
}

#[derive(Clone, Copy, Debug, Default)]
struct Page {
    // The kernel's side, as of its last totals.
    seen: u64,
    written: u64,
    kernel_merged: u64,
    /// Of the merged ones.
    sampled: u64,
    suppressed: u64,
    lost_ring: u64,
    // When the totals were told, and when the totals before them were told.
    received_at_totals: u64,
    received_before: u64,
    fates_before: u64,
    // This side.
    received: u64,
    held: u64,
    /// Of an earlier run, to which the kernel's counters go back: seen, written, merged, suppressed, lost to full rings.
    before: Earlier,
    stored: u64,
    aggregated: u64,
    merged: u64,
    lost_decode: u64,
    lost_queue: u64,
    lost_store: u64,
}

impl Ledger {
    /// Every ledger, in the order of its number.
    pub const ALL: &'static [Self] =
        &[Self::Tcp, Self::Attempt, Self::Udp, Self::Process, Self::Cgroup, Self::Metadata, Self::Dns, Self::Unknown];

    /// The ledger of a record's kind.
    pub fn of(kind: Kind) -> Self {
        match kind {
            Kind::TcpEnd | Kind::TcpOpen => Self::Tcp,
            Kind::Attempt => Self::Attempt,
            Kind::UdpEnd | Kind::UdpOpen => Self::Udp,
            Kind::Exec | Kind::Fork | Kind::Exit => Self::Process,
            Kind::CgroupMkdir | Kind::CgroupRmdir => Self::Cgroup,
            Kind::MetadataSegment | Kind::MetadataEnd => Self::Metadata,
            Kind::Dns => Self::Dns,
        }
    }

    /// Value of the label `kind`.
    pub fn label(self) -> &'static str {
        match self {
            Self::Tcp => "tcp",
            Self::Attempt => "attempt",
            Self::Udp => "udp",
            Self::Process => "process",
            Self::Cgroup => "cgroup",
            Self::Metadata => "metadata",
            Self::Dns => "dns",
            Self::Unknown => "unknown",
        }
    }
}

impl Fate {
    /// Every fate, in order.
    pub const ALL: &'static [Self] = &[
        Self::Stored,
        Self::Aggregated,
        Self::Merged,
        Self::Sampled,
        Self::Suppressed,
        Self::LostRing,
        Self::LostDecode,
        Self::LostQueue,
        Self::LostStore,
    ];

    /// Value of the label `fate`.
    pub fn label(self) -> &'static str {
        match self {
            Self::Stored => "stored",
            Self::Aggregated => "aggregated",
            Self::Merged => "merged",
            Self::Sampled => "sampled",
            Self::Suppressed => "suppressed",
            Self::LostRing => "lost_ring",
            Self::LostDecode => "lost_decode",
            Self::LostQueue => "lost_queue",
            Self::LostStore => "lost_store",
        }
    }
}

impl Records {
    /// Adds records of one ledger.
    pub fn add(&mut self, ledger: Ledger, records: u32) {
        if let Some(count) = self.0.get_mut(ledger as usize) {
            *count = count.saturating_add(records);
        }
    }

    /// Adds all records of another.
    pub fn merge(&mut self, more: Self) {
        for (count, more) in self.0.iter_mut().zip(more.0) {
            *count = count.saturating_add(more);
        }
    }

    /// Every ledger with its records.
    pub fn iter(self) -> impl Iterator<Item = (Ledger, u64)> {
        Ledger::ALL.iter().copied().zip(self.0).map(|(ledger, records)| (ledger, u64::from(records)))
    }

    /// All records.
    pub fn total(self) -> u64 {
        self.0.iter().copied().map(u64::from).sum()
    }
}

impl Line {
    /// Records with one fate.
    pub fn fate(&self, fate: Fate) -> u64 {
        self.fates.get(fate as usize).copied().unwrap_or_default()
    }

    /// All fates and what is pending.
    pub fn accounted(&self) -> u64 {
        self.fates.iter().sum::<u64>().saturating_add(self.pending)
    }
}

impl Books {
    /// One kind's counts now. Fates only grow, except that [`Books::lost_store`] moves a record from the fate it had.
    pub fn line(&self, ledger: Ledger) -> Line {
        let page = self.page(ledger);
        let written = page.written.max(page.received);
        let unwritten = page.kernel_merged + page.suppressed + page.lost_ring;
        let seen = (page.seen + (written - page.written)).max(written + unwritten);
        let in_probe = seen - written - unwritten;
        let in_ring = written - page.received;
        Line {
            seen,
            fates: [
                page.stored,
                page.aggregated,
                page.kernel_merged - page.sampled + page.merged,
                page.sampled,
                page.suppressed,
                page.lost_ring,
                page.lost_decode,
                page.lost_queue,
                page.lost_store,
            ],
            pending: in_probe + in_ring + page.held,
        }
    }

    /// Every kind's counts now.
    pub fn lines(&self) -> impl Iterator<Item = (Ledger, Line)> {
        Ledger::ALL.iter().map(|&ledger| (ledger, self.line(ledger)))
    }

    /// The first kind whose books do not balance, if one does not.
    pub fn imbalance(&self) -> Option<Imbalance> {
        Ledger::ALL.iter().find_map(|&ledger| {
            let page = self.page(ledger);
            let ended = page.held + page.stored + page.aggregated + page.merged;
            let ended = ended + page.lost_decode + page.lost_queue + page.lost_store;
            let wrong = |check, expected, found| Some(Imbalance { ledger, check, expected, found });
            if page.received != ended {
                wrong("records received and written off", page.received, ended)
            } else if page.received_before > page.written && ledger != Ledger::Unknown {
                wrong("records received and written by the kernel", page.written, page.received_before)
            } else if page.fates_before > page.seen {
                wrong("records seen by the kernel and their fates", page.seen, page.fates_before)
            } else {
                None
            }
        })
    }

    /// Records were read from their ring and dropped before the Engine got them.
    pub fn lost_queue(&mut self, ledger: Ledger, records: u64) {
        let page = self.page_mut(ledger);
        page.received += records;
        page.lost_queue += records;
    }

    /// Records whose row was put out could not be stored.
    pub fn lost_store(&mut self, ledger: Ledger, records: u64) {
        let page = self.page_mut(ledger);
        let mut left = records;
        for fate in [&mut page.stored, &mut page.aggregated, &mut page.merged] {
            let moved = left.min(*fate);
            *fate -= moved;
            left -= moved;
            page.lost_store += moved;
        }
    }

    /// A record arrived and is held.
    pub(crate) fn held(&mut self, ledger: Ledger) {
        let page = self.page_mut(ledger);
        page.received += 1;
        page.held += 1;
    }

    /// Held records went out in a row.
    pub(crate) fn folded(&mut self, ledger: Ledger, records: u64, merged: bool) {
        let page = self.page_mut(ledger);
        page.held = page.held.saturating_sub(records);
        *(if merged { &mut page.merged } else { &mut page.aggregated }) += records;
    }

    /// A held record went out as a row of its own.
    pub(crate) fn stored(&mut self, ledger: Ledger) {
        let page = self.page_mut(ledger);
        page.held = page.held.saturating_sub(1);
        page.stored += 1;
    }

    /// Records arrived and became part of an exchange or a table.
    pub(crate) fn aggregated(&mut self, ledger: Ledger, records: u64) {
        let page = self.page_mut(ledger);
        page.received += records;
        page.aggregated += records;
    }

    /// Suppressed and lost to full rings as of the last totals, by ledger: told at once.
    pub(crate) fn told_at_once(&self) -> Losses {
        std::array::from_fn(|index| {
            let page = self.pages.get(index).copied().unwrap_or_default();
            let at_once = page.suppressed + page.lost_ring - page.before.untold.min(page.lost_ring);
            at_once + page.before.suppressed + page.before.lost_ring
        })
    }

    /// Merged by the kernel as of the last totals, by ledger: told by the rows of the next fold.
    pub(crate) fn merged_by_kernel(&self) -> Losses {
        std::array::from_fn(|index| {
            let page = self.pages.get(index).copied().unwrap_or_default();
            page.kernel_merged + page.before.merged
        })
    }

    /// The decoder refused a record.
    pub(crate) fn refused(&mut self, kind: Option<Kind>) {
        let page = self.page_mut(kind.map_or(Ledger::Unknown, Ledger::of));
        page.received += 1;
        page.lost_decode += 1;
    }

    /// Begins where an earlier run of the agent ended, with the kernel's side going on. What it took out of the rings and
    /// had in the history is none of this run's; what is known to be lost in between is, so that it stands in books that
    /// balance: as dropped on the way to the Engine, or as not written.
    pub(crate) fn adopt(&mut self, adopted: &Adopted) {
        let sums = by_ledger(&adopted.totals);
        let (consumed, unsettled) = (adopted.read_before(), adopted.unsettled().unwrap_or_default());
        let untold = adopted.unwritten_untold().unwrap_or_default();
        let lost = unsettled.into_iter().zip(untold).zip(adopted.in_rings());
        for (((ledger, page), told), ((sum, consumed), ((unsettled, untold), left))) in Ledger::ALL
            .iter()
            .zip(&mut self.pages)
            .zip(&mut self.lost_ring_told)
            .zip(sums.iter().zip(consumed).zip(lost))
        {
            let of = |fate: KernelFate| sum[fate as usize];
            let written = consumed.saturating_sub(unsettled);
            let (merged, suppressed) = (of(KernelFate::Merged), of(KernelFate::Suppressed));
            let (lost_ring, sampled) = (of(KernelFate::LostRing), sampled(&adopted.totals, *ledger));
            let seen = written + merged + suppressed + lost_ring;
            page.before = if adopted.replaced.is_some() {
                Earlier { untold, left: left + unsettled, ..Earlier::default() }
            } else {
                Earlier { seen, written, merged, sampled, suppressed, lost_ring, untold, left: 0 }
            };
            page.received += unsettled;
            page.lost_queue += unsettled;
            // The gap of the start tells of it.
            *told = untold;
        }
    }

    /// Takes the kernel's side in; returns what was lost to full rings since the last time, by kind.
    pub(crate) fn kernel(&mut self, totals: &KernelTotals) -> BTreeMap<&'static str, u64> {
        let sums = by_ledger(totals);
        let mut lost = BTreeMap::new();
        for ((ledger, page), (sum, told)) in
            Ledger::ALL.iter().zip(&mut self.pages).zip(sums.iter().zip(&mut self.lost_ring_told))
        {
            page.fates_before = page.written + page.kernel_merged + page.suppressed + page.lost_ring;
            page.received_before = std::mem::replace(&mut page.received_at_totals, page.received);
            let of = |fate: KernelFate, before: u64| sum[fate as usize].saturating_sub(before);
            page.seen = of(KernelFate::Seen, page.before.seen) + page.before.untold + page.before.left;
            page.written = of(KernelFate::Written, page.before.written) + page.before.left;
            page.kernel_merged = of(KernelFate::Merged, page.before.merged);
            let sampled = sampled(totals, *ledger).saturating_sub(page.before.sampled);
            // Read one by one while the probes count on.
            page.sampled = sampled.min(page.kernel_merged);
            page.suppressed = of(KernelFate::Suppressed, page.before.suppressed);
            page.lost_ring = of(KernelFate::LostRing, page.before.lost_ring) + page.before.untold;
            if page.lost_ring > *told {
                lost.insert(ledger.label(), page.lost_ring - *told);
                *told = page.lost_ring;
            }
        }
        lost
    }

    fn page(&self, ledger: Ledger) -> Page {
        self.pages.get(ledger as usize).copied().unwrap_or_default()
    }

    fn page_mut(&mut self, ledger: Ledger) -> &mut Page {
        // `Ledger::ALL` lists every variant in the order of its number (a test holds it), so the index is in range.
        &mut self.pages[ledger as usize]
    }
}

#[cfg(test)]
mod tests;
