//! What goes on while the agent is away, and what does not: gaps, and rings that outlive it.

use std::collections::HashSet;
use std::sync::Arc;

use agent_core::continuity::{Adopted, KernelMark, Key, Losses, Mark};
use agent_core::input::{Input, MetadataFact};
use agent_core::output::Output;
use agent_core::time::{Clock, Moment};

use super::Pump;
use crate::kernel::Stored;

/// Exchanges whose records are read again are told within the minute that an answer is waited for, and some seconds.
pub(super) const RETOLD_TICKS: u32 = 120;

/// Rings that outlive the agent.
pub(in crate::tasks) struct Rings {
    pub(in crate::tasks) pins: u64,
    /// Takes how far what the metadata ring told is stored.
    pub(in crate::tasks) stored: Stored,
    /// What went on while the agent was away.
    pub(in crate::tasks) adopted: Option<Adopted>,
    /// Metadata exchanges that stand in the history, and may be told again; forgotten after [`RETOLD_TICKS`].
    pub(in crate::tasks) told: HashSet<Key>,
}

impl Pump {
    /// The rings outlive the agent.
    pub(in crate::tasks) fn outlived_by(&mut self, rings: Option<Rings>) {
        self.rings = rings;
    }

    /// Tells of the time since the run before, and of what went on in it.
    pub(super) fn take_over(&mut self) {
        let adopted = self.rings.as_mut().and_then(|rings| rings.adopted.take());
        self.tell_absence(adopted.as_ref().and_then(Adopted::lost));
        if let Some(adopted) = adopted {
            self.engine.handle(Input::Adopted(Box::new(adopted)), &mut self.outputs);
        }
    }

    /// Tells of the time since the run before, of which so much is known to be lost.
    fn tell_absence(&mut self, lost: Option<Losses>) {
        let Some(before) = self.outlets.history.before() else { return };
        let now = Moment { boot: self.now, wall: self.wall };
        for gap in before.gaps(now, self.surroundings.boot_id.as_deref(), lost) {
            self.engine.handle(gap, &mut self.outputs);
        }
    }

    /// Looks whether the machine slept, or somebody set the clock.
    pub(super) fn watch_clocks(&mut self) {
        let (boot, wall) = (self.now, self.wall);
        let jump = self.jumps.look(Moment { boot, wall });
        let slept = self.sleep.look(boot, Clock::new(boot, wall), (self.surroundings.asleep)());
        for gap in jump.into_iter().chain(slept) {
            self.engine.handle(gap, &mut self.outputs);
        }
    }

    /// No exchange is told again any more.
    pub(super) fn forget_told(&mut self) {
        if let Some(rings) = &mut self.rings {
            rings.told = HashSet::new();
        }
    }

    /// Whether a metadata exchange stands in the history: its records were read again.
    pub(super) fn is_told(&mut self, fact: &MetadataFact) -> bool {
        let Some(Rings { told, .. }) = &mut self.rings else { return false };
        fact.origin.is_some_and(|origin| told.remove(&origin.key))
    }

    /// Hands rows to the history, with where the run stands once it has them.
    pub(super) fn remember(&self, outputs: &[Arc<Output>]) {
        let at = Moment { boot: self.now, wall: self.wall };
        let kernel = self.rings.as_ref().zip(self.engine.told()).map(|(rings, metadata)| KernelMark {
            pins: rings.pins,
            metadata,
            told: self.engine.told_unwritten(),
            settled: Losses::default(),
        });
        self.outlets.history.push(outputs, Mark { at, kernel });
        if let Some(rings) = &self.rings
            && let Some(place) = self.outlets.history.place(self.engine.told())
        {
            rings.stored.until(place);
        }
    }
}
