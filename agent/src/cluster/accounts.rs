//! Service accounts that pods of this node name: read when the first pod names one, and again every few minutes. A watch
//! would bring every account of the cluster to every node.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use agent_core::facts::{ClusterFact, Source};
use agent_core::time::WallNs;
use kube::Api;
use kube::api::GetParams;
use tokio::sync::watch::Receiver;
use tokio::time::{Instant, timeout};

use super::Options;
use super::access::{ANSWER_WAIT, Access};
use super::convert::{Conversion, Converted};
use super::kinds::{self, Slim};
use super::known::Name;
use super::pace;
use super::pods::Wanted;
use super::teller::Teller;
use super::trouble::{Kind, Trouble};
use super::turns::{Turn, Turns};

/// Between two reads of an account: this, and up to half as much again. 40 accounts on a node make 0.1 requests a second.
const READ_EVERY: Duration = Duration::from_secs(400);
/// Between any two reads: the first look at a full node is spread over half a minute.
const PACE: Duration = Duration::from_millis(200);
/// Accounts that are kept: not more than there are pods, so none is left out.
const ACCOUNTS_MAX: usize = 2_000;

/// An account and when to read it.
struct Entry {
    due: Instant,
    read_at: Option<WallNs>,
}

/// Reads accounts, for ever.
pub(super) async fn follow(access: &Access, teller: &Teller, options: &Options, wants: Receiver<Arc<Wanted>>) {
    let mut turns = Turns::begin(access, teller, Source::ServiceAccounts, options.start_jitter, wants).await;
    let mut entries: BTreeMap<Name, Entry> = BTreeMap::new();
    loop {
        let wanted = turns.wanted();
        entries.retain(|name, _| wanted.accounts.contains(name));
        for name in wanted.accounts.iter().take(ACCOUNTS_MAX) {
            entries.entry(name.clone()).or_insert_with(|| Entry { due: Instant::now(), read_at: None });
        }
        forget(teller, &wanted).await;
        let name = match turns.next(entries.iter().map(|(name, entry)| (name.clone(), entry.due))).await {
            Turn::Ask(name) => name,
            Turn::Look => continue,
            Turn::End => return,
        };
        match read(access, &name, &options.conversion).await {
            Ok(fact) => {
                if let Some(entry) = entries.get_mut(&name) {
                    *entry = Entry { due: Instant::now() + pace::jittered(READ_EVERY), read_at: Some(teller.now()) };
                }
                teller.tell(vec![fact]).await;
                // As old as the oldest of them.
                let all_read: Option<Vec<WallNs>> = entries.values().map(|entry| entry.read_at).collect();
                if let Some(oldest) = all_read.and_then(|times| times.into_iter().min()) {
                    teller.fresh(Source::ServiceAccounts, oldest).await;
                }
                turns.answered(PACE);
            }
            Err(trouble) => {
                let due = turns.failed(trouble).await;
                // Behind the others that are due: one that is refused does not keep them from being read.
                if let Some(entry) = entries.get_mut(&name) {
                    entry.due = due;
                }
            }
        }
    }
}

/// Accounts that no pod names any more.
async fn forget(teller: &Teller, wanted: &Wanted) {
    let left: Vec<ClusterFact> = teller.known(|known| {
        let name = |account: &agent_core::facts::ServiceAccountFacts| {
            (Arc::clone(&account.namespace), Arc::clone(&account.name))
        };
        let left = known.accounts.iter().map(|account| name(account)).filter(|name| !wanted.accounts.contains(name));
        left.map(|(namespace, name)| ClusterFact::ServiceAccountGone { namespace, name }).collect()
    });
    teller.tell(left).await;
}

async fn read(access: &Access, name: &Name, conversion: &Conversion) -> Result<ClusterFact, Trouble> {
    let (namespace, name) = name;
    let api: Api<Slim<kinds::Accounts>> = Api::namespaced(access.client().await?, namespace);
    // From the server's cache; and when that does not have it yet, as it is.
    for params in [GetParams::any(), GetParams::default()] {
        let answer = timeout(ANSWER_WAIT, api.get_with(name, &params)).await;
        let object = match answer.map_err(|_| Trouble::passing("no answer to the read of a service account"))? {
            Ok(object) => object,
            Err(error) => match Trouble::of(&error) {
                trouble if trouble.kind == Kind::Absent => continue,
                trouble => return Err(trouble),
            },
        };
        return Ok(match object.facts(conversion) {
            Converted::ServiceAccount(account) => ClusterFact::ServiceAccount(Arc::from(account)),
            Converted::Malformed(malformed) => {
                ClusterFact::Malformed { source: Source::ServiceAccounts, object: malformed.object, why: malformed.why }
            }
            _ => return Err(Trouble::passing("the answer is no service account")),
        });
    }
    Ok(ClusterFact::ServiceAccountGone { namespace: Arc::clone(namespace), name: Arc::clone(name) })
}
