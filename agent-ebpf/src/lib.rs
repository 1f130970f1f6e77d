//! What the probes and the agent must agree on: the records in the rings ([`wire`]), the values in the shared maps
//! ([`shared`]) and the kernel-side decisions that are plain functions ([`rules`]), so that they are tested on the host.
//!
//! Built twice: for the host as part of the agent, and for `bpfel-unknown-none` as part of the binary `probes`.
#![cfg_attr(target_arch = "bpf", no_std)]

pub mod rules;
pub mod shared;
pub mod wire;
