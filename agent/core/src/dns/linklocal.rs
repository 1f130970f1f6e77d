//! How many packets go to AWS's link-local services in a second, by the interface that they leave by.
//!
//! An interface may send 1,024 of them a second, of all pods behind it together; what is more is dropped. Averages hide
//! that: a minute of 100 a second may hold a second of 5,000. So the busiest second of each interval is told.

use crate::capacity::Scope;
use crate::fast::FastMap;
use crate::time::BootNs;

/// Packets a second that AWS answers on one interface
/// (<https://docs.aws.amazon.com/vpc/latest/userguide/AmazonDNS-concepts.html>).
pub const PACKETS_A_SECOND: u64 = 1_024;
/// Most interfaces: the largest instances have fewer than 32, and trunks 120 branches.
pub const MAX_SCOPES: usize = 256;
const SECOND_NS: u64 = 1_000_000_000;

/// See the module's documentation.
#[derive(Debug, Default)]
pub struct Linklocal {
    scopes: FastMap<Scope, Seconds>,
}

/// Records of one ring come in the order in which room was reserved for them, which is nearly that of their time.
#[derive(Clone, Copy, Debug, Default)]
struct Seconds {
    second: u64,
    packets: u64,
    peak: u64,
}

impl Linklocal {
    /// One packet was sent.
    pub fn packet(&mut self, scope: &Scope, time: BootNs) {
        if !self.scopes.contains_key(scope) && self.scopes.len() >= MAX_SCOPES {
            return;
        }
        let seconds = self.scopes.entry(scope.clone()).or_default();
        let second = time.0 / SECOND_NS;
        if second > seconds.second {
            (seconds.second, seconds.packets) = (second, 0);
        }
        seconds.packets += 1;
        seconds.peak = seconds.peak.max(seconds.packets);
    }

    /// The most in one second since the last call, by interface. One that was silent meanwhile is told once more, with
    /// nothing, and then no more.
    pub fn peaks(&mut self, now: BootNs) -> Vec<(Scope, u64)> {
        let this = now.0 / SECOND_NS;
        self.scopes.retain(|_, seconds| seconds.peak > 0 || seconds.second >= this.saturating_sub(60));
        let peaks = self.scopes.iter_mut().map(|(scope, seconds)| (scope.clone(), std::mem::take(&mut seconds.peak)));
        let mut peaks: Vec<_> = peaks.collect();
        peaks.sort_unstable();
        peaks
    }
}
