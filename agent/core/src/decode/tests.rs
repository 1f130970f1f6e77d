//! Records as the probes write them, and as they never would.

use agent_ebpf::wire::{Direction, Header, Kind, Named, Outcome, Owner, Ring, Service, Tuple, flags};
use zerocopy::{Immutable, IntoBytes};

use super::*;
use crate::input::{AttemptFact, Ends, ExecFact, ForkFact, NamedProcess, TcpFact, UdpFact};

mod canary;

const OPENER: Owner = Owner { start_ns: 11, tgid: 12, pad: 0 };
const CLOSER: Owner = Owner { start_ns: 21, tgid: 22, pad: 0 };
const NOBODY: Owner = Owner { start_ns: 0, tgid: 0, pad: 0 };

fn header(kind: Kind, flags: u16) -> Header {
    Header { version: wire::VERSION, kind: kind as u8, flags, len: 0, time_ns: 1000, cgroup_id: 7 }
}

/// A record with its length filled in.
fn record(fixed: &(impl IntoBytes + Immutable), trailing: &[u8]) -> Vec<u8> {
    let mut bytes = [fixed.as_bytes(), trailing].concat();
    let len = u32::try_from(bytes.len()).expect("small");
    bytes[4..8].copy_from_slice(&len.to_ne_bytes());
    bytes
}

/// What a record says, without the count of records.
fn decode_with(options: DecodeOptions, ring: Ring, bytes: &[u8]) -> Vec<Input> {
    let mut inputs = Vec::new();
    Decoder::new(options).feed(ring, bytes, &mut inputs);
    inputs.retain(|input| !matches!(input, Input::Decoded { .. }));
    inputs
}

fn decode(ring: Ring, bytes: &[u8]) -> Input {
    let mut inputs = decode_with(DecodeOptions::default(), ring, bytes);
    assert_eq!(inputs.len(), 1);
    inputs.remove(0)
}

fn refused(kind: Kind, why: DecodeError) -> Input {
    Input::Undecodable { kind: Some(kind), why }
}

fn named(tgid: u32, comm: &[u8]) -> Named {
    let mut named = Named { owner: Owner { start_ns: 5, tgid, pad: 0 }, ..Named::default() };
    named.comm[..comm.len()].copy_from_slice(comm);
    named
}

fn tuple() -> Tuple {
    Tuple {
        local: agent_ebpf::rules::mapped([10, 0, 0, 1]),
        remote: agent_ebpf::rules::mapped([169, 254, 169, 254]),
        local_port: 40000,
        remote_port: 80,
        netns: 3,
    }
}

fn tcp(kind: Kind, flags: u16) -> wire::Tcp {
    wire::Tcp {
        header: header(kind, flags),
        cookie: 9,
        start_ns: 0,
        bytes_sent: 100,
        bytes_received: 200,
        opener: OPENER,
        closer: NOBODY,
        tuple: tuple(),
        retransmits: 1,
        srtt_us: 0,
        min_rtt_us: 0,
        direction: Direction::Outbound as u8,
        outcome: Outcome::Established as u8,
        old_state: 4,
        pad: 0,
    }
}

fn tcp_fact(input: Input) -> TcpFact {
    match input {
        Input::Tcp(fact) => fact,
        other => panic!("{other:?}"),
    }
}

#[test]
fn tcp_end() {
    let flags = flags::ESTABLISHED | flags::FIRST;
    let fact = tcp_fact(decode(Ring::Bulk, &record(&tcp(Kind::TcpEnd, flags), &[])));
    assert_eq!(
        fact,
        TcpFact {
            time: BootNs(1000),
            cgroup_id: 7,
            cookie: 9,
            start: None,
            open: false,
            first: true,
            established: true,
            preexisting: false,
            direction: Direction::Outbound,
            outcome: Outcome::Established,
            bytes_sent: 100,
            bytes_received: 200,
            retransmits: 1,
            srtt_us: None,
            connected: Some(OPENER),
            listened: None,
            closed: None,
            ends: Ends {
                local: "10.0.0.1".parse().expect("an address"),
                local_port: 40000,
                remote: "169.254.169.254".parse().expect("an address"),
                remote_port: 80,
                netns: 3,
            },
        }
    );
}

#[test]
fn tcp_owners_and_open() {
    let inbound = wire::Tcp {
        closer: Owner { pad: 77, ..CLOSER },
        start_ns: 4,
        srtt_us: 50,
        ..tcp(Kind::TcpOpen, flags::OPENER_LISTENED | flags::PREEXISTING)
    };
    let fact = tcp_fact(decode(Ring::Bulk, &record(&inbound, &[])));
    assert_eq!((fact.connected, fact.listened, fact.closed), (None, Some(OPENER), Some(CLOSER)));
    assert_eq!((fact.start, fact.srtt_us), (Some(BootNs(4)), Some(50)));
    assert!(fact.open && fact.preexisting && !fact.first && !fact.established);
    let connecting = wire::Tcp { outcome: Outcome::TimedOut as u8, ..tcp(Kind::TcpOpen, 0) };
    assert_eq!(tcp_fact(decode(Ring::Bulk, &record(&connecting, &[]))).outcome, Outcome::Established);
}

#[test]
fn attempt() {
    let attempt = wire::Attempt {
        header: header(Kind::Attempt, 0),
        cookie: 9,
        start_ns: 900,
        opener: OPENER,
        tuple: tuple(),
        outcome: Outcome::Denied as u8,
        pad: [0; 7],
    };
    assert_eq!(
        decode(Ring::Bulk, &record(&attempt, &[])),
        Input::Attempt(AttemptFact {
            time: BootNs(1000),
            start: BootNs(900),
            cgroup_id: 7,
            cookie: 9,
            outcome: Outcome::Denied,
            connected: Some(OPENER),
            ends: Ends::from(&tuple()),
        })
    );
    let impossible = wire::Attempt { outcome: Outcome::Refused as u8, ..attempt };
    assert_eq!(decode(Ring::Bulk, &record(&impossible, &[])), refused(Kind::Attempt, DecodeError::Field));
}

#[test]
fn udp() {
    let udp = wire::Udp {
        header: header(Kind::UdpEnd, flags::MANY_PEERS | flags::IDLE),
        cookie: 9,
        start_ns: 1,
        bytes_sent: 2,
        bytes_received: 3,
        packets_sent: 4,
        packets_received: 5,
        opener: NOBODY,
        closer: CLOSER,
        tuple: tuple(),
        direction: Direction::Inbound as u8,
        outcome: Outcome::OneWay as u8,
        pad: [0; 6],
    };
    assert_eq!(
        decode(Ring::Bulk, &record(&udp, &[])),
        Input::Udp(UdpFact {
            time: BootNs(1000),
            cgroup_id: 7,
            cookie: 9,
            start: Some(BootNs(1)),
            open: false,
            preexisting: false,
            many_peers: true,
            direction: Direction::Inbound,
            outcome: Outcome::OneWay,
            bytes_sent: 2,
            bytes_received: 3,
            packets_sent: 4,
            packets_received: 5,
            sent: None,
            closed: Some(CLOSER),
            ends: Ends::from(&tuple()),
        })
    );
    let impossible = wire::Udp { outcome: Outcome::Reset as u8, ..udp };
    assert_eq!(decode(Ring::Bulk, &record(&impossible, &[])), refused(Kind::UdpEnd, DecodeError::Field));
}

fn exec(path: &[u8], args: &[u8]) -> wire::Exec {
    wire::Exec {
        header: header(Kind::Exec, flags::PATH_CUT),
        process: named(42, b"cu\x1brl"),
        parent: NOBODY,
        path_len: u16::try_from(path.len()).expect("small"),
        args_len: u16::try_from(args.len()).expect("small"),
        uid: 1000,
    }
}

#[test]
fn exec_with_and_without_arguments() {
    let (path, args) = (b"/usr/bin/curl\n\xff".as_slice(), b"curl\0--token\0hunter2\0".as_slice());
    let bytes = record(&exec(path, args), &[path, args].concat());
    let expected = ExecFact {
        time: BootNs(1000),
        cgroup_id: 7,
        process: NamedProcess { owner: Owner { start_ns: 5, tgid: 42, pad: 0 }, comm: "cu\u{fffd}rl".to_owned() },
        parent: None,
        path: "/usr/bin/curl\u{fffd}\u{fffd}".to_owned(),
        path_cut: true,
        args: Vec::new(),
        uid: 1000,
    };
    assert_eq!(decode(Ring::Lifecycle, &bytes), Input::Exec(expected.clone()));
    let kept = decode_with(DecodeOptions { keep_args: true }, Ring::Lifecycle, &bytes);
    let args = ["curl", "--token", "[redacted]"].map(str::to_owned).to_vec();
    assert_eq!(kept, [Input::Exec(ExecFact { args, ..expected })]);
}

#[test]
fn trailing_lengths() {
    let path = [b'/'; 20];
    let bytes = record(&exec(&path, &[]), &path);
    let short = record(&exec(&path, &[]), &path[1..]);
    let too_long = wire::Exec { path_len: 257, ..exec(&path, &[]) };
    assert!(matches!(decode(Ring::Lifecycle, &bytes), Input::Exec(_)));
    assert_eq!(decode(Ring::Lifecycle, &short), refused(Kind::Exec, DecodeError::Short));
    assert_eq!(decode(Ring::Lifecycle, &record(&too_long, &[b'/'; 300])), refused(Kind::Exec, DecodeError::Field));
    // What the ring reserved behind the record is not read, even when a length reaches into it.
    let mut reserved = short;
    reserved.extend([b'x'; 400]);
    assert_eq!(decode(Ring::Lifecycle, &reserved), refused(Kind::Exec, DecodeError::Short));
}

#[test]
fn fork_and_exit() {
    let fork = wire::Fork { header: header(Kind::Fork, 0), child: named(42, b"0123456789abcdef"), parent: OPENER };
    let child = NamedProcess { owner: Owner { start_ns: 5, tgid: 42, pad: 0 }, comm: "0123456789abcdef".to_owned() };
    assert_eq!(
        decode(Ring::Lifecycle, &record(&fork, &[])),
        Input::Fork(ForkFact { time: BootNs(1000), cgroup_id: 7, child, parent: OPENER })
    );
    let exit = wire::Exit { header: header(Kind::Exit, 0), process: OPENER };
    assert_eq!(decode(Ring::Lifecycle, &record(&exit, &[])), Input::Exit { time: BootNs(1000), process: OPENER });
    let nobody = wire::Exit { process: NOBODY, ..exit };
    assert_eq!(decode(Ring::Lifecycle, &record(&nobody, &[])), refused(Kind::Exit, DecodeError::Field));
    let orphan = wire::Fork { parent: NOBODY, ..fork };
    assert_eq!(decode(Ring::Lifecycle, &record(&orphan, &[])), refused(Kind::Fork, DecodeError::Field));
}

#[test]
fn records_are_counted_where_inputs_do_not_tell() {
    for (kind, bytes, _) in one_of_each() {
        let mut inputs = Vec::new();
        Decoder::new(DecodeOptions::default()).feed(kind.ring(), &bytes, &mut inputs);
        let counted: Vec<_> = inputs.iter().filter(|input| matches!(input, Input::Decoded { .. })).collect();
        let expected = match kind {
            Kind::MetadataSegment | Kind::MetadataEnd => vec![&ONE_METADATA_RECORD],
            Kind::CgroupMkdir | Kind::CgroupRmdir => vec![&ONE_CGROUP_RECORD],
            _ => vec![],
        };
        assert_eq!(counted, expected, "{kind:?}");
        assert_eq!(inputs.first().filter(|_| !expected.is_empty()), expected.first().copied(), "{kind:?}");
    }
}

#[test]
fn cgroups() {
    let mkdir = |path: &[u8]| {
        let path_len = u32::try_from(path.len()).expect("small");
        record(&wire::CgroupMkdir { header: header(Kind::CgroupMkdir, 0), level: 2, path_len }, path)
    };
    assert_eq!(
        decode(Ring::Lifecycle, &mkdir(b"/kubepods/pod1")),
        Input::CgroupPresent { id: 7, path: "/kubepods/pod1".to_owned() }
    );
    for path in [b"".as_slice(), b"relative", &[b'/'; wire::CGROUP_PATH_BYTES + 1]] {
        assert_eq!(decode(Ring::Lifecycle, &mkdir(path)), refused(Kind::CgroupMkdir, DecodeError::Field));
    }
    let rmdir = wire::CgroupRmdir { header: header(Kind::CgroupRmdir, 0) };
    assert_eq!(decode(Ring::Lifecycle, &record(&rmdir, &[])), Input::CgroupGone { id: 7, time: BootNs(1000) });
}

/// One record of every kind, with its ring and the size of its fixed part.
fn one_of_each() -> Vec<(Kind, Vec<u8>, usize)> {
    let fixed = |bytes: Vec<u8>| (bytes.clone(), bytes.len());
    let attempt = wire::Attempt {
        header: header(Kind::Attempt, 0),
        cookie: 9,
        start_ns: 900,
        opener: OPENER,
        tuple: tuple(),
        outcome: Outcome::Denied as u8,
        pad: [0; 7],
    };
    let udp = |kind| wire::Udp {
        header: header(kind, 0),
        cookie: 9,
        start_ns: 1,
        bytes_sent: 2,
        bytes_received: 3,
        packets_sent: 4,
        packets_received: 5,
        opener: NOBODY,
        closer: CLOSER,
        tuple: tuple(),
        direction: Direction::Inbound as u8,
        outcome: Outcome::OneWay as u8,
        pad: [0; 6],
    };
    Kind::ALL
        .iter()
        .map(|&kind| {
            let (bytes, len) = match kind {
                Kind::TcpEnd | Kind::TcpOpen => fixed(record(&tcp(kind, 0), &[])),
                Kind::Attempt => fixed(record(&attempt, &[])),
                Kind::UdpEnd | Kind::UdpOpen => fixed(record(&udp(kind), &[])),
                Kind::Dns => (record(&dns(0, b"GET", 3), b"GET"), 80),
                Kind::Exec => (record(&wire::Exec { header: header(kind, 0), ..exec(b"/a", b"b") }, b"/ab"), 80),
                Kind::Fork => {
                    fixed(record(&wire::Fork { header: header(kind, 0), child: named(1, b"a"), parent: OPENER }, &[]))
                }
                Kind::Exit => fixed(record(&wire::Exit { header: header(kind, 0), process: OPENER }, &[])),
                Kind::CgroupMkdir => {
                    (record(&wire::CgroupMkdir { header: header(kind, 0), level: 1, path_len: 2 }, b"/a"), 32)
                }
                Kind::CgroupRmdir => fixed(record(&wire::CgroupRmdir { header: header(kind, 0) }, &[])),
                Kind::MetadataSegment => (record(&segment(0, 0, b"G", 1), b"G"), 248),
                Kind::MetadataEnd => fixed(record(&end(Outcome::Refused, 0), &[])),
            };
            (kind, bytes, len)
        })
        .collect()
}

fn dns(flags: u16, payload: &[u8], payload_len: u32) -> wire::Dns {
    wire::Dns {
        header: header(Kind::Dns, flags),
        cookie: 9,
        tuple: Tuple { remote_port: 53, ..tuple() },
        payload_len,
        captured: u32::try_from(payload.len()).expect("small"),
    }
}

#[test]
fn dns_messages_become_facts_without_their_bytes() {
    let query = b"\0\x07\x01\0\0\x01\0\0\0\0\0\0\x02Db\x07example\0\0\x1c\0\x01";
    let len = u32::try_from(query.len()).expect("small");
    let Input::Dns(fact) = decode(Ring::Bulk, &record(&dns(0, query, len), query)) else { panic!("no fact") };
    assert_eq!((fact.time, fact.cgroup_id, fact.cookie, fact.bytes), (BootNs(1000), 7, 9, len));
    let message = fact.message.expect("a message");
    assert_eq!((message.id, &*message.name, message.record_type, message.answer), (7, "db.example", 28, None));
    // Any other payload is a record all the same, and says nothing.
    let Input::Dns(fact) = decode(Ring::Bulk, &record(&dns(flags::RESPONSE, query, len), query)) else { panic!() };
    assert_eq!(fact.message, None);
    let impossible =
        [dns(0, b"GET", 2), wire::Dns { tuple: Tuple { remote_port: 5353, ..tuple() }, ..dns(0, b"GET", 3) }];
    for record_of in impossible {
        assert_eq!(decode(Ring::Bulk, &record(&record_of, b"GET")), refused(Kind::Dns, DecodeError::Field));
    }
    let long = vec![0; wire::DNS_BYTES + 1];
    let len = u32::try_from(long.len()).expect("small");
    assert_eq!(decode(Ring::Bulk, &record(&dns(0, &long, len), &long)), refused(Kind::Dns, DecodeError::Field));
}

fn segment(flags: u16, seq: u32, payload: &[u8], payload_len: u32) -> wire::MetadataSegment {
    wire::MetadataSegment {
        header: header(Kind::MetadataSegment, flags),
        cookie: 9,
        process: named(42, b"curl"),
        ancestors: [named(41, b"sh"), Named::default(), named(1, b"never"), Named::default()],
        tuple: tuple(),
        seq,
        payload_len,
        captured: u32::try_from(payload.len()).expect("small"),
        service: Service::Imds as u8,
        ttl: 64,
        pad: [0; 2],
    }
}

fn end(outcome: Outcome, flags: u16) -> wire::MetadataEnd {
    wire::MetadataEnd {
        header: header(Kind::MetadataEnd, flags),
        cookie: 9,
        start_ns: 500,
        process: named(42, b"curl"),
        ancestors: [Named::default(); 4],
        tuple: tuple(),
        service: Service::Imds as u8,
        outcome: outcome as u8,
        pad: [0; 6],
    }
}

#[test]
fn every_kind_is_refused_when_its_envelope_is_wrong() {
    for (kind, bytes, fixed) in one_of_each() {
        let ring = kind.ring();
        let why = |bytes: &[u8], ring| match decode_with(DecodeOptions::default(), ring, bytes).pop() {
            Some(Input::Undecodable { why, .. }) => Some(why),
            _ => None,
        };
        assert_eq!(why(&bytes, ring), None, "{kind:?} is fine");
        let mut larger = bytes.clone();
        larger.extend([0xff; 100]);
        assert_eq!(why(&larger, ring), None, "{kind:?} in a larger reservation is fine");
        for other in Ring::ALL.iter().filter(|other| **other != ring) {
            assert_eq!(why(&bytes, *other), Some(DecodeError::Ring), "{kind:?} by {other:?}");
        }
        for len in 0..bytes.len() {
            assert_eq!(why(&bytes[..len], ring), Some(DecodeError::Short), "{kind:?} cut to {len}");
        }
        for len in 0..fixed {
            let mut stated = bytes.clone();
            stated[4..8].copy_from_slice(&u32::try_from(len).expect("small").to_ne_bytes());
            assert_eq!(why(&stated, ring), Some(DecodeError::Short), "{kind:?} that states {len}");
        }
        let with = |at: usize, byte: u8| {
            let mut changed = bytes.clone();
            changed[at] = byte;
            why(&changed, ring)
        };
        assert_eq!(with(0, wire::VERSION + 1), Some(DecodeError::Version));
        assert_eq!(with(1, 200), Some(DecodeError::Kind));
        // No record has all flags, and the highest are nobody's.
        for bit in 0..16 {
            let mut changed = bytes.clone();
            changed[2..4].copy_from_slice(&(1u16 << bit).to_ne_bytes());
            let expected = (records::flags_of(kind) & (1 << bit) == 0).then_some(DecodeError::Field);
            assert_eq!(why(&changed, ring), expected, "{kind:?} with flag {bit}");
        }
    }
}

#[test]
fn every_enum_byte_is_checked() {
    let cases: [(Kind, usize, &[u8]); 10] = [
        (Kind::TcpEnd, std::mem::offset_of!(wire::Tcp, direction), &[3, 255]),
        (Kind::TcpEnd, std::mem::offset_of!(wire::Tcp, outcome), &[0, 8, 9, 255]),
        (Kind::TcpOpen, std::mem::offset_of!(wire::Tcp, outcome), &[0, 7, 8, 255]),
        (Kind::TcpEnd, std::mem::offset_of!(wire::Tcp, old_state), &[14, 255]),
        (Kind::Attempt, std::mem::offset_of!(wire::Attempt, outcome), &[0, 1, 2, 3, 4, 7, 8, 9]),
        (Kind::UdpEnd, std::mem::offset_of!(wire::Udp, direction), &[3, 255]),
        (Kind::UdpOpen, std::mem::offset_of!(wire::Udp, outcome), &[0, 2, 7, 9]),
        (Kind::MetadataSegment, std::mem::offset_of!(wire::MetadataSegment, service), &[0, 3]),
        (Kind::MetadataEnd, std::mem::offset_of!(wire::MetadataEnd, service), &[0, 3]),
        (Kind::MetadataEnd, std::mem::offset_of!(wire::MetadataEnd, outcome), &[0, 8, 9]),
    ];
    for (kind, at, impossible) in cases {
        let (_, bytes, _) = one_of_each().into_iter().find(|(each, ..)| *each == kind).expect("each kind");
        for byte in impossible {
            let mut changed = bytes.clone();
            changed[at] = *byte;
            assert_eq!(decode(kind.ring(), &changed), refused(kind, DecodeError::Field), "{kind:?} {at} {byte}");
        }
    }
    let more_than_sent = wire::MetadataSegment { payload_len: 2, ..segment(0, 0, b"GET", 3) };
    assert_eq!(
        decode(Ring::Metadata, &record(&more_than_sent, b"GET")),
        refused(Kind::MetadataSegment, DecodeError::Field)
    );
}

#[test]
fn metadata_records_become_one_fact() {
    let mut decoder = Decoder::new(DecodeOptions::default());
    let mut inputs = Vec::new();
    let request = b"GET /latest/user-data HTTP/1.1\r\n\r\n";
    let answer = b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n";
    let len = u32::try_from(request.len()).expect("small");
    decoder.feed(Ring::Metadata, &record(&segment(0, 0, request, len), request), &mut inputs);
    assert_eq!(inputs, [ONE_METADATA_RECORD]);
    let len = u32::try_from(answer.len()).expect("small");
    let answer_record = wire::MetadataSegment { ttl: 1, ..segment(flags::RESPONSE, 0, answer, len) };
    decoder.feed(Ring::Metadata, &record(&answer_record, answer), &mut inputs);
    let Some(Input::Metadata(fact)) = inputs.pop() else { panic!("no fact") };
    assert_eq!(inputs, [ONE_METADATA_RECORD, ONE_METADATA_RECORD]);
    inputs.clear();
    assert_eq!(fact.ancestors, [NamedProcess { owner: Owner { start_ns: 5, tgid: 41, pad: 0 }, comm: "sh".into() }]);
    assert_eq!(fact.response.map(|response| response.ttl), Some(1));
    assert_eq!((fact.service, fact.cgroup_id, fact.cookie), (Service::Imds, 7, 9));

    decoder.feed(Ring::Metadata, &record(&end(Outcome::Established, flags::ESTABLISHED), &[]), &mut inputs);
    decoder.finish(BootNs(2000), &mut inputs);
    assert_eq!(inputs, [ONE_METADATA_RECORD]);
}

#[test]
fn connection_that_never_was() {
    assert!(matches!(
        decode(Ring::Metadata, &record(&end(Outcome::TimedOut, 0), &[])),
        Input::Metadata(fact) if fact.outcome == crate::input::MetadataOutcome::Blocked
    ));
}
