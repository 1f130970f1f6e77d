//! The kernel's side: loads and attaches the probes, drains their rings and hands over secret-free inputs. The only
//! module that names aya.

mod accounts;
mod btf;
mod error;
mod iterators;
mod load;
mod object;
mod preflight;
#[cfg(feature = "probe-log")]
mod probe_log;
mod rings;

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use agent_core::input::Input;
use tokio::sync::mpsc;

pub(crate) use self::error::Error;
pub(crate) use self::load::{ProbeState, ProbeStatus};
pub(crate) use self::preflight::{Check, CheckState, preflight, require};

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
    /// Time between two walks over what is open, in milliseconds; the engine's fold.
    pub(crate) walk_interval_ms: u64,
}

/// Running probes. Dropping it stops them.
#[derive(Debug)]
pub(crate) struct Handle {
    probes: Vec<ProbeStatus>,
    stop: Arc<AtomicBool>,
}

/// Loads and attaches the probes and starts the thread that drains them into `sender`.
///
/// The sender's channel closes when the thread ends: after [`Handle::stop`], or when the receiver is gone.
pub(crate) fn start(options: &Options, sender: mpsc::Sender<Vec<Input>>) -> Result<Handle, Error> {
    let loaded = load::load(options)?;
    let probes = loaded.probes.clone();
    let stop = Arc::new(AtomicBool::new(false));
    rings::spawn(loaded, options, sender, Arc::clone(&stop))?;
    Ok(Handle { probes, stop })
}

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
