//! Stand-in for `kernel`.
#![expect(dead_code, reason = "the real one uses what this one is given")]

use std::path::PathBuf;

use agent_core::input::Input;
use tokio::sync::mpsc::Sender;

#[derive(Clone, Debug)]
pub(crate) struct Options {
    pub(crate) cgroup_root: PathBuf,
    pub(crate) keep_args: bool,
    pub(crate) metadata_ring_bytes: u32,
    pub(crate) lifecycle_ring_bytes: u32,
    pub(crate) bulk_ring_bytes: u32,
    pub(crate) max_sockets: u32,
    pub(crate) walk_interval_ms: u64,
}

#[derive(Debug, thiserror::Error)]
#[error("this build holds no probes; build one by `cargo xtask build`")]
pub(crate) struct Error;

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum ProbeState {
    Attached,
    Refused(String),
}

#[derive(Clone, Debug)]
pub(crate) struct ProbeStatus {
    pub(crate) name: &'static str,
    pub(crate) gives: &'static str,
    pub(crate) state: ProbeState,
    pub(crate) required: bool,
}

pub(crate) struct Handle(Vec<ProbeStatus>, std::sync::Mutex<Option<Sender<Vec<Input>>>>);

pub(crate) fn start(options: &Options, sender: Sender<Vec<Input>>) -> Result<Handle, Error> {
    tracing::debug!(?options, "no probes");
    if options.max_sockets == 0 {
        return Ok(Handle(Vec::new(), std::sync::Mutex::new(Some(sender))));
    }
    Err(Error)
}

impl Handle {
    pub(crate) fn probes(&self) -> &[ProbeStatus] {
        &self.0
    }
    pub(crate) fn stop(&self) {
        if let Ok(mut sender) = self.1.lock() {
            *sender = None;
        }
    }
}

#[derive(Clone, Debug)]
pub(crate) enum CheckState {
    Ok(String),
    Degraded(String),
    Missing { what: String, cure: String },
}

#[derive(Clone, Debug)]
pub(crate) struct Check {
    pub(crate) name: &'static str,
    pub(crate) state: CheckState,
}

pub(crate) fn preflight() -> Vec<Check> {
    vec![Check {
        name: "probes",
        state: CheckState::Missing { what: "no probes".to_owned(), cure: "build them".to_owned() },
    }]
}
