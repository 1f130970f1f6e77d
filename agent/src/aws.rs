//! The EC2 API: what the core wishes to know of interfaces, security groups and subnets, asked for within this node's
//! share of the account's calls, kept with its age in memory and on disk, and told as facts.
//!
//! ```text
//! wishes ──▶ plan: what is unknown, or old ──▶ calls ──▶ client: sign, send ──▶ EC2
//!              ▲                                 │
//!            known ◀──────── answers ◀───────────┴──▶ facts ──▶ pump
//!            disk
//! ```
//!
//! Nobody is asked, not even for credentials, before there is a wish. Without credentials or permission everything else
//! works: each call says how it stands, and is tried again rarely.

mod access;
mod ask;
mod calls;
mod client;
mod examine;
mod follow;
mod form;
mod groups;
mod interfaces;
mod known;
mod lists;
mod networks;
mod pace;
mod pages;
mod plan;
mod trouble;
mod turns;
mod types;

use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use agent_core::facts::Ec2Wishes;
use agent_core::input::Input;
use agent_core::time::WallNs;
use tokio::sync::{mpsc, watch};

pub(crate) use self::calls::{actions, gives};
pub(crate) use self::examine::{Examined, examine};

/// Nodes when nobody says how many. With a hundred a node makes a call in 100 s in the long run; nine in the quarter of an
/// hour between two rounds, which take about seven.
const FLEET_NODES: u32 = 100;
/// A cluster has up to some ten thousand.
const FLEET_NODES_MAX: u32 = 100_000;

/// How EC2 is reached and how often it is asked.
#[derive(Clone, Debug)]
pub(crate) struct Options {
    /// The region; `None`: from `AWS_REGION`, the profile, or the instance's metadata.
    pub(crate) region: Option<String>,
    /// Where EC2 is instead of at its public name, as `https://vpce-….vpce.amazonaws.com`.
    pub(crate) endpoint: Option<String>,
    /// Nodes that share the account's calls; `None`: as many as the cluster has, and [`FLEET_NODES`] as long as nobody says.
    pub(crate) fleet_nodes: Option<u32>,
    /// What is known is asked for again after this long at the soonest.
    pub(crate) refresh: Duration,
    /// Where answers are kept; `None`: nowhere.
    pub(crate) file: Option<PathBuf>,
    /// The node that the file belongs to.
    pub(crate) node: Arc<str>,
    /// The wall clock.
    pub(crate) now: fn() -> WallNs,
}

// === impl Options ===

impl Options {
    /// Nodes that share the account's calls, as far as that is known; `told`: what the cluster says.
    fn nodes(&self, told: Option<u32>) -> u32 {
        self.fleet_nodes.or(told).unwrap_or(FLEET_NODES).clamp(1, FLEET_NODES_MAX)
    }

    /// What is known is asked for again after this long: all nodes together make about one round of calls a second.
    fn interval(&self, nodes: u32) -> Duration {
        self.refresh.max(Duration::from_secs(1) * nodes)
    }
}

/// Follows the wishes until its owner drops it. Nothing is asked of anybody before it is polled.
pub(crate) fn follow(
    options: Options,
    wishes: watch::Receiver<Ec2Wishes>,
    tell: mpsc::Sender<Vec<Input>>,
) -> Pin<Box<dyn Future<Output = ()> + Send>> {
    Box::pin(follow::follow(options, wishes, tell))
}
