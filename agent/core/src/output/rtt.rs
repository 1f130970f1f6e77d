//! Round trip times in fixed buckets, for telemetry.

/// Upper bounds of the buckets, microseconds, from within a host (100 us) to hopeless (10 s). Times beyond the last
/// stand in one more bucket.
pub const RTT_BOUNDS_US: [u32; 16] = [
    100, 250, 500, 1_000, 2_500, 5_000, 10_000, 25_000, 50_000, 100_000, 250_000, 500_000, 1_000_000, 2_500_000,
    5_000_000, 10_000_000,
];

/// Observations by bucket, not cumulated.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RttHistogram {
    counts: [u32; RTT_BOUNDS_US.len() + 1],
    sum_us: u64,
}

impl RttHistogram {
    /// Adds one observation.
    pub fn observe(&mut self, rtt_us: u32) {
        let bucket = RTT_BOUNDS_US.partition_point(|&bound| bound < rtt_us);
        if let Some(count) = self.counts.get_mut(bucket) {
            *count = count.saturating_add(1);
        }
        self.sum_us = self.sum_us.saturating_add(u64::from(rtt_us));
    }

    /// Adds all observations of another.
    pub fn merge(&mut self, other: &Self) {
        for (count, more) in self.counts.iter_mut().zip(other.counts) {
            *count = count.saturating_add(more);
        }
        self.sum_us = self.sum_us.saturating_add(other.sum_us);
    }

    /// Observations in each bucket of [`RTT_BOUNDS_US`], and those beyond.
    pub fn counts(&self) -> &[u32] {
        &self.counts
    }

    /// Number of observations.
    pub fn count(&self) -> u64 {
        self.counts.iter().map(|&count| u64::from(count)).sum()
    }

    /// Sum of all observations, microseconds.
    pub fn sum_us(&self) -> u64 {
        self.sum_us
    }
}
