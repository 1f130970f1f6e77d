//! Any bytes as a sequence of ring records.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| agent_core::fuzzing::decode(data));
