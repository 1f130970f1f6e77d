//! Any text as a cgroup path.
#![no_main]

libfuzzer_sys::fuzz_target!(|path: &str| {
    let _ = agent_core::cgroup::parse(path);
});
