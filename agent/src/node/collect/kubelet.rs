//! The kubelet's own limit of pods, from its configuration: what it refuses beyond, whatever addresses there are. The
//! node's `allocatable.pods` says the same where the API can be asked.

use std::fs;
use std::path::PathBuf;

use agent_core::capacity::{Collector, Limit, Resource, Sample, Scope};
use agent_core::facts::HostFact;
use serde::Deserialize;

use super::{Error, Look, Roots, read};

/// Below `/etc/kubernetes/kubelet`: Amazon Linux 2023; Amazon Linux 2; Bottlerocket, in YAML.
const FILES: [&str; 3] = ["config.json", "kubelet-config.json", "config"];
/// Files that are laid over the first, in the order of their names: `nodeadm` writes what an instance needs there.
const OVERLAYS: &str = "config.json.d";
/// Most of them.
const MAX_OVERLAYS: usize = 64;
/// What the kubelet takes when nothing is set.
const DEFAULT_MAX_PODS: u64 = 110;

/// Looks at the kubelet's configuration.
pub(super) struct Kubelet {
    directory: PathBuf,
}

/// What is wanted of a configuration. Nothing else is kept.
#[derive(Deserialize)]
struct Wanted {
    #[serde(rename = "maxPods")]
    max_pods: Option<u64>,
}

// === impl Kubelet ===

impl Kubelet {
    pub(super) fn new(roots: &Roots) -> Self {
        Self { directory: roots.etc.join("kubernetes/kubelet") }
    }

    /// The files in the order in which the kubelet reads them.
    fn files(&self) -> Result<Vec<PathBuf>, Error> {
        let main = FILES.iter().map(|name| self.directory.join(name)).find(|path| path.is_file());
        let main = main.ok_or_else(|| {
            Error::Absent(format!(
                "no kubelet is configured here: none of {FILES:?} is in {}",
                self.directory.display()
            ))
        })?;
        let mut overlays: Vec<PathBuf> = fs::read_dir(self.directory.join(OVERLAYS))
            .into_iter()
            .flatten()
            .flatten()
            .map(|entry| entry.path())
            .filter(|path| path.extension().is_some_and(|extension| extension == "conf"))
            .take(MAX_OVERLAYS)
            .collect();
        overlays.sort();
        overlays.insert(0, main);
        Ok(overlays)
    }
}

impl Look for Kubelet {
    fn look(&mut self, facts: &mut Vec<HostFact>) -> Result<(), Error> {
        let mut found = (DEFAULT_MAX_PODS, "the kubelet's default".to_owned());
        for path in self.files()? {
            // JSON is YAML. Errors of the parser may show a part of the text; this file holds no secret.
            let wanted: Wanted = serde_yaml_ng::from_str(&read::text(&path)?)
                .map_err(|error| read::malformed(&path, error.to_string()))?;
            // The kubelet takes 0 for "not set".
            if let Some(max_pods) = wanted.max_pods.filter(|max| *max > 0) {
                found = (max_pods, format!("maxPods in {}", path.display()));
            }
        }
        let (max_pods, source) = found;
        facts.push(HostFact::Samples {
            collector: Collector::Kubelet,
            samples: vec![Sample {
                resource: Resource::Pods,
                scope: Scope::Node,
                used: None,
                limit: Limit::Of(max_pods),
                source: source.into(),
            }],
        });
        Ok(())
    }
}
