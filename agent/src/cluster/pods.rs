//! Pods of this node, and what others want to know because of them.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use agent_core::facts::{Branch, ClusterFact, PodFacts, Source};
use agent_core::time::WallNs;
use kube::{Api, Client};
use tokio::sync::watch::Sender;

use super::Options;
use super::access::Access;
use super::convert::{Conversion, Converted};
use super::kinds::{self, Slim};
use super::known::Name;
use super::teller::Teller;
use super::watch::{Change, Watch};
use crate::memory;

/// More pods than any kubelet runs: 250 is the most that EKS recommends, and 4 KiB of facts each is 8 MiB here.
const PODS_MAX: usize = 2_000;

/// What this node's pods make others look for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Wanted {
    /// Service accounts that pods name.
    pub(super) accounts: BTreeSet<Name>,
    /// Namespaces with pods.
    pub(super) namespaces: BTreeSet<Arc<str>>,
    /// Pods that have or want a branch interface, by uid: namespace, and when the kubelet took it on. Before that a pod may
    /// have waited for a node with a free one for hours.
    pub(super) branches: BTreeMap<Arc<str>, (Arc<str>, Option<WallNs>)>,
}

/// Follows the pods, for ever.
pub(super) async fn follow(access: &Access, teller: &Teller, options: &Options, wanted: Sender<Arc<Wanted>>) {
    let selector = format!("spec.nodeName={}", options.node);
    want(teller, &wanted);
    let mut watch = Watch::<kinds::Pods>::new(access, Some(selector), |client: Client| Api::all(client));
    loop {
        match watch.next().await {
            Change::All(objects) => {
                let mut pods = Vec::new();
                let left_out = objects.len().saturating_sub(PODS_MAX);
                for object in objects.into_iter().take(PODS_MAX) {
                    pods.extend(pod(object, teller, &options.conversion).await);
                }
                // The list as JSON was a hundred times what is kept of it.
                memory::give_back();
                teller.tell(vec![ClusterFact::PodsReplaced(pods)]).await;
                teller.no_room(Source::Pods, left_out).await;
                teller.alive(Source::Pods).await;
            }
            Change::Applied(object) => {
                if let Some(pod) = pod(object, teller, &options.conversion).await {
                    let room = teller.known(|known| {
                        known.pods.len() < PODS_MAX || known.pods.iter().any(|other| other.uid == pod.uid)
                    });
                    if room {
                        teller.tell(vec![ClusterFact::Pod(pod)]).await;
                    } else {
                        teller.no_room(Source::Pods, 1).await;
                    }
                }
                teller.alive(Source::Pods).await;
            }
            Change::Gone(object) => {
                if let Some(uid) = object.uid() {
                    teller.tell(vec![ClusterFact::PodGone { uid: uid.into() }]).await;
                }
                teller.alive(Source::Pods).await;
            }
            Change::Alive => {
                teller.alive(Source::Pods).await;
                continue;
            }
            Change::Trouble(trouble) => {
                teller.trouble(Source::Pods, trouble).await;
                continue;
            }
        }
        want(teller, &wanted);
    }
}

async fn pod(object: Slim<kinds::Pods>, teller: &Teller, conversion: &Conversion) -> Option<Arc<PodFacts>> {
    let (namespace, name) = (object.namespace().to_owned(), object.name().to_owned());
    match object.facts(conversion) {
        Converted::Pod(pod) => return Some(Arc::from(pod)),
        Converted::Malformed(malformed) => teller.malformed(Source::Pods, malformed).await,
        _ => teller.malformed(Source::Pods, Slim::<kinds::Pods>::not_its_kind(&namespace, &name)).await,
    }
    None
}

/// Says what is wanted, if that changed.
fn want(teller: &Teller, wanted: &Sender<Arc<Wanted>>) {
    let wants = teller.known(|known| Wanted::of(&known.pods));
    wanted.send_if_modified(|before| {
        let new = **before != wants;
        if new {
            *before = Arc::new(wants);
        }
        new
    });
}

// === impl Wanted ===

impl Wanted {
    fn of(pods: &[Arc<PodFacts>]) -> Self {
        let mut wanted = Self::default();
        for pod in pods {
            wanted.namespaces.insert(Arc::clone(&pod.namespace));
            wanted.accounts.insert((Arc::clone(&pod.namespace), Arc::clone(&pod.service_account)));
            if let Some(uid) = &pod.uid
                && (pod.branch != Branch::Absent || pod.branch_limit > 0)
            {
                wanted.branches.insert(Arc::clone(uid), (Arc::clone(&pod.namespace), pod.started));
            }
        }
        wanted
    }
}
