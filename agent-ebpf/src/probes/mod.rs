//! The programs by hook, and what they share.

/// Logs a line in builds with the feature `probe-log`; nothing otherwise. Calls between BPF functions come with it, so
/// such builds are for a recent kernel.
macro_rules! trace {
    ($ctx:expr, $($arg:tt)*) => {
        #[cfg(feature = "probe-log")]
        aya_log_ebpf::debug!($ctx, $($arg)*);
    };
}

mod atomic;
mod attempts;
mod baseline;
mod cgroups;
mod datagrams;
mod dns;
mod emit;
mod kernel;
mod maps;
mod metadata;
mod packets;
mod processes;
mod release;
mod tcp;
mod walks;

use agent_ebpf::rules::ALLOW;
