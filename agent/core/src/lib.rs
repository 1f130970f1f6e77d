//! Everything in sekisho that decides: no tokio, kube, aya, prometheus, clock, file or socket.
//!
//! Bytes from the rings go through a [`decode::Decoder`] and come out as [`input::Input`]s that hold no secret; one
//! [`engine::Engine`] owns all state, takes inputs and appends [`output::Output`]s. Time is an argument everywhere.

pub mod attribution;
pub mod backends;
pub mod books;
pub mod capacity;
pub mod cgroup;
pub mod check;
pub mod cluster;
pub mod continuity;
pub mod decode;
pub mod dns;
pub mod ec2;
pub mod engine;
pub mod facts;
mod fast;
pub mod finding;
pub mod flow;
pub mod flow_groups;
#[doc(hidden)]
pub mod fuzzing;
pub mod governor;
pub mod input;
pub mod metadata;
pub mod output;
pub mod papers;
pub mod peer;
pub mod process;
pub mod readiness;
pub mod recording;
pub mod redact;
pub mod sg;
pub mod time;
pub mod traffic;
mod versions;

#[cfg(test)]
mod testing;
