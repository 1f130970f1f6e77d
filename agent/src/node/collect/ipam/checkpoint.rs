//! ipamd's checkpoint: which pod has which address. Pods with a branch interface of their own are not in it.

use std::fs;
use std::io::ErrorKind;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use agent_core::capacity::IpamAllocation;
use agent_core::facts::HostFact;
use serde::Deserialize;

use super::Shared;
use crate::node::collect::{Error, Look, Roots, read};

/// Below `/run`; `/var/run` leads there.
const DIRECTORY: &str = "aws-node";
/// The first network card's; further ones have a file each.
const FILE: &str = "ipam.json";
const FILE_OF_CARD: &str = "ipam-nic-";
/// Most network cards.
const MAX_CARDS: usize = 64;
/// The only version there has been.
const VERSION: &str = "vpc-cni-ipam/1";
/// Longest file: 16,384 addresses of 500 bytes.
const BYTES_MAX: u64 = 8 << 20;
/// Most addresses: far beyond any limit of pods.
const MAX_ALLOCATIONS: usize = 16_384;

/// Looks at the checkpoint.
pub(in super::super) struct Checkpoint {
    directory: PathBuf,
    shared: Shared,
}

#[derive(Deserialize)]
struct File {
    version: String,
    #[serde(default)]
    allocations: Vec<serde_json::Value>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Allocation {
    #[serde(default, rename = "containerID")]
    container_id: String,
    #[serde(default)]
    ipv4: String,
    #[serde(default)]
    ipv6: String,
    #[serde(default)]
    metadata: Metadata,
}

#[derive(Default, Deserialize)]
struct Metadata {
    #[serde(default, rename = "k8sPodNamespace")]
    namespace: String,
    #[serde(default, rename = "k8sPodName")]
    pod: String,
}

// === impl Checkpoint ===

impl Checkpoint {
    pub(in super::super) fn new(roots: &Roots, shared: Shared) -> Self {
        Self { directory: roots.run.join(DIRECTORY), shared }
    }

    /// What all files tell. An allocation that cannot be read is named, and the others count.
    fn read(&self, result: &mut Result<(), Error>) -> Result<Vec<IpamAllocation>, Error> {
        let mut allocations = Vec::new();
        for path in self.files()? {
            let text = read::text_of_at_most(&path, BYTES_MAX)?;
            let file: File = serde_json::from_str(&text).map_err(|error| read::malformed(&path, error.to_string()))?;
            if file.version != VERSION {
                return Err(read::malformed(&path, format!("is of version {:?}, not {VERSION}", file.version)));
            }
            for (at, value) in file.allocations.into_iter().enumerate() {
                if allocations.len() >= MAX_ALLOCATIONS {
                    return Err(read::malformed(&path, format!("has more than {MAX_ALLOCATIONS} allocations")));
                }
                match allocation(value) {
                    Ok(allocation) => allocations.push(allocation),
                    Err(why) => read::keep_first(result, read::malformed(&path, format!("allocation {at}: {why}"))),
                }
            }
        }
        Ok(allocations)
    }

    fn files(&self) -> Result<Vec<PathBuf>, Error> {
        let first = self.directory.join(FILE);
        match fs::metadata(&first) {
            Ok(_) => {}
            Err(source) if source.kind() == ErrorKind::NotFound => {
                return Err(Error::Absent(format!(
                    "no ipamd keeps a checkpoint here: there is no {}",
                    first.display()
                )));
            }
            Err(source) => return Err(Error::Read { path: first, source }),
        }
        let entries = fs::read_dir(&self.directory).into_iter().flatten().flatten();
        let mut files: Vec<PathBuf> =
            entries.map(|entry| entry.path()).filter(|path| is_of_card(path)).take(MAX_CARDS).collect();
        files.sort();
        files.insert(0, first);
        Ok(files)
    }
}

impl Look for Checkpoint {
    fn look(&mut self, facts: &mut Vec<HostFact>) -> Result<(), Error> {
        let mut result = Ok(());
        let allocations = self.read(&mut result);
        self.shared.put(allocations, |parts| &mut parts.allocations, facts)?;
        result
    }
}

/// While ipamd writes, a file of another name stands beside it.
fn is_of_card(path: &Path) -> bool {
    let name = path.file_name().map(|name| name.to_string_lossy()).unwrap_or_default();
    name.strip_prefix(FILE_OF_CARD)
        .and_then(|rest| rest.strip_suffix(".json"))
        .is_some_and(|card| !card.is_empty() && card.bytes().all(|byte| byte.is_ascii_digit()))
}

fn allocation(value: serde_json::Value) -> Result<IpamAllocation, String> {
    let Allocation { container_id, ipv4, ipv6, metadata } =
        serde_json::from_value(value).map_err(|error| error.to_string())?;
    let text = if ipv4.is_empty() { ipv6 } else { ipv4 };
    let ip: IpAddr = text.parse().map_err(|_| format!("{text:?} is no address"))?;
    let Metadata { namespace, pod } = metadata;
    Ok(IpamAllocation { ip, namespace: Arc::from(namespace), pod: Arc::from(pod), sandbox: Arc::from(container_id) })
}
