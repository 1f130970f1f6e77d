//! What every code means: when it holds, what keeps it silent, how it ends, its causes, its cure. `sekisho explain CODE`
//! and the pages below `docs/findings` are made from this.

mod advice;
mod capacity;
mod credentials;
mod groups;
mod page;
mod picture;

use super::{Code, Severity};

pub use self::page::{Explanation, index, list};

/// All that is to be said about a code.
#[derive(Debug)]
pub struct Entry {
    /// The code.
    pub code: Code,
    /// What it can be rated, the least first.
    pub severities: &'static [Severity],
    /// What it says, in a line without a full stop.
    pub title: &'static str,
    /// What is behind it, and why it matters.
    pub about: &'static str,
    /// When it holds.
    pub holds: &'static str,
    /// What keeps it silent, or makes it a "cannot tell".
    pub silent: &'static [&'static str],
    /// How it ends, beside what [`Lasts`] says.
    pub ends: &'static str,
    /// Its causes: name and meaning. Closed.
    pub causes: &'static [(&'static str, &'static str)],
    /// What to do, in a sentence or two; stands in every row whose cause has no advice of its own.
    pub advice: &'static str,
    /// What to do, step by step: what for, and the command.
    pub commands: &'static [(&'static str, &'static str)],
    /// Where to read on.
    pub links: &'static [(&'static str, &'static str)],
}

/// How a finding begins and ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lasts {
    /// Something is so: opens after two evaluations that agree, ends after two clean ones.
    WhileSo,
    /// Something happened: opens at once, ends with the pod, or 24 hours after it happened last.
    AfterRequest,
    /// Something did not work: opens after several failures, ends with a success, the pod, or 24 hours without a failure.
    UntilSuccess,
}

impl Lasts {
    /// How findings of this kind end, in a sentence.
    pub const fn text(self) -> &'static str {
        match self {
            Self::WhileSo => {
                "Opens when two evaluations in a row find it, ten seconds apart, and is resolved after two that do not."
            }
            Self::AfterRequest => {
                "Opens when it happens, counts repeats, and stands until the pod is gone or 24 hours have passed without a repeat."
            }
            Self::UntilSuccess => {
                "Opens after several failures, and is resolved by the first success, when the pod is gone, or 24 hours after the last failure."
            }
        }
    }
}

impl Code {
    /// What is to be said about it.
    pub fn entry(self) -> &'static Entry {
        match self {
            Self::NodeCredentialsTaken => &credentials::NODE_CREDENTIALS_TAKEN,
            Self::IdentityCredentialsTaken => &credentials::IDENTITY_CREDENTIALS_TAKEN,
            Self::UserDataRead => &credentials::USER_DATA_READ,
            Self::MetadataV1Used => &credentials::METADATA_V1_USED,
            Self::MetadataForwarded => &credentials::METADATA_FORWARDED,
            Self::MetadataUnanswered => &credentials::METADATA_UNANSWERED,
            Self::IrsaNotInjected => &credentials::IRSA_NOT_INJECTED,
            Self::IdentityConflict => &credentials::IDENTITY_CONFLICT,
            Self::StaticCredentials => &credentials::STATIC_CREDENTIALS,
            Self::PodIdentityUnreachable => &credentials::POD_IDENTITY_UNREACHABLE,
            Self::PodIdentityRefused => &credentials::POD_IDENTITY_REFUSED,
            Self::SgpNotEnforced => &groups::SGP_NOT_ENFORCED,
            Self::SgpStale => &groups::SGP_STALE,
            Self::SgpOrphaned => &groups::SGP_ORPHANED,
            Self::SgpInvalid => &groups::SGP_INVALID,
            Self::SgpClusterGroup => &groups::SGP_CLUSTER_GROUP,
            Self::SgpUnfilteredFlow => &groups::SGP_UNFILTERED_FLOW,
            Self::SgpBlockedFlow => &groups::SGP_BLOCKED_FLOW,
            Self::SgpDnsBlocked => &groups::SGP_DNS_BLOCKED,
            Self::SgpProbeBlocked => &groups::SGP_PROBE_BLOCKED,
            Self::CapacityLow => &capacity::CAPACITY_LOW,
            Self::CapacityExhausted => &capacity::CAPACITY_EXHAUSTED,
            Self::TrafficUnaccounted => &picture::TRAFFIC_UNACCOUNTED,
            Self::RecordFlood => &picture::RECORD_FLOOD,
            Self::ApiTokenUnused => &picture::API_TOKEN_UNUSED,
        }
    }

    /// What to do about a finding with this cause, in a sentence or two.
    pub fn advice(self, cause: &str) -> &'static str {
        advice::of_cause(self, cause).unwrap_or(self.entry().advice)
    }

    /// How findings of this code begin and end.
    pub const fn lasts(self) -> Lasts {
        match self {
            Self::NodeCredentialsTaken
            | Self::IdentityCredentialsTaken
            | Self::UserDataRead
            | Self::MetadataV1Used
            | Self::MetadataForwarded
            | Self::MetadataUnanswered
            | Self::SgpUnfilteredFlow
            | Self::RecordFlood => Lasts::AfterRequest,
            Self::PodIdentityUnreachable
            | Self::PodIdentityRefused
            | Self::SgpBlockedFlow
            | Self::SgpDnsBlocked
            | Self::SgpProbeBlocked => Lasts::UntilSuccess,
            Self::IrsaNotInjected
            | Self::IdentityConflict
            | Self::StaticCredentials
            | Self::SgpNotEnforced
            | Self::SgpStale
            | Self::SgpOrphaned
            | Self::SgpInvalid
            | Self::SgpClusterGroup
            | Self::CapacityLow
            | Self::CapacityExhausted
            | Self::TrafficUnaccounted
            | Self::ApiTokenUnused => Lasts::WhileSo,
        }
    }

    /// The code of that name.
    pub fn by_name(name: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|code| code.name() == name)
    }
}

#[cfg(test)]
mod tests;
