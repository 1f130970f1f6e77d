//! `sekisho run`: the agent.

use std::path::PathBuf;
use std::pin::Pin;
use std::time::Duration;

use anyhow::Context as _;
use clap::{Args, ValueEnum};
use tokio::signal::unix::{Signal, SignalKind, signal};

use super::Exit;
use crate::lines::Form;
use crate::recording;
use crate::tasks::{self, Options};

/// A year: long enough for any test, and far from the end of any clock.
const DURATION_MAX_SECONDS: u64 = 31_536_000;

/// The agent: attaches the probes and shows what they see, until it is stopped.
#[derive(Args)]
pub(super) struct Run {
    /// Configuration file (YAML).
    #[arg(long, value_name = "FILE", env = "SEKISHO_CONFIG")]
    config: Option<PathBuf>,

    /// Work without a cluster: names come from cgroups, and from manifests where they are given.
    #[arg(long)]
    standalone: bool,

    /// Manifests that stand for the cluster of a standalone agent; read anew when a file changes.
    #[arg(long, value_name = "DIR")]
    manifests: Option<PathBuf>,

    /// Stop after so many seconds.
    #[arg(long, value_name = "SECS", value_parser = clap::value_parser!(u64).range(1..=DURATION_MAX_SECONDS))]
    duration: Option<u64>,

    /// What standard output shows.
    #[arg(short, value_enum, default_value = "table")]
    output: Show,

    /// Record everything that decisions rest on, for sekisho replay, in a new file that its owner alone may read. It holds no
    /// token and no key, but who talks to whom.
    #[arg(long, value_name = "FILE")]
    record: Option<PathBuf>,

    /// Most bytes of the recording; it ends there and says so. 256 MiB hold some ten million records.
    #[arg(long, value_name = "BYTES", requires = "record", default_value_t = recording::BYTES_DEFAULT,
        value_parser = clap::value_parser!(u64).range(recording::BYTES_LEAST..))]
    record_bytes: u64,

    /// The socket to serve, instead of the configured one.
    #[arg(long, value_name = "PATH")]
    socket: Option<String>,

    /// Where to keep what survives the agent, instead of the configured directory.
    #[arg(long, value_name = "DIR")]
    data_dir: Option<String>,

    /// The node's name in every row, instead of the configured one.
    #[arg(long, value_name = "NAME")]
    node_name: Option<String>,

    /// Where to serve /metrics, /healthz and /readyz, instead of the configured address; or off.
    #[arg(long, value_name = "ADDRESS")]
    metrics_listen: Option<String>,
}

/// Threads of the runtime that read and write files and resolve names. The first starts with the agent and stays: on a node
/// that has no threads left a new one is refused, and just then what was found must still be written.
const FILE_THREADS: usize = 8;
/// Longer than any node runs.
const FOR_EVER: Duration = Duration::from_hours(10 * 365 * 24);
/// How long files may take at the end, after each part had its own time.
const FILES_WAIT: Duration = Duration::from_millis(250);

#[derive(Clone, Copy, ValueEnum)]
enum Show {
    /// Flows as a table for people, every fold.
    Table,
    /// Everything as JSON, one object per line.
    Json,
    /// Nothing; see `sekisho observe`.
    None,
}

impl Run {
    pub(super) fn run(self) -> anyhow::Result<Exit> {
        let config = super::load(self.config.clone(), self.flags())?;
        let output = match self.output {
            Show::Table => Some(Form::Text),
            Show::Json => Some(Form::Json),
            Show::None => None,
        };
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .thread_keep_alive(FOR_EVER)
            .max_blocking_threads(FILE_THREADS)
            .build()
            .context("could not start the runtime")?;
        let result = runtime.block_on(async {
            tokio::task::spawn_blocking(|| ()).await.context("could not start a thread for files")?;
            let stop = stop(self.duration.map(Duration::from_secs)).context("could not listen for signals")?;
            let record = self.record.map(|path| (path, self.record_bytes));
            Box::pin(tasks::run(config, Options { output, record, stop })).await?;
            tracing::info!("stopped");
            Ok(Exit::Fine)
        });
        // A disk that stands still must not hold the end up.
        runtime.shutdown_timeout(FILES_WAIT);
        result
    }

    /// Flags that stand for keys of the configuration.
    fn flags(&self) -> Vec<(&'static str, String)> {
        let standalone = self.standalone.then(|| "true".to_owned());
        let manifests = self.manifests.as_ref().map(|path| std::path::absolute(path).unwrap_or_else(|_| path.clone()));
        [
            ("standalone", standalone),
            ("cluster.manifests", manifests.map(|path| path.display().to_string())),
            ("socket", self.socket.clone()),
            ("data_dir", self.data_dir.clone()),
            ("node_name", self.node_name.clone()),
            ("metrics.listen", self.metrics_listen.clone()),
        ]
        .into_iter()
        .filter_map(|(key, value)| Some((key, value?)))
        .collect()
    }
}

/// Ends at the first of SIGTERM, SIGINT and SIGHUP (its terminal is gone), or when the time is over.
fn stop(duration: Option<Duration>) -> std::io::Result<Pin<Box<dyn Future<Output = ()>>>> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut hangup = signal(SignalKind::hangup())?;
    Ok(Box::pin(async move {
        let why = tokio::select! {
            () = caught(&mut terminate) => "SIGTERM",
            () = caught(&mut interrupt) => "SIGINT",
            () = caught(&mut hangup) => "SIGHUP",
            () = elapsed(duration) => "the time is over",
        };
        tracing::info!(why, "stopping");
    }))
}

async fn caught(signal: &mut Signal) {
    if signal.recv().await.is_none() {
        std::future::pending::<()>().await;
    }
}

async fn elapsed(duration: Option<Duration>) {
    match duration {
        Some(duration) => tokio::time::sleep(duration).await,
        None => std::future::pending().await,
    }
}
