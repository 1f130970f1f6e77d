//! How the sets without a workload are written.

use std::fmt::Error;

use prometheus_client::encoding::{EncodeLabelSet, LabelSetEncoder};

use super::{
    BuildLabels, CallLabels, CauseLabels, HistoryLabels, OpenedLabels, OutcomeLabels, ProbeLabels, ReasonLabels,
    RecordLabels, RttLabels, SourceLabels, SuppressedLabels, Untracked, UntrackedLabels, VerdictLabels, gap_cause,
    peer_class, put, source,
};

impl EncodeLabelSet for RttLabels {
    fn encode(&self, encoder: &mut LabelSetEncoder<'_>) -> Result<(), Error> {
        let Self { peer_class: class } = self;
        put(encoder, "peer_class", peer_class(*class))
    }
}

impl EncodeLabelSet for RecordLabels {
    fn encode(&self, encoder: &mut LabelSetEncoder<'_>) -> Result<(), Error> {
        let Self { kind, fate } = self;
        put(encoder, "kind", kind)?;
        put(encoder, "fate", fate)
    }
}

impl EncodeLabelSet for HistoryLabels {
    fn encode(&self, encoder: &mut LabelSetEncoder<'_>) -> Result<(), Error> {
        let Self { fate } = self;
        put(encoder, "fate", fate)
    }
}

impl EncodeLabelSet for ProbeLabels {
    fn encode(&self, encoder: &mut LabelSetEncoder<'_>) -> Result<(), Error> {
        let Self { probe } = self;
        put(encoder, "probe", probe)
    }
}

impl Untracked {
    pub(in crate::telemetry) const ALL: &'static [Self] =
        &[Self::Sockets, Self::Attempts, Self::Peers, Self::Accounts, Self::UnreadablePackets];
}

impl EncodeLabelSet for UntrackedLabels {
    fn encode(&self, encoder: &mut LabelSetEncoder<'_>) -> Result<(), Error> {
        let Self { what } = self;
        let what = match what {
            Untracked::Sockets => "sockets",
            Untracked::Attempts => "attempts",
            Untracked::Peers => "peers",
            Untracked::Accounts => "accounts",
            Untracked::UnreadablePackets => "unreadable_packets",
        };
        put(encoder, "what", what)
    }
}

impl EncodeLabelSet for SuppressedLabels {
    fn encode(&self, encoder: &mut LabelSetEncoder<'_>) -> Result<(), Error> {
        let Self { metric } = self;
        put(encoder, "metric", metric)
    }
}

impl EncodeLabelSet for OpenedLabels {
    fn encode(&self, encoder: &mut LabelSetEncoder<'_>) -> Result<(), Error> {
        let Self { code, severity, namespace } = self;
        put(encoder, "code", code.name())?;
        put(encoder, "severity", severity.name())?;
        put(encoder, "namespace", namespace)
    }
}

impl EncodeLabelSet for VerdictLabels {
    fn encode(&self, encoder: &mut LabelSetEncoder<'_>) -> Result<(), Error> {
        let Self { code, verdict } = self;
        put(encoder, "code", code.name())?;
        put(encoder, "verdict", verdict)
    }
}

impl EncodeLabelSet for SourceLabels {
    fn encode(&self, encoder: &mut LabelSetEncoder<'_>) -> Result<(), Error> {
        let Self { source: of } = self;
        put(encoder, "source", source(*of))
    }
}

impl EncodeLabelSet for OutcomeLabels {
    fn encode(&self, encoder: &mut LabelSetEncoder<'_>) -> Result<(), Error> {
        let Self { outcome } = self;
        put(encoder, "outcome", outcome)
    }
}

impl EncodeLabelSet for CallLabels {
    fn encode(&self, encoder: &mut LabelSetEncoder<'_>) -> Result<(), Error> {
        let Self { call } = self;
        put(encoder, "call", call.name())
    }
}

impl EncodeLabelSet for CauseLabels {
    fn encode(&self, encoder: &mut LabelSetEncoder<'_>) -> Result<(), Error> {
        let Self { cause } = self;
        put(encoder, "cause", gap_cause(*cause))
    }
}

impl EncodeLabelSet for ReasonLabels {
    fn encode(&self, encoder: &mut LabelSetEncoder<'_>) -> Result<(), Error> {
        let Self { reason } = self;
        put(encoder, "reason", reason)
    }
}

impl EncodeLabelSet for BuildLabels {
    fn encode(&self, encoder: &mut LabelSetEncoder<'_>) -> Result<(), Error> {
        let Self { version } = self;
        put(encoder, "version", version)
    }
}
