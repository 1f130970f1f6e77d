//! `ServiceAccount` to facts: metadata is all that is read.

use std::sync::Arc;

use agent_core::facts::ServiceAccountFacts;
use serde::de::IgnoredAny;

use super::pod::namespace;
use super::shapes::Object;
use super::{Conversion, managed};

/// A service account.
pub(super) fn facts(
    object: Object<Option<IgnoredAny>>,
    conversion: &Conversion,
) -> Result<ServiceAccountFacts, String> {
    let metadata = object.metadata;
    if metadata.name.is_empty() {
        return Err("metadata.name: expected a name".to_owned());
    }
    let annotation = format!("{}/role-arn", conversion.irsa_prefix);
    let role_arn =
        metadata.annotations.get(&annotation).filter(|role| !role.is_empty()).map(|role| role.as_str().into());
    Ok(ServiceAccountFacts {
        namespace: namespace(&metadata),
        name: metadata.name.as_str().into(),
        uid: metadata.uid.as_deref().map(Arc::from),
        role_changed: role_arn.as_ref().and_then(|_: &Arc<str>| managed::annotation_changed(&metadata, &annotation)),
        role_arn,
        created: metadata.creation_timestamp,
        labels: metadata.labels,
    })
}
