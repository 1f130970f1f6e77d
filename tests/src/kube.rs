//! A real Kubernetes API server for tests: etcd, kube-apiserver and kube-controller-manager, on loopback, with certificates
//! of their own.
//!
//! The program `control-plane` ([`control_plane`]) runs them, ends them, and removes their files, whatever happens to
//! whoever started it. A test takes the [`Server`] of its test program, makes objects in it by a [`Client`], and may kill
//! and restart the API server.

pub mod certificates;
pub mod client;
pub mod config;
pub mod control_plane;
pub mod manifests;
pub mod paths;
pub mod process;
pub mod server;
mod token;

pub use client::Client;
pub use config::Credentials;
pub use server::{Account, Server};
