//! The ring thread: drains the three rings in the order that attribution needs, walks what is open, reads the counters.
//!
//! Flows and metadata are taken from their rings first and lifecycle last, but handed over in the opposite order: every
//! process and cgroup event that was written before a flow's record is then told before it.

use std::collections::VecDeque;
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use agent_core::continuity::{Place, Resume};
use agent_core::decode::{DecodeOptions, Decoder};
use agent_core::governor::Governor;
use agent_core::input::Input;
use agent_core::time::BootNs;
use agent_ebpf::shared::RINGS;
use agent_ebpf::wire::{Header, Kind, Ring as RingName};
use aya::maps::{HashMap, MapData};
use aya::programs::links::FdLink;
use rustix::event::{Timespec, epoll};
use rustix::time::{ClockId, clock_gettime};
use tokio::sync::mpsc;
use zerocopy::FromBytes as _;

use super::accounts::{Accounts, take};
use super::iterators::Walk;
use super::load::{Loaded, Walks};
use super::ring::Ring;
use super::taken::Taken;
use super::{Error, Options};

/// The thread drains at least this often: at most ten wake-ups a second when nothing is urgent.
const DRAIN_INTERVAL: Duration = Duration::from_millis(100);
/// Counters are read this often, and at the end.
const TOTALS_INTERVAL: Duration = Duration::from_secs(5);
/// An account outlives its cgroup by this much: sockets may, and the last totals must have been read.
const ACCOUNT_LINGER_NS: u64 = 5 * 60 * 1_000_000_000;
/// Walks of one round, at most: each tells at least a quarter of the ring, and the smallest ring is a page.
const MOST_WALKS: u32 = 1_024;
/// Flows and metadata handed over at once, at most: 8,192 of about 250 bytes are 2 MiB. With them go the events of one
/// drain of the lifecycle ring, which its size bounds.
const MOST_INPUTS: usize = 8_192;
/// Room that an emptied list keeps: a drain of a busy node, 1 MiB.
const KEPT_INPUTS: usize = 4_096;

/// Starts the thread.
pub(super) fn spawn(
    mut loaded: Loaded,
    from: Option<Resume>,
    options: &Options,
    sender: mpsc::Sender<Vec<Input>>,
    stop: Arc<AtomicBool>,
) -> Result<(), Error> {
    let mut taken = std::mem::replace(&mut loaded.taken, Taken::nowhere());
    let mut metadata = Ring::take(&mut loaded.ebpf, "METADATA")?;
    let mut left = std::mem::take(&mut loaded.left);
    let mut decoder = Decoder::new(DecodeOptions { keep_args: options.keep_args });
    if let Some(from) = from {
        match left.first_mut() {
            Some(left) => {
                left.seek(from.place.position);
            }
            None if metadata.seek(from.place.position) => taken.metadata_from(from.place),
            None => {}
        }
        decoder.resume(from);
    }
    let lifecycle = Ring::take(&mut loaded.ebpf, "LIFECYCLE")?;
    let bulk = Ring::take(&mut loaded.ebpf, "BULK")?;
    let reader = Reader {
        attention: attention([metadata.as_fd(), lifecycle.as_fd(), bulk.as_fd()])
            .map_err(|source| Error::Ring { map: "METADATA", source })?,
        metadata,
        lifecycle,
        bulk,
        taken,
        left,
        told: None,
        accounts: Accounts::take(&mut loaded.ebpf)?,
        closed_sockets: take(&mut loaded.ebpf, "CLOSED_SOCKETS")?,
        walks: std::mem::take(&mut loaded.walks),
        decoder,
        held: Vec::new(),
        gone: VecDeque::new(),
        peers_closed: false,
        walk_interval: Duration::from_millis(options.walk_interval_ms),
        governor: Governor::new(options.cpu_percent),
        // What an earlier agent left, if it left anything.
        sampling: None,
        sender,
        #[cfg(feature = "probe-log")]
        log: None,
    };
    #[cfg(feature = "probe-log")]
    let reader = Reader { log: super::probe_log::ProbeLog::open(&mut loaded.ebpf), ..reader };
    let attached = (loaded.ebpf, loaded.links);
    thread::Builder::new()
        .name("sekisho-rings".to_owned())
        .spawn(move || reader.run(attached, &stop))
        .map(drop)
        .map_err(|source| Error::Thread { source })
}

struct Reader {
    metadata: Ring,
    lifecycle: Ring,
    bulk: Ring,
    taken: Taken,
    /// Tells when a ring asks for attention: once, whatever still lies in it.
    attention: OwnedFd,
    /// Rings of programs that were replaced: metadata, lifecycle, bulk; gone once they are read.
    left: Vec<Ring>,
    /// What was said last of the metadata ring.
    told: Option<Place>,
    accounts: Accounts,
    /// By cookie, the `Owner` that closed it as words.
    closed_sockets: HashMap<MapData, u64, [u64; 2]>,
    walks: Walks,
    decoder: Decoder,
    /// Flows and metadata, until lifecycle is drained. Kept to reuse its room.
    held: Vec<Input>,
    /// Cgroups that are gone, and when; oldest first.
    gone: VecDeque<(BootNs, u64)>,
    /// A UDP socket with many peers closed: its other flows wait for a walk.
    peers_closed: bool,
    walk_interval: Duration,
    governor: Governor,
    /// What the probes were told last; `None`: nothing yet.
    sampling: Option<u32>,
    sender: mpsc::Sender<Vec<Input>>,
    #[cfg(feature = "probe-log")]
    log: Option<super::probe_log::ProbeLog>,
}

/// The receiver is gone.
struct Closed;

impl Reader {
    fn run(mut self, attached: (aya::Ebpf, Vec<FdLink>), stop: &AtomicBool) {
        if self.drain_left().is_err() {
            return;
        }
        let mut next_walk = Instant::now() + self.walk_interval;
        let mut next_totals = Instant::now();
        let mut next_tick = Instant::now();
        while !stop.load(Ordering::Acquire) {
            self.wait();
            self.taken.give_back_metadata(&mut self.metadata);
            #[cfg(feature = "probe-log")]
            if let Some(log) = &mut self.log {
                log.flush();
            }
            let now = Instant::now();
            if now >= next_walk {
                next_walk = now + self.walk_interval;
                if self.walk_all().is_err() {
                    return;
                }
            } else if std::mem::take(&mut self.peers_closed) {
                self.walk_peers();
            }
            if self.drain().is_err() {
                return;
            }
            let mut inputs = Vec::new();
            if now >= next_tick {
                next_tick = now + Duration::from_secs(1);
                self.decoder.tick(boot_now(), &mut inputs);
                self.govern();
            }
            if now >= next_totals {
                next_totals = now + TOTALS_INTERVAL;
                self.totals(&mut inputs);
            }
            if self.send(inputs).is_err() {
                return;
            }
        }
        // Pinned programs go on without an agent, which then takes no CPU.
        let _ = self.accounts.sample(0);
        // Detached first: what is written after the last drain would be lost silently. Pinned programs go on.
        drop(attached);
        if self.walk_all().and_then(|()| self.drain()).is_err() {
            return;
        }
        let mut inputs = Vec::new();
        if !self.taken.is_kept() {
            // Where the rings go on, the next agent reads again what is told in part.
            self.decoder.finish(boot_now(), &mut inputs);
        }
        self.totals(&mut inputs);
        // Whether anybody still listens makes no difference any more.
        let _ = self.send(inputs);
    }

    /// Sleeps until a ring asks for attention or the interval is over.
    fn wait(&self) {
        let timeout = Timespec { tv_sec: 0, tv_nsec: DRAIN_INTERVAL.subsec_nanos().into() };
        let mut events = [MaybeUninit::<epoll::Event>::uninit(); RINGS];
        // An interrupted wait is a wait that is over.
        let _ = epoll::wait(&self.attention, &mut events, Some(&timeout));
    }

    /// Takes all that is in the rings, in portions.
    fn drain(&mut self) -> Result<(), Closed> {
        loop {
            let mut inputs = Vec::new();
            let mut full = false;
            full |= self.drain_metadata();
            while let Some((_, item)) = self.bulk.next() {
                self.decoder.feed(RingName::Bulk, item, &mut self.held);
                let kind = kind(item);
                self.taken.read(RingName::Bulk, kind, &mut self.bulk);
                if self.held.len() >= MOST_INPUTS {
                    full = true;
                    break;
                }
            }
            self.taken.give_back(RingName::Bulk, &mut self.bulk);
            while let Some((_, item)) = self.lifecycle.next() {
                self.decoder.feed(RingName::Lifecycle, item, &mut inputs);
                let kind = kind(item);
                self.taken.read(RingName::Lifecycle, kind, &mut self.lifecycle);
            }
            self.taken.give_back(RingName::Lifecycle, &mut self.lifecycle);
            for input in &inputs {
                if let Input::CgroupGone { id, time } = input {
                    self.gone.push_back((*time, *id));
                }
            }
            self.peers_closed |=
                self.held.iter().any(|input| matches!(input, Input::Udp(udp) if udp.many_peers && !udp.open));
            inputs.append(&mut self.held);
            self.held.shrink_to(KEPT_INPUTS);
            self.send(inputs)?;
            if !full {
                return Ok(());
            }
        }
    }

    /// Takes all that replaced programs left, in portions: lifecycle first, for it tells whose the rest is.
    fn drain_left(&mut self) -> Result<(), Closed> {
        let mut left = std::mem::take(&mut self.left);
        if left.is_empty() {
            // These rings go on, and what was told of them holds.
            return Ok(());
        }
        let names = [RingName::Metadata, RingName::Lifecycle, RingName::Bulk];
        let mut rings: Vec<_> = names.into_iter().zip(&mut left).collect();
        rings.sort_by_key(|(name, _)| *name != RingName::Lifecycle);
        for (name, ring) in rings {
            let mut inputs = Vec::new();
            while let Some((position, item)) = ring.next() {
                let first = inputs.len();
                self.decoder.feed_at(name, Place { position, records: 0 }, item, &mut inputs);
                for input in inputs.iter_mut().skip(first) {
                    match input {
                        Input::CgroupGone { id, time } => self.gone.push_back((*time, *id)),
                        // There is no place to go back to.
                        Input::Metadata(fact) => {
                            if let Some(origin) = &mut fact.origin {
                                origin.place = Place::default();
                            }
                        }
                        _ => {}
                    }
                }
                if inputs.len() >= MOST_INPUTS {
                    self.send(std::mem::take(&mut inputs))?;
                }
            }
            self.send(inputs)?;
        }
        self.decoder.change_rings();
        Ok(())
    }

    /// Takes what is in the metadata ring; whether there may be more.
    fn drain_metadata(&mut self) -> bool {
        let mut place = self.taken.metadata(&self.metadata);
        let mut full = false;
        while let Some((position, item)) = self.metadata.next() {
            if self.taken.is_kept() {
                place = Place { position, ..place };
                self.decoder.feed_at(RingName::Metadata, place, item, &mut self.held);
            } else {
                self.decoder.feed(RingName::Metadata, item, &mut self.held);
            }
            self.taken.read_metadata(&mut self.metadata);
            place = self.taken.metadata(&self.metadata);
            if self.held.len() >= MOST_INPUTS {
                full = true;
                break;
            }
        }
        if self.taken.is_kept() {
            let told = self.decoder.untold().unwrap_or(place);
            if self.told.replace(told) != Some(told) {
                self.held.push(Input::Told(told));
            }
            self.taken.give_back_metadata(&mut self.metadata);
        }
        full
    }

    fn send(&self, inputs: Vec<Input>) -> Result<(), Closed> {
        if inputs.is_empty() {
            return if self.sender.is_closed() { Err(Closed) } else { Ok(()) };
        }
        // Waits when the engine is behind: the rings then fill, and the kernel counts what finds no room.
        self.sender.blocking_send(inputs).map_err(|_| Closed)
    }

    /// One round of walks: as many as it takes to tell all news, with a drain after each.
    fn walk_all(&mut self) -> Result<(), Closed> {
        if let Err(error) = self.accounts.begin_round() {
            tracing::warn!("cannot number the walks: {error}");
        }
        for _ in 0..MOST_WALKS {
            let before = self.accounts.walked();
            let tcp = walk("open connections", self.walks.tcp.as_ref());
            let udp = walk("UDP sockets", self.walks.udp.as_ref());
            let after = self.accounts.walked();
            self.walk_peers();
            self.drain()?;
            let (Ok(before), Ok(after), Ok(end)) = (before, after, self.accounts.walked()) else {
                tracing::warn!("cannot read the walks' counters");
                return Ok(());
            };
            if tcp
                && udp
                && let Err(error) = self.accounts.correct_live(after.0.saturating_sub(before.0))
            {
                tracing::warn!("cannot correct the number of tracked sockets: {error}");
            }
            if end.1 == before.1 {
                return Ok(());
            }
        }
        // What was put off once more is told in the next round.
        Ok(())
    }

    /// Walks the flows beside their sockets' first; then the closed sockets among them are done with.
    fn walk_peers(&mut self) {
        let closed: Vec<u64> = self.closed_sockets.keys().filter_map(Result::ok).collect();
        walk("UDP peers", self.walks.peers.as_ref());
        for cookie in closed {
            // Gone already is as good.
            let _ = self.closed_sockets.remove(&cookie);
        }
    }

    /// Holds the agent to its budget of CPU.
    fn govern(&mut self) {
        let cpu = clock_gettime(ClockId::ProcessCPUTime);
        let shift = self.governor.look(boot_now(), nanoseconds(cpu));
        self.sample(shift);
    }

    fn sample(&mut self, shift: u32) {
        if self.sampling == Some(shift) {
            return;
        }
        match self.accounts.sample(shift) {
            Err(error) => tracing::warn!("cannot tell the probes how many new connections to tell: {error}"),
            Ok(()) => {
                if let Some(before) = self.sampling.replace(shift) {
                    let one_in = 1_u32 << shift;
                    if shift > before {
                        tracing::warn!(
                            one_in,
                            "the agent is over its budget of CPU (kernel.cpu_percent): of new connections one in so many is told, the others are summed up"
                        );
                    } else {
                        tracing::info!(
                            one_in,
                            "the agent is within its budget of CPU: of new connections one in so many is told"
                        );
                    }
                }
            }
        }
    }

    fn totals(&mut self, inputs: &mut Vec<Input>) {
        match self.accounts.read() {
            Ok(totals) => inputs.push(Input::KernelTotals(Box::new(totals))),
            Err(error) => tracing::warn!("cannot read the kernel's counters: {error}"),
        }
        let now = boot_now();
        while let Some((time, id)) = self.gone.front().copied()
            && now.since(time) > ACCOUNT_LINGER_NS
        {
            self.gone.pop_front();
            self.accounts.forget(id);
        }
    }
}

/// The kind that a record says to be.
fn kind(record: &[u8]) -> Option<Kind> {
    let (header, _) = Header::read_from_prefix(record).ok()?;
    Kind::from_wire(header.kind)
}

/// Waits for rings by their edges: a record that was read and not given back yet would make a poll return at once.
fn attention(rings: [BorrowedFd<'_>; RINGS]) -> io::Result<OwnedFd> {
    let attention = epoll::create(epoll::CreateFlags::CLOEXEC)?;
    for ring in rings {
        let flags = epoll::EventFlags::IN | epoll::EventFlags::ET;
        epoll::add(&attention, ring, epoll::EventData::new_u64(0), flags)?;
    }
    Ok(attention)
}

/// Walks once; whether it came to its end.
fn walk(what: &str, walk: Option<&Walk>) -> bool {
    match walk.map(Walk::run) {
        Some(Ok(())) => true,
        Some(Err(error)) => {
            tracing::warn!("cannot walk {what}: {error}");
            false
        }
        None => false,
    }
}

pub(super) fn boot_now() -> BootNs {
    BootNs(nanoseconds(clock_gettime(ClockId::Boottime)))
}

fn nanoseconds(time: Timespec) -> u64 {
    let seconds = u64::try_from(time.tv_sec).unwrap_or(0);
    seconds.saturating_mul(1_000_000_000).saturating_add(u64::try_from(time.tv_nsec).unwrap_or(0))
}
