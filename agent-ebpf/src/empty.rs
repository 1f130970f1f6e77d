//! Programs that do nothing, with the names and on the hooks of the probes: what the kernel takes to call a program and to
//! time it. `cargo xtask bench` subtracts them.
#![cfg_attr(target_arch = "bpf", no_std)]
#![cfg_attr(target_arch = "bpf", no_main)]
#![cfg_attr(target_arch = "bpf", allow(unreachable_pub, unsafe_code, reason = "programs are found by their symbols"))]

#[cfg(target_arch = "bpf")]
mod nothing;
#[cfg(target_arch = "bpf")]
mod runtime;

#[cfg(not(target_arch = "bpf"))]
fn main() {}
