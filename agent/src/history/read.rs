//! Reading the history: that of a running agent, or a copied directory. Rows come in the order of time, one at a time.

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

use agent_core::input::GapCause;
use agent_core::output::{GapRow, ObjectRow, Output};
use agent_core::time::WallNs;

use super::files::{self, Segment};
use crate::bundle::Writer;

pub(super) mod decode;
pub(super) mod merge;
pub(super) mod open;
mod query;

pub(crate) use query::{Network, Query};

/// A history, as it was when it was opened.
pub(crate) struct Reader {
    segments: Vec<Segment>,
    /// What was found out while reading.
    coverage: Coverage,
}

/// What a history knows, and what it does not.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Coverage {
    /// The node's name.
    pub(crate) node: String,
    /// Spans in which the agent ran and wrote, one for each of its starts, in order.
    pub(crate) runs: Vec<Run>,
    /// Ends of the gaps between runs that stand in the history themselves: one for each start.
    told: Vec<WallNs>,
    /// Files that cannot be read, and why. What they hold is missing.
    pub(crate) unreadable: Vec<Unreadable>,
}

/// One run of the agent, as far as its files are still there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Run {
    /// When the agent started.
    started: WallNs,
    /// The first moment that is covered.
    pub(crate) from: WallNs,
    /// The last moment at which it certainly ran.
    pub(crate) to: WallNs,
    /// It ended by a stop; `None` when its file does not tell.
    ended: Option<bool>,
    /// The kernel's side watched since the run before it.
    continues: bool,
}

/// A file that cannot be read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Unreadable {
    /// Which.
    pub(crate) path: PathBuf,
    /// Why.
    pub(crate) why: String,
}

/// Why nothing can be read at all.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ReadError {
    /// The directory.
    #[error("could not read the directory {}", .0.display())]
    Directory(PathBuf, #[source] std::io::Error),
    /// No file of a history stands there.
    #[error("no history is in {}; name the agent's data directory, or a copy of it, by --data-dir", .0.display())]
    Nothing(PathBuf),
}

/// A row, and how to go on.
pub(crate) type Visit<'v> = dyn FnMut(Output) -> ControlFlow<()> + 'v;

// === impl Reader ===

impl Reader {
    /// Looks at all files of a directory.
    pub(crate) fn open(directory: &Path) -> Result<Self, ReadError> {
        let unreadable = |error| ReadError::Directory(directory.to_owned(), error);
        // SQLite is told to follow no link, and looks at each part of a path.
        let real = directory.canonicalize().map_err(unreadable)?;
        std::fs::read_dir(&real).map_err(unreadable)?;
        let all = files::list(&real).map_err(unreadable)?;
        if all.is_empty() {
            return Err(ReadError::Nothing(directory.to_owned()));
        }
        let mut reader = Self { segments: Vec::new(), coverage: Coverage::default() };
        for segment in all {
            match reader.look(&segment) {
                Ok(()) => reader.segments.push(segment),
                Err(why) => reader.unreadable(&segment, why),
            }
        }
        reader.coverage.runs.sort_unstable_by_key(|run| run.started);
        Ok(reader)
    }

    /// What it knows; after [`Reader::each`] also which files turned out to be damaged.
    pub(crate) fn coverage(&self) -> &Coverage {
        &self.coverage
    }

    /// Shows every row that a query wants, in the order of time, with the gaps between two runs of the agent.
    pub(crate) fn each(&mut self, query: &Query, visit: &mut Visit<'_>) {
        let mut gaps = self.coverage.gaps().into_iter().filter(|gap| query.wants_gap(gap)).peekable();
        let mut goes_on = true;
        for segment in std::mem::take(&mut self.segments) {
            let mut visit = |output: Output| {
                while let Some(gap) = gaps.next_if(|gap| goes_on && gap.end <= output.time()) {
                    goes_on = visit(Output::Gap(gap)).is_continue();
                }
                goes_on = goes_on && visit(output).is_continue();
                if goes_on { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
            };
            match open::open(&segment) {
                // It was removed since: the agent forgets its oldest file.
                Err(open::Error::Gone) => {}
                Err(open::Error::Unreadable(why)) => self.unreadable(&segment, why),
                Ok(file) => {
                    if let Err(error) = merge::each(&file.connection, query, &mut visit) {
                        self.unreadable(&segment, error.to_string());
                    }
                }
            }
            self.segments.push(segment);
            if !goes_on {
                return;
            }
        }
        while let Some(gap) = gaps.next()
            && visit(Output::Gap(gap)).is_continue()
        {}
    }

    /// Addresses of peers that appear in flows of a query before a moment, at most so many; whether these are all.
    pub(crate) fn peers_before(&mut self, query: &Query, before: WallNs, most: usize) -> (Vec<String>, bool) {
        let mut peers = std::collections::BTreeSet::new();
        self.in_each(|file| merge::peers_before(file, query, before, most, &mut peers));
        let all = peers.len() < most;
        (peers.into_iter().collect(), all)
    }

    /// Shows all versions of the cluster's objects up to a moment. What stood when a file was begun comes again with that
    /// file, so times may go back from one file to the next.
    pub(crate) fn objects(&mut self, until: WallNs, visit: &mut dyn FnMut(ObjectRow)) {
        self.in_each(|file| merge::objects(file, until, visit));
    }

    /// Who wrote what can still be read, in the order of time.
    pub(crate) fn writers(&mut self) -> Vec<Writer> {
        let mut all: BTreeMap<WallNs, Writer> = BTreeMap::new();
        self.in_each(|file| {
            for writer in merge::writers(file)? {
                let known = all.entry(writer.started).or_insert_with(|| writer.clone());
                known.from = known.from.min(writer.from);
                known.to = known.to.max(writer.to);
            }
            Ok(())
        });
        all.into_values().collect()
    }

    /// Does something with each file that can be read.
    fn in_each(&mut self, mut read: impl FnMut(&rusqlite::Connection) -> rusqlite::Result<()>) {
        for segment in std::mem::take(&mut self.segments) {
            match open::open(&segment) {
                // It was removed since: the agent forgets its oldest file.
                Err(open::Error::Gone) => {}
                Err(open::Error::Unreadable(why)) => self.unreadable(&segment, why),
                Ok(file) => {
                    if let Err(error) = read(&file.connection) {
                        self.unreadable(&segment, error.to_string());
                    }
                }
            }
            self.segments.push(segment);
        }
    }

    fn look(&mut self, segment: &Segment) -> Result<(), String> {
        if segment.broken {
            return Err("it was set aside as damaged".to_owned());
        }
        let file = match open::open(segment) {
            Ok(file) => file,
            Err(open::Error::Gone) => return Ok(()),
            Err(open::Error::Unreadable(why)) => return Err(why),
        };
        let gaps = merge::absences(&file.connection).map_err(|error| error.to_string())?;
        self.coverage.told.extend(gaps);
        for (node, run) in merge::runs(&file.connection).map_err(|error| error.to_string())? {
            self.coverage.node = node;
            match self.coverage.runs.iter_mut().find(|known| known.started == run.started) {
                None => self.coverage.runs.push(run),
                Some(known) => {
                    known.from = known.from.min(run.from);
                    known.to = known.to.max(run.to);
                    known.ended = run.ended.max(known.ended);
                }
            }
        }
        Ok(())
    }

    fn unreadable(&mut self, segment: &Segment, why: String) {
        let path = segment.path.clone();
        if !self.coverage.unreadable.iter().any(|known| known.path == path) {
            self.coverage.unreadable.push(Unreadable { path, why });
        }
    }
}

// === impl Coverage ===

impl Coverage {
    /// The first and the last moment; `None` for a history without a run.
    pub(crate) fn span(&self) -> Option<(WallNs, WallNs)> {
        let from = self.runs.iter().map(|run| run.from).min()?;
        let to = self.runs.iter().map(|run| run.to).max()?;
        Some((from, to))
    }

    /// Between two runs the agent was not there. What it lost is not known. A start tells of that itself, unless it was
    /// killed before it could, or is of a version that did not.
    fn gaps(&self) -> Vec<GapRow> {
        let pairs = self.runs.iter().zip(self.runs.iter().skip(1));
        let is_told = |next: &Run, after: Option<&Run>| {
            let until = after.map_or(WallNs(i64::MAX), |after| after.started);
            self.told.iter().any(|end| (next.started..until).contains(end))
        };
        let pairs =
            pairs.enumerate().filter(|(at, (_, next))| !next.continues && !is_told(next, self.runs.get(at + 2)));
        let gaps = pairs.map(|(_, (run, next))| GapRow {
            start: run.to,
            end: next.started,
            cause: match run.ended {
                None => GapCause::NotRunning,
                Some(true) => GapCause::Stopped,
                Some(false) => GapCause::Crashed,
            },
            records_lost: BTreeMap::new(),
        });
        // A clock that was set back lets the next run begin before the last one ended.
        gaps.filter(|gap| gap.start < gap.end).collect()
    }
}
