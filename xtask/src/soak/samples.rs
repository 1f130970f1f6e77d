//! What a soak saw, as it is stored. `docs/performance/README.md` describes the file.

use std::path::Path;

use anyhow::{Context, Result, ensure};
use serde::Deserialize;

/// The version that is read.
const SCHEMA: &str = "sekisho-soak/1";

/// The file.
#[derive(Deserialize)]
pub(crate) struct Soak {
    schema: String,
    pub(crate) history_max_bytes: u64,
    pub(crate) work: Work,
    /// While pods came and went, in order.
    pub(crate) samples: Vec<Sample>,
    /// When all was gone for a while.
    pub(crate) aftermath: Sample,
}

/// What was done; a part of it.
#[derive(Deserialize)]
pub(crate) struct Work {
    pub(crate) pods: u64,
    pub(crate) connections: u64,
}

/// A look at the agent.
#[derive(Clone, Deserialize)]
pub(crate) struct Sample {
    pub(crate) at_s: f64,
    pub(crate) memory: Memory,
    pub(crate) whole_bytes: u64,
    pub(crate) descriptors: u64,
    pub(crate) threads: u64,
    pub(crate) history_bytes: u64,
    pub(crate) series: u64,
    pub(crate) seen: u64,
    pub(crate) lost: u64,
    pub(crate) balanced: bool,
}

/// A part of what the process keeps.
#[derive(Clone, Copy, Deserialize)]
pub(crate) struct Memory {
    /// Heap and stacks.
    pub(crate) anonymous: u64,
}

impl Soak {
    pub(crate) fn read(path: &Path) -> Result<Self> {
        let text = std::fs::read(path).with_context(|| format!("read {}", path.display()))?;
        let soak: Self = serde_json::from_slice(&text).with_context(|| format!("read {}", path.display()))?;
        ensure!(soak.schema == SCHEMA, "{} is of schema {}, and this is {SCHEMA}", path.display(), soak.schema);
        ensure!(soak.samples.len() >= 3, "{} has {} samples: three at least", path.display(), soak.samples.len());
        Ok(soak)
    }
}

pub(crate) fn megabytes(bytes: u64) -> f64 {
    float(bytes) / 1e6
}

#[expect(clippy::cast_precision_loss, reason = "far below 2^53")]
pub(crate) fn float(count: u64) -> f64 {
    count as f64
}
