//! The system tests' harness.
