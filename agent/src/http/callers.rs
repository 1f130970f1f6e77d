//! How much of the server one address may have: a neighbour that floods it costs itself, and not the scraper beside it nor
//! the agent, whose one thread shakes the hands.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// Connections of one address at a time: a sixteenth of the places.
const OPEN_MAX: u32 = 4;
/// One address may begin a connection each such time in the long run. A handshake takes some 300 us, so an address that
/// does nothing else costs less than a thousandth of a core; a scraper needs one in half a minute.
const PACE: Duration = Duration::from_millis(500);
/// And so many at once after a rest.
const BURST: u32 = 20;
/// Addresses that are remembered, 64 bytes each: those with an open connection and those that began many lately. A node has
/// up to 250 pods as neighbours; a cluster's scrapers are a handful.
const ADDRESSES_MAX: usize = 512;

/// Who is here.
#[derive(Debug, Default)]
pub(super) struct Callers(Arc<Mutex<HashMap<IpAddr, Caller>>>);

#[derive(Clone, Copy, Debug)]
struct Caller {
    open: u32,
    /// When the connections so far would have been through at the long run's pace.
    paid: Instant,
}

/// A connection of an address, which ends when this is dropped.
#[derive(Debug)]
pub(super) struct Visit {
    of: IpAddr,
    callers: Arc<Mutex<HashMap<IpAddr, Caller>>>,
}

// === impl Callers ===

impl Callers {
    /// A new connection; `None`: this address has had its part.
    pub(super) fn enter(&self, address: IpAddr, now: Instant) -> Option<Visit> {
        let address = address.to_canonical();
        let mut callers = lock(&self.0);
        if callers.len() >= ADDRESSES_MAX && !callers.contains_key(&address) {
            callers.retain(|_, caller| caller.open > 0 || caller.paid > now);
            if callers.len() >= ADDRESSES_MAX {
                return None;
            }
        }
        let caller = callers.entry(address).or_insert(Caller { open: 0, paid: now });
        let begins = caller.paid.max(now);
        if caller.open >= OPEN_MAX || begins.saturating_duration_since(now) > PACE * (BURST - 1) {
            return None;
        }
        *caller = Caller { open: caller.open + 1, paid: begins + PACE };
        Some(Visit { of: address, callers: Arc::clone(&self.0) })
    }
}

// === impl Visit ===

impl Drop for Visit {
    fn drop(&mut self) {
        if let Some(caller) = lock(&self.callers).get_mut(&self.of) {
            caller.open = caller.open.saturating_sub(1);
        }
    }
}

/// Nothing panics while it holds the lock.
fn lock(callers: &Mutex<HashMap<IpAddr, Caller>>) -> MutexGuard<'_, HashMap<IpAddr, Caller>> {
    callers.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;

    fn address(number: u32) -> IpAddr {
        Ipv4Addr::from(0x0a00_0000 + number).into()
    }

    #[test]
    fn one_address_has_its_part_at_a_time_and_leaves_the_rest_to_others() {
        let (callers, now) = (Callers::default(), Instant::now());
        let held: Vec<_> = (0..OPEN_MAX).map(|_| callers.enter(address(1), now).expect("room")).collect();
        assert!(callers.enter(address(1), now).is_none());
        let mapped = Ipv4Addr::from(0x0a00_0001).to_ipv6_mapped();
        assert!(callers.enter(mapped.into(), now).is_none(), "the same address in another form");
        assert!(callers.enter(address(2), now).is_some());
        drop(held);
        assert!(callers.enter(address(1), now).is_some());
    }

    #[test]
    fn one_address_has_its_part_of_time() {
        let (callers, now) = (Callers::default(), Instant::now());
        let begun = |now| (0..100).filter(|_| callers.enter(address(1), now).is_some()).count();
        assert_eq!(begun(now), BURST as usize);
        assert_eq!(begun(now + PACE * 3), 3, "as many as time went by");
        assert!(callers.enter(address(2), now).is_some());
        assert_eq!(begun(now + PACE * 1_000), BURST as usize, "a long rest saves no more than a burst");
    }

    #[test]
    fn the_table_is_bounded_and_forgets_who_rests() {
        let (callers, now) = (Callers::default(), Instant::now());
        let most = u32::try_from(ADDRESSES_MAX).expect("small");
        let held: Vec<_> = (0..most).map(|number| callers.enter(address(number), now).expect("room")).collect();
        assert!(callers.enter(address(most), now).is_none());
        drop(held);
        assert!(callers.enter(address(most), now).is_none(), "they came just now");
        assert!(callers.enter(address(most), now + PACE * 2).is_some());
        assert_eq!(lock(&callers.0).len(), 1);
    }
}
