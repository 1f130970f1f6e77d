//! The agent's own budget of CPU: how many of the node's new connections it tells one by one.
//!
//! What costs the agent CPU is a record for every connection that ends. While it takes more than its budget, the kernel
//! merges all but one in two, four, eight and so on of those that nobody has heard of yet and that came to be: their bytes and
//! their number stay exact in their cgroup's account, their peers and processes are seen by that sample alone. Requests to
//! metadata services, processes, cgroups, DNS, failures and whatever is open are always told.

use crate::time::BootNs;

/// One in 128 at the least: beyond that it is not connections that take the time.
pub const MAX_SHIFT: u32 = 7;
/// Looks in a row over the budget before less is told. Looks come every second: a start, or a burst of a second, is none.
const OVER_LOOKS: u32 = 3;
/// Looks in a row under half of the budget before more is told: twice as much then still fits.
const CALM_LOOKS: u32 = 10;
/// Looks that are closer together than this say little.
const LEAST_NS: u64 = 500_000_000;

/// Watches the agent's CPU time against its budget.
#[derive(Clone, Debug)]
pub struct Governor {
    budget_percent: u32,
    last: Option<(BootNs, u64)>,
    shift: u32,
    over: u32,
    calm: u32,
}

impl Governor {
    /// One for a budget in percent of one processor; 0 is no budget.
    pub fn new(budget_percent: u32) -> Self {
        Self { budget_percent, last: None, shift: 0, over: 0, calm: 0 }
    }

    /// Takes the CPU time that the process has taken so far. One in two to the power of the answer new connections is to be
    /// told.
    pub fn look(&mut self, now: BootNs, cpu_ns: u64) -> u32 {
        let Some((then, before)) = self.last else {
            self.last = Some((now, cpu_ns));
            return self.shift;
        };
        let elapsed_ns = now.since(then);
        if self.budget_percent == 0 || elapsed_ns < LEAST_NS {
            return self.shift;
        }
        self.last = Some((now, cpu_ns));
        let budget_ns = u128::from(elapsed_ns) * u128::from(self.budget_percent) / 100;
        let taken_ns = u128::from(cpu_ns.saturating_sub(before));
        self.over = if taken_ns > budget_ns { self.over + 1 } else { 0 };
        self.calm = if taken_ns < budget_ns / 2 { self.calm + 1 } else { 0 };
        if self.over >= OVER_LOOKS && self.shift < MAX_SHIFT {
            // The next step is only for what this one does not cure, which the next looks show.
            (self.shift, self.over) = (self.shift + 1, 0);
        } else if self.calm >= CALM_LOOKS && self.shift > 0 {
            (self.shift, self.calm) = (self.shift - 1, 0);
        }
        self.over = self.over.min(OVER_LOOKS);
        self.calm = self.calm.min(CALM_LOOKS);
        self.shift
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: u64 = 1_000_000_000;

    /// A look each second, of which each took so many percent of a processor.
    struct Bench(Governor, u64, u64);

    impl Bench {
        fn new(budget_percent: u32) -> Self {
            let mut governor = Governor::new(budget_percent);
            assert_eq!(governor.look(BootNs(SECOND), 0), 0);
            Self(governor, 1, 0)
        }

        fn looks(&mut self, looks: u32, percent: u64) -> u32 {
            (0..looks).fold(0, |_, _| {
                self.1 += 1;
                self.2 += SECOND / 100 * percent;
                self.0.look(BootNs(self.1 * SECOND), self.2)
            })
        }
    }

    #[test]
    fn a_short_burst_is_told_whole_and_a_long_one_is_not() {
        let mut bench = Bench::new(20);
        assert_eq!(bench.looks(2, 90), 0, "a burst");
        assert_eq!(bench.looks(1, 20), 0, "at the budget is not over it");
        assert_eq!(bench.looks(2, 90), 0, "not in a row");
        assert_eq!(bench.looks(1, 21), 1);
        assert_eq!(bench.looks(2, 21), 1, "each step gets its time to show");
        assert_eq!(bench.looks(1, 21), 2);
        assert_eq!(bench.looks(1_000, 90), MAX_SHIFT);
    }

    #[test]
    fn more_is_told_when_twice_as_much_would_fit() {
        let mut bench = Bench::new(20);
        assert_eq!(bench.looks(6, 90), 2);
        assert_eq!(bench.looks(100, 12), 2, "twice as much would be over the budget");
        assert_eq!(bench.looks(9, 9), 2);
        assert_eq!(bench.looks(1, 9), 1);
        assert_eq!(bench.looks(100, 0), 0);
    }

    #[test]
    fn no_budget_is_never_exceeded_and_odd_clocks_decide_nothing() {
        assert_eq!(Bench::new(0).looks(100, 400), 0);
        let mut governor = Governor::new(20);
        governor.look(BootNs(9 * SECOND), 5 * SECOND);
        for _ in 0..100 {
            assert_eq!(governor.look(BootNs(9 * SECOND), 50 * SECOND), 0, "no time passed");
            assert_eq!(governor.look(BootNs(8 * SECOND), 50 * SECOND), 0, "time went back");
        }
        // Stopped for an hour in between: what it took was little.
        for _ in 0..100 {
            assert_eq!(governor.look(BootNs(3_600 * SECOND), 50 * SECOND), 0);
        }
    }
}
