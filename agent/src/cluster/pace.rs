//! Pauses: growing ones after failures, and chance in all that many nodes do alike.

use std::time::Duration;

use backon::{BackoffBuilder as _, ExponentialBuilder};
use tokio::time::Instant;

/// First and longest pause after failures.
const PAUSE_MIN: Duration = Duration::from_secs(1);
const PAUSE_MAX: Duration = Duration::from_mins(1);
/// What has gone well for this long begins again with the shortest pause.
const WELL_AFTER: Duration = Duration::from_mins(2);

/// Growing pauses with jitter.
pub(super) struct Backoff {
    pauses: backon::ExponentialBackoff,
    last: Option<Instant>,
}

// === impl Backoff ===

impl Backoff {
    pub(super) fn new() -> Self {
        Self { pauses: pauses(), last: None }
    }

    /// When to try again; at least so long from now.
    pub(super) fn next(&mut self, at_least: Duration) -> Instant {
        let now = Instant::now();
        if self.last.is_some_and(|last| now.saturating_duration_since(last) > WELL_AFTER + PAUSE_MAX) {
            self.pauses = pauses();
        }
        let pause = self.pauses.next().unwrap_or(PAUSE_MAX).max(jittered(at_least)).min(PAUSE_MAX.max(2 * at_least));
        self.last = Some(now + pause);
        now + pause
    }
}

fn pauses() -> backon::ExponentialBackoff {
    ExponentialBuilder::default()
        .with_min_delay(PAUSE_MIN)
        .with_max_delay(PAUSE_MAX)
        .with_factor(2.0)
        .without_max_times()
        .with_jitter()
        .build()
}

/// From one to one and a half times as long.
pub(super) fn jittered(time: Duration) -> Duration {
    time + time.mul_f64(fastrand::f64() / 2.0)
}

/// Anything up to so long.
pub(super) fn up_to(time: Duration) -> Duration {
    time.mul_f64(fastrand::f64())
}
