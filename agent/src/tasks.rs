//! The running agent: starts the parts, lets them meet, and stops them in order. The only module that connects the
//! others; they know each other through core's types alone.
//!
//! ```text
//! kernel's thread --inputs--> pump (owns the Engine) --outputs--> telemetry, export's thread, api's feed
//!                               ^ node: clocks, baseline, executables, addresses
//! ```
//!
//! The pump and the servers share one thread, the probes' rings have one and standard output has one.

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use agent_core::continuity;
use agent_core::engine::EngineConfig;
use agent_core::finding;
use agent_core::input::Input;
use agent_core::recording::Header;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::timeout;

use crate::api::protocol::{PrivilegeStatus, Probe, Question, Status};
use crate::api::{feed::Feed, listen, serve};
use crate::config::{Config, Roots};
use crate::export::{self, Exporter, Style};
use crate::http;
use crate::kernel;
use crate::lines::Form;
use crate::memory;
use crate::node;
use crate::recording::{self, Recorder};
use crate::telemetry;

pub(crate) use self::cluster::examine as examine_cluster;
pub(crate) use self::examine::{Examination, Round, ask_ec2, driver_counters, examine, look};
pub(crate) use crate::cluster::{Finding, State};
pub(crate) use crate::kernel::{Check, CheckState, preflight};

mod answers;
mod aws;
mod backends;
mod baseline;
mod cluster;
mod collect;
mod data_dir;
mod examine;
mod history;
mod ledger;
mod pump;
mod served;
mod shipping;
#[cfg(test)]
mod tests;
mod web;

use pump::{Ended, Pump, Rings, Surroundings};
use served::{Heartbeat, Listing, Served};

/// Batches of inputs between the kernel's thread and the pump: two of some 20,000 inputs of 250 bytes are 10 MiB at the
/// most. When the queue is full the thread waits, the rings fill, and what they cannot take is counted there.
const INPUT_BATCHES: usize = 2;
/// Batches of facts from the cluster and from looks at the node; who tells more waits.
const FACT_BATCHES: usize = 16;
/// Questions of `sekisho doctor` that wait: one per client.
const QUESTIONS: usize = 8;

/// An idle agent stops in a fraction of a second; one with much to tell takes as long as that goes on. Each of these is
/// how long one part may stand still: the probes with what they still hold (their last walk sends nothing for a while),
const DRAIN_WAIT: Duration = Duration::from_secs(5);
/// standard output (a reader that takes nothing is left behind),
const EXPORT_WAIT: Duration = Duration::from_secs(1);
/// and, in all, clients of the socket.
const CLIENTS_WAIT: Duration = Duration::from_millis(250);

/// What to do besides the configuration.
pub(crate) struct Options {
    /// How standard output looks; nothing is written there for `None`.
    pub(crate) output: Option<Form>,
    /// Where everything that the Engine is told is recorded, and in how many bytes; `None`: nowhere.
    pub(crate) record: Option<(std::path::PathBuf, u64)>,
    /// Ends when the agent is to stop.
    pub(crate) stop: Pin<Box<dyn Future<Output = ()>>>,
}

/// Why the agent cannot run, or stopped.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// No cgroup2 tree.
    #[error(
        "no cgroup2 mount stands in {}/self/mountinfo; mount one (mount -t cgroup2 none /sys/fs/cgroup), or name it by roots.cgroup",
        .0.display()
    )]
    NoCgroup2(std::path::PathBuf),
    /// Nobody says where the cluster is.
    #[error(
        "no cluster is named: run as a pod, or name a kubeconfig by cluster.kubeconfig or KUBECONFIG, or start with \
         --standalone, which names workloads from their cgroups"
    )]
    NoCluster,
    /// The probes.
    #[error("could not start the probes")]
    Kernel(#[source] kernel::Error),
    /// The socket.
    #[error("could not open the agent's socket")]
    Socket(#[source] listen::Error),
    /// The HTTP server.
    #[error("could not start the HTTP server")]
    Http(#[source] http::Error),
    /// The recording.
    #[error(transparent)]
    Recording(recording::Error),
    /// Standard output.
    #[error("standard output failed")]
    Export(#[source] export::Error),
    /// The kernel's thread is gone though nobody stopped it.
    #[error("the thread that reads the probes ended; its reason stands in the log above")]
    ProbesEnded,
}

/// Runs until told to stop, until standard output is gone, or until a part fails.
pub(crate) async fn run(config: Config, options: Options) -> Result<(), Error> {
    let node_name: Arc<str> = config.node().into();
    if !config.standalone && !cluster::options(&config, &node_name).names_a_cluster() {
        return Err(Error::NoCluster);
    }
    // Before anything else: who lacks a capability is told so, and not of the directories that he may not write.
    kernel::require().map_err(Error::Kernel)?;
    let cgroup_root = match config.cgroup_root() {
        Some(path) => path.to_owned(),
        None => node::cgroup2_mount(&config.roots.proc).ok_or_else(|| Error::NoCgroup2(config.roots.proc.clone()))?,
    };

    // What may be taken by somebody else comes first: a second agent ends before it loads a probe.
    let socket = listen::bind(&config.socket).map_err(Error::Socket)?;
    tracing::info!(path = %socket.path().display(), "the socket is open");
    let web = web::Web::bind(&config, &node_name).await.map_err(Error::Http)?;

    let (sender, inputs) = mpsc::channel(INPUT_BATCHES);
    see_to_directories(&config);
    let probes = kernel::attach(&kernel_options(&config, &cgroup_root)).map_err(Error::Kernel)?;
    let privileges = settle(probes.probes()).await;

    let engine = engine_config(&config);
    let recorder = recorder(options.record, &engine, &node_name)?;
    let exporter = options.output.map(|form| exporter(form, &node_name)).transpose()?;
    let (metrics, exposition) = telemetry::new(config.metrics.max_series);
    for probe in probes.probes() {
        metrics.probe(probe.name, probe.state == kernel::ProbeState::Attached);
    }
    let feed = Feed::default();
    let heartbeat = Heartbeat::default();
    let is_told_pods = !config.standalone || !config.cluster.manifests.as_os_str().is_empty();
    let listing = if is_told_pods { Listing::awaited() } else { Listing::default() };
    let status = Status {
        node: node_name.to_string(),
        pid: std::process::id(),
        probes: probes.probes().iter().map(probe_status).collect(),
        privileges: Some(privileges),
        ..Status::default()
    };
    let mut history =
        history::Keeper::start(&config, &node_name, probes.adopted().map(continuity::Adopted::settled_before));
    let (rings, from) = take_over(&probes, &mut history);
    let (sinks, shipping) = shipping::start(&config, &node_name, history.is_kept());
    let probes = probes.read(from, sender).map_err(Error::Kernel)?;
    let mut pump = Pump::new(
        engine,
        pump::Outlets {
            telemetry: metrics,
            feed: feed.clone(),
            exporter,
            history,
            sinks,
            heartbeat: heartbeat.clone(),
            listing: listing.clone(),
            status,
        },
        surroundings(&config),
    );
    match ledger::Store::new(&config.data_dir, node::boot_id(&config.roots.proc)) {
        Ok(store) => pump.keep(store),
        Err(error) => tracing::warn!(error = crate::lines::chain(&error), "findings are kept in memory alone"),
    }
    pump.record(recorder);
    pump.serve(web.standing());
    pump.outlived_by(rings);
    // Since the probes are attached, nothing falls between this look around and their first records.
    pump.start(baseline::read(&config.roots.proc, &cgroup_root, config.processes.arguments)).await;
    memory::give_back();

    let (tell, facts) = mpsc::channel(FACT_BATCHES);
    let pace = collect::Pace { cadence_percent: config.collect.cadence_percent, patience: collect::PATIENCE };
    let looks = node::collect::sources(&look_settings(&config, cgroup_root));
    let looks = tokio::spawn(collect::run(looks, pace, tell.clone()));
    let cluster = cluster::start(&config, &node_name, &tell);
    pump.reach(cluster.reach.clone());
    let backends = backends::start(tell.clone());
    pump.resolve_backends(backends.asker);
    let ec2 = aws::start(&config, &node_name, &tell);
    pump.ask(ec2.wisher);
    let (ask, questions) = mpsc::channel(QUESTIONS);
    let clients = serve::Sources { feed: feed.clone(), questions: ask, node: node_name, now: || node::clock().1 };
    let clients = tokio::spawn(async move {
        if let Err(error) = serve::serve(socket, clients).await {
            tracing::error!(%error, "the socket is closed");
        }
    });
    let served: Arc<dyn http::Source> = Arc::new(Served::new(exposition, heartbeat, listing, probes.probes()));
    let web = web.start(&served, cluster.reviewer);

    let result = run_and_stop(pump, &probes, inputs, facts, questions, options.stop).await;
    shipping::finish(shipping).await;
    drop(tell);
    end(looks, Duration::ZERO).await;
    for work in [cluster.work, ec2.work, Some(backends.work)].into_iter().flatten() {
        end(work, Duration::ZERO).await;
    }
    feed.close();
    end(clients, CLIENTS_WAIT).await;
    for web in web {
        end(web, Duration::ZERO).await;
    }
    result
}

fn engine_config(config: &Config) -> EngineConfig {
    EngineConfig {
        fold_ns: u64::from(config.fold_seconds) * 1_000_000_000,
        capacity: (&config.capacity).into(),
        findings: finding::Settings { own_pid: node::own_pid(&config.roots.proc), ..config.findings.settings() },
    }
}

/// What records the run.
fn recorder(
    file: Option<(std::path::PathBuf, u64)>,
    engine: &EngineConfig,
    node_name: &str,
) -> Result<Option<Recorder>, Error> {
    let Some((path, bytes_max)) = file else { return Ok(None) };
    let header = Header::new(env!("CARGO_PKG_VERSION"), node_name, engine.clone());
    Recorder::create(&path, bytes_max, &header).map(Some).map_err(Error::Recording)
}

/// What writes standard output.
fn exporter(form: Form, node_name: &Arc<str>) -> Result<Exporter, Error> {
    let style = Style { form, node: Arc::clone(node_name), width: export::terminal_width, now: || node::clock().1 };
    Exporter::start(std::io::stdout(), style).map_err(Error::Export)
}

/// The pump's life: running, then emptied.
async fn run_and_stop(
    mut pump: Pump,
    probes: &kernel::Handle,
    mut inputs: mpsc::Receiver<Vec<Input>>,
    mut facts: mpsc::Receiver<Vec<Input>>,
    mut questions: mpsc::Receiver<Question>,
    stop: Pin<Box<dyn Future<Output = ()>>>,
) -> Result<(), Error> {
    let ended = pump.run(&mut inputs, &mut facts, &mut questions, stop).await;
    probes.stop();
    if !pump.drain(&mut inputs, DRAIN_WAIT).await {
        tracing::warn!("the probes took too long to stop; their last records are lost");
    }
    let written = pump.finish(EXPORT_WAIT).await;
    match ended {
        Ended::Stopped => written.map_err(Error::Export),
        Ended::OutputGone(result) => result.map_err(Error::Export),
        Ended::NoInputs => Err(Error::ProbesEnded),
    }
}

async fn end(mut task: JoinHandle<()>, wait: Duration) {
    if timeout(wait, &mut task).await.is_err() {
        task.abort();
        // Cancelled, as it was told: nothing else can be in it, for panics abort nothing here and are in the log.
        let _ = task.await;
    }
}

/// The rings that outlive the agent, with what the history knows of them; and from where the metadata ring is to be read.
fn take_over(probes: &kernel::Attached, history: &mut history::Keeper) -> (Option<Rings>, Option<continuity::Resume>) {
    let Some(pins) = probes.pins() else { return (None, None) };
    let of = probes.adopted().map_or(pins, |adopted| adopted.pins);
    let before = history.before().and_then(|before| before.mark);
    let mark = before.and_then(|mark| mark.kernel).filter(|mark| mark.pins == of);
    let adopted = probes.adopted().cloned().map(|adopted| continuity::Adopted { mark, ..adopted });
    let told = history.told();
    let resume = before.zip(mark).filter(|_| adopted.is_some()).map(|(before, mark)| continuity::Resume {
        place: mark.metadata,
        since: before.at.boot,
        // Positions of earlier rings mean nothing in these.
        told: told
            .until
            .into_iter()
            .filter(|(_, (time, _))| time.0 >= of)
            .map(|(cookie, (_, at))| (cookie, at))
            .collect(),
    });
    (Some(Rings { pins, stored: probes.stored(), adopted, told: told.keys }), resume)
}

/// Probes that go on without an agent, if there are any.
fn pins(config: &Config) -> Option<Check> {
    let directory = config.kernel.pin.directory().unwrap_or(std::path::Path::new(crate::config::PIN_DEFAULT));
    let state = match kernel::pins_in(directory) {
        Ok(0) => return None,
        Ok(pins) => CheckState::Ok(format!(
            "{pins} in {}: probes go on for the next agent with kernel.pin; end them by sekisho doctor --unpin",
            directory.display()
        )),
        Err(error) => CheckState::Degraded(format!("cannot look at {}: {error}", directory.display())),
    };
    Some(Check { name: "pins", state })
}

/// Says what is attached, and gives up what only that needed: by this thread, from which all later ones come, and by the one for files, which is
/// there already.
async fn settle(probes: &[kernel::ProbeStatus]) -> PrivilegeStatus {
    report(probes);
    let of_files = tokio::task::spawn_blocking(kernel::give_up).await.unwrap_or_else(|error| Err(error.into()));
    let failed = kernel::give_up().and(of_files).err().map(|error| error.to_string());
    if let Some(why) = &failed {
        tracing::warn!("capabilities that are not needed any more could not be given up: {why}");
    }
    match kernel::held() {
        Ok(held) => PrivilegeStatus { held, failed },
        Err(error) => PrivilegeStatus { held: Vec::new(), failed: failed.or_else(|| Some(error.to_string())) },
    }
}

/// What the agent keeps is for itself alone, and what it leaves behind is told.
fn see_to_directories(config: &Config) {
    data_dir::tighten(&config.data_dir);
    warn_of_pins(config);
}

/// Probes that an earlier agent left, and that this one does not take over, cost and tell nobody.
fn warn_of_pins(config: &Config) {
    let directory = std::path::Path::new(crate::config::PIN_DEFAULT);
    if config.kernel.pin.directory().is_none() && kernel::pins_in(directory).is_ok_and(|pins| pins > 0) {
        tracing::warn!(
            directory = %directory.display(),
            "probes of an earlier agent go on there; set kernel.pin to take them over, or end them by sekisho doctor --unpin"
        );
    }
}

/// Ends the probes that are pinned where the configuration says, or would say; how many names they had.
pub(crate) fn unpin(config: &Config) -> (std::path::PathBuf, std::io::Result<usize>) {
    let directory = config.kernel.pin.directory().unwrap_or(std::path::Path::new(crate::config::PIN_DEFAULT));
    (directory.to_owned(), kernel::unpin(directory))
}

fn kernel_options(config: &Config, cgroup_root: &std::path::Path) -> kernel::Options {
    kernel::Options {
        cgroup_root: cgroup_root.to_owned(),
        keep_args: config.processes.arguments,
        metadata_ring_bytes: config.kernel.metadata_ring_bytes,
        lifecycle_ring_bytes: config.kernel.lifecycle_ring_bytes,
        bulk_ring_bytes: config.kernel.bulk_ring_bytes,
        max_sockets: config.kernel.max_sockets,
        cpu_percent: config.kernel.cpu_percent,
        walk_interval_ms: u64::from(config.fold_seconds) * 1_000,
        pin: config.kernel.pin.directory().map(ToOwned::to_owned),
    }
}

fn look_settings(config: &Config, cgroup_root: std::path::PathBuf) -> node::collect::Settings {
    let Roots { proc, sys, cgroup: _, etc, run } = config.roots.clone();
    let roots = node::collect::Roots { proc, sys, cgroup: cgroup_root, etc, run };
    node::collect::Settings { roots, collect: config.collect.clone() }
}

fn surroundings(config: &Config) -> Surroundings {
    let proc_root = config.roots.proc.clone();
    let settings_root = proc_root.clone();
    Surroundings {
        clock: node::clock,
        asleep: node::asleep_ns,
        boot_id: node::boot_id(&config.roots.proc),
        addresses: Box::new(baseline::addresses),
        exe_of: Box::new(move |owner| node::exe_of(&proc_root, owner)),
        settings: Box::new(move || baseline::settings(&settings_root)),
    }
}

fn probe_status(probe: &kernel::ProbeStatus) -> Probe {
    Probe {
        name: probe.name.to_owned(),
        gives: probe.gives.to_owned(),
        required: probe.required,
        refused: match &probe.state {
            kernel::ProbeState::Attached => None,
            kernel::ProbeState::Refused(why) => Some(why.clone()),
        },
    }
}

fn report(probes: &[kernel::ProbeStatus]) {
    for probe in probes {
        if let kernel::ProbeState::Refused(why) = &probe.state {
            tracing::warn!(probe = probe.name, missing = probe.gives, %why, "the kernel refused a probe");
        }
    }
    let attached = probes.iter().filter(|probe| probe.state == kernel::ProbeState::Attached).count();
    tracing::info!(attached, of = probes.len(), "the probes are attached");
}
