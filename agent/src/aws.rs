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

/// How EC2 is reached and how often it is asked.
#[derive(Clone, Debug)]
pub(crate) struct Options {
    /// The region; `None`: from `AWS_REGION`, the profile, or the instance's metadata.
    pub(crate) region: Option<String>,
    /// Where EC2 is instead of at its public name, as `https://vpce-….vpce.amazonaws.com`.
    pub(crate) endpoint: Option<String>,
    /// Nodes that share the account's calls.
    pub(crate) fleet_nodes: u32,
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
    /// What is known is asked for again after this long: all nodes together make about one round of calls a second.
    fn interval(&self) -> Duration {
        self.refresh.max(Duration::from_secs(1) * self.fleet_nodes)
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
