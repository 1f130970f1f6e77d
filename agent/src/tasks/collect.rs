//! When which source of the node is looked at. One look at a time, on a thread of its own, so that the pump never waits for
//! a disk or a local server; and a look that does not come back is left behind with its thread, so that the others go on.

use std::hash::{BuildHasher, RandomState};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;

use agent_core::capacity::Collector;
use agent_core::facts::HostFact;
use agent_core::input::Input;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep_until};

use crate::api::protocol::{Collector as Standing, CollectorState};
use crate::node::collect::{Error, Look, Source};

/// A look takes milliseconds, a local server's answer at most two seconds. One that takes longer is left behind.
pub(super) const PATIENCE: Duration = Duration::from_secs(10);
/// Looks that wait to be told: one for each source, and those that come back late.
const DONE_MAX: usize = 64;
/// Sources are not looked at in step with those of other nodes: each wait is longer or shorter by up to a tenth.
const JITTER_PERCENT: u32 = 10;
/// When a thread could not be started it is tried again after so long, or when the look is due next.
const THREAD_RETRY: Duration = Duration::from_secs(10);
/// Name of the thread.
const THREAD: &str = "sekisho-node";

/// Looks at the sources until nobody listens any more.
pub(super) async fn run(sources: Vec<Source>, pace: Pace, tell: mpsc::Sender<Vec<Input>>) {
    Schedule::new(sources, pace, tell).run().await;
}

/// How fast things go.
#[derive(Clone, Copy)]
pub(super) struct Pace {
    /// Time between two looks, in percent of each source's own.
    pub(super) cadence_percent: u32,
    /// How long a look may take: [`PATIENCE`].
    pub(super) patience: Duration,
}

/// A look that is to be made.
struct Job {
    slot: usize,
    look: Box<dyn Look>,
}

/// A look that was made.
struct Done {
    slot: usize,
    look: Box<dyn Look>,
    facts: Vec<HostFact>,
    result: Result<(), Error>,
    duration: Duration,
}

/// A source and when it is due.
struct Slot {
    collector: Collector,
    every: Duration,
    due: Instant,
    /// `None` while it is away.
    look: Option<Box<dyn Look>>,
    succeeded: bool,
    /// The last error that was logged.
    error: Option<String>,
}

struct Schedule {
    slots: Vec<Slot>,
    patience: Duration,
    tell: mpsc::Sender<Vec<Input>>,
    jobs: std::sync::mpsc::Sender<Job>,
    back: mpsc::Sender<Done>,
    done: mpsc::Receiver<Done>,
    /// Which look is under way, and since when.
    running: Option<(usize, Instant)>,
    jitter: RandomState,
    looks: u64,
    start_thread: StartThread,
}

/// How a thread is started: [`thread`].
type StartThread = fn(mpsc::Sender<Done>) -> std::io::Result<std::sync::mpsc::Sender<Job>>;

// === impl Schedule ===

impl Schedule {
    fn new(sources: Vec<Source>, pace: Pace, tell: mpsc::Sender<Vec<Input>>) -> Self {
        let now = Instant::now();
        let slots = sources.into_iter().map(|source| Slot {
            collector: source.collector,
            every: source.every * pace.cadence_percent / 100,
            due: now,
            look: Some(source.look),
            succeeded: false,
            error: None,
        });
        let (back, done) = mpsc::channel(DONE_MAX);
        // Nobody takes jobs yet: the first look starts the thread.
        let (jobs, _) = std::sync::mpsc::channel();
        let (slots, patience) = (slots.collect(), pace.patience);
        let (jitter, start_thread) = (RandomState::new(), thread as StartThread);
        Self { slots, patience, tell, jobs, back, done, running: None, jitter, looks: 0, start_thread }
    }

    /// Until nobody listens any more.
    async fn run(mut self) {
        while !self.tell.is_closed() {
            let wake = match self.running {
                Some((_, since)) => Some(since + self.patience),
                None => self.slots.iter().filter(|slot| slot.look.is_some()).map(|slot| slot.due).min(),
            };
            tokio::select! {
                Some(done) = self.done.recv() => self.take(done).await,
                () = until(wake) => match self.running.take() {
                    Some((slot, _)) => self.leave_behind(slot).await,
                    None => self.start_due().await,
                },
                () = self.tell.closed() => {}
            }
        }
    }

    /// Starts the look that is due for longest. On a node without a thread left it is due again later.
    async fn start_due(&mut self) {
        let now = Instant::now();
        let due = self.slots.iter_mut().enumerate().filter(|(_, slot)| slot.look.is_some() && slot.due <= now);
        let Some((at, slot)) = due.min_by_key(|(_, slot)| slot.due) else { return };
        let Some(look) = slot.look.take() else { return };
        self.running = Some((at, now));
        let Err(std::sync::mpsc::SendError(job)) = self.jobs.send(Job { slot: at, look }) else { return };
        // The first look, or the thread was left behind.
        match (self.start_thread)(self.back.clone()) {
            Ok(jobs) => {
                // A thread that just started takes jobs.
                let _ = jobs.send(job);
                self.jobs = jobs;
            }
            Err(error) => {
                self.running = None;
                slot.look = Some(job.look);
                slot.due = now + slot.every.min(THREAD_RETRY);
                let standing = slot.failed(format!("no thread could be started: {error}"), Duration::ZERO);
                self.say(vec![Input::Host(Box::new(standing))]).await;
            }
        }
    }

    async fn take(&mut self, done: Done) {
        let Done { slot: at, look, facts, result, duration } = done;
        if self.running.is_some_and(|(running, _)| running == at) {
            self.running = None;
        }
        self.looks = self.looks.wrapping_add(1);
        let random = self.jitter.hash_one(self.looks);
        let Some(slot) = self.slots.get_mut(at) else { return };
        slot.look = Some(look);
        slot.due = Instant::now() + jittered(slot.every, random);
        let standing = slot.standing(result.err(), duration);
        let told = facts.into_iter().chain([standing]).map(|fact| Input::Host(Box::new(fact)));
        self.say(told.collect()).await;
    }

    /// A look that takes too long keeps its thread, and the others get a new one. What it tells when it comes back counts.
    async fn leave_behind(&mut self, at: usize) {
        let (jobs, _) = std::sync::mpsc::channel();
        self.jobs = jobs;
        let Some(slot) = self.slots.get_mut(at) else { return };
        let why = format!("has not come back for {} s", self.patience.as_secs());
        let standing = slot.failed(why, self.patience);
        self.say(vec![Input::Host(Box::new(standing))]).await;
    }

    async fn say(&mut self, inputs: Vec<Input>) {
        // Closed at the agent's end, which `run` sees next.
        let _ = self.tell.send(inputs).await;
    }
}

// === impl Slot ===

impl Slot {
    fn standing(&mut self, error: Option<Error>, duration: Duration) -> HostFact {
        let Some(error) = error else {
            if self.error.take().is_some() {
                tracing::info!(collector = self.collector.name(), "the node can be looked at again");
            }
            self.succeeded = true;
            return self.fact(None, false, duration);
        };
        if error.is_absent() && !self.succeeded {
            return self.fact(Some(error.chain()), true, duration);
        }
        self.failed(error.chain(), duration)
    }

    fn failed(&mut self, why: String, duration: Duration) -> HostFact {
        // Once for each reason, not at every look.
        if self.error.as_ref() != Some(&why) {
            tracing::warn!(collector = self.collector.name(), %why, "a look at the node failed");
        }
        self.error = Some(why.clone());
        self.fact(Some(why), false, duration)
    }

    fn fact(&self, error: Option<String>, absent: bool, duration: Duration) -> HostFact {
        let duration_ns = u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX);
        HostFact::Collector { collector: self.collector, error, absent, duration_ns }
    }
}

/// Looks at every source once, here and now, and hands over what each tells with its own standing at the end.
pub(super) fn once(sources: &mut [Source], mut take: impl FnMut(Vec<HostFact>)) {
    for source in sources {
        let start = std::time::Instant::now();
        let mut facts = Vec::new();
        let result = source.look.look(&mut facts);
        let duration_ns = u64::try_from(start.elapsed().as_nanos()).unwrap_or(u64::MAX);
        let (error, absent) = match result {
            Ok(()) => (None, false),
            Err(error) => (Some(error.chain()), error.is_absent()),
        };
        facts.push(HostFact::Collector { collector: source.collector, error, absent, duration_ns });
        take(facts);
    }
}

/// A thread that looks, one job after the other, until nobody has jobs or listens any more.
fn thread(back: mpsc::Sender<Done>) -> std::io::Result<std::sync::mpsc::Sender<Job>> {
    let (jobs, taken) = std::sync::mpsc::channel::<Job>();
    std::thread::Builder::new().name(THREAD.to_owned()).spawn(move || {
        for Job { slot, mut look } in taken {
            let start = std::time::Instant::now();
            let mut facts = Vec::new();
            // A look that fell over is one that failed, and not the end of all looks.
            let result = catch_unwind(AssertUnwindSafe(|| look.look(&mut facts)));
            let result = result.unwrap_or(Err(Error::FellOver));
            let done = Done { slot, look, facts, result, duration: start.elapsed() };
            if back.blocking_send(done).is_err() {
                break;
            }
        }
    })?;
    Ok(jobs)
}

async fn until(wake: Option<Instant>) {
    match wake {
        Some(wake) => sleep_until(wake).await,
        // All are away: only one that comes back can be next.
        None => std::future::pending().await,
    }
}

/// A wait, up to a tenth shorter or longer.
fn jittered(every: Duration, random: u64) -> Duration {
    let steps = u64::from(2 * JITTER_PERCENT + 1);
    let percent = 100 - JITTER_PERCENT + u32::try_from(random % steps).unwrap_or(0);
    every * percent / 100
}

/// How a source stands, when that is what a fact says.
pub(super) fn standing(fact: &HostFact) -> Option<Standing> {
    let HostFact::Collector { collector, error, absent, duration_ns } = fact else { return None };
    let state = match (error, absent) {
        (None, _) => CollectorState::Ok,
        (Some(_), true) => CollectorState::Absent,
        (Some(_), false) => CollectorState::Failed,
    };
    Some(Standing {
        name: collector.name().to_owned(),
        state,
        why: error.clone().unwrap_or_default(),
        duration_us: duration_ns / 1_000,
    })
}

#[cfg(test)]
mod tests;
