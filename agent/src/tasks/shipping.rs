//! Rows that leave the node: to a rotated file as they are said, and to an OpenTelemetry collector out of the history, each at
//! least once. Without either the agent goes on.

use std::sync::Arc;
use std::time::Duration;

use agent_core::output::Output;
use agent_core::time::WallNs;
use backon::{BackoffBuilder as _, ExponentialBuilder};
use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::api::protocol::ExportStatus;
use crate::config::{Config, Otlp};
use crate::export::otlp::{self, Client, Record, Trouble};
use crate::export::{FileExporter, FileOptions, Tally};
use crate::history::{Batch, Most, Outbox, OutboxError, Parcel};
use crate::lines::chain;
use crate::node;
use crate::telemetry::Telemetry;

#[cfg(test)]
mod tests;

/// Rows of a request, and bytes of them in memory: some 300 KiB of protobuf, far below the 20 MiB that collectors take.
const MOST: Most = Most { rows: 512, bytes: 1 << 20 };
/// The first pause after a failure, and the longest. With jitter, so that the nodes of a cluster do not come together.
const PAUSES: (Duration, Duration) = (Duration::from_secs(1), Duration::from_mins(1));
/// How long the file's disk may take nothing while the agent stops, and how long the collector has for the last rows: those that
/// it does not get wait in the history.
const FINISH_WAIT: Duration = Duration::from_secs(1);
const COLLECTOR_WAIT: Duration = Duration::from_secs(2);

/// What the pump knows of it.
#[derive(Default)]
pub(super) struct Sinks {
    file: Option<(FileExporter, String)>,
    collector: Option<(Tally, String)>,
}

/// What ships out of the history.
pub(super) struct Work {
    stop: watch::Sender<bool>,
    task: JoinHandle<()>,
}

/// Ships until it is told to stop.
struct Shipper {
    outbox: Option<Outbox>,
    client: Client,
    tally: Tally,
    interval: Duration,
    pauses: (Duration, Duration),
    pause: backon::ExponentialBackoff,
    stop: watch::Receiver<bool>,
    now: fn() -> WallNs,
    /// Rows removed before their turn, as far as counted in the tally.
    missing: u64,
    /// The cursor could not be written.
    is_unsaved: bool,
}

/// Starts what is configured. `directory`: where a history is written by this agent.
pub(super) fn start(config: &Config, node: &Arc<str>, is_history_kept: bool) -> (Sinks, Option<Work>) {
    let mut sinks = Sinks::default();
    let file = &config.export.file;
    if !file.path.as_os_str().is_empty() {
        let options = FileOptions {
            path: file.path.clone(),
            bytes_max: file.max_bytes,
            files: file.files,
            kinds: config.export.kinds.clone(),
            node: Arc::clone(node),
            now: || node::clock().1,
        };
        match FileExporter::start(options) {
            Ok(exporter) => sinks.file = Some((exporter, file.path.display().to_string())),
            Err(error) => tracing::warn!(error = chain(&error), "no rows are written to the file of export.file"),
        }
    }
    let otlp = &config.export.otlp;
    if otlp.endpoint.is_empty() {
        return (sinks, None);
    }
    let tally = Tally::default();
    sinks.collector = Some((tally.clone(), place(&otlp.endpoint)));
    let shipper = shipper(config, otlp, node, is_history_kept, &tally);
    let work = shipper.inspect_err(|why| {
        tracing::warn!(why, "nothing is shipped to export.otlp.endpoint");
        tally.state(Some(why.clone()));
    });
    (sinks, work.ok())
}

fn shipper(
    config: &Config,
    otlp: &Otlp,
    node: &Arc<str>,
    is_history_kept: bool,
    tally: &Tally,
) -> Result<Work, String> {
    if !is_history_kept {
        return Err("rows are shipped out of the history, and none is kept".to_owned());
    }
    let headers = match otlp.headers_env.as_str() {
        "" => None,
        name => std::env::var(name).ok(),
    };
    let ca_file = Some(otlp.ca_file.clone()).filter(|path| !path.as_os_str().is_empty());
    let options = otlp::Options { endpoint: otlp.endpoint.clone(), headers, ca_file };
    let client = Client::new(&options, otlp::Source { node: Arc::clone(node) }).map_err(|error| chain(&error))?;
    let outbox = Outbox::open(&config.data_dir, config.export.kinds.clone(), otlp.backfill);
    let outbox = outbox.map_err(|error| chain(&error))?;
    let interval = Duration::from_secs(otlp.interval_seconds.into());
    let (stop, told) = watch::channel(false);
    let shipper = Shipper::new(outbox, client, tally.clone(), interval, PAUSES, told, || node::clock().1);
    tracing::info!(endpoint = place(&otlp.endpoint), "rows are shipped out of the history");
    Ok(Work { stop, task: tokio::spawn(shipper.run()) })
}

/// Scheme and host: a path may hold a vendor's token.
fn place(endpoint: &str) -> String {
    let (scheme, rest) = endpoint.split_once("://").unwrap_or(("", endpoint));
    format!("{scheme}://{}", rest.split(['/', '?']).next().unwrap_or_default())
}

// === impl Sinks ===

impl Sinks {
    /// Hands rows to those who take them as they are said. Never waits.
    pub(super) fn push(&self, outputs: &[Arc<Output>]) {
        if let Some((file, _)) = &self.file {
            file.push(outputs);
        }
    }

    fn tallies(&self) -> impl Iterator<Item = (&'static str, &Tally, &str)> {
        let file = self.file.iter().map(|(file, to)| ("file", file.tally(), to.as_str()));
        file.chain(self.collector.iter().map(|(tally, to)| ("otlp", tally, to.as_str())))
    }

    /// Shows the totals.
    pub(super) fn count(&self, telemetry: &Telemetry, now: WallNs) {
        for (sink, tally, _) in self.tallies() {
            let totals = [("shipped", tally.shipped()), ("refused", tally.refused()), ("lost", tally.lost())];
            telemetry.export(sink, totals, age(tally, now), tally.failing().is_none());
        }
    }

    /// For `sekisho doctor`.
    pub(super) fn status(&self, now: WallNs) -> Vec<ExportStatus> {
        let status = |(sink, tally, to): (&str, &Tally, &str)| ExportStatus {
            sink: sink.to_owned(),
            to: to.to_owned(),
            failing: tally.failing(),
            shipped: tally.shipped(),
            refused: tally.refused(),
            lost: tally.lost(),
            oldest_age_s: age(tally, now).as_secs(),
        };
        self.tallies().map(status).collect()
    }

    /// Writes what waits.
    pub(super) async fn finish(self) {
        if let Some((file, _)) = self.file {
            file.finish(FINISH_WAIT).await;
        }
    }
}

/// How old the oldest row is that waits.
fn age(tally: &Tally, now: WallNs) -> Duration {
    let since = tally.waits_since().map_or(now, |since| since);
    Duration::from_nanos(u64::try_from(now.0.saturating_sub(since.0)).unwrap_or(0))
}

// === impl Work ===

/// Ends what was started.
pub(super) async fn finish(work: Option<Work>) {
    if let Some(work) = work {
        work.finish().await;
    }
}

impl Work {
    /// Ships what the history holds by now, if the collector takes it.
    async fn finish(mut self) {
        self.stop.send_replace(true);
        if tokio::time::timeout(COLLECTOR_WAIT, &mut self.task).await.is_err() {
            tracing::info!("the last rows wait in the history to be shipped");
            self.task.abort();
            // Cancelled, as it was told.
            let _ = self.task.await;
        }
    }
}

// === impl Shipper ===

impl Shipper {
    fn new(
        outbox: Outbox,
        client: Client,
        tally: Tally,
        interval: Duration,
        pauses: (Duration, Duration),
        stop: watch::Receiver<bool>,
        now: fn() -> WallNs,
    ) -> Self {
        let missing = outbox.missing();
        let outbox = Some(outbox);
        Self { outbox, client, tally, interval, pauses, pause: pause(pauses), stop, now, missing, is_unsaved: false }
    }

    async fn run(mut self) {
        loop {
            let is_last = *self.stop.borrow();
            let now = (self.now)();
            let batch = match self.with_outbox(move |outbox| outbox.next(MOST, now)).await {
                Some(Ok(batch)) => batch,
                Some(Err(error)) => {
                    self.failed(&chain(&error));
                    if is_last {
                        return;
                    }
                    self.rest(None).await;
                    continue;
                }
                None => return,
            };
            let is_empty = batch.parcels.is_empty() && batch.unreadable == 0;
            if !is_empty && !self.deliver(&batch).await {
                return;
            }
            let unreadable = batch.unreadable;
            match self.with_outbox(move |outbox| outbox.arrived(&batch)).await {
                Some(Ok(())) => {
                    self.tally.lose(unreadable);
                    self.is_unsaved &= is_empty;
                }
                // It arrived, and is shipped again should the agent end now.
                Some(Err(error)) => {
                    if !std::mem::replace(&mut self.is_unsaved, true) {
                        tracing::warn!(
                            error = chain(&error),
                            "after a restart rows are shipped again: how far they are is not kept"
                        );
                    }
                }
                None => return,
            }
            if is_empty {
                // Nothing waits, so whatever failed is over.
                self.works();
                if is_last {
                    return;
                }
                self.wait(self.interval).await;
            }
        }
    }

    /// Sends a batch until it arrived or was refused for good; `false` when it is to wait for the agent's next start.
    async fn deliver(&mut self, batch: &Batch) -> bool {
        let records: Vec<Record> = batch.parcels.iter().map(record).collect();
        if records.is_empty() {
            return true;
        }
        let mut left = vec![&records[..]];
        while let Some(part) = left.pop() {
            let rows = part.len() as u64;
            match self.client.send(part).await {
                Ok(taken) => {
                    self.works();
                    self.tally.ship(rows.saturating_sub(taken.refused));
                    self.refused(taken.refused, &taken.text);
                }
                // One row may be what is wrong with all of them.
                Err(Trouble::TooLarge(_) | Trouble::Never) if part.len() > 1 => {
                    let (first, second) = part.split_at(part.len() / 2);
                    left.extend([second, first]);
                }
                Err(trouble @ (Trouble::TooLarge(_) | Trouble::Never)) => self.refused(rows, &trouble.to_string()),
                Err(Trouble::Later { why, after }) => {
                    self.failed(&why);
                    if *self.stop.borrow() {
                        return false;
                    }
                    left.push(part);
                    self.rest(after).await;
                    // What the quota removes meanwhile is to be known.
                    if let Some(Err(error)) = self.with_outbox(Outbox::look).await {
                        tracing::debug!(error = chain(&error), "rows that wait could not be counted");
                    }
                }
            }
        }
        true
    }

    /// Does something with the outbox where files may be waited for; `None` when that thread is gone.
    async fn with_outbox<T: Send + 'static>(
        &mut self,
        work: impl FnOnce(&mut Outbox) -> Result<T, OutboxError> + Send + 'static,
    ) -> Option<Result<T, OutboxError>> {
        let mut outbox = self.outbox.take()?;
        let done = tokio::task::spawn_blocking(move || {
            let result = work(&mut outbox);
            let since = outbox.waits_since();
            (outbox, result, since)
        });
        let Ok((outbox, result, since)) = done.await else {
            tracing::error!(
                "a look at the history ended by a defect of the agent; nothing is shipped until it starts again"
            );
            self.tally.state(Some("stopped by a defect of the agent".to_owned()));
            return None;
        };
        self.tally.wait_since(since);
        let missing = outbox.missing();
        if missing > self.missing {
            self.tally.lose(missing - self.missing);
            tracing::warn!(rows = missing - self.missing, "the history had no room for rows until they were shipped");
            self.missing = missing;
        }
        self.outbox = Some(outbox);
        Some(result)
    }

    fn works(&mut self) {
        self.pause = pause(self.pauses);
        if self.tally.state(None) {
            tracing::info!("the collector takes rows again");
        }
    }

    fn failed(&self, why: &str) {
        if self.tally.state(Some(why.to_owned())) {
            tracing::warn!(why, "nothing can be shipped to export.otlp.endpoint; rows wait in the history");
        }
    }

    fn refused(&self, rows: u64, text: &str) {
        if rows > 0 {
            self.tally.refuse(rows);
            tracing::warn!(rows, text, "the collector refuses rows for good");
        } else if !text.is_empty() {
            tracing::debug!(text, "the collector takes rows and says");
        }
    }

    /// A pause, longer each time, or as long as was asked for.
    async fn rest(&mut self, asked: Option<Duration>) {
        let pause = self.pause.next().unwrap_or(self.pauses.1);
        self.wait(asked.map_or(pause, |asked| asked.max(pause))).await;
    }

    /// So long, or until the agent stops.
    async fn wait(&mut self, time: Duration) {
        tokio::select! {
            () = tokio::time::sleep(time) => {}
            // Gone with the agent: the same.
            _ = self.stop.wait_for(|stop| *stop) => {}
        }
    }
}

fn pause((least, most): (Duration, Duration)) -> backon::ExponentialBackoff {
    let builder = ExponentialBuilder::default().with_min_delay(least).with_max_delay(most).with_factor(2.0);
    builder.without_max_times().with_jitter().build()
}

fn record(parcel: &Parcel) -> Record {
    match parcel {
        Parcel::Row { id, row } => Record::Row { id: id.clone(), row: Arc::clone(row) },
        Parcel::Missing { id, rows, time } => Record::Missing { id: id.clone(), rows: *rows, time: *time },
    }
}
