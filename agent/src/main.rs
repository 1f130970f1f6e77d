//! The program `sekisho`.
mod api;
mod config;
#[cfg(test)]
mod golden;

mod export;
mod http;
mod lines;
mod lossy;
mod telemetry;

fn main() {}
