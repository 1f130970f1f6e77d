//! The program at a stand-in for the EC2 API, over real HTTP with real signatures.

mod access;
mod agent;
mod stale;
mod told;
mod vpc;
