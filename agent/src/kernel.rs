//! The kernel's side: loads and attaches the probes, drains their rings and hands over secret-free inputs. The only
//! module that names aya.

mod accounts;
mod adopt;
mod btf;
mod error;
mod iterators;
mod load;
mod notebook;
mod object;
mod pins;
mod preflight;
mod privileges;
#[cfg(feature = "probe-log")]
mod probe_log;
mod ring;
mod rings;
mod sys;
mod taken;

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use agent_core::continuity::{Adopted, Resume};
use agent_core::input::Input;
use tokio::sync::mpsc;

pub(crate) use self::error::Error;
pub(crate) use self::load::{ProbeState, ProbeStatus};
pub(crate) use self::pins::{count as pins_in, unpin};
pub(crate) use self::preflight::{Check, CheckState, preflight, require};
pub(crate) use self::privileges::{give_up, held};
pub(crate) use self::taken::Stored;

/// How to load and read the probes.
#[derive(Clone, Debug)]
pub(crate) struct Options {
    /// Root of the cgroup2 tree; everything below it is watched.
    pub(crate) cgroup_root: PathBuf,
    /// Exec records carry arguments.
    pub(crate) keep_args: bool,
    /// Bytes of the flows' ring, a power of two of at least one page.
    pub(crate) bulk_ring_bytes: u32,
    /// Bytes of the metadata ring, likewise.
    pub(crate) metadata_ring_bytes: u32,
    /// Bytes of the process and cgroup ring, likewise.
    pub(crate) lifecycle_ring_bytes: u32,
    /// Sockets tracked at once.
    pub(crate) max_sockets: u32,
    /// The agent's budget of CPU in percent of one processor, beyond which not every new connection is told; 0: none.
    pub(crate) cpu_percent: u32,
    /// Time between two walks over what is open, in milliseconds; the engine's fold.
    pub(crate) walk_interval_ms: u64,
    /// Where the probes are pinned, so that they go on while the agent is away; `None`: they end with it.
    pub(crate) pin: Option<PathBuf>,
}

/// Probes that are attached, and whose rings nobody reads yet.
pub(crate) struct Attached {
    loaded: load::Loaded,
    options: Options,
}

/// Running probes. Dropping it stops them.
#[derive(Debug)]
pub(crate) struct Handle {
    probes: Vec<ProbeStatus>,
    stop: Arc<AtomicBool>,
}

/// Loads and attaches the probes, or takes over those that went on without an agent.
pub(crate) fn attach(options: &Options) -> Result<Attached, Error> {
    Ok(Attached { loaded: load::load(options)?, options: options.clone() })
}

// === impl Attached ===

impl Attached {
    /// What is attached and what was refused.
    pub(crate) fn probes(&self) -> &[ProbeStatus] {
        &self.loaded.probes
    }

    /// Names the rings, if they outlive the agent: when they were made, boot time.
    pub(crate) fn pins(&self) -> Option<u64> {
        self.loaded.pins
    }

    /// What an earlier run left running.
    pub(crate) fn adopted(&self) -> Option<&Adopted> {
        self.loaded.adopted.as_ref()
    }

    /// Where to say how far the history has what the metadata ring told: until then it is kept for the next agent.
    pub(crate) fn stored(&self) -> Stored {
        self.loaded.stored.clone()
    }

    /// Starts the thread that drains the rings into `sender`: the metadata ring from `from` on, or where the last reader
    /// left off.
    ///
    /// The sender's channel closes when the thread ends: after [`Handle::stop`], or when the receiver is gone.
    pub(crate) fn read(self, from: Option<Resume>, sender: mpsc::Sender<Vec<Input>>) -> Result<Handle, Error> {
        let probes = self.loaded.probes.clone();
        let stop = Arc::new(AtomicBool::new(false));
        rings::spawn(self.loaded, from, &self.options, sender, Arc::clone(&stop))?;
        Ok(Handle { probes, stop })
    }
}

// === impl Handle ===

impl Handle {
    /// What is attached and what was refused; does not change while the probes run.
    pub(crate) fn probes(&self) -> &[ProbeStatus] {
        &self.probes
    }

    /// Asks the thread to detach the probes, hand over what is left and end. Returns at once: the closing of the inputs'
    /// channel tells that it is done.
    pub(crate) fn stop(&self) {
        self.stop.store(true, Ordering::Release);
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        self.stop();
    }
}
