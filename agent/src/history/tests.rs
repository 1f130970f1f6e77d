//! The store on real files: what comes back, quota, faults of disks, damage, SIGKILL, power cuts.

mod crash;
mod disk;
mod faults;
mod figures;
mod objects;
mod others;
mod plans;
mod power;
mod quota;
pub(super) mod read;
mod runs;
pub(super) mod samples;
mod sg;
mod writer;

use std::ops::ControlFlow;
use std::path::Path;
use std::sync::Arc;

use agent_core::output::Output;

use super::read::{Query, Reader};
use super::store::{Options, Store};

pub(super) const MIB: u64 = 1 << 20;

pub(super) fn options(directory: &Path, quota_bytes: u64) -> Options {
    Options {
        directory: directory.to_owned(),
        quota_bytes,
        age_days: 3_650,
        free_percent: 0,
        node: Arc::from("node-1"),
        boot_id: Some("this boot".to_owned()),
        continues: None,
    }
}

/// A store of 64 MiB.
pub(super) fn store(directory: &Path) -> Store {
    Store::open(options(directory, 64 * MIB), samples::at(0)).expect("opens")
}

pub(super) fn shared(rows: impl IntoIterator<Item = Output>) -> Vec<Arc<Output>> {
    rows.into_iter().map(Arc::new).collect()
}

/// Bytes of all that stands in a directory, whoever wrote it.
pub(super) fn bytes_in(directory: &Path) -> u64 {
    let entries = std::fs::read_dir(directory).expect("lists");
    // A file may go between being listed and being looked at.
    entries.filter_map(|entry| entry.ok()?.metadata().ok()).map(|file| file.len()).sum()
}

/// All that a query finds.
pub(super) fn found(directory: &Path, query: &Query) -> Vec<Output> {
    let mut outputs = Vec::new();
    let mut reader = Reader::open(directory).expect("opens");
    reader.each(query, &mut |output| {
        outputs.push(output);
        ControlFlow::Continue(())
    });
    assert_eq!(reader.coverage().unreadable, []);
    outputs
}
