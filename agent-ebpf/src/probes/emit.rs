//! The one way to a ring: count, hold the cgroup to its budget, reserve, and say what became of the record.
//!
//! Every record that a probe has to report is counted as seen, and then as exactly one of written, merged, suppressed or
//! lost: see `agent_ebpf::shared::Fate`.

use core::ptr::{addr_of, read_volatile, write_volatile};

use aya_ebpf::bindings::{BPF_ANY, BPF_RB_AVAIL_DATA, BPF_RB_FORCE_WAKEUP, BPF_RB_NO_WAKEUP};
use aya_ebpf::helpers::generated::{
    bpf_get_prandom_u32, bpf_ktime_get_boot_ns, bpf_ringbuf_output, bpf_ringbuf_query, bpf_ringbuf_reserve,
    bpf_ringbuf_submit,
};

use agent_ebpf::rules;
use agent_ebpf::shared::{Account, Fate, counter};
use agent_ebpf::wire::{Direction, Header, Kind, Outcome, Ring, VERSION};

use super::atomic;
use super::maps::{ACCOUNTS, BULK, COUNTERS, LIFECYCLE, LIVE, LIVE_LOCAL, METADATA, OVERFLOW, SAMPLING, SETTINGS};

/// Boot-time nanoseconds.
#[inline(always)]
pub fn now_ns() -> u64 {
    // SAFETY: no argument.
    unsafe { bpf_ktime_get_boot_ns() }
}

/// Adds one to a counter. Atomic although per CPU: softirq may interrupt a program between load and store.
#[inline(always)]
pub fn count(index: u32) {
    if let Some(counters) = COUNTERS.get_ptr_mut(0) {
        bump(counters, index);
    }
}

type Counters = [u64; counter::COUNT as usize];

#[inline(always)]
fn bump(counters: *mut Counters, index: u32) {
    // SAFETY: callers pass constants below COUNT.
    atomic::add(unsafe { counters.cast::<u64>().add(index as usize) }, 1);
}

/// A record's header.
#[inline(always)]
pub fn header<T>(kind: Kind, flags: u16, extra_bytes: u32, time_ns: u64, cgroup_id: u64) -> Header {
    Header { version: VERSION, kind: kind as u8, flags, len: size_of::<T>() as u32 + extra_bytes, time_ns, cgroup_id }
}

/// A place in a ring, to be written whole and submitted.
pub struct Slot<T> {
    place: *mut T,
    wake: bool,
}

impl<T> Slot<T> {
    /// Where the record goes.
    #[inline(always)]
    pub fn place(&self) -> *mut T {
        self.place
    }

    /// Hands the record over.
    #[inline(always)]
    pub fn submit(self) {
        let flags = if self.wake { BPF_RB_FORCE_WAKEUP } else { BPF_RB_NO_WAKEUP };
        // SAFETY: the place came from a reservation and is given back once.
        unsafe { bpf_ringbuf_submit(self.place.cast(), flags.into()) };
    }
}

/// What became of a request for a slot.
pub enum Reserved<T> {
    /// Write it.
    Slot(Slot<T>),
    /// No room: over budget, or the ring is full. Flows merge their totals into the account.
    No(Refused),
}

/// Why there is no room, and on whose account.
pub struct Refused {
    cgroup_id: u64,
    why: Why,
    kind: Kind,
}

#[derive(Clone, Copy)]
enum Why {
    Budget,
    RingFull,
    /// No ring was asked: the socket is not tracked.
    Untracked,
    /// No ring was asked: the agent is at its budget of CPU.
    Sampled,
}

/// Asks for `size_of::<T>()` bytes in the ring of `kind`, on the budget of a cgroup.
#[inline(always)]
pub fn reserve<T>(kind: Kind, cgroup_id: u64, now: u64) -> Reserved<T> {
    let bytes = size_of::<T>() as u32;
    let admission = admit(kind, cgroup_id, now, bytes);
    if !admission.allowed {
        return Reserved::No(Refused { cgroup_id, why: Why::Budget, kind });
    }
    // SAFETY: a constant size; null when full.
    let place = unsafe { bpf_ringbuf_reserve(ring_ptr(kind.ring()), u64::from(bytes), 0) }.cast::<T>();
    if place.is_null() {
        return Reserved::No(Refused { cgroup_id, why: Why::RingFull, kind });
    }
    // A reserved place is always submitted.
    if let Some(counters) = admission.counters {
        bump(counters, counter::record(kind, Fate::Written));
    }
    Reserved::Slot(Slot { place, wake: admission.wake })
}

/// Copies `len` bytes (variable, at most what `from` holds) to the ring of `kind`.
#[inline(always)]
pub fn output<T>(kind: Kind, cgroup_id: u64, now: u64, from: *const T, len: u32) {
    let admission = admit(kind, cgroup_id, now, len);
    if !admission.allowed {
        return Refused { cgroup_id, why: Why::Budget, kind }.drop_record();
    }
    let flags = if admission.wake { BPF_RB_FORCE_WAKEUP } else { BPF_RB_NO_WAKEUP };
    // SAFETY: callers bound `len` by the size of `T`; the verifier checks it.
    let result =
        unsafe { bpf_ringbuf_output(ring_ptr(kind.ring()), from.cast_mut().cast(), u64::from(len), flags.into()) };
    if result == 0 {
        count(counter::record(kind, Fate::Written));
    } else {
        Refused { cgroup_id, why: Why::RingFull, kind }.drop_record();
    }
}

impl Refused {
    /// A flow of an untracked socket: nothing was asked of a ring.
    #[inline(always)]
    pub fn untracked(kind: Kind, cgroup_id: u64) -> Self {
        count(counter::record(kind, Fate::Seen));
        Self { cgroup_id, why: Why::Untracked, kind }
    }

    /// A new flow, unless it is one of those that are told while the agent is at its budget of CPU. Costs a look at one word
    /// while it is not.
    #[inline(always)]
    pub fn sampled(kind: Kind, cgroup_id: u64) -> Option<Self> {
        // SAFETY: a map value that only the agent writes.
        let shift = unsafe { read_volatile(SAMPLING.get_ptr_mut(0)?) };
        // SAFETY: no argument.
        if shift == 0 || !rules::samples_out(shift, unsafe { bpf_get_prandom_u32() }) {
            return None;
        }
        count(counter::record(kind, Fate::Seen));
        Some(Self { cgroup_id, why: Why::Sampled, kind })
    }

    /// Counts a record whose content is gone (metadata, lifecycle, DNS).
    #[inline(always)]
    pub fn drop_record(self) {
        let fate = if matches!(self.why, Why::Budget) { Fate::Suppressed } else { Fate::LostRing };
        count(counter::record(self.kind, fate));
        self.note();
    }

    /// Keeps a flow's totals in its cgroup's account.
    #[inline(always)]
    pub fn merge(self, ended: Option<(Direction, Outcome)>, bytes_sent: u64, bytes_received: u64) {
        count(counter::record(self.kind, Fate::Merged));
        if matches!(self.why, Why::Sampled) {
            let is_udp = matches!(self.kind, Kind::UdpEnd | Kind::UdpOpen);
            count(if is_udp { counter::SAMPLED_UDP } else { counter::SAMPLED_TCP });
        }
        if let Some(account) = account(self.cgroup_id) {
            // SAFETY: a map value; all adds are atomic.
            let account = unsafe { &mut *account };
            if let Some((direction, outcome)) = ended {
                let row = usize::from(matches!(direction, Direction::Inbound));
                let column = outcome.index() & 7;
                atomic::add(&raw mut account.merged_connections[row][column], 1);
            }
            atomic::add(&raw mut account.merged_bytes_sent, bytes_sent);
            atomic::add(&raw mut account.merged_bytes_received, bytes_received);
        }
        self.note();
    }

    #[inline(always)]
    fn note(self) {
        if matches!(self.why, Why::Untracked | Why::Sampled) {
            return;
        }
        if let Some(account) = account(self.cgroup_id) {
            let ring = self.kind.ring() as usize;
            // SAFETY: as in `merge`.
            let account = unsafe { &mut *account };
            let field = match (self.kind, self.why) {
                (Kind::Dns, Why::Budget) => &raw mut account.dns_over_budget,
                (Kind::Dns, _) => &raw mut account.dns_ring_full,
                (_, Why::Budget) => &raw mut account.over_budget[ring],
                _ => &raw mut account.ring_full[ring],
            };
            atomic::add(field, 1);
        }
    }
}

struct Admission {
    counters: Option<*mut Counters>,
    allowed: bool,
    wake: bool,
}

#[inline(always)]
fn admit(kind: Kind, cgroup_id: u64, now: u64, bytes: u32) -> Admission {
    let counters = COUNTERS.get_ptr_mut(0);
    if let Some(counters) = counters {
        bump(counters, counter::record(kind, Fate::Seen));
    }
    let ring = kind.ring();
    // SAFETY: plain integers, frozen.
    let ring_bytes = unsafe { read_volatile(addr_of!(SETTINGS.ring_bytes[ring as usize])) };
    // SAFETY: as above.
    let guaranteed = unsafe { read_volatile(addr_of!(SETTINGS.guaranteed_bytes[ring as usize])) };
    // SAFETY: the map is a ring.
    let pending = unsafe { bpf_ringbuf_query(ring_ptr(ring), BPF_RB_AVAIL_DATA.into()) };
    // Metadata is rare and urgent; lifecycle must be there before flows are named, which the drain's order ensures.
    let wake = matches!(ring, Ring::Metadata) || pending > ring_bytes / 4;
    // A ring with this much room needs no budgets, and most records find it so.
    if pending <= ring_bytes / 4 {
        return Admission { counters, allowed: true, wake };
    }
    let Some(account) = account(cgroup_id) else {
        return Admission { counters, allowed: true, wake };
    };
    // SAFETY: a map value.
    let window = unsafe { &raw mut (*account).window[ring as usize] };
    // SAFETY: a map value. Two CPUs may race here: a lost update makes the budget a little wider, never a count wrong.
    let word = unsafe { read_volatile(window) };
    let (word, used) = rules::window_add(word, now, bytes);
    let is_dns = matches!(kind, Kind::Dns);
    let share = if is_dns { rules::dns_share(guaranteed) } else { guaranteed };
    let allowed = rules::may_write(used, share, pending, ring_bytes);
    // What is refused of DNS takes nothing from the flows of the same window.
    if allowed || !is_dns {
        // SAFETY: as above.
        unsafe { write_volatile(window, word) };
    }
    Admission { counters, allowed, wake }
}

/// Whether a walk must leave the rest for another one after a drain. Nothing was claimed, so nothing is lost.
#[inline(always)]
pub fn defers() -> bool {
    // SAFETY: plain integers, frozen.
    let ring_bytes = unsafe { read_volatile(addr_of!(SETTINGS.ring_bytes[Ring::Bulk as usize])) };
    // SAFETY: the map is a ring.
    let pending = unsafe { bpf_ringbuf_query(ring_ptr(Ring::Bulk), BPF_RB_AVAIL_DATA.into()) };
    if pending <= ring_bytes / 4 {
        return false;
    }
    count(counter::DEFERRED);
    true
}

/// The account of a cgroup; the shared one when the map is full.
#[inline(always)]
pub fn account(cgroup_id: u64) -> Option<*mut Account> {
    if let Some(account) = ACCOUNTS.get_ptr_mut(cgroup_id) {
        return Some(account);
    }
    new_account(cgroup_id)
}

#[inline(always)]
fn new_account(cgroup_id: u64) -> Option<*mut Account> {
    let empty: &Account = &Account {
        window: [0; 3],
        over_budget: [0; 3],
        ring_full: [0; 3],
        merged_connections: [[0; Outcome::COUNT]; 2],
        merged_bytes_sent: 0,
        merged_bytes_received: 0,
        dns_over_budget: 0,
        dns_ring_full: 0,
    };
    // Two CPUs may insert at once: BPF_NOEXIST would fail for the second, and its lookup below finds the first's.
    let _ = ACCOUNTS.insert(cgroup_id, empty, u64::from(aya_ebpf::bindings::BPF_NOEXIST));
    if let Some(account) = ACCOUNTS.get_ptr_mut(cgroup_id) {
        return Some(account);
    }
    count(counter::OVERFLOW_ACCOUNTS);
    OVERFLOW.get_ptr_mut(0)
}

/// A CPU tells its balance when it is off by this much: the cap is soft by as much per CPU, and most connections touch
/// no memory that CPUs share.
const LIVE_BATCH: u64 = 64;

/// Takes one of the places for tracked sockets; `false` when all are taken.
#[inline(always)]
pub fn admit_socket() -> bool {
    // SAFETY: plain integers, frozen.
    let most = unsafe { read_volatile(addr_of!(SETTINGS.max_sockets)) };
    let Some(live) = LIVE.get_ptr_mut(0) else { return false };
    // SAFETY: a map value. The balance may be below zero for a moment, when another CPU told its ends first.
    let now = unsafe { read_volatile(live) } as i64;
    if now >= i64::from(most) {
        count(counter::UNTRACKED_SOCKETS);
        return false;
    }
    settle(live, 1);
    true
}

/// Gives a place for a tracked socket back.
#[inline(always)]
pub fn release_socket() {
    if let Some(live) = LIVE.get_ptr_mut(0) {
        settle(live, -1);
    }
}

#[inline(always)]
fn settle(live: *mut u64, change: i64) {
    let Some(local) = LIVE_LOCAL.get_ptr_mut(0) else { return };
    let balance = atomic::add(local, change as u64).wrapping_add(change as u64);
    // LIVE_BATCH above or below zero.
    if balance.wrapping_add(LIVE_BATCH) > 2 * LIVE_BATCH && atomic::replace(local, balance, 0) {
        atomic::add(live, balance);
    }
}

#[inline(always)]
fn ring_ptr(ring: Ring) -> *mut core::ffi::c_void {
    match ring {
        Ring::Metadata => core::ptr::from_ref(&METADATA).cast_mut().cast(),
        Ring::Lifecycle => core::ptr::from_ref(&LIFECYCLE).cast_mut().cast(),
        Ring::Bulk => core::ptr::from_ref(&BULK).cast_mut().cast(),
    }
}

const _: () = assert!(BPF_ANY == 0);
