//! `sekisho internal watch`: what follows the cluster, once for each of many nodes in one process, to measure what the
//! agents of a whole cluster cost its API server. See the example `watchers` of the package system-tests.

use std::collections::HashSet;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use agent_core::facts::{ClusterFact, PodFacts};
use agent_core::input::Input;
use anyhow::Context as _;
use clap::Args;
use tokio::sync::{mpsc, oneshot};

use super::super::Exit;
use crate::cluster::convert::Conversion;
use crate::cluster::{self, Options};
use crate::node;

/// Batches that wait to be counted; who tells more waits.
const BATCHES: usize = 1_024;

/// A line comes this often.
const TICK: Duration = Duration::from_secs(1);

/// Follows the cluster for many nodes at once.
#[derive(Args)]
pub(super) struct Watch {
    /// How the API server is reached.
    #[arg(long)]
    kubeconfig: PathBuf,
    /// Nodes; their names are the prefix and a number from 0 on.
    #[arg(long)]
    nodes: u32,
    /// Begin of the nodes' names.
    #[arg(long)]
    prefix: String,
    /// Everything but pods begins within this time.
    #[arg(long, default_value_t = 60)]
    jitter_seconds: u64,
}

impl Watch {
    /// Goes on until standard input ends, so that it never outlives who measures.
    pub(super) fn run(self) -> anyhow::Result<Exit> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().context("build a runtime")?;
        runtime.block_on(self.follow())
    }

    async fn follow(self) -> anyhow::Result<Exit> {
        let (tell, mut told) = mpsc::channel(BATCHES);
        let (end, mut ended) = oneshot::channel();
        std::thread::spawn(move || {
            // An error ends it as well as the end does, and nobody listens when the work has failed.
            let _ = std::io::copy(&mut std::io::stdin().lock(), &mut std::io::sink());
            let _ = end.send(());
        });
        let mut tick = tokio::time::interval(TICK);
        // Before anything is known, so that what the process itself needs can be told apart.
        tick.tick().await;
        super::super::print("{\"pods\":0}\n")?;
        for number in 0..self.nodes {
            tokio::spawn(cluster::new(self.options(number), tell.clone()).work);
        }
        let mut pods = HashSet::new();
        loop {
            tokio::select! {
                Some(batch) = told.recv() => count(&mut pods, batch),
                _ = &mut ended => return Ok(Exit::Fine),
                _ = tick.tick() => super::super::print(&format!("{{\"pods\":{}}}\n", pods.len()))?,
            }
        }
    }

    fn options(&self, number: u32) -> Options {
        Options {
            node: format!("{}{number}", self.prefix).into(),
            kubeconfig: Some(self.kubeconfig.clone()),
            facts_file: None,
            start_jitter: Duration::from_secs(self.jitter_seconds),
            conversion: Conversion::default(),
            events: false,
            remote_lookup: false,
            reviews: false,
            now: || node::clock().1,
        }
    }
}

/// Keeps the UIDs of all pods that are there.
fn count(pods: &mut HashSet<Arc<str>>, batch: Vec<Input>) {
    let uid = |pod: &PodFacts| pod.uid.clone();
    for input in batch {
        let Input::Cluster(fact) = input else { continue };
        match *fact {
            ClusterFact::PodsReplaced(all) => pods.extend(all.iter().filter_map(|pod| uid(pod))),
            ClusterFact::Pod(pod) => pods.extend(uid(&pod)),
            ClusterFact::PodGone { uid } => {
                pods.remove(&uid);
            }
            _ => {}
        }
    }
}
