//! The eBPF programs, one hook a file below `probes/`. On the host this is an empty program, so that lints and tests see
//! the package.
//!
//! Every program of a cgroup hook ends in `ALLOW`, whatever happened: the probes watch, they never refuse.
#![cfg_attr(target_arch = "bpf", no_std)]
#![cfg_attr(target_arch = "bpf", no_main)]
#![cfg_attr(target_arch = "bpf", feature(core_intrinsics))]
#![cfg_attr(
    target_arch = "bpf",
    allow(
        internal_features,
        unreachable_pub,
        unsafe_code,
        reason = "helpers are raw calls; the target has atomics only as intrinsics"
    )
)]
#![cfg_attr(
    target_arch = "bpf",
    allow(
        clippy::inline_always,
        clippy::needless_pass_by_value,
        reason = "a BPF function takes five arguments, all of them registers; aya's macros hand contexts over by value"
    )
)]
#![cfg_attr(
    target_arch = "bpf",
    allow(
        clippy::cast_possible_truncation,
        clippy::cast_possible_wrap,
        clippy::cast_ptr_alignment,
        clippy::cast_sign_loss,
        reason = "contexts hold small values in wide fields, helpers take lengths as u32, and the kernel aligns map values"
    )
)]

#[cfg(target_arch = "bpf")]
mod probes;
#[cfg(target_arch = "bpf")]
mod runtime;

#[cfg(not(target_arch = "bpf"))]
fn main() {}
