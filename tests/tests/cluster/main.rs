//! The agent's role, and the agent, at a real Kubernetes API server. Needs what `cargo xtask setup --for cluster` builds.

mod agent;
mod chart;
mod role;
mod scrape;
mod server;
