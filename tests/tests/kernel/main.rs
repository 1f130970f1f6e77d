//! The agent on a real kernel, with traffic whose truth is known. Runs on the host and in every machine of the kernel
//! matrix, so nothing here needs a program besides the agent and the actor.
//!
//! Each test has networks, pods and an agent of its own, so that they may run in any order and beside one another.

mod continuity;
mod counts;
mod dns;
mod metadata;
mod odd_ends;
mod older;
mod outcomes;
mod overload;
mod owners;
mod sampling;
mod sockets;
mod stop;
