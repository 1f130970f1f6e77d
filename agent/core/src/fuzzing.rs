//! What the fuzzers drive, one function per target. Here rather than in the fuzz crate, so that the tests drive the same
//! code on the stable toolchain; see `agent/core/fuzz`. Not part of the package's interface.

use std::net::Ipv4Addr;

use agent_ebpf::wire::{self, Kind, Outcome, Ring, Service, flags};
use zerocopy::{FromZeros, IntoBytes};

use crate::decode::{DecodeOptions, Decoder};
use crate::dns::{self, Asker, Dns, DnsFact};
use crate::input::{Ends, Input, KernelTotals};
use crate::redact;
use crate::time::BootNs;

#[cfg(test)]
mod tests;

/// Most records of one run: enough to overfill every table of a connection.
const MAX_STEPS: usize = 512;

/// Any bytes as a sequence of records, ticks and stops, through one [`Decoder`]. Every decoded input is formatted, as an
/// output would be.
pub fn decode(data: &[u8]) {
    let mut bytes = Bytes(data);
    let mut decoder = Decoder::new(DecodeOptions { keep_args: bytes.byte() & 1 == 0 });
    let mut inputs = Vec::new();
    for _ in 0..MAX_STEPS {
        if bytes.is_empty() {
            break;
        }
        match bytes.byte() % 8 {
            0 => decoder.tick(BootNs(bytes.number()), &mut inputs),
            1 => decoder.finish(BootNs(bytes.number()), &mut inputs),
            step => {
                let ring = Ring::ALL.get(usize::from(step) % Ring::ALL.len()).copied().unwrap_or(Ring::Metadata);
                let len = usize::from(u16::from_le_bytes([bytes.byte(), bytes.byte()])) % 1024;
                let mut record = bytes.take(len).to_vec();
                if step > 4 {
                    repair(&mut record, ring);
                }
                decoder.feed(ring, &record, &mut inputs);
            }
        }
    }
    decoder.finish(BootNs(u64::MAX), &mut inputs);
    assert_shape(&inputs);
}

/// Makes a record's envelope true, so that the fuzzer need not guess it.
fn repair(record: &mut [u8], ring: Ring) {
    let len = u32::try_from(record.len()).unwrap_or(u32::MAX);
    let kinds: Vec<Kind> = Kind::ALL.iter().copied().filter(|kind| kind.ring() == ring).collect();
    if let [version, kind, _, _, l0, l1, l2, l3, ..] = record {
        *version = wire::VERSION;
        [*l0, *l1, *l2, *l3] = len.to_ne_bytes();
        if let Some(known) = kinds.get(usize::from(*kind) % kinds.len().max(1)) {
            *kind = *known as u8;
        }
    }
}

/// Any bytes as the two directions of a connection, cut into packets, lost, repeated and delayed as the data says.
pub fn http_heads(data: &[u8]) {
    let mut bytes = Bytes(data);
    let service = if bytes.byte() & 1 == 0 { Service::Imds } else { Service::PodIdentity };
    let mut decoder = Decoder::new(DecodeOptions::default());
    let mut inputs = Vec::new();
    // The second direction begins close to the wrap of its sequence numbers.
    let mut next = [0, u32::MAX - 64];
    let mut now = 1_000_000;
    for _ in 0..MAX_STEPS {
        if bytes.is_empty() {
            break;
        }
        let control = bytes.byte();
        let way = usize::from(control & 1);
        let len = usize::from(bytes.byte()) * if control & 2 == 0 { 1 } else { 16 };
        let payload = bytes.take(len);
        let len = u32::try_from(payload.len()).unwrap_or(u32::MAX);
        now += 1_000;
        let Some(next) = next.get_mut(way) else { break };
        let shift = match control >> 5 {
            // Mostly in order; a little before (a repetition), a little behind (a loss), far away.
            1 => u32::from(bytes.byte()).wrapping_neg(),
            2 => u32::from(bytes.byte()),
            3 => 1 << 28,
            _ => 0,
        };
        let segment =
            Packet { service, way, seq: next.wrapping_add(shift), missing: u32::from(control & 4) * 100, now };
        decoder.feed(Ring::Metadata, &segment.record(payload), &mut inputs);
        if shift == 0 {
            *next = next.wrapping_add(len).wrapping_add(segment.missing);
        }
        match control >> 3 & 3 {
            1 => {
                now += 700_000_000;
                decoder.tick(BootNs(now), &mut inputs);
            }
            2 if control >> 5 == 7 => decoder.feed(Ring::Metadata, &end_record(service, control, now), &mut inputs),
            _ => {}
        }
    }
    decoder.finish(BootNs(now), &mut inputs);
    assert_shape(&inputs);
}

struct Packet {
    service: Service,
    way: usize,
    seq: u32,
    missing: u32,
    now: u64,
}

impl Packet {
    fn record(&self, payload: &[u8]) -> Vec<u8> {
        let mut segment = wire::MetadataSegment::new_zeroed();
        let captured = u32::try_from(payload.len()).unwrap_or(u32::MAX);
        segment.header = header::<wire::MetadataSegment>(Kind::MetadataSegment, captured, self.now);
        segment.header.flags = if self.way == 1 { flags::RESPONSE } else { 0 };
        segment.seq = self.seq;
        segment.captured = captured;
        segment.payload_len = captured.saturating_add(self.missing);
        segment.service = self.service as u8;
        [segment.as_bytes(), payload].concat()
    }
}

fn end_record(service: Service, control: u8, now: u64) -> Vec<u8> {
    let mut end = wire::MetadataEnd::new_zeroed();
    end.header = header::<wire::MetadataEnd>(Kind::MetadataEnd, 0, now);
    end.header.flags = if control & 1 == 0 { flags::ESTABLISHED } else { 0 };
    end.service = service as u8;
    end.outcome = Outcome::Reset as u8;
    end.as_bytes().to_vec()
}

fn header<T>(kind: Kind, trailing: u32, time_ns: u64) -> wire::Header {
    let fixed = u32::try_from(size_of::<T>()).unwrap_or(u32::MAX);
    wire::Header {
        version: wire::VERSION,
        kind: kind as u8,
        flags: 0,
        len: fixed.saturating_add(trailing),
        time_ns,
        cgroup_id: 1,
    }
}

/// Any bytes as DNS messages, which a client asked for or was sent, through the tables of names and queries.
pub fn dns_messages(data: &[u8]) {
    let mut bytes = Bytes(data);
    let mut dns = Dns::default();
    let mut now = 1_000_000_000;
    for _ in 0..MAX_STEPS {
        if bytes.is_empty() {
            break;
        }
        let control = bytes.byte();
        let len = usize::from(u16::from_le_bytes([bytes.byte(), bytes.byte()]));
        let from_server = control & 1 == 1;
        let message = dns::parse(bytes.take(len), from_server);
        if let Some(message) = &message {
            let text = &message.name;
            assert!(text.len() <= 4 * 255 && !text.contains(char::is_control), "a name fits to be shown");
            let addresses = message.answer.as_ref().map_or(0, |answer| answer.addresses.len());
            assert!(addresses <= dns::MAX_RECORDS && message.answer.is_some() == from_server, "an answer is bounded");
        }
        now += u64::from(control) * 10_000_000;
        let time = BootNs(now);
        let ends = Ends {
            local: Ipv4Addr::LOCALHOST.into(),
            local_port: 1,
            remote: Ipv4Addr::LOCALHOST.into(),
            remote_port: 53,
            netns: 0,
        };
        let fact = DnsFact {
            time,
            cgroup_id: u64::from(control >> 6),
            cookie: u64::from(control >> 4 & 1),
            ends,
            bytes: 0,
            message,
        };
        dns.message(&fact, || Some(Asker::Cgroup(fact.cgroup_id)));
        if control & 2 == 2 {
            dns.totals(&KernelTotals::default(), time);
            dns.tick(time);
        }
    }
    assert!(dns.names().len() <= dns::MAX_CLAIMS, "names are bounded");
    let ended: u64 = dns.take().iter().map(|(_, tally)| tally.queries.iter().sum::<u64>()).sum();
    assert!(ended <= MAX_STEPS as u64, "each query ends once");
}

/// Any bytes as an argument vector.
pub fn arguments(data: &[u8]) {
    let args = redact::args(data, 64);
    assert!(args.len() <= 64 && args.iter().all(|arg| !arg.contains(char::is_control)), "arguments fit to be shown");
}

/// What holds for all that a decoder says, whatever it was fed.
fn assert_shape(inputs: &[Input]) {
    for input in inputs {
        let Input::Metadata(fact) = input else { continue };
        let request = fact.request.as_ref();
        let role_is_harmless = request.and_then(|request| request.role.as_ref()).is_none_or(|role| {
            role.len() <= 64 && role.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"+=,.@_-".contains(&byte))
        });
        let forwarded_is_harmless = request.and_then(|request| request.forwarded_for.as_ref()).is_none_or(|list| {
            list == "unparsed" || list.split(", ").all(|item| item.parse::<std::net::IpAddr>().is_ok())
        });
        let key = fact.response.as_ref().and_then(|response| response.access_key_id.as_ref());
        let key_is_harmless = key.is_none_or(|key| {
            (key.starts_with("AKIA") || key.starts_with("ASIA"))
                && (16..=128).contains(&key.len())
                && key.bytes().all(|byte| byte.is_ascii_uppercase() || byte.is_ascii_digit())
        });
        assert!(role_is_harmless && forwarded_is_harmless && key_is_harmless, "a fact holds free text");
    }
}

/// Takes structured values off the front; zeros when nothing is left.
struct Bytes<'a>(&'a [u8]);

// === impl Bytes ===

impl<'a> Bytes<'a> {
    fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    fn byte(&mut self) -> u8 {
        self.take(1).first().copied().unwrap_or(0)
    }

    fn number(&mut self) -> u64 {
        self.take(8).iter().fold(0, |number, byte| number << 8 | u64::from(*byte))
    }

    fn take(&mut self, len: usize) -> &'a [u8] {
        let (taken, rest) = self.0.split_at_checked(len).unwrap_or((self.0, &[]));
        self.0 = rest;
        taken
    }
}
