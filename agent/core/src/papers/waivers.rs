//! Waivers: findings that are as they should be. They are shown as accepted, counted apart, and come back when the
//! waiver ends.

mod shipped;

use serde::{Deserialize, Deserializer, Serialize};
use thiserror::Error;

use crate::facts::{ContainerKind, PodFacts, WorkloadRef};
use crate::finding::Code;
use crate::time::WallNs;

/// Most waivers of a configuration: one for each workload of a large cluster, 1,000 × 7 fields of some 50 bytes = 350
/// KB.
pub const MAX_WAIVERS: usize = 1_000;
/// A waiver that names a day holds until its end.
const DAY_NS: i64 = 86_400 * 1_000_000_000;

/// Accepts findings. What it names must all match, exactly; what it does not name matches everything.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Waiver {
    /// Which findings.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub code: Option<Code>,
    /// Namespace.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub namespace: Option<String>,
    /// Service account.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub service_account: Option<String>,
    /// Owner of the pod, as `cart` or `Deployment/cart`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub workload: Option<String>,
    /// Repository of the image, without tag and digest. Of a finding about a container that one's, of a finding about a
    /// pod that of all of its containers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub image: Option<String>,
    /// Why that is so, shown with the finding.
    pub reason: String,
    /// When it ends: a time, or a day that it includes (UTC). `None`: never.
    #[serde(default, deserialize_with = "time_or_day", skip_serializing_if = "Option::is_none")]
    pub until: Option<WallNs>,
}

/// What is wrong with a waiver.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum WaiverError {
    /// It would accept everything.
    #[error("names nothing: give a code or one of namespace, service_account, workload and image")]
    NoScope,
    /// Nobody would know why.
    #[error("has no reason")]
    NoReason,
    /// A tag changes with every release.
    #[error("image is to be a repository, without tag and digest")]
    Tag,
}

/// Who a finding is about. Empty: does not apply.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Who<'a> {
    /// Namespace.
    pub namespace: &'a str,
    /// Service account.
    pub service_account: &'a str,
    /// Owner of the pod.
    pub workload: Option<&'a WorkloadRef>,
    /// Images as the spec names them.
    pub images: Vec<&'a str>,
}

/// The reason why a finding is accepted: of the first waiver that matches, then of those for AWS's own node agents.
pub fn accepting<'a>(waivers: &'a [Waiver], code: Code, who: &Who<'_>, now: WallNs) -> Option<&'a str> {
    let own = waivers.iter().find(|waiver| waiver.accepts(code, who, now)).map(|waiver| &*waiver.reason);
    own.or_else(|| shipped::accepting(code, who))
}

// === impl Waiver ===

impl Waiver {
    /// Whether it can be used.
    pub fn check(&self) -> Result<(), WaiverError> {
        let scopes = [&self.namespace, &self.service_account, &self.workload, &self.image];
        if self.code.is_none() && scopes.iter().all(|scope| scope.as_deref().unwrap_or_default().is_empty()) {
            return Err(WaiverError::NoScope);
        }
        if self.reason.trim().is_empty() {
            return Err(WaiverError::NoReason);
        }
        match &self.image {
            Some(image) if without_tag(image) != image => Err(WaiverError::Tag),
            _ => Ok(()),
        }
    }

    fn accepts(&self, code: Code, who: &Who<'_>, now: WallNs) -> bool {
        let Self { code: wanted, namespace, service_account, workload, image, reason: _, until } = self;
        // One that was never checked must not accept everything.
        self.check().is_ok()
            && wanted.is_none_or(|wanted| wanted == code)
            && until.is_none_or(|until| now < until)
            && namespace.as_deref().is_none_or(|namespace| namespace == who.namespace)
            && service_account.as_deref().is_none_or(|account| account == who.service_account)
            && workload.as_deref().is_none_or(|workload| who.workload.is_some_and(|of| is_workload(of, workload)))
            && image.as_deref().is_none_or(|image| who.images_are(|repository| repository == repository_of(image)))
    }
}

// === impl Who ===

impl<'a> Who<'a> {
    /// A container of a pod, or the pod as a whole.
    pub fn of(pod: &'a PodFacts, container: Option<&str>) -> Self {
        let wanted = pod.containers.iter().filter(|one| match container {
            Some(name) => *one.name == *name,
            None => one.kind != ContainerKind::Ephemeral,
        });
        Self {
            namespace: &pod.namespace,
            service_account: &pod.service_account,
            workload: Some(&pod.workload),
            images: wanted.map(|container| &*container.image).collect(),
        }
    }

    /// All images are of such a repository, and there is one.
    fn images_are(&self, wanted: impl Fn(&str) -> bool) -> bool {
        !self.images.is_empty() && self.images.iter().all(|image| wanted(&repository_of(image)))
    }
}

fn is_workload(of: &WorkloadRef, wanted: &str) -> bool {
    match wanted.split_once('/') {
        Some((kind, name)) => *of.kind == *kind && *of.name == *name,
        None => *of.name == *wanted,
    }
}

/// `docker.io/library/nginx` of `nginx:1.27@sha256:…`: registry and path in full, as container runtimes read them.
fn repository_of(image: &str) -> String {
    let name = without_tag(image);
    match name.split_once('/') {
        Some((registry, _)) if registry.contains(['.', ':']) || registry == "localhost" => name.to_owned(),
        Some(_) => format!("docker.io/{name}"),
        None => format!("docker.io/library/{name}"),
    }
}

fn without_tag(image: &str) -> &str {
    let name = image.split_once('@').map_or(image, |(name, _)| name);
    let last = name.rfind('/').map_or(0, |slash| slash + 1);
    match name.get(last..).and_then(|last| last.find(':')) {
        Some(colon) => name.get(..last + colon).unwrap_or(name),
        None => name,
    }
}

fn time_or_day<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<WallNs>, D::Error> {
    let Some(text) = Option::<String>::deserialize(deserializer)? else { return Ok(None) };
    if let Ok(day) = text.parse::<jiff::civil::Date>()
        && text.len() == "2026-01-31".len()
    {
        let start = day.to_zoned(jiff::tz::TimeZone::UTC).map_err(serde::de::Error::custom)?;
        let start = i64::try_from(start.timestamp().as_nanosecond()).map_err(serde::de::Error::custom)?;
        return Ok(Some(WallNs(start.saturating_add(DAY_NS))));
    }
    let wrong = |_| {
        serde::de::Error::custom(format!("{text:?} is neither a day (2026-01-31) nor a time (2026-01-31T12:00:00Z)"))
    };
    text.parse().map(Some).map_err(wrong)
}

#[cfg(test)]
mod tests;
