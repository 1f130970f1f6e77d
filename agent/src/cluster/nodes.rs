//! This node, its `CNINode` and its `CSINode`: a watch of one object each.

use std::sync::Arc;
use std::time::Duration;

use agent_core::facts::ClusterFact;
use kube::{Api, Client};

use super::Options;
use super::access::Access;
use super::convert::{Conversion, Converted};
use super::kinds::{self, Kind, Slim};
use super::pace;
use super::teller::Teller;
use super::trouble::{self, Trouble};
use super::watch::{Change, Watch};

/// Follows the three, for ever.
pub(super) async fn follow(access: &Access, teller: &Teller, options: &Options) {
    tokio::join!(
        one::<kinds::Nodes>(access, teller, options, || None),
        one::<kinds::CniNodes>(access, teller, options, || Some(ClusterFact::CniNode(None))),
        one::<kinds::CsiNodes>(access, teller, options, || Some(ClusterFact::CsiNode(None))),
    );
}

/// Follows the one object that has the node's name. `none` is the fact that there is none, where that can be.
async fn one<K: Kind>(access: &Access, teller: &Teller, options: &Options, none: fn() -> Option<ClusterFact>)
where
    Slim<K>: kube::Resource<DynamicType = ()>,
{
    tokio::time::sleep(pace::up_to(options.start_jitter.min(START_MAX))).await;
    let selector = format!("metadata.name={}", options.node);
    let mut watch = Watch::<K>::new(access, Some(selector), |client: Client| Api::all(client));
    // Without an object nothing is current, whatever the watch says of itself.
    let mut found = true;
    loop {
        let told = match watch.next().await {
            Change::All(objects) => {
                let object = objects.into_iter().next();
                let text = match object {
                    Some(_) => format!("the object of {} cannot be read", options.node),
                    None => format!(
                        "nothing has the name {}; is that the name of the node? It is set by node_name",
                        options.node
                    ),
                };
                // What cannot be read is not absent.
                let fact = match object {
                    Some(object) => read(object, teller, &options.conversion).await,
                    None => none(),
                };
                found = fact.is_some();
                if !found {
                    teller.trouble(K::SOURCE, Trouble::passing(text)).await;
                }
                fact
            }
            Change::Applied(object) => {
                let fact = read(object, teller, &options.conversion).await;
                found |= fact.is_some();
                fact
            }
            Change::Gone(_) => {
                found = none().is_some();
                none()
            }
            Change::Alive => None,
            // The CRD is not there, and so neither is the object.
            Change::Trouble(trouble) if trouble.kind == trouble::Kind::Absent && none().is_some() => none(),
            Change::Trouble(trouble) => {
                teller.trouble(K::SOURCE, trouble).await;
                continue;
            }
        };
        teller.tell(told.into_iter().collect()).await;
        if found {
            teller.alive(K::SOURCE).await;
        }
    }
}

/// These are three requests a node, and whether security groups for pods work here hangs on them.
const START_MAX: Duration = Duration::from_secs(10);

async fn read<K: Kind>(object: Slim<K>, teller: &Teller, conversion: &Conversion) -> Option<ClusterFact> {
    match object.facts(conversion) {
        Converted::Node(node) => Some(ClusterFact::Node(Arc::from(node))),
        Converted::CniNode { facts, .. } => Some(ClusterFact::CniNode(Some(facts))),
        Converted::CsiNode { facts, .. } => Some(ClusterFact::CsiNode(Some(facts))),
        Converted::Malformed(malformed) => {
            teller.malformed(K::SOURCE, malformed).await;
            None
        }
        _ => None,
    }
}
