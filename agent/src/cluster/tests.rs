//! Against servers that fail in every way: each ends in the right facts, with a bounded number of requests.

mod asked;
mod fleet;
mod network_policies;
mod published;
mod review;
mod server;
mod services;
mod turns;
mod watched;
