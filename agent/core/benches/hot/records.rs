//! Bytes of connections' ends to inputs. The size is how many records come at a time; the unit is a record.

use std::hint::black_box;

use agent_core::decode::{DecodeOptions, Decoder};
use agent_ebpf::wire::{self, Direction, Kind, Outcome, Ring, flags};
use zerocopy::{FromZeros, IntoBytes};

use crate::Once;

/// TCP's ESTABLISHED in the kernel's `tcp_states.h`.
const ESTABLISHED: u8 = 1;

pub(crate) fn decode(size: u32) -> Once {
    let records: Vec<wire::Tcp> = (0..size).map(record).collect();
    let mut decoder = Decoder::new(DecodeOptions::default());
    let mut inputs = Vec::with_capacity(records.len());
    Box::new(move || {
        inputs.clear();
        for record in &records {
            decoder.feed(Ring::Bulk, black_box(record.as_bytes()), &mut inputs);
        }
        let refused = inputs.iter().filter(|input| !matches!(input, agent_core::input::Input::Tcp(_))).count();
        if inputs.len() != records.len() || refused > 0 {
            return Err(format!("{} inputs of {size} records, {refused} are no connection", inputs.len()).into());
        }
        Ok(u64::from(size))
    })
}

fn record(n: u32) -> wire::Tcp {
    let mut tcp = wire::Tcp::new_zeroed();
    tcp.header = header(Kind::TcpEnd, size_of::<wire::Tcp>(), u64::from(n));
    tcp.header.flags = flags::ESTABLISHED | flags::FIRST;
    tcp.cookie = u64::from(n);
    tcp.start_ns = 1;
    (tcp.bytes_sent, tcp.bytes_received) = (100, 1_000);
    tcp.opener = wire::Owner { start_ns: 7, tgid: 10 + n % 20, pad: 0 };
    tcp.closer = tcp.opener;
    tcp.tuple = tuple(n, 443);
    tcp.srtt_us = 300;
    tcp.min_rtt_us = 200;
    tcp.direction = Direction::Outbound as u8;
    tcp.outcome = Outcome::Established as u8;
    tcp.old_state = ESTABLISHED;
    tcp
}

/// The begin of a record.
pub(crate) fn header(kind: Kind, bytes: usize, time_ns: u64) -> wire::Header {
    let len = u32::try_from(bytes).unwrap_or(u32::MAX);
    wire::Header { version: wire::VERSION, kind: kind as u8, flags: 0, len, time_ns, cgroup_id: 77 }
}

/// Ends of the n-th connection, in the form that the kernel's side writes: IPv4 mapped into IPv6.
pub(crate) fn tuple(n: u32, remote_port: u16) -> wire::Tuple {
    let mapped = |last: u32| {
        let mut ip = [0; 16];
        ip[10..12].fill(0xff);
        ip[12..].copy_from_slice(&(0x0a00_0000 + last).to_be_bytes());
        ip
    };
    let local_port = 1_024 + u16::try_from(n % 60_000).unwrap_or_default();
    wire::Tuple { local: mapped(1), remote: mapped(0x1_0000 + n % 20), local_port, remote_port, netns: 1 }
}
