//! The cluster: objects of the Kubernetes API, watched or read, become facts of the core here and go no further.

pub(crate) mod convert;
