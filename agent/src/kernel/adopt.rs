//! A start with pins: takes over what an earlier run left running, or makes pins of its own.

use std::path::Path;

use agent_core::continuity::Adopted;
use agent_core::input::KernelTotals;
use agent_core::time::BootNs;
use agent_ebpf::shared::{KINDS, RINGS};
use agent_ebpf::wire::{Kind, Ring as RingName};
use aya::maps::{Array, HashMap, Map, MapData, PerCpuArray};

use super::accounts::{Accounts, missing};
use super::notebook::Notebook;
use super::pins::{Found, Pins};
use super::ring::{Ring, consumed_until};
use super::rings::boot_now;
use super::taken::{Stored, Taken};
use super::{Error, Options};

/// Readings of the counters until two agree on what was merged: accounts and counters are read one after the other.
const READINGS: u32 = 5;

/// The directory of pins, and what was found there.
pub(super) struct Home {
    pub(super) pins: Pins,
    /// The earlier run's; `None` for new pins.
    notebook: Option<Notebook>,
    /// Rings and counters of programs that are detached, for these take their place.
    left: Option<Left>,
    build: u64,
}

/// What detached programs left.
struct Left {
    rings: [Ring; RINGS],
    notebook: Notebook,
    accounts: Accounts,
    detached: BootNs,
}

/// What follows from it once everything is attached.
pub(super) struct Settled {
    pub(super) taken: Taken,
    pub(super) stored: Stored,
    pub(super) pins: u64,
    pub(super) adopted: Option<Adopted>,
    /// Rings of programs that were replaced: to be read to their end first.
    pub(super) left: Vec<Ring>,
}

// === impl Home ===

impl Home {
    /// Opens the directory, when there is to be one; without it, why it cannot be used.
    pub(super) fn open(options: &Options, build: u64) -> (Option<Self>, Option<String>) {
        let Some(directory) = &options.pin else { return (None, None) };
        match Self::look(directory, build) {
            Ok(home) => (Some(home), None),
            Err(why) => (None, Some(why)),
        }
    }

    fn look(directory: &Path, build: u64) -> Result<Self, String> {
        let pins = Pins::open(directory)?;
        let told = |error: std::io::Error| format!("cannot use the pins in {}: {error}", directory.display());
        let mut left = None;
        let notebook = match pins.look(build).map_err(told)? {
            Found::Nothing => None,
            Found::Same(notebook) => {
                tracing::info!(directory = %directory.display(), "the probes went on while the agent was away");
                Some(notebook)
            }
            Found::Other(found) => {
                match Left::open(&pins, found) {
                    Ok(found) => left = Some(found),
                    Err(error) => {
                        let why = crate::lines::chain(&error);
                        tracing::warn!(why, "what the probes that are replaced have in their rings is lost");
                    }
                }
                let removed = pins.clear().map_err(told)?;
                tracing::info!(
                    removed,
                    directory = %directory.display(),
                    "the probes that went on are of another version or of other settings: they are replaced"
                );
                None
            }
        };
        Ok(Self { pins, notebook, left, build })
    }

    pub(super) fn is_adopted(&self) -> bool {
        self.notebook.is_some()
    }

    /// All maps and links are there: notes so, or takes over the earlier run's notes.
    pub(super) fn settle(self, ebpf: &aya::Ebpf) -> Result<Settled, Error> {
        let stored = Stored::default();
        let Some(mut notebook) = self.notebook else {
            let born = boot_now().0;
            let notebook = Notebook::create(&self.pins.notebook(), self.build, born)
                .map_err(|source| Error::Pins { path: self.pins.notebook(), source })?;
            notebook.finish();
            let taken = Taken::new(notebook, [0; KINDS], stored.clone(), self.pins);
            let (adopted, left) = self.left.map(Left::settle).transpose()?.unzip();
            let left = left.map(Vec::from).unwrap_or_default();
            return Ok(Settled { taken, stored, pins: born, adopted, left });
        };
        let positions = RINGS_BY_NAME.map(|(_, name)| match ebpf.map(name) {
            Some(Map::RingBuf(map)) => consumed_until(map).map_err(|source| Error::Ring { map: name, source }),
            _ => Err(missing(name)),
        });
        let [metadata, lifecycle, bulk] = positions;
        let consumed = consumed([metadata?, lifecycle?, bulk?], &mut notebook);
        let accounts = Accounts::from_pins(&self.pins)?;
        let totals = steady(&accounts)?;
        let pins = notebook.born_ns();
        let taken = Taken::new(notebook, consumed, stored.clone(), self.pins);
        Ok(Settled {
            taken,
            stored,
            pins,
            adopted: Some(Adopted { pins, consumed, totals, mark: None, replaced: None }),
            left: Vec::new(),
        })
    }
}

// === impl Left ===

impl Left {
    fn open(pins: &Pins, notebook: Notebook) -> Result<Self, Error> {
        let ring = |(_, name): (RingName, &'static str)| {
            let map = MapData::from_pin(pins.map(name))
                .map_err(|source| Error::Map { map: name, source: Box::new(source) })?;
            Ring::open(name, map)
        };
        let [metadata, lifecycle, bulk] = RINGS_BY_NAME.map(ring);
        let rings = [metadata?, lifecycle?, bulk?];
        Ok(Self { rings, notebook, accounts: Accounts::from_pins(pins)?, detached: boot_now() })
    }

    /// The programs are detached, and others are attached.
    fn settle(mut self) -> Result<(Adopted, [Ring; RINGS]), Error> {
        let [metadata, lifecycle, bulk] = &self.rings;
        let consumed = consumed([metadata.released(), lifecycle.released(), bulk.released()], &mut self.notebook);
        let totals = steady(&self.accounts)?;
        let (pins, replaced) = (self.notebook.born_ns(), Some((self.detached, boot_now())));
        Ok((Adopted { pins, consumed, totals, mark: None, replaced }, self.rings))
    }
}

/// In the order of [`RingName`].
const RINGS_BY_NAME: [(RingName, &str); RINGS] =
    [(RingName::Metadata, "METADATA"), (RingName::Lifecycle, "LIFECYCLE"), (RingName::Bulk, "BULK")];

/// Records that earlier runs took out of the rings until they stood at these positions, by kind.
fn consumed(positions: [u64; RINGS], notebook: &mut Notebook) -> [u64; KINDS] {
    let mut consumed = [0; KINDS];
    for ((ring, name), position) in RINGS_BY_NAME.into_iter().zip(positions) {
        let Some(taken) = notebook.taken(ring, position) else {
            // Nobody but an agent moves it, and agents note it first.
            tracing::warn!(ring = name, "what was taken out of a ring is not known");
            continue;
        };
        for kind in Kind::ALL.iter().filter(|kind| kind.ring() == ring) {
            if let (Some(to), Some(from)) = (consumed.get_mut(kind.index()), taken.get(kind.index())) {
                *to = *from;
            }
        }
    }
    consumed
}

/// A reading of counters and accounts, of which two in a row agree where that can be had.
fn steady(accounts: &Accounts) -> Result<KernelTotals, Error> {
    let fail = |source| Error::Map { map: "COUNTERS", source: Box::new(source) };
    let mut totals = accounts.read().map_err(fail)?;
    for _ in 1..READINGS {
        let again = accounts.read().map_err(fail)?;
        let same = again.records == totals.records;
        totals = again;
        if same {
            break;
        }
    }
    Ok(totals)
}

impl Accounts {
    fn from_pins(pins: &Pins) -> Result<Self, Error> {
        let open = |name: &'static str| {
            MapData::from_pin(pins.map(name)).map_err(|source| Error::Map { map: name, source: Box::new(source) })
        };
        let fail = |name: &'static str| move |source| Error::Map { map: name, source: Box::new(source) };
        Ok(Self {
            counters: PerCpuArray::try_from(Map::PerCpuArray(open("COUNTERS")?)).map_err(fail("COUNTERS"))?,
            by_cgroup: HashMap::try_from(Map::HashMap(open("ACCOUNTS")?)).map_err(fail("ACCOUNTS"))?,
            overflow: Array::try_from(Map::Array(open("OVERFLOW")?)).map_err(fail("OVERFLOW"))?,
            live: Array::try_from(Map::Array(open("LIVE")?)).map_err(fail("LIVE"))?,
            round: Array::try_from(Map::Array(open("ROUND")?)).map_err(fail("ROUND"))?,
            sampling: Array::try_from(Map::Array(open("SAMPLING")?)).map_err(fail("SAMPLING"))?,
        })
    }
}
