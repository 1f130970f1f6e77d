//! How often EC2 is asked: this node's share of the account's calls, and pauses that grow with failures.

use std::time::Duration;

use backon::{BackoffBuilder as _, ExponentialBuilder};
use tokio::time::Instant;

/// Calls that may be made at once: a start takes about eight, a burst of new pods two or three.
pub(super) const BURST: f64 = 30.0;
/// What is kept back for news when what is known is only made younger.
const RESERVE: f64 = 10.0;
/// All nodes together make about one call a second in the long run, of the 20 a second that EC2 gives an account
/// (<https://docs.aws.amazon.com/ec2/latest/devguide/ec2-api-throttling.html>).
const FLEET_CALLS_PER_SECOND: f64 = 1.0;

/// First and longest pause after throttling, for all calls: nodes that share a limit spread out.
pub(super) const THROTTLED: Pauses = Pauses { min: Duration::from_secs(2), max: Duration::from_mins(5) };
/// Of one call that fails in another way.
pub(super) const FAILED: Pauses = Pauses { min: Duration::from_secs(5), max: Duration::from_mins(15) };
/// Of all calls, without credentials.
pub(super) const NO_CREDENTIALS: Pauses = Pauses { min: Duration::from_secs(5), max: Duration::from_mins(15) };
/// Between two tries of what the role may not: somebody has to change a policy.
pub(super) const DENIED: Duration = Duration::from_hours(1);

/// Calls that may still be made. A call under way may overdraw it: pages belong together.
#[derive(Debug)]
pub(super) struct Bucket {
    tokens: f64,
    per_second: f64,
    at: Instant,
}

/// First and longest pause.
#[derive(Clone, Copy, Debug)]
pub(super) struct Pauses {
    pub(super) min: Duration,
    pub(super) max: Duration,
}

/// Growing pauses with jitter.
#[derive(Debug)]
pub(super) struct Backoff {
    of: Pauses,
    pauses: Option<backon::ExponentialBackoff>,
    until: Option<Instant>,
}

// === impl Bucket ===

impl Bucket {
    pub(super) fn new(fleet_nodes: u32, now: Instant) -> Self {
        Self { tokens: BURST, per_second: share(fleet_nodes), at: now }
    }

    /// From now on so many nodes share the calls.
    pub(super) fn share(&mut self, fleet_nodes: u32, now: Instant) {
        self.fill(now);
        self.per_second = share(fleet_nodes);
    }

    /// A call was made.
    pub(super) fn spend(&mut self, now: Instant) {
        self.fill(now);
        self.tokens -= 1.0;
    }

    /// Something unknown may be asked for.
    pub(super) fn has_for_news(&mut self, now: Instant) -> bool {
        self.fill(now);
        self.tokens >= 1.0
    }

    /// Something known may be asked for again.
    pub(super) fn has_for_refresh(&mut self, now: Instant) -> bool {
        self.fill(now);
        self.tokens >= RESERVE
    }

    fn fill(&mut self, now: Instant) {
        let seconds = now.saturating_duration_since(self.at).as_secs_f64();
        self.tokens = (self.tokens + seconds * self.per_second).min(BURST);
        self.at = self.at.max(now);
    }
}

/// Calls a second of one node.
fn share(fleet_nodes: u32) -> f64 {
    FLEET_CALLS_PER_SECOND / f64::from(fleet_nodes.max(1))
}

// === impl Backoff ===

impl Backoff {
    pub(super) const fn new(of: Pauses) -> Self {
        Self { of, pauses: None, until: None }
    }

    /// Something failed.
    pub(super) fn failed(&mut self, now: Instant) {
        let Pauses { min, max } = self.of;
        let pauses = self.pauses.get_or_insert_with(|| {
            ExponentialBuilder::default()
                .with_min_delay(min)
                .with_max_delay(max)
                .with_factor(2.0)
                .without_max_times()
                .with_jitter()
                .build()
        });
        self.until = Some(now + pauses.next().unwrap_or(max).min(2 * max));
    }

    /// Not before this long from now, with jitter.
    pub(super) fn pause(&mut self, pause: Duration, now: Instant) {
        self.until = Some(now + jittered(pause));
    }

    /// It works.
    pub(super) fn worked(&mut self) {
        (self.pauses, self.until) = (None, None);
    }

    pub(super) fn is_waiting(&self, now: Instant) -> bool {
        self.until.is_some_and(|until| until > now)
    }
}

/// From one to one and a quarter times as long.
pub(super) fn jittered(time: Duration) -> Duration {
    time.mul_f64(1.0 + fastrand::f64() / 4.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_makes_its_burst_and_then_its_share() {
        let start = Instant::now();
        let mut bucket = Bucket::new(100, start);
        let mut made = 0;
        // An hour, in which more is wished than may be asked.
        for second in 0..3_600 {
            let now = start + Duration::from_secs(second);
            while bucket.has_for_news(now) {
                bucket.spend(now);
                made += 1;
            }
        }
        assert_eq!(made, 30 + 35, "the burst, and one in 100 s, the last of which is not full yet");
    }

    #[test]
    fn a_fleet_that_shrinks_gives_each_node_more() {
        let start = Instant::now();
        let mut bucket = Bucket::new(1_000, start);
        while bucket.has_for_news(start) {
            bucket.spend(start);
        }
        let later = start + Duration::from_secs(500);
        bucket.share(10, later);
        assert!(!bucket.has_for_news(later), "half a call by the old share");
        assert!(bucket.has_for_news(later + Duration::from_secs(6)));
    }

    #[test]
    fn what_is_known_leaves_room_for_news() {
        let now = Instant::now();
        let mut bucket = Bucket::new(1_000, now);
        let mut refreshed = 0;
        while bucket.has_for_refresh(now) {
            bucket.spend(now);
            refreshed += 1;
        }
        assert_eq!(refreshed, 21);
        assert!(bucket.has_for_news(now));
        assert!(!bucket.has_for_refresh(now + Duration::from_mins(15)));
        assert!(bucket.has_for_refresh(now + Duration::from_secs(1_001)));
    }

    #[test]
    fn pauses_grow_to_their_end_and_begin_anew_after_a_success() {
        let start = Instant::now();
        let mut backoff = Backoff::new(Pauses { min: Duration::from_secs(1), max: Duration::from_mins(1) });
        assert!(!backoff.is_waiting(start));
        for least in [1, 2, 4, 8, 16, 32, 60, 60] {
            backoff.failed(start);
            assert!(backoff.is_waiting(start + Duration::from_secs(least) - Duration::from_millis(1)), "{least}");
            assert!(!backoff.is_waiting(start + Duration::from_secs(2 * least)), "{least}");
        }
        backoff.worked();
        assert!(!backoff.is_waiting(start));
        backoff.failed(start);
        assert!(!backoff.is_waiting(start + Duration::from_secs(2)));
        backoff.pause(DENIED, start);
        assert!(backoff.is_waiting(start + Duration::from_secs(3_599)));
        assert!(!backoff.is_waiting(start + Duration::from_secs(4_501)));
    }
}
