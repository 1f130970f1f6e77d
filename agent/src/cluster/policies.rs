//! `SecurityGroupPolicy` objects of the namespaces that have a pod here.
//!
//! One watch over all namespaces costs the API server less than one for each namespace of each node, and policies change
//! rarely. What is of no namespace here is dropped at once; when a first pod of a namespace comes, its policies are listed.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use agent_core::facts::{ClusterFact, PolicyFacts, Source};
use futures_util::{StreamExt as _, stream};
use kube::api::ListParams;
use kube::{Api, Client};
use tokio::sync::watch::Receiver;
use tokio::time::{Instant, timeout};

use super::access::{ANSWER_WAIT, Access};
use super::convert::{Conversion, Converted};
use super::kinds::{self, Slim};
use super::pace::{self, Backoff};
use super::pods::Wanted;
use super::teller::Teller;
use super::trouble::{Kind, Trouble};
use super::watch::{Change, Watch};
use crate::memory;

/// Policies that are kept: some 1 KiB each, and no cluster that is known has more than some hundred in all.
const POLICIES_MAX: usize = 2_000;

type Object = Slim<kinds::Policies>;

/// Follows the policies, for ever.
pub(super) async fn follow(access: &Access, teller: &Teller, jitter: Duration, wants: Receiver<Arc<Wanted>>) {
    tokio::time::sleep(pace::up_to(jitter)).await;
    let watch = Watch::new(access, None, |client: Client| Api::all(client));
    let mut follower =
        Follower { access, teller, wants, here: BTreeSet::new(), pending: BTreeSet::new(), listed: false };
    follower.run(watch).await;
}

struct Follower<'a> {
    access: &'a Access,
    teller: &'a Teller,
    wants: Receiver<Arc<Wanted>>,
    /// Namespaces whose policies are kept.
    here: BTreeSet<Arc<str>>,
    /// Those of them that are new, whose policies are not listed yet.
    pending: BTreeSet<Arc<str>>,
    /// The watch has told all there are.
    listed: bool,
}

// === impl Follower ===

impl Follower<'_> {
    async fn run(&mut self, watch: Watch<kinds::Policies>) {
        // What is under way goes on while something else happens: a list would be asked for anew with each pod that comes.
        let changes = stream::unfold(watch, |mut watch| async move { Some((watch.next().await, watch)) });
        let mut changes = std::pin::pin!(changes);
        let mut backoff = Backoff::new();
        let mut not_before = Instant::now();
        self.here.clone_from(&self.wants.borrow_and_update().namespaces);
        loop {
            let namespace = self.pending.first().filter(|_| self.listed).cloned();
            tokio::select! {
                Some(change) = changes.next() => self.changed(change).await,
                Ok(()) = self.wants.changed() => self.moved().await,
                () = tokio::time::sleep_until(not_before), if namespace.is_some() => {
                    // While this is under way the watch's events wait, so what they tell later is later.
                    if let Some(namespace) = namespace
                        && let Err(trouble) = self.list(&namespace).await
                    {
                        not_before = backoff.next(trouble.pause());
                        self.teller.trouble(Source::Policies, trouble).await;
                    }
                }
            }
        }
    }

    async fn changed(&mut self, change: Change<kinds::Policies>) {
        match change {
            Change::All(objects) => {
                let mut policies = Vec::new();
                for object in objects {
                    policies.extend(self.policy(object).await);
                }
                let left_out = policies.len().saturating_sub(POLICIES_MAX);
                policies.truncate(POLICIES_MAX);
                // Most of what was read is of other namespaces.
                memory::give_back();
                self.listed = true;
                self.pending.clear();
                self.teller.tell(vec![ClusterFact::PoliciesReplaced { policies, installed: true }]).await;
                self.teller.no_room(Source::Policies, left_out).await;
                self.teller.alive(Source::Policies).await;
            }
            Change::Applied(object) => {
                if let Some(policy) = self.policy(object).await {
                    self.keep(vec![policy]).await;
                }
                self.teller.alive(Source::Policies).await;
            }
            Change::Gone(object) => {
                if self.here.contains(object.namespace()) {
                    let (namespace, name) = (object.namespace().into(), object.name().into());
                    self.teller.tell(vec![ClusterFact::PolicyGone { namespace, name }]).await;
                }
                self.teller.alive(Source::Policies).await;
            }
            Change::Alive => self.teller.alive(Source::Policies).await,
            // The CRD is not there, which is an answer; the watch asks again after a few minutes.
            Change::Trouble(trouble) if trouble.kind == Kind::Absent => {
                self.listed = false;
                self.pending.clear();
                self.teller.tell(vec![ClusterFact::PoliciesReplaced { policies: Vec::new(), installed: false }]).await;
                self.teller.alive(Source::Policies).await;
            }
            Change::Trouble(trouble) => self.teller.trouble(Source::Policies, trouble).await,
        }
    }

    /// Pods came or went: so did namespaces, perhaps.
    async fn moved(&mut self) {
        let wanted = Arc::clone(&self.wants.borrow_and_update());
        let new: Vec<_> = wanted.namespaces.difference(&self.here).cloned().collect();
        self.here.clone_from(&wanted.namespaces);
        self.pending.retain(|namespace| wanted.namespaces.contains(namespace));
        self.pending.extend(new);
        let left: Vec<ClusterFact> = self.teller.known(|known| {
            let left = known.policies.iter().filter(|policy| !wanted.namespaces.contains(&policy.namespace));
            left.map(|policy| gone(policy)).collect()
        });
        self.teller.tell(left).await;
    }

    /// Reads the policies of a new namespace, as they are now: not from a cache that may be behind the watch, or a policy
    /// whose end the watch has told already would come back.
    async fn list(&mut self, namespace: &Arc<str>) -> Result<(), Trouble> {
        let api: Api<Object> = Api::namespaced(self.access.client().await?, namespace);
        let answer = timeout(ANSWER_WAIT, api.list(&ListParams::default())).await;
        let list = answer
            .map_err(|_| Trouble::passing("no answer to a list of policies"))?
            .map_err(|error| Trouble::of(&error))?;
        let mut policies: Vec<Arc<PolicyFacts>> = Vec::new();
        for object in list.items {
            policies.extend(self.policy(object).await);
        }
        let facts: Vec<ClusterFact> = self.teller.known(|known| {
            let here = known.policies.iter().filter(|policy| policy.namespace == *namespace);
            here.filter(|policy| !policies.iter().any(|now| now.name == policy.name))
                .map(|policy| gone(policy))
                .collect()
        });
        self.pending.remove(namespace);
        self.teller.tell(facts).await;
        self.keep(policies).await;
        Ok(())
    }

    /// Tells of policies that came or changed, as far as there is room for those that came.
    async fn keep(&self, policies: Vec<Arc<PolicyFacts>>) {
        let (mut kept, mut left_out) = (Vec::new(), 0);
        self.teller.known(|known| {
            let mut room = POLICIES_MAX.saturating_sub(known.policies.len());
            for policy in policies {
                let is = |other: &Arc<PolicyFacts>| other.namespace == policy.namespace && other.name == policy.name;
                if known.policies.iter().any(is) {
                    kept.push(ClusterFact::Policy(policy));
                } else if room > 0 {
                    room -= 1;
                    kept.push(ClusterFact::Policy(policy));
                } else {
                    left_out += 1;
                }
            }
        });
        self.teller.tell(kept).await;
        self.teller.no_room(Source::Policies, left_out).await;
    }

    /// The facts of a policy, if it matters here.
    async fn policy(&self, object: Object) -> Option<Arc<PolicyFacts>> {
        if !self.here.contains(object.namespace()) {
            return None;
        }
        match object.facts(&Conversion::default()) {
            Converted::Policy(policy) => return Some(Arc::from(policy)),
            Converted::Malformed(malformed) => self.teller.malformed(Source::Policies, malformed).await,
            _ => {}
        }
        None
    }
}

fn gone(policy: &PolicyFacts) -> ClusterFact {
    ClusterFact::PolicyGone { namespace: Arc::clone(&policy.namespace), name: Arc::clone(&policy.name) }
}
