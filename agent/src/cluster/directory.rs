//! A directory of manifests instead of a cluster: the same facts, looked for anew when a file changes.
//!
//! Changes are found by looking at times and sizes every two seconds. inotify would tell sooner, but says nothing on
//! network file systems, and a mounted `ConfigMap` changes by a link that is not where its files are.

use std::collections::{BTreeMap, BTreeSet};
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use agent_core::facts::{
    Branch, ClusterFact, CniNodeFacts, CsiNodeFacts, GroupEvent, NetworkPolicyFacts, NodeFacts, PodFacts, PolicyFacts,
    ServiceAccountFacts, ServiceFacts, Source,
};
use agent_core::input::Input;
use agent_core::time::WallNs;
use serde_json::Value;
use tokio::sync::mpsc;

use super::convert::{Conversion, Converted, Malformed, service};
use super::known::Name;
use super::teller::Teller;
use crate::manifests::{Files, Limits};

const LOOK_EVERY: Duration = Duration::from_secs(2);
/// Sources that a directory stands for.
const SOURCES: [Source; 8] = [
    Source::Pods,
    Source::Policies,
    Source::NetworkPolicies,
    Source::ServiceAccounts,
    Source::Node,
    Source::CniNode,
    Source::CsiNode,
    Source::Services,
];

/// Events kept of a pod; the controller writes a handful.
const EVENTS_MAX: usize = 32;

/// What a directory says.
#[derive(Default)]
struct Read {
    pods: Vec<Arc<PodFacts>>,
    policies: Vec<Arc<PolicyFacts>>,
    network_policies: Vec<Arc<NetworkPolicyFacts>>,
    accounts: Vec<Arc<ServiceAccountFacts>>,
    services: Vec<Arc<ServiceFacts>>,
    node: Option<Arc<NodeFacts>>,
    cni_node: Option<CniNodeFacts>,
    csi_node: Option<CsiNodeFacts>,
    /// What the VPC resource controller said of pods, by their uid, in the order of the files.
    events: BTreeMap<Arc<str>, Vec<GroupEvent>>,
    malformed: Vec<(Source, Malformed)>,
}

/// Tells what stands in a directory, and again whenever that changes, for ever.
pub(crate) async fn follow(
    directory: PathBuf,
    node: Arc<str>,
    conversion: Conversion,
    tell: mpsc::Sender<Vec<Input>>,
    now: fn() -> WallNs,
) {
    let teller = Teller::new(tell, now);
    let mut seen = None;
    let mut accounts: BTreeSet<Name> = BTreeSet::new();
    loop {
        let (path, of, by) = (directory.clone(), Arc::clone(&node), conversion.clone());
        let before = seen;
        // The look before the reading: a change in between is found by the next look.
        let look = tokio::task::spawn_blocking(move || {
            let now = signature(&path);
            (now, (Some(now) != before).then(|| read(&path, &of, &by)))
        });
        if let Ok((now, found)) = look.await {
            seen = Some(now);
            if let Some(found) = found {
                tell_all(&teller, found, &mut accounts).await;
            }
        }
        for source in SOURCES {
            teller.alive(source).await;
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

async fn tell_all(teller: &Teller, read: Read, accounts: &mut BTreeSet<Name>) {
    let Read {
        pods,
        policies,
        network_policies,
        accounts: now,
        services,
        node,
        cni_node,
        csi_node,
        mut events,
        malformed,
    } = read;
    tracing::info!(
        pods = pods.len(),
        policies = policies.len(),
        network_policies = network_policies.len(),
        service_accounts = now.len(),
        "the manifests are read"
    );
    let names: BTreeSet<Name> =
        now.iter().map(|account| (Arc::clone(&account.namespace), Arc::clone(&account.name))).collect();
    let gone = accounts.difference(&names).cloned();
    let mut facts: Vec<ClusterFact> =
        gone.map(|(namespace, name)| ClusterFact::ServiceAccountGone { namespace, name }).collect();
    *accounts = names;
    // Accounts and policies before the pods that they are about.
    facts.extend(now.into_iter().map(ClusterFact::ServiceAccount));
    facts.push(ClusterFact::PoliciesReplaced { policies, installed: true });
    facts.push(ClusterFact::NetworkPoliciesReplaced(network_policies));
    facts.push(ClusterFact::ServicesReplaced(services));
    facts.extend(node.map(ClusterFact::Node));
    facts.push(ClusterFact::CniNode(cni_node));
    facts.push(ClusterFact::CsiNode(csi_node));
    // Of every pod with a branch interface, whether there is one or (no more) none.
    let asked = pods.iter().filter(|pod| matches!(pod.branch, Branch::Interfaces(_))).filter_map(|pod| pod.uid.clone());
    let told: Vec<ClusterFact> =
        asked.map(|uid| ClusterFact::GroupEvents { events: events.remove(&uid).unwrap_or_default(), uid }).collect();
    facts.push(ClusterFact::PodsReplaced(pods));
    facts.extend(told);
    teller.tell(facts).await;
    for (source, malformed) in malformed {
        teller.malformed(source, malformed).await;
    }
}

fn read(directory: &Path, node: &str, conversion: &Conversion) -> Read {
    let mut read = Read::default();
    Limits::AGENT.path(directory, &mut |found| match found {
        Ok(object) if is_service(&object.value) => read.service(object.value),
        Ok(object) => read.take(conversion.object(object.value), node),
        Err(problem) => {
            let malformed =
                Malformed { kind: "manifest".to_owned(), object: problem.place.to_string(), why: problem.text };
            read.malformed.push((Source::Pods, malformed));
        }
    });
    read
}

fn is_service(object: &Value) -> bool {
    object["apiVersion"] == "v1" && object["kind"] == "Service"
}

/// Changes when a file comes, goes or is written.
fn signature(directory: &Path) -> u64 {
    let mut hasher = DefaultHasher::new();
    for file in Files::below(directory, Limits::AGENT.files) {
        match file {
            Ok(path) => {
                path.hash(&mut hasher);
                if let Ok(metadata) = std::fs::metadata(&path) {
                    (metadata.ino(), metadata.len(), metadata.mtime(), metadata.mtime_nsec()).hash(&mut hasher);
                }
            }
            Err(problem) => problem.text.hash(&mut hasher),
        }
    }
    hasher.finish()
}

// === impl Read ===

impl Read {
    fn service(&mut self, object: Value) {
        match service::shared(object) {
            Ok(service) if service.has_addresses() => self.services.push(service),
            Ok(_) => {}
            Err(malformed) => self.malformed.push((Source::Services, malformed)),
        }
    }

    fn take(&mut self, converted: Converted, node: &str) {
        match converted {
            // Of another node: told by a dump of the whole cluster.
            Converted::Pod(pod) if pod.node.as_ref().is_some_and(|of| **of != *node) => {}
            Converted::Pod(pod) => self.pods.push(Arc::from(pod)),
            Converted::Policy(policy) => self.policies.push(Arc::from(policy)),
            Converted::NetworkPolicy(policy) => self.network_policies.push(Arc::from(policy)),
            Converted::ServiceAccount(account) => self.accounts.push(Arc::from(account)),
            Converted::Node(facts) if *facts.name == *node => self.node = Some(Arc::from(facts)),
            Converted::CniNode { name, facts } if *name == *node => self.cni_node = Some(facts),
            Converted::CsiNode { name, facts } if *name == *node => self.csi_node = Some(facts),
            Converted::Malformed(malformed) => {
                let source = match malformed.kind.as_str() {
                    "SecurityGroupPolicy" => Source::Policies,
                    "NetworkPolicy" | "PolicyEndpoint" => Source::NetworkPolicies,
                    "ServiceAccount" => Source::ServiceAccounts,
                    "Node" => Source::Node,
                    "CNINode" => Source::CniNode,
                    "CSINode" => Source::CsiNode,
                    _ => Source::Pods,
                };
                self.malformed.push((source, malformed));
            }
            Converted::GroupEvent { uid, event } => {
                let events = self.events.entry(uid).or_default();
                if events.len() < EVENTS_MAX {
                    events.push(event);
                }
            }
            // What is not running here: templates, namespaces, other nodes.
            Converted::Template { .. }
            | Converted::Namespace(_)
            | Converted::Node(_)
            | Converted::CniNode { .. }
            | Converted::CsiNode { .. }
            | Converted::Skipped { .. } => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const POD: &str =
        "apiVersion: v1\nkind: Pod\nmetadata: {name: NAME, namespace: shop, uid: u}\nspec: {nodeName: NODE}\n---\n";

    fn pod(name: &str, node: &str) -> String {
        POD.replace("NAME", name).replace("NODE", node)
    }

    /// The pods that are told next.
    async fn next(facts: &mut mpsc::Receiver<Vec<Input>>) -> Vec<String> {
        while let Ok(Some(batch)) = tokio::time::timeout(Duration::from_secs(30), facts.recv()).await {
            for input in batch {
                if let Input::Cluster(fact) = input
                    && let ClusterFact::PodsReplaced(all) = *fact
                {
                    return all.iter().map(|pod| pod.name.to_string()).collect();
                }
            }
        }
        panic!("nothing was told");
    }

    #[tokio::test]
    async fn a_directory_is_told_and_told_again_when_it_changes() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("pods.yaml");
        std::fs::write(&file, pod("a", "n1") + &pod("far", "n2")).unwrap();
        let (tell, mut facts) = mpsc::channel(16);
        let path = directory.path().to_owned();
        let work = tokio::spawn(follow(path, "n1".into(), Conversion::default(), tell, || WallNs(1)));
        assert_eq!(next(&mut facts).await, ["a"]);
        std::fs::write(&file, pod("a", "n1") + "kind: [\n---\n" + &pod("bb", "n1")).unwrap();
        assert_eq!(next(&mut facts).await, ["a", "bb"]);
        work.abort();
    }

    #[test]
    fn services_with_addresses_are_read() {
        let directory = tempfile::tempdir().unwrap();
        let of = |name: &str, spec: &str| {
            format!("apiVersion: v1\nkind: Service\nmetadata: {{name: {name}}}\nspec: {spec}\n---\n")
        };
        let text = of("a", "{clusterIP: 172.20.0.9}") + &of("b", "{clusterIP: None}") + &of("c", "{clusterIP: 7}");
        std::fs::write(directory.path().join("a.yaml"), text).unwrap();
        let read = read(directory.path(), "n1", &Conversion::default());
        assert_eq!(read.services.iter().map(|service| &*service.name).collect::<Vec<_>>(), ["a"]);
        assert_eq!(read.malformed.iter().map(|(source, _)| *source).collect::<Vec<_>>(), [Source::Services]);
    }

    #[test]
    fn network_policies_are_read() {
        let directory = tempfile::tempdir().unwrap();
        let text = "apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata: {name: deny, namespace: shop}\n";
        std::fs::write(directory.path().join("a.yaml"), format!("{text}spec: {{podSelector: {{}}}}\n")).unwrap();
        std::fs::write(directory.path().join("b.yaml"), format!("{text}spec: {{podSelector: 7}}\n")).unwrap();
        let read = read(directory.path(), "n1", &Conversion::default());
        let names: Vec<_> = read.network_policies.iter().map(|policy| &*policy.name).collect();
        assert_eq!(names, ["deny"]);
        assert_eq!(read.malformed.iter().map(|(source, _)| *source).collect::<Vec<_>>(), [Source::NetworkPolicies]);
    }

    #[tokio::test]
    async fn a_directory_without_network_policies_says_that_there_are_none() {
        let directory = tempfile::tempdir().unwrap();
        let (tell, mut facts) = mpsc::channel(16);
        let path = directory.path().to_owned();
        let work = tokio::spawn(follow(path, "n1".into(), Conversion::default(), tell, || WallNs(1)));
        let batch = tokio::time::timeout(Duration::from_secs(30), facts.recv()).await.unwrap().unwrap();
        let none = Input::Cluster(Box::new(ClusterFact::NetworkPoliciesReplaced(Vec::new())));
        assert!(batch.contains(&none), "{batch:?}");
        work.abort();
    }
}
