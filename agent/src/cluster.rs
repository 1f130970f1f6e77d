//! The cluster: objects of the Kubernetes API, watched or read, become facts of the core here and go no further.
//!
//! ```text
//! pods of this node ──watch──┬──▶ facts ──▶ pump
//!        │ namespaces,       │              disk (read at a start without the API)
//!        │ accounts, uids    │
//!        ├─▶ policies ──watch┤    kept only of namespaces that have a pod here
//!        ├─▶ network policies┤    one list a namespace, when its first pod comes, and again every few minutes
//!        ├─▶ accounts ──gets─┤    metadata only, when a pod names one, and again every few minutes
//!        └─▶ events ───lists─┤    of the VPC resource controller, once a new pod with a branch interface
//! services ──────────watch───┤    of all namespaces; the API server's endpoints are read every few minutes
//! node, CNINode, CSINode ────┤    each a watch of one object
//! number of nodes ───────────┘    a list of one item, once an hour
//! ```
//!
//! What the agent costs the API server: four to six watches a node; first lists from the watch cache; all but pods start
//! within a jitter. What it costs the node: facts of this node's pods, and one list or one event as JSON while it is read.

mod access;
mod accounts;
pub(crate) mod convert;
mod directory;
mod disk;
mod examine;
mod fleet;
mod group_events;
mod kinds;
mod known;
mod network_policies;
mod nodes;
mod pace;
mod pods;
mod policies;
mod publish;
mod remote;
mod review;
mod services;
mod teller;
#[cfg(test)]
mod tests;
mod trouble;
mod turns;
mod watch;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use agent_core::input::Input;
use agent_core::time::WallNs;
use tokio::sync::mpsc;

use self::access::Access;
use self::convert::Conversion;
use self::teller::Teller;

pub(crate) use self::directory::follow as follow_directory;
pub(crate) use self::examine::{Finding, State, examine};
pub(crate) use self::publish::{Note, Publisher};
pub(crate) use self::remote::Asker;
pub(crate) use self::review::{Review, Reviewer};

/// How the cluster is reached and what is asked of it.
#[derive(Clone, Debug)]
pub(crate) struct Options {
    /// The node whose pods are followed.
    pub(crate) node: Arc<str>,
    /// A kubeconfig; `None`: the one that `KUBECONFIG` names, else the pod's own service account.
    pub(crate) kubeconfig: Option<PathBuf>,
    /// Where the last facts are kept; `None`: nowhere.
    pub(crate) facts_file: Option<PathBuf>,
    /// Everything but pods begins within this time, evenly spread over the nodes of a roll-out.
    pub(crate) start_jitter: Duration,
    /// How objects are read.
    pub(crate) conversion: Conversion,
    /// Write Kubernetes events about findings.
    pub(crate) events: bool,
    /// Look up who has the address of a remote peer.
    pub(crate) remote_lookup: bool,
    /// Ask who shows a token for metrics, and whether he may read them.
    pub(crate) reviews: bool,
    /// The wall clock.
    pub(crate) now: fn() -> WallNs,
}

impl Options {
    /// A cluster is named somewhere. Whether it answers is another matter: an agent of a cluster starts without it.
    pub(crate) fn names_a_cluster(&self) -> bool {
        let set = |name: &str| std::env::var_os(name).is_some_and(|value| !value.is_empty());
        self.kubeconfig.is_some() || set("KUBECONFIG") || set("KUBERNETES_SERVICE_HOST")
    }
}

/// The running part: polled by its owner until the agent stops.
pub(crate) struct Cluster {
    /// Goes on for ever.
    pub(crate) work: std::pin::Pin<Box<dyn Future<Output = ()> + Send>>,
    /// Takes addresses to look up; `None` when that is off.
    pub(crate) asker: Option<Asker>,
    /// Takes what Kubernetes events are written of; `None` when that is off.
    pub(crate) publisher: Option<Publisher>,
    /// Asks about tokens; `None` when nobody shows any.
    pub(crate) reviewer: Option<Reviewer>,
}

/// Puts the part together. Nothing is asked of anybody before its work is polled.
pub(crate) fn new(options: Options, tell: mpsc::Sender<Vec<Input>>) -> Cluster {
    let access = Access::new(options.kubeconfig.clone());
    let (asker, lookups) = options.remote_lookup.then(remote::queue).unzip();
    let (publisher, notes) = options.events.then(publish::queue).unzip();
    let reviewer = options.reviews.then(|| Reviewer::new(access.clone()));
    let work = Box::pin(async move {
        let teller = Teller::new(tell, options.now);
        let file = options.facts_file.as_ref().map(|path| disk::file(path.clone(), Arc::clone(&options.node)));
        if let Some(file) = &file
            && let Some(known) = file.load().await
        {
            teller.restore(known).await;
        }
        let (wanted, wants) = tokio::sync::watch::channel(Arc::default());
        let jitter = options.start_jitter;
        tokio::join!(
            pods::follow(&access, &teller, &options, wanted),
            policies::follow(&access, &teller, jitter, wants.clone()),
            network_policies::follow(&access, &teller, jitter, wants.clone()),
            accounts::follow(&access, &teller, &options, wants.clone()),
            group_events::follow(&access, &teller, jitter, wants),
            nodes::follow(&access, &teller, &options),
            fleet::follow(&access, &teller, options.start_jitter),
            disk::keep(file.as_ref(), &teller),
            services::follow(&access, &teller, jitter),
            remote::answer(&access, &teller, lookups),
            publish::publish(&access, &teller, &options.node, notes),
        );
    });
    Cluster { work, asker, publisher, reviewer }
}
