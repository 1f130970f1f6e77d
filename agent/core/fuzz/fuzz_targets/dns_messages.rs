//! Any bytes as DNS messages.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| agent_core::fuzzing::dns_messages(data));
