//! How much traffic a count test makes, and how long it waits for what must come.

use std::time::Duration;

/// Set in the emulated machines of the kernel matrix, which are some thirty times slower than the host.
pub const SLOW_MACHINE: &str = "SEKISHO_VM";

/// Whether this is an emulated machine.
pub fn slow() -> bool {
    std::env::var(SLOW_MACHINE).is_ok_and(|value| value == "1")
}

/// `full` on the host; `reduced` in an emulated machine, and the test's output says so.
pub fn count(what: &str, full: usize, reduced: usize) -> usize {
    let chosen = if slow() { reduced } else { full };
    println!("{what}: {chosen}{}", if chosen == full { "" } else { " (reduced: emulated machine)" });
    chosen
}

/// For everything that must happen, and normally does in milliseconds.
pub fn deadline() -> Duration {
    Duration::from_secs(if slow() { 300 } else { 60 })
}

/// Between two looks at something that must come.
pub const LOOK: Duration = Duration::from_millis(20);
