//! Manifests to facts.

use std::path::{Path, PathBuf};

use agent_core::check::{Manifests, Place, Placed, PodManifest, Problem};

use crate::cluster::convert::{Conversion, Converted};
use crate::manifests::{self, Limits};

/// Reads all paths; `-` is standard input. What cannot be read is told in the answer.
pub(super) fn manifests(paths: &[PathBuf], irsa_prefix: &str) -> Manifests {
    let conversion = Conversion { irsa_prefix: irsa_prefix.to_owned() };
    let mut manifests = Manifests::default();
    let mut sink = |found: Result<manifests::Object, manifests::Problem>| match found {
        Ok(object) => take(&mut manifests, &place(&object.place), conversion.object(object.value)),
        Err(problem) => manifests.problems.push(Problem { place: place(&problem.place), text: problem.text }),
    };
    for path in paths {
        if path == Path::new("-") {
            Limits::COMMAND.reader("-", std::io::stdin().lock(), &mut sink);
        } else {
            Limits::COMMAND.path(path, &mut sink);
        }
    }
    manifests
}

fn take(manifests: &mut Manifests, place: &Place, object: Converted) {
    let skipped = match object {
        Converted::Pod(pod) => {
            return manifests.pods.push(PodManifest { place: place.clone(), kind: "Pod".into(), pod: *pod });
        }
        Converted::Template { kind, pod } => {
            return manifests.pods.push(PodManifest { place: place.clone(), kind: kind.into(), pod: *pod });
        }
        Converted::ServiceAccount(fact) => {
            return manifests.accounts.push(Placed { place: place.clone(), fact: *fact });
        }
        Converted::Policy(fact) => return manifests.policies.push(Placed { place: place.clone(), fact: *fact }),
        Converted::Node(fact) => return manifests.nodes.push(*fact),
        Converted::GroupEvent { uid, event } => return manifests.events.entry(uid).or_default().push(event),
        Converted::Malformed(malformed) => {
            let text = format!("{} {}: {}", malformed.kind, malformed.object, malformed.why);
            return manifests.problems.push(Problem { place: place.clone(), text });
        }
        // A namespace says nothing that its objects do not say.
        Converted::Namespace(_) => return,
        Converted::NetworkPolicy(policy) if policy.made_of.is_some() => "PolicyEndpoint.networking.k8s.aws".to_owned(),
        Converted::NetworkPolicy(_) => "NetworkPolicy.networking.k8s.io".to_owned(),
        Converted::CniNode { .. } => "CNINode".to_owned(),
        Converted::CsiNode { .. } => "CSINode".to_owned(),
        Converted::Skipped { kind } => kind,
    };
    *manifests.skipped.entry(skipped).or_default() += 1;
}

fn place(place: &manifests::Place) -> Place {
    Place { file: place.file.clone(), document: place.document as u64, line: place.line as u64 }
}
