//! Lines that the probes of a `--probe-log` build write, shown in the agent's own log at level debug.

use aya::Ebpf;
use aya_log::EbpfLogger;

/// Reads the probes' lines.
pub(super) struct ProbeLog(EbpfLogger<ToTracing>);

impl ProbeLog {
    /// Opens the probes' log; `None`, with a warning, when they have none.
    pub(super) fn open(ebpf: &mut Ebpf) -> Option<Self> {
        EbpfLogger::init_with_logger(ebpf, ToTracing)
            .inspect_err(|error| tracing::warn!("the probes do not log: {error}"))
            .ok()
            .map(Self)
    }

    /// Shows what was written since the last time.
    pub(super) fn flush(&mut self) {
        self.0.flush();
    }
}

struct ToTracing;

impl log::Log for ToTracing {
    fn enabled(&self, _: &log::Metadata<'_>) -> bool {
        true
    }

    fn log(&self, record: &log::Record<'_>) {
        tracing::debug!(target: "probes", "{}", record.args());
    }

    fn flush(&self) {}
}
