//! Services, of the whole cluster: pods anywhere use services from everywhere, and only all of them tell which addresses are
//! services'. One watch, as the kubelet and kube-proxy of each node have one too: services change with deployments, not with
//! pods, and 1 KiB an event is little. Endpoints change with every pod, so those are never watched: which one answered is
//! told by the node's own connection tracking.
//!
//! The API server's own endpoints are the exception: its clients may know them without its service. They are read from the
//! server's cache every few minutes: for 900 nodes two requests a second, where a watch would be 900 more to hold.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use agent_core::facts::{ClusterFact, ServiceFacts, Source};
use kube::api::ListParams;
use kube::{Api, Client};
use tokio::time::timeout;

use super::access::{ANSWER_WAIT, Access};
use super::convert::service;
use super::kinds::{self, Slim};
use super::pace::{self, Backoff};
use super::teller::Teller;
use super::trouble::{Kind, Trouble};
use super::watch::{Change, Watch};
use crate::memory;

/// Services that are kept: as many as the core keeps.
const SERVICES_MAX: usize = agent_core::cluster::MAX_SERVICES;
/// Between two reads of the API server's endpoints: this, and up to half as much again.
const READ_EVERY: Duration = Duration::from_secs(400);
/// The service of the API server: its namespace, and how its endpoint slices name it.
const API_NAMESPACE: &str = "default";
const API_LABEL: &str = "kubernetes.io/service-name=kubernetes";

type Object = Slim<kinds::Services>;

/// Follows services and the API server's endpoints, for ever.
pub(super) async fn follow(access: &Access, teller: &Teller, jitter: Duration) {
    tokio::time::sleep(pace::up_to(jitter)).await;
    tokio::join!(watch(access, teller), read(access, teller));
}

async fn watch(access: &Access, teller: &Teller) {
    let mut watch = Watch::<kinds::Services>::new(access, None, |client: Client| Api::all(client));
    loop {
        match watch.next().await {
            Change::All(objects) => {
                let mut services = Vec::new();
                for object in objects {
                    services.extend(facts(object, teller).await.filter(|service| service.has_addresses()));
                }
                let left_out = services.len().saturating_sub(SERVICES_MAX);
                services.truncate(SERVICES_MAX);
                memory::give_back();
                teller.tell(vec![ClusterFact::ServicesReplaced(services)]).await;
                teller.no_room(Source::Services, left_out).await;
            }
            Change::Applied(object) => {
                let gone = gone(&object);
                if let Some(service) = facts(object, teller).await {
                    changed(service, gone, teller).await;
                }
            }
            Change::Gone(object) => teller.tell(vec![gone(&object)]).await,
            Change::Alive => {}
            Change::Trouble(trouble) => {
                teller.trouble(Source::Services, trouble).await;
                continue;
            }
        }
        teller.alive(Source::Services).await;
    }
}

/// One came, changed, or has no addresses any more.
async fn changed(service: Arc<ServiceFacts>, gone: ClusterFact, teller: &Teller) {
    let (is_known, room) = teller.known(|known| {
        let is = |other: &Arc<ServiceFacts>| other.namespace == service.namespace && other.name == service.name;
        (known.services.iter().any(is), known.services.len() < SERVICES_MAX)
    });
    match (service.has_addresses(), is_known) {
        (true, true) => teller.tell(vec![ClusterFact::Service(service)]).await,
        (true, false) if room => teller.tell(vec![ClusterFact::Service(service)]).await,
        (true, false) => teller.no_room(Source::Services, 1).await,
        (false, true) => teller.tell(vec![gone]).await,
        (false, false) => {}
    }
}

async fn facts(object: Object, teller: &Teller) -> Option<Arc<ServiceFacts>> {
    match service::shared(object.value()) {
        Ok(service) => Some(service),
        Err(malformed) => {
            teller.malformed(Source::Services, malformed).await;
            None
        }
    }
}

fn gone(object: &Object) -> ClusterFact {
    ClusterFact::ServiceGone { namespace: object.namespace().into(), name: object.name().into() }
}

/// Reads where the API server listens, for ever.
async fn read(access: &Access, teller: &Teller) {
    let mut backoff = Backoff::new();
    loop {
        match endpoints(access, teller).await {
            Ok(endpoints) => {
                teller.tell(vec![ClusterFact::ApiEndpoints(endpoints)]).await;
                teller.alive(Source::ApiEndpoints).await;
                tokio::time::sleep(pace::jittered(READ_EVERY)).await;
            }
            Err(trouble) => {
                if trouble.kind == Kind::Unauthorized {
                    access.refused();
                }
                let at = backoff.next(trouble.pause());
                teller.trouble(Source::ApiEndpoints, trouble).await;
                tokio::time::sleep_until(at).await;
            }
        }
    }
}

async fn endpoints(access: &Access, teller: &Teller) -> Result<Vec<SocketAddr>, Trouble> {
    let api: Api<Slim<kinds::EndpointSlices>> = Api::namespaced(access.client().await?, API_NAMESPACE);
    let params = ListParams::default().labels(API_LABEL).match_any();
    let answer = timeout(ANSWER_WAIT, api.list(&params)).await;
    let list = match answer.map_err(|_| Trouble::passing("no answer to a list of the API server's endpoints"))? {
        Ok(list) => list,
        Err(error) => match Trouble::of(&error) {
            // A server without the kind: its own service is then all that is known of it.
            trouble if trouble.kind == Kind::Absent => return Ok(Vec::new()),
            trouble => return Err(trouble),
        },
    };
    let mut all = Vec::new();
    for slice in list.items {
        match service::endpoints(slice.value()) {
            Ok(endpoints) => all.extend(endpoints),
            Err(malformed) => teller.malformed(Source::ApiEndpoints, malformed).await,
        }
    }
    // Another order is no news.
    all.sort_unstable();
    all.dedup();
    Ok(all)
}
