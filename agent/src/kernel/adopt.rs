//! A start with pins: takes over what an earlier run left running, or makes pins of its own.

use std::path::Path;

use agent_core::continuity::Adopted;
use agent_ebpf::shared::KINDS;
use agent_ebpf::wire::{Kind, Ring as RingName};
use aya::maps::{Array, HashMap, Map, MapData, PerCpuArray};

use super::accounts::{Accounts, missing};
use super::notebook::Notebook;
use super::pins::{Found, Pins};
use super::ring::consumed_until;
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
    build: u64,
}

/// What follows from it once everything is attached.
pub(super) struct Settled {
    pub(super) taken: Taken,
    pub(super) stored: Stored,
    pub(super) pins: u64,
    pub(super) adopted: Option<Adopted>,
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
        let notebook = match pins.look(build).map_err(told)? {
            Found::Nothing => None,
            Found::Same(notebook) => {
                tracing::info!(directory = %directory.display(), "the probes went on while the agent was away");
                Some(notebook)
            }
            Found::Other => {
                let removed = pins.clear().map_err(told)?;
                tracing::warn!(
                    removed,
                    directory = %directory.display(),
                    "the pins are of another version or of other settings: they were removed, with what they held"
                );
                None
            }
        };
        Ok(Self { pins, notebook, build })
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
            return Ok(Settled { taken, stored, pins: born, adopted: None });
        };
        let consumed = consumed(ebpf, &mut notebook)?;
        let accounts = Accounts::from_pins(&self.pins)?;
        let map_error = |source| Error::Map { map: "COUNTERS", source: Box::new(source) };
        let mut totals = accounts.read().map_err(map_error)?;
        for _ in 1..READINGS {
            let again = accounts.read().map_err(map_error)?;
            let same = again.records == totals.records;
            totals = again;
            if same {
                break;
            }
        }
        let pins = notebook.born_ns();
        let taken = Taken::new(notebook, consumed, stored.clone(), self.pins);
        Ok(Settled { taken, stored, pins, adopted: Some(Adopted { pins, consumed, totals, mark: None }) })
    }
}

/// Records that earlier runs took out of all rings, by kind.
fn consumed(ebpf: &aya::Ebpf, notebook: &mut Notebook) -> Result<[u64; KINDS], Error> {
    let mut consumed = [0; KINDS];
    for (ring, name) in [(RingName::Metadata, "METADATA"), (RingName::Lifecycle, "LIFECYCLE"), (RingName::Bulk, "BULK")]
    {
        let Some(Map::RingBuf(map)) = ebpf.map(name) else { return Err(missing(name)) };
        let position = consumed_until(map).map_err(|source| Error::Ring { map: name, source })?;
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
    Ok(consumed)
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
        })
    }
}
