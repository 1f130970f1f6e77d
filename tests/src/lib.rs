//! The system tests' harness: pods, network namespaces, actors that make traffic and report what they did, a metadata
//! server, and a guard that runs the real binary and gives its rows.
//!
//! A test takes a [`Lab`] (a network), makes [`Pod`]s (control groups) and [`Actor`]s (processes) in them, starts an
//! [`Agent`], makes traffic, ends the agent, and compares its [`Rows`] with what the actors and the kernel counted.
//! Everything vanishes with its guard. Nothing here needs a program besides the ones of this workspace, so that the
//! tests run from an initramfs too.

pub mod actor;
pub mod agent;
pub mod bpf;
pub mod bpffs;
pub mod cgroup;
pub mod container;
pub mod exchanges;
pub mod exposition;
pub mod findings;
pub mod http;
pub mod kube;
pub mod lab;
mod links;
pub mod looks;
pub mod machine;
pub mod memory;
pub mod memory_group;
pub mod metadata_server;
pub mod metrics;
pub mod moto;
pub mod netns;
pub mod node;
pub mod prometheus;
pub mod protocol;
pub mod rows;
pub mod scale;
pub mod screen;
pub mod tls;
pub mod usage;

pub use actor::Actor;
pub use agent::Agent;
pub use cgroup::Pod;
pub use exposition::Exposition;
pub use lab::{Lab, Wire};
pub use memory_group::MemoryGroup;
pub use metadata_server::MetadataServer;
pub use node::{Node, NodePod, Wiring};
pub use prometheus::Prometheus;
pub use protocol::Load;
pub use rows::{Expected, Flow, Rows, Sg, Sum};
