//! Any bytes as the two directions of a metadata connection.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| agent_core::fuzzing::http_heads(data));
