//! `NetworkPolicy` objects of the namespaces that have a pod here: listed when the first pod of a namespace comes, and again
//! every few minutes. They only keep a verdict back, so minutes are soon enough, and a watch would bring every one of the
//! cluster to every node.
//!
//! They are told all at once and only when each namespace has been read: a part would look like the whole.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use agent_core::facts::{ClusterFact, NetworkPolicyFacts, Source};
use agent_core::time::WallNs;
use kube::Api;
use kube::api::ListParams;
use tokio::sync::watch::Receiver;
use tokio::time::{Instant, timeout};

use super::access::{ANSWER_WAIT, Access};
use super::convert::{Conversion, Converted};
use super::kinds::{self, Slim};
use super::pace;
use super::pods::Wanted;
use super::teller::Teller;
use super::trouble::{Kind, Trouble};
use super::turns::{Turn, Turns};

/// Between two lists of a namespace: this, and up to half as much again. 20 namespaces on a node make 0.04 requests a second.
const LIST_EVERY: Duration = Duration::from_secs(400);
/// Between any two lists.
const PACE: Duration = Duration::from_millis(200);
/// Policies that are kept: some 500 bytes each, 1 MiB in all. A namespace has a handful, a node some tens of namespaces.
const POLICIES_MAX: usize = 2_000;

type Object = Slim<kinds::NetworkPolicies>;

/// A namespace: when to list it, and what the last list said.
struct Entry {
    due: Instant,
    /// When it was read; `None`: not yet.
    read_at: Option<WallNs>,
    /// The last attempt to list it failed.
    failed: bool,
    policies: Vec<Arc<NetworkPolicyFacts>>,
    /// Policies of it for which there was no room.
    left_out: usize,
}

/// Follows the network policies, for ever.
pub(super) async fn follow(access: &Access, teller: &Teller, jitter: Duration, wants: Receiver<Arc<Wanted>>) {
    let mut turns = Turns::begin(access, teller, Source::NetworkPolicies, jitter, wants).await;
    let mut entries: BTreeMap<Arc<str>, Entry> = BTreeMap::new();
    loop {
        let wanted = turns.wanted();
        entries.retain(|namespace, _| wanted.namespaces.contains(namespace));
        for namespace in &wanted.namespaces {
            entries.entry(Arc::clone(namespace)).or_insert_with(Entry::new);
        }
        tell(teller, &entries).await;
        let namespace = match turns.next(entries.iter().map(|(name, entry)| (Arc::clone(name), entry.due))).await {
            Turn::Ask(namespace) => namespace,
            Turn::Look => continue,
            Turn::End => return,
        };
        let read = list(access, teller, &namespace).await;
        let others: usize =
            entries.iter().filter(|(name, _)| **name != namespace).map(|(_, entry)| entry.policies.len()).sum();
        let Some(entry) = entries.get_mut(&namespace) else { continue };
        match read {
            Ok(mut policies) => {
                let room = POLICIES_MAX.saturating_sub(others);
                let left_out = policies.len().saturating_sub(room);
                policies.truncate(room);
                let due = Instant::now() + pace::jittered(LIST_EVERY);
                *entry = Entry { due, read_at: Some(teller.now()), failed: false, policies, left_out };
                turns.answered(PACE);
                tell(teller, &entries).await;
                teller.no_room(Source::NetworkPolicies, left_out).await;
                stand(teller, &entries).await;
            }
            Err(trouble) => {
                // Behind the others that are due: one namespace that is refused does not keep them from being read.
                (entry.due, entry.failed) = (turns.failed(trouble).await, true);
            }
        }
    }
}

/// Tells all of them, once all are read; the teller passes on what is new.
async fn tell(teller: &Teller, entries: &BTreeMap<Arc<str>, Entry>) {
    if !entries.is_empty() && entries.values().all(|entry| entry.read_at.is_some()) {
        let all = entries.values().flat_map(|entry| entry.policies.iter().cloned()).collect();
        teller.tell(vec![ClusterFact::NetworkPoliciesReplaced(all)]).await;
    }
}

/// Says how the source stands: as old as the oldest list, and not whole when there was no room for all.
async fn stand(teller: &Teller, entries: &BTreeMap<Arc<str>, Entry>) {
    let left_out: usize = entries.values().map(|entry| entry.left_out).sum();
    if left_out > 0 {
        let text = format!("{left_out} network policies are left out: more than {POLICIES_MAX} in the namespaces here");
        return teller.trouble(Source::NetworkPolicies, Trouble::passing(text)).await;
    }
    let all_read: Option<Vec<WallNs>> = entries.values().map(|entry| entry.read_at).collect();
    let oldest = all_read.and_then(|times| times.into_iter().min());
    // While one namespace cannot be read, the others that can do not make the source well.
    if let Some(oldest) = oldest.filter(|_| !entries.values().any(|entry| entry.failed)) {
        teller.fresh(Source::NetworkPolicies, oldest).await;
    }
}

/// The policies of a namespace, from the server's cache, by name.
async fn list(access: &Access, teller: &Teller, namespace: &str) -> Result<Vec<Arc<NetworkPolicyFacts>>, Trouble> {
    let api: Api<Object> = Api::namespaced(access.client().await?, namespace);
    let answer = timeout(ANSWER_WAIT, api.list(&ListParams::default().match_any())).await;
    let list = match answer.map_err(|_| Trouble::passing("no answer to a list of network policies"))? {
        Ok(list) => list,
        Err(error) => match Trouble::of(&error) {
            // A server without the kind, and so without policies of it.
            trouble if trouble.kind == Kind::Absent => return Ok(Vec::new()),
            trouble => return Err(trouble),
        },
    };
    let mut policies = Vec::new();
    for object in list.items {
        match object.facts(&Conversion::default()) {
            Converted::NetworkPolicy(policy) => policies.push(Arc::from(policy)),
            Converted::Malformed(malformed) => teller.malformed(Source::NetworkPolicies, malformed).await,
            _ => {}
        }
    }
    // A cache need not keep an order, and another order is no news.
    policies.sort_by(|a: &Arc<NetworkPolicyFacts>, b| a.name.cmp(&b.name));
    Ok(policies)
}

// === impl Entry ===

impl Entry {
    /// One that is to be read at once.
    fn new() -> Self {
        Self { due: Instant::now(), read_at: None, failed: false, policies: Vec::new(), left_out: 0 }
    }
}
