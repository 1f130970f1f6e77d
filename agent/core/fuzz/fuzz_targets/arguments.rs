//! Any bytes as an argument vector.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| agent_core::fuzzing::arguments(data));
