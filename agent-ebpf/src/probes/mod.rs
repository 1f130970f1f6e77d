//! The programs by hook, and what they share.

mod atomic;
mod attempts;
mod baseline;
mod cgroups;
mod datagrams;
mod emit;
mod kernel;
mod maps;
mod metadata;
mod packets;
mod processes;
mod release;
mod tcp;
mod walks;

/// Verdict of every cgroup program.
const ALLOW: i32 = 1;
