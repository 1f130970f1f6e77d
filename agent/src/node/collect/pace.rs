//! How fast pairs of counters grow: between two looks, over all devices together.

use std::collections::HashMap;
use std::hash::Hash;
use std::time::Instant;

/// Two counters of a device.
pub(super) type Pair = (u64, u64);

/// What the look before saw.
pub(super) struct Pace<K> {
    before: Option<(Instant, HashMap<K, Pair>)>,
}

// === impl Pace ===

impl<K> Default for Pace<K> {
    fn default() -> Self {
        Self { before: None }
    }
}

impl<K: Eq + Hash> Pace<K> {
    /// Growth a second of each of the two counters since the look before. `None` at the first look, without a device, and
    /// when a counter went backwards: somebody set it to zero, and how much it counted before nobody knows.
    pub(super) fn of(&mut self, counters: HashMap<K, Pair>, now: Instant) -> Option<Pair> {
        let growth = self.before.as_ref().and_then(|(then, before)| {
            let (mut first, mut second) = (0_u64, 0_u64);
            for (device, now) in &counters {
                // A device that came meanwhile has nothing to be compared with yet.
                let Some(before) = before.get(device) else { continue };
                first = first.saturating_add(now.0.checked_sub(before.0)?);
                second = second.saturating_add(now.1.checked_sub(before.1)?);
            }
            let elapsed_ms = u64::try_from(now.duration_since(*then).as_millis()).ok().filter(|ms| *ms > 0)?;
            let a_second = |growth: u64| growth.saturating_mul(1_000) / elapsed_ms;
            (!counters.is_empty()).then(|| (a_second(first), a_second(second)))
        });
        self.before = Some((now, counters));
        growth
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn growth_of_all_devices_together() {
        let mut pace = Pace::default();
        let start = Instant::now();
        let mut of = |seconds, devices: &[(u32, u64, u64)]| {
            let counters = devices.iter().map(|(device, first, second)| (*device, (*first, *second))).collect();
            pace.of(counters, start + Duration::from_secs(seconds))
        };
        assert_eq!(of(0, &[(1, 0, 0), (2, 500, 0)]), None, "nothing to compare with");
        assert_eq!(of(2, &[(1, 1_000, 10), (2, 1_500, 10)]), Some((1_000, 10)));
        assert_eq!(of(3, &[(1, 0, 10), (2, 1_500, 10)]), None, "backwards");
        assert_eq!(of(4, &[(1, 100, 10), (3, 900, 9)]), Some((100, 0)), "a new device is not counted yet");
        assert_eq!(of(4, &[(1, 100, 10)]), None, "no time went by");
        assert_eq!(of(5, &[]), None, "no device, no pace");
    }
}
