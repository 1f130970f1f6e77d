//! What a recorded run is made of: a header with all that the Engine is told once, then everything that it is told, in order,
//! then why the recording ends. The same header and entries give the same outputs, so a recording shows what an agent would
//! have said, on any machine. Bytes and files are the edge's business.
//!
//! Entries hold what inputs hold: no secret. Times in them are exact, to the nanosecond, as long as they are written in a form
//! that is not meant for people.

use std::borrow::Cow;

use serde::{Deserialize, Serialize};

use crate::books::Ledger;
use crate::continuity::Losses;
use crate::engine::{Engine, EngineConfig};
use crate::finding::ledger::Snapshot;
use crate::input::Input;
use crate::output::Output;

/// Raised when a reader of today could not read what is written tomorrow, or would read it wrongly. New inputs do not raise it.
pub const FORMAT: u32 = 1;

/// What stands before everything else.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Header {
    /// [`FORMAT`] of whoever wrote it.
    pub recording: u32,
    /// Version of the agent that wrote it. Another version may say something else about the same inputs.
    pub agent: String,
    /// The node's name in every row.
    pub node: String,
    /// What the Engine was told once.
    pub engine: EngineConfig,
}

/// One thing that changed the Engine.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Entry<'a> {
    /// It was told this.
    Input(Cow<'a, Input>),
    /// It was told what was found before a restart.
    Restored {
        /// The ledger of then.
        ledger: Cow<'a, Snapshot>,
        /// Boot times in it are of the boot that was recorded.
        same_boot: bool,
    },
    /// Rows that had been put out could not be stored; records by ledger.
    LostStore(Losses),
    /// Nothing comes after this.
    End(End),
}

/// How a recording ends. One without an end was cut off.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct End {
    /// Why.
    pub why: Why,
    /// Entries before this one.
    pub entries: u64,
}

/// Why a recording ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Why {
    /// The agent stopped: it is whole.
    Stopped,
    /// The file may not grow further.
    Full,
    /// The disk was slower than what there was to write, and an input was left out.
    TooSlow,
}

// === impl Header ===

impl Header {
    /// The header of a run that begins.
    pub fn new(agent: &str, node: &str, engine: EngineConfig) -> Self {
        Self { recording: FORMAT, agent: agent.to_owned(), node: node.to_owned(), engine }
    }
}

// === impl Engine ===

impl Engine {
    /// Applies one entry; appends what it leads to. Whatever changes an Engine comes this way, recorded or replayed.
    pub fn apply(&mut self, entry: Entry<'_>, outputs: &mut Vec<Output>) {
        match entry {
            Entry::Input(input) => self.handle(input.into_owned(), outputs),
            Entry::Restored { ledger, same_boot } => {
                // A ledger of another version changes nothing, then as now; the agent said so.
                let _ = self.restore(ledger.into_owned(), same_boot);
            }
            Entry::LostStore(losses) => self.lost_store(losses),
            Entry::End(_) => {}
        }
    }

    /// Writes off records of rows that were put out and could not be stored.
    pub fn lost_store(&mut self, losses: Losses) {
        for (ledger, records) in Ledger::ALL.iter().zip(losses) {
            self.books_mut().lost_store(*ledger, records);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::books::{Fate, LEDGERS};
    use crate::input::GapCause;
    use crate::testing::*;
    use crate::time::{BootNs, WallNs};

    /// Through bytes and back.
    fn copied(entry: &Entry<'_>) -> Entry<'static> {
        rmp_serde::from_slice(&rmp_serde::to_vec_named(entry).unwrap()).unwrap()
    }

    #[test]
    fn times_are_exact() {
        let odd = WallNs(1_767_323_045_123_456_789);
        let inputs = [
            Input::Tick { boot: BootNs(u64::MAX), wall: odd },
            Input::Gap { start: odd, end: WallNs(-1), cause: GapCause::Crashed, lost: Some([u64::MAX; LEDGERS]) },
            Input::Tcp(tcp(1)),
        ];
        for input in inputs {
            let entry = Entry::Input(Cow::Borrowed(&input));
            assert_eq!(copied(&entry), entry);
        }
    }

    /// One Engine is told things, the other what was kept of that; in the middle the first is replaced by one that was told what
    /// the first had found.
    #[test]
    fn a_copy_of_all_entries_leads_to_the_same() {
        let header = Header::new("1.2.3", "n", EngineConfig::default());
        let header: Header = serde_json::from_str(&serde_json::to_string(&header).unwrap()).unwrap();
        let inputs = || {
            let flows = (0..500_u64).map(|n| {
                let peer = format!("10.1.{}.{}", n % 7, n % 11);
                Input::Tcp(crate::input::TcpFact { ends: ends("10.0.0.1", 1, &peer, 80), ..tcp(n) })
            });
            [tick(1), pods([pod(1)]), pod_present(1)].into_iter().chain(flows).chain([tick(20), Input::Stop])
        };
        let mut told = Engine::new(EngineConfig::default());
        let mut replayed = Engine::new(header.engine);
        let (mut said, mut again) = (Vec::new(), Vec::new());
        let mut entries: Vec<Entry<'static>> = inputs().map(|input| Entry::Input(Cow::Owned(input))).collect();
        let ledger = Cow::Owned(crate::finding::Ledger::default().snapshot());
        entries.insert(1, Entry::Restored { ledger, same_boot: true });
        entries.push(Entry::LostStore([1; LEDGERS]));
        for entry in entries {
            replayed.apply(copied(&entry), &mut again);
            told.apply(entry, &mut said);
        }
        assert!(said.len() > 70, "{}", said.len());
        assert_eq!(said, again);
        assert!(told.books().lines().eq(replayed.books().lines()));
        assert_eq!(replayed.books().line(Ledger::Tcp).fate(Fate::LostStore), 1);
    }

    #[test]
    fn the_end_is_told_from_a_cut() {
        let end = Entry::End(End { why: Why::TooSlow, entries: 7 });
        assert_eq!(copied(&end), end);
    }
}
