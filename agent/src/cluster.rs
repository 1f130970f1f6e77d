//! The cluster: objects of the Kubernetes API, watched or read, become facts of the core here and go no further.

#[cfg_attr(not(test), expect(dead_code, reason = "the watchers come with the next change"))]
pub(crate) mod convert;
