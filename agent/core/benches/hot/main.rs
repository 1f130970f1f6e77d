//! The functions through which most records go, each by itself: `hot FUNCTION SIZE TIMES` does one of them over and over and
//! prints for how many units, and how much processor time that took, as JSON.
//!
//! `cargo xtask bench` runs this twice under callgrind, TIMES and twice TIMES: the difference is what the function takes,
//! without what precedes it, in instructions. These depend on compiler and inputs and not on the machine or who else is on it.

mod fold;
mod metadata;
mod records;
mod verdicts;

use std::error::Error;

/// What a function did in one go.
type Done = Result<u64, Box<dyn Error>>;
/// Does the function once, for the units that it returns.
type Once = Box<dyn FnMut() -> Done>;

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).filter(|argument| argument != "--bench").collect();
    let [function, size, times] = &arguments[..] else { return Err("usage: hot FUNCTION SIZE TIMES".into()) };
    let (size, times): (u32, u32) = (size.parse()?, times.parse()?);
    let mut once = match function.as_str() {
        "decode" => records::decode(size),
        "fold" => fold::fold(size),
        "metadata" => metadata::exchanges(size),
        "verdict" => verdicts::verdicts(size)?,
        other => return Err(format!("no function {other}: decode, fold, metadata or verdict").into()),
    };
    let start = on_cpu_ns()?;
    let mut units = 0;
    for _ in 0..times {
        units += once()?;
    }
    println!("{{\"units\":{units},\"cpu_ns\":{}}}", on_cpu_ns()? - start);
    Ok(())
}

/// Time that this process ran on a CPU, so that a busy machine does not count. The kernel adds it up when it looks for who
/// runs next, which a yield has it do.
fn on_cpu_ns() -> Result<u64, Box<dyn Error>> {
    std::thread::yield_now();
    let stat = std::fs::read_to_string("/proc/self/schedstat")?;
    Ok(stat.split_whitespace().next().ok_or("schedstat is empty")?.parse()?)
}
