//! What is not covered, and why: between two runs of the agent, while the machine slept, where the wall clock jumped.
//!
//! A run leaves a [`Mark`] in the history, in the same transaction as the rows that it stands for. The next start reads
//! it as [`Before`] and tells with it from when to when nothing was watched. Whether records are known to be lost, and
//! how many, only the kernel's side can say; without it the loss is unknown, which is not none.

use std::collections::HashMap;

use agent_ebpf::shared::{Fate, KINDS};
use agent_ebpf::wire::Kind;
use serde::{Deserialize, Serialize};

use crate::books::{LEDGERS, Ledger};
use crate::input::{GapCause, Input, KernelTotals};
use crate::time::{BootNs, Clock, Moment, WallNs};

/// Records lost by ledger, in the order of [`crate::books::Ledger::ALL`].
pub type Losses = [u64; LEDGERS];

/// The wall clock was set when it is off by so much between two looks: slewing moves it by less than a millisecond a
/// second, and daemons that correct time step it when it is off by a second or more.
pub const JUMP_NS: u64 = 1_000_000_000;
/// The machine slept when the two boot clocks drifted apart by so much between two looks: they never do otherwise.
pub const SLEEP_NS: u64 = 500_000_000;

/// What a run leaves in the history with its rows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mark {
    /// When it was made: the run certainly watched until then.
    pub at: Moment,
    /// Where the kernel's side stood, when that outlives the agent.
    pub kernel: Option<KernelMark>,
}

/// How far the history knows what the kernel's side told.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct KernelMark {
    /// Tells these rings and counters from others that stood in the same place: when they were made, boot time.
    pub pins: u64,
    /// What stands before this in the metadata ring was told, and stands in the history.
    pub metadata: Place,
    /// By ledger, what the kernel did not write to its rings and the history knows of: merged into rows, suppressed, lost.
    pub told: Losses,
    /// By ledger, records of flows and of started programs whose rows stand in the history, or whose loss was counted; wraps
    /// below zero, see [`Adopted::settled_before`].
    pub settled: Losses,
}

/// Where a metadata exchange began, and what tells it from others.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Origin {
    /// The first record of its connection of which not all was told before it.
    pub place: Place,
    /// Of this exchange alone, and the same when its records are read again.
    pub key: Key,
    /// Where the last record of its connection stood, when all of its connection was told by then.
    pub until: Option<u64>,
}

/// Where reading goes on in a metadata ring.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Resume {
    /// What stands before it was told.
    pub place: Place,
    /// Connections that began later have all their records there.
    pub since: BootNs,
    /// By socket cookie: records of the connection up to this position were told, although they stand there.
    pub told: HashMap<u64, u64>,
}

/// Names a metadata exchange within one boot of the machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Key {
    /// Its first byte.
    pub time: BootNs,
    /// Its socket.
    pub cookie: u64,
    /// Its number among those of one packet.
    pub number: u32,
}

/// The kernel's side of an earlier run, as a start found it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Adopted {
    /// See [`KernelMark::pins`].
    pub pins: u64,
    /// Records that the earlier run took out of the rings, by kind.
    pub consumed: [u64; KINDS],
    /// Counters and accounts.
    pub totals: KernelTotals,
    /// What the history knows of it; `None` when it knows nothing of these rings.
    pub mark: Option<KernelMark>,
    /// It ended, and another one took its place: nobody watched from the first moment to the second, and counters begin
    /// anew. What its rings hold comes as other records do.
    pub replaced: Option<(BootNs, BootNs)>,
}

/// A place in a ring.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Place {
    /// Bytes that were ever written before it.
    pub position: u64,
    /// Records that were ever written before it.
    pub records: u64,
}

/// The run before this one, as the history knows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Before {
    /// Which boot of the machine it was in; `None` when it could not tell.
    pub boot_id: Option<String>,
    /// When it was last known to run.
    pub alive: WallNs,
    /// It was stopped, and all it had was written. Otherwise it crashed, or the machine did.
    pub is_ended: bool,
    /// Its last mark; `None` when an earlier version of the agent left none.
    pub mark: Option<Mark>,
}

/// Watches the wall clock against the boot-time clock.
#[derive(Clone, Copy, Debug, Default)]
pub struct Jumps {
    last: Option<Moment>,
}

/// Watches how long the machine slept.
#[derive(Clone, Copy, Debug, Default)]
pub struct Sleep {
    asleep_ns: Option<u64>,
}

// === impl Adopted ===

impl Adopted {
    /// Records that are known to be lost: what the kernel did not write while nobody told of it, and what was taken out of
    /// the rings and never reached the history. `None` when the history knows nothing of these rings.
    pub fn lost(&self) -> Option<Losses> {
        let unwritten = self.unwritten_untold()?;
        let mut lost = self.unsettled()?;
        for (lost, unwritten) in lost.iter_mut().zip(unwritten) {
            *lost = lost.saturating_add(unwritten);
        }
        Some(lost)
    }

    /// What the kernel did not write, and no row and no gap told: merged, suppressed, or lost to a full ring.
    pub(crate) fn unwritten_untold(&self) -> Option<Losses> {
        let mark = self.mark?;
        Some(difference(unwritten(&self.totals), mark.told))
    }

    /// What was taken out of the rings and never reached the history.
    pub(crate) fn unsettled(&self) -> Option<Losses> {
        let mark = self.mark?;
        // Wraps, see `settled_before`; more settled than taken is a defect, and no loss.
        let missing = |of: u64, settled: u64| u64::try_from(of.wrapping_sub(settled).cast_signed()).unwrap_or(0);
        let (taken, settled) = (self.settleable(), mark.settled);
        let mut lost = std::array::from_fn(|index| match (taken.get(index), settled.get(index)) {
            (Some(taken), Some(settled)) => missing(*taken, *settled),
            _ => 0,
        });
        if let Some(lost) = lost.get_mut(Ledger::Metadata as usize) {
            *lost = self.consumed_of(&[Kind::MetadataSegment, Kind::MetadataEnd]).saturating_sub(mark.metadata.records);
        }
        Some(lost)
    }

    /// By ledger, records taken out of the rings that become rows of their own or parts of rows. Forks, exits and cgroups
    /// fill tables, which a start reads anew, DNS messages one that begins empty; metadata goes by its place in the ring.
    fn settleable(&self) -> Losses {
        by_ledger_of_rows(|kinds| self.consumed_of(kinds))
    }

    /// Where the count of settled records begins: with all that was taken out of the rings. What replaced programs left
    /// is told and not taken out of the new rings, so that the count begins that much below zero, and wraps.
    pub fn settled_before(&self) -> Losses {
        match self.replaced {
            None => self.settleable(),
            Some(_) => by_ledger_of_rows(|kinds| 0_u64.wrapping_sub(self.left_of(kinds))),
        }
    }

    /// By ledger, records that this run does not read: they were taken out of the rings, or the history has what they told
    /// although they still lie there.
    pub(crate) fn read_before(&self) -> Losses {
        let mut records = [0; LEDGERS];
        for (kind, consumed) in Kind::ALL.iter().zip(self.consumed) {
            if let Some(records) = records.get_mut(Ledger::of(*kind) as usize) {
                *records = u64::saturating_add(*records, consumed);
            }
        }
        if let (Some(records), Some(mark)) = (records.get_mut(Ledger::Metadata as usize), self.mark) {
            *records = mark.metadata.records.max(*records);
        }
        records
    }

    /// By ledger, records that are read from its rings.
    pub(crate) fn in_rings(&self) -> Losses {
        let mut written = [0; LEDGERS];
        for (kind, fates) in Kind::ALL.iter().zip(&self.totals.records) {
            if let (Some(sum), Some(records)) =
                (written.get_mut(Ledger::of(*kind) as usize), fates.get(Fate::Written as usize))
            {
                *sum = u64::saturating_add(*sum, *records);
            }
        }
        difference(written, self.read_before())
    }

    fn left_of(&self, kinds: &[Kind]) -> u64 {
        let written = |kind: &Kind| self.totals.records.get(kind.index())?.get(Fate::Written as usize).copied();
        kinds.iter().filter_map(written).sum::<u64>().saturating_sub(self.consumed_of(kinds))
    }

    fn consumed_of(&self, kinds: &[Kind]) -> u64 {
        kinds.iter().filter_map(|kind| self.consumed.get(kind.index())).sum()
    }
}

/// Records by ledger, of the kinds that become rows or parts of rows.
fn by_ledger_of_rows(records_of: impl Fn(&[Kind]) -> u64) -> Losses {
    let mut records = [0; LEDGERS];
    let kinds: [(Ledger, &[Kind]); 4] = [
        (Ledger::Tcp, &[Kind::TcpEnd, Kind::TcpOpen]),
        (Ledger::Attempt, &[Kind::Attempt]),
        (Ledger::Udp, &[Kind::UdpEnd, Kind::UdpOpen]),
        (Ledger::Process, &[Kind::Exec]),
    ];
    for (ledger, kinds) in kinds {
        if let Some(records) = records.get_mut(ledger as usize) {
            *records = records_of(kinds);
        }
    }
    records
}

/// By ledger, what the kernel saw and did not write.
pub(crate) fn unwritten(totals: &KernelTotals) -> Losses {
    let mut sums = [0; LEDGERS];
    for (kind, fates) in Kind::ALL.iter().zip(&totals.records) {
        let of = |fate: Fate| fates.get(fate as usize).copied().unwrap_or(0);
        if let Some(sum) = sums.get_mut(Ledger::of(*kind) as usize) {
            *sum += of(Fate::Merged) + of(Fate::Suppressed) + of(Fate::LostRing);
        }
    }
    sums
}

fn difference(of: Losses, from: Losses) -> Losses {
    std::array::from_fn(|index| match (of.get(index), from.get(index)) {
        (Some(of), Some(from)) => of.saturating_sub(*from),
        _ => 0,
    })
}

// === impl Before ===

impl Before {
    /// What the time between this run and a start at `now` leaves: the span that nobody watched, with what is known to
    /// be lost in it, and a jump of the clock. `boot_id` tells this boot. No span for a loss that is known to be none.
    pub fn gaps(&self, now: Moment, boot_id: Option<&str>, lost: Option<Losses>) -> Vec<Input> {
        let mut gaps = Vec::new();
        let same_boot = boot_id.is_some() && self.boot_id.as_deref() == boot_id;
        let mark = self.mark.filter(|mark| same_boot && mark.at.boot <= now.boot);
        // Within one boot the length is certain, whatever somebody did to the wall clock.
        let start = match mark {
            Some(mark) => WallNs(now.wall.0.saturating_sub(signed(now.boot.since(mark.at.boot)))),
            None => self.mark.map_or(self.alive, |mark| mark.at.wall.max(self.alive)),
        };
        if lost.is_none_or(|lost| lost.iter().any(|records| *records > 0)) {
            let cause = if self.is_ended { GapCause::Stopped } else { GapCause::Crashed };
            gaps.push(Input::Gap { start: start.min(now.wall), end: now.wall, cause, lost });
        }
        gaps.extend(mark.and_then(|mark| jump(mark.at, now)));
        gaps
    }
}

// === impl Jumps ===

impl Jumps {
    /// Looks at both clocks; a gap when the wall clock was set since the last look.
    pub fn look(&mut self, now: Moment) -> Option<Input> {
        let last = self.last.replace(now)?;
        jump(last, now)
    }
}

// === impl Sleep ===

impl Sleep {
    /// Looks at how long the machine slept since its boot; a gap when it slept since the last look. Nothing is lost then:
    /// nobody ran.
    pub fn look(&mut self, now: BootNs, clock: Clock, asleep_ns: u64) -> Option<Input> {
        let last = self.asleep_ns.replace(asleep_ns)?;
        let slept = asleep_ns.saturating_sub(last);
        (slept >= SLEEP_NS).then(|| Input::Gap {
            start: clock.wall(BootNs(now.0.saturating_sub(slept))),
            end: clock.wall(now),
            cause: GapCause::Suspended,
            lost: Some([0; LEDGERS]),
        })
    }
}

/// The span of wall time that was left out, or told twice, when the wall clock was set. No record is lost by that.
fn jump(last: Moment, now: Moment) -> Option<Input> {
    let expected = WallNs(last.wall.0.saturating_add(signed(now.boot.since(last.boot))));
    let is_jump = expected.0.abs_diff(now.wall.0) >= JUMP_NS;
    is_jump.then(|| Input::Gap {
        start: expected.min(now.wall),
        end: expected.max(now.wall),
        cause: GapCause::ClockJump,
        lost: Some([0; LEDGERS]),
    })
}

fn signed(ns: u64) -> i64 {
    i64::try_from(ns).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests;
