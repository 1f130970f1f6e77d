//! When a field was last written, as far as `metadata.managedFields` tells.
//!
//! An entry's time is when its manager last changed *any* of its fields. So an entry proves a moment only for a manager
//! who owns little else; where that is not so, nothing is told.

use agent_core::time::WallNs;
use serde_json::Value;

use super::shapes::{Managed, Meta};

/// When the labels of a pod were last written after its creation by a manager who is not the one that made the pod.
pub(super) fn labels_changed(metadata: &Meta) -> Option<WallNs> {
    let created = metadata.creation_timestamp?;
    main_entries(metadata)
        .filter(|entry| !has(entry, &["f:spec", "f:containers"]))
        .filter(|entry| has(entry, &["f:metadata", "f:labels"]))
        .filter_map(|entry| entry.time)
        .filter(|time| *time > created)
        .max()
}

/// When the spec was last written: at creation while the object is of the first generation, else by the newest entry that
/// owns some of it.
pub(super) fn spec_changed(metadata: &Meta) -> Option<WallNs> {
    if metadata.generation == Some(1) {
        return metadata.creation_timestamp;
    }
    newest(metadata, &["f:spec"])
}

/// When an annotation was last written.
pub(super) fn annotation_changed(metadata: &Meta, annotation: &str) -> Option<WallNs> {
    newest(metadata, &["f:metadata", "f:annotations", &format!("f:{annotation}")])
}

fn newest(metadata: &Meta, path: &[&str]) -> Option<WallNs> {
    main_entries(metadata).filter(|entry| has(entry, path)).filter_map(|entry| entry.time).max()
}

/// Entries about the object itself, not about its status or another subresource.
fn main_entries(metadata: &Meta) -> impl Iterator<Item = &Managed> {
    metadata.managed_fields.iter().filter(|entry| entry.subresource.is_empty())
}

fn has(entry: &Managed, path: &[&str]) -> bool {
    path.iter().try_fold(&entry.fields, |fields: &Value, step| fields.get(step)).is_some()
}
