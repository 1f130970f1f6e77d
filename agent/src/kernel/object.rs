//! The probes' object file, built by `cargo xtask build` and embedded here.

/// The object; empty in a build that was made without it.
pub(super) static OBJECT: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/probes"));
