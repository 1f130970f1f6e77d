//! `NetworkPolicy` objects of the namespaces that have a pod here, and the `PolicyEndpoint` objects in which AWS's controller
//! tells the VPC CNI what to enforce: listed when the first pod of a namespace comes, and again every few minutes. They only keep a verdict back, so minutes are soon enough, and a watch would bring every one of the
//! cluster to every node.
//!
//! They are told all at once and only when each namespace has been read: a part would look like the whole. Of the endpoints
//! those are told that say something which no policy says: of kinds of policies that are not read here, and of a policy that
//! is gone and still enforced.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use agent_core::facts::{ClusterFact, NetworkPolicyFacts, Source};
use agent_core::time::WallNs;
use kube::Api;
use kube::api::ListParams;
use kube::core::NamespaceResourceScope;
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

/// Between two lists of a namespace: this, and up to half as much again. 20 namespaces on a node make 0.04 requests a second,
/// and twice as many where there are endpoints.
const LIST_EVERY: Duration = Duration::from_secs(400);
/// Between any two lists.
const PACE: Duration = Duration::from_millis(200);
/// Policies that are kept: some 500 bytes each, 1 MiB in all. A namespace has a handful, a node some tens of namespaces.
const POLICIES_MAX: usize = 2_000;

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
    let mut lists = Lists { access, teller, no_endpoints_until: None };
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
        let read = lists.of(&namespace).await;
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

/// Reads namespaces.
struct Lists<'a> {
    access: &'a Access,
    teller: &'a Teller,
    /// The server does not have the kind of endpoints, and is asked for them again then.
    no_endpoints_until: Option<Instant>,
}

// === impl Lists ===

impl Lists<'_> {
    /// What there is in a namespace, by name.
    async fn of(&mut self, namespace: &str) -> Result<Vec<Arc<NetworkPolicyFacts>>, Trouble> {
        // A server without the kind has no policies of it.
        let mut policies = self.all::<kinds::NetworkPolicies>(namespace).await?.unwrap_or_default();
        if self.no_endpoints_until.is_none_or(|until| until <= Instant::now()) {
            let endpoints = self.all::<kinds::PolicyEndpoints>(namespace).await?;
            self.no_endpoints_until = endpoints.is_none().then(|| Instant::now() + LIST_EVERY);
            let news =
                endpoints.into_iter().flatten().filter(|endpoint| !policies.iter().any(|of| is_of(endpoint, of)));
            let news: Vec<_> = news.collect();
            policies.extend(news);
        }
        // A cache need not keep an order, and another order is no news.
        policies.sort_by(|a, b| (&a.name, &a.made_of).cmp(&(&b.name, &b.made_of)));
        Ok(policies)
    }

    /// All objects of a kind, from the server's cache; `None`: the server does not have the kind.
    async fn all<K: kinds::Kind<Scope = NamespaceResourceScope>>(
        &self,
        namespace: &str,
    ) -> Result<Option<Vec<Arc<NetworkPolicyFacts>>>, Trouble> {
        let api: Api<Slim<K>> = Api::namespaced(self.access.client().await?, namespace);
        let answer = timeout(ANSWER_WAIT, api.list(&ListParams::default().match_any())).await;
        let list = match answer.map_err(|_| Trouble::passing(format!("no answer to a list of {}", K::PLURAL)))? {
            Ok(list) => list,
            Err(error) => match Trouble::of(&error) {
                trouble if trouble.kind == Kind::Absent => return Ok(None),
                trouble => return Err(trouble),
            },
        };
        let mut policies = Vec::new();
        for object in list.items {
            match object.facts(&Conversion::default()) {
                Converted::NetworkPolicy(policy) => policies.push(Arc::from(policy)),
                Converted::Malformed(malformed) => self.teller.malformed(Source::NetworkPolicies, malformed).await,
                _ => {}
            }
        }
        Ok(Some(policies))
    }
}

/// Whether an endpoint says what the policy says that it was made of.
fn is_of(endpoint: &NetworkPolicyFacts, policy: &NetworkPolicyFacts) -> bool {
    let of =
        NetworkPolicyFacts { name: Arc::clone(&endpoint.name), made_of: endpoint.made_of.clone(), ..policy.clone() };
    endpoint.made_of.as_ref() == Some(&policy.name) && of == *endpoint
}

// === impl Entry ===

impl Entry {
    /// One that is to be read at once.
    fn new() -> Self {
        Self { due: Instant::now(), read_at: None, failed: false, policies: Vec::new(), left_out: 0 }
    }
}
