//! The program `sekisho`.
mod config;
#[cfg(test)]
mod golden;

fn main() {}
