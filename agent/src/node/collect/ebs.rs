//! EBS volumes that are attached, and what is read and written on them, from sysfs. Their limit is the instance type's,
//! which no file tells.

use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Instant;

use agent_core::capacity::{Collector, Limit, Resource, Sample, Scope};
use agent_core::facts::HostFact;

use super::pace::{Pace, Pair};
use super::{Error, Look, Roots, read};

/// What an EBS volume says when it is asked for its model, padded with spaces.
const MODEL: &str = "Amazon Elastic Block Store";
/// Most volumes: no type takes more than 128.
const MAX_VOLUMES: usize = 1_024;
/// `/sys/block/*/stat` counts in sectors of this size, whatever the device's.
const SECTOR_BYTES: u64 = 512;

/// Looks at EBS volumes.
pub(super) struct Ebs {
    block: PathBuf,
    /// Bytes and operations by volume.
    pace: Pace<String>,
}

// === impl Ebs ===

impl Ebs {
    pub(super) fn new(roots: &Roots) -> Self {
        Self { block: roots.sys.join("block"), pace: Pace::default() }
    }
}

impl Look for Ebs {
    fn look(&mut self, facts: &mut Vec<HostFact>) -> Result<(), Error> {
        let entries = fs::read_dir(&self.block).map_err(|source| Error::Read { path: self.block.clone(), source })?;
        let mut result = Ok(());
        // By serial number: with several paths to a volume it is in the list once for each.
        let mut volumes: HashMap<String, Pair> = HashMap::new();
        for device in entries.flatten().map(|entry| entry.path()).filter(|path| is_nvme(path)).take(MAX_VOLUMES) {
            match volume(&device) {
                Ok(Some((serial, counts))) => {
                    volumes.insert(serial, counts);
                }
                Ok(None) => {}
                // Detached while it was read.
                Err(error) if read::is_gone(&error) => {}
                Err(error) => read::keep_first(&mut result, error),
            }
        }
        if volumes.is_empty() {
            result?;
            return Err(Error::Absent(format!("no EBS volume is attached by NVMe: none in {}", self.block.display())));
        }
        let sample = |resource, used, source: &str| Sample {
            resource,
            scope: Scope::Node,
            used: Some(used),
            limit: Limit::Unknown,
            source: source.into(),
        };
        let mut samples = vec![sample(Resource::EbsVolumes, volumes.len() as u64, "/sys/block/nvme*")];
        if let Some((bytes, operations)) = self.pace.of(volumes, Instant::now()) {
            samples.push(sample(Resource::EbsBandwidth, bytes, "/sys/block/nvme*/stat"));
            samples.push(sample(Resource::EbsIops, operations, "/sys/block/nvme*/stat"));
        }
        facts.push(HostFact::Samples { collector: Collector::Ebs, samples });
        result
    }
}

fn is_nvme(path: &Path) -> bool {
    path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("nvme"))
}

/// Serial number, bytes and operations of an EBS volume; `None` for another device.
fn volume(device: &Path) -> Result<Option<(String, Pair)>, Error> {
    if read::text(&device.join("device/model"))?.trim() != MODEL {
        return Ok(None);
    }
    let serial = read::text(&device.join("device/serial"))?.trim().to_owned();
    let path = device.join("stat");
    let text = read::text(&path)?;
    let mut words = text.split_whitespace();
    // Operations, merged ones, sectors and time of reads, then the same of writes.
    let mut word = |skip| read::parse::<u64>(&path, words.nth(skip).unwrap_or_default());
    let (reads, read_sectors, writes, written_sectors) = (word(0)?, word(1)?, word(1)?, word(1)?);
    let bytes = read_sectors.saturating_add(written_sectors).saturating_mul(SECTOR_BYTES);
    Ok(Some((serial, (bytes, reads.saturating_add(writes)))))
}
