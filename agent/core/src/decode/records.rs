//! Records, one function per kind: each checks every field that has impossible values.

use agent_ebpf::rules::DNS_PORT;
use agent_ebpf::wire::{self, Direction, Kind, Outcome, Service, flags};

use super::fields::{measure, moment, named, named_list, owner, required_owner, split, text, time, trailing};
use crate::dns::{self, DnsFact};
use crate::input::{AttemptFact, DecodeError, Ends, ExecFact, ForkFact, Input, TcpFact, UdpFact};
use crate::metadata::{ConnectionEnd, Segment, Stamp, Way, Who};
use crate::redact;
use crate::time::BootNs;

/// Most arguments kept of one program: a record's 512 bytes hold 256 of one letter; nobody reads more than these.
const MAX_ARGS: usize = 64;

/// Greatest value of the kernel's `tcp_states.h`, `TCP_BOUND_INACTIVE`.
const TCP_STATE_MAX: u8 = 13;

/// The flags that may stand in a record of a kind.
pub(super) const fn flags_of(kind: Kind) -> u16 {
    match kind {
        Kind::TcpEnd | Kind::TcpOpen => flags::ESTABLISHED | flags::PREEXISTING | flags::FIRST | flags::OPENER_LISTENED,
        Kind::UdpEnd | Kind::UdpOpen => flags::PREEXISTING | flags::MANY_PEERS | flags::IDLE,
        Kind::Exec => flags::PATH_CUT | flags::ARGS_CUT,
        Kind::Dns => flags::RESPONSE,
        Kind::MetadataSegment => flags::RESPONSE | flags::OWNER_SENT,
        Kind::MetadataEnd => flags::ESTABLISHED,
        Kind::Attempt | Kind::Fork | Kind::Exit | Kind::CgroupMkdir | Kind::CgroupRmdir => 0,
    }
}

pub(super) fn tcp(record: &[u8], open: bool) -> Result<Input, DecodeError> {
    let (tcp, _) = split::<wire::Tcp>(record)?;
    let has = |flag| tcp.header.flags & flag != 0;
    let outcome = match outcome(tcp.outcome)? {
        Outcome::OneWay => return Err(DecodeError::Field),
        Outcome::Aborted if open => return Err(DecodeError::Field),
        // An open connection has no outcome yet.
        _ if open => Outcome::Established,
        outcome => outcome,
    };
    if tcp.old_state > TCP_STATE_MAX {
        return Err(DecodeError::Field);
    }
    let opener = owner(tcp.opener);
    let (connected, listened) = if has(flags::OPENER_LISTENED) { (None, opener) } else { (opener, None) };
    Ok(Input::Tcp(TcpFact {
        time: time(&tcp.header),
        cgroup_id: tcp.header.cgroup_id,
        cookie: tcp.cookie,
        start: moment(tcp.start_ns),
        open,
        first: has(flags::FIRST),
        established: has(flags::ESTABLISHED),
        preexisting: has(flags::PREEXISTING),
        direction: direction(tcp.direction)?,
        outcome,
        bytes_sent: tcp.bytes_sent,
        bytes_received: tcp.bytes_received,
        retransmits: tcp.retransmits,
        srtt_us: measure(tcp.srtt_us),
        connected,
        listened,
        closed: owner(tcp.closer),
        ends: Ends::from(&tcp.tuple),
    }))
}

pub(super) fn attempt(record: &[u8]) -> Result<Input, DecodeError> {
    let (attempt, _) = split::<wire::Attempt>(record)?;
    let outcome = outcome(attempt.outcome)?;
    if !matches!(outcome, Outcome::Denied | Outcome::Unreachable) {
        return Err(DecodeError::Field);
    }
    Ok(Input::Attempt(AttemptFact {
        time: time(&attempt.header),
        start: BootNs(attempt.start_ns),
        cgroup_id: attempt.header.cgroup_id,
        cookie: attempt.cookie,
        outcome,
        connected: owner(attempt.opener),
        ends: Ends::from(&attempt.tuple),
    }))
}

pub(super) fn udp(record: &[u8], open: bool) -> Result<Input, DecodeError> {
    let (udp, _) = split::<wire::Udp>(record)?;
    let has = |flag| udp.header.flags & flag != 0;
    let outcome = outcome(udp.outcome)?;
    if !matches!(outcome, Outcome::Established | Outcome::OneWay) {
        return Err(DecodeError::Field);
    }
    Ok(Input::Udp(UdpFact {
        time: time(&udp.header),
        cgroup_id: udp.header.cgroup_id,
        cookie: udp.cookie,
        start: moment(udp.start_ns),
        open,
        preexisting: has(flags::PREEXISTING),
        many_peers: has(flags::MANY_PEERS),
        direction: direction(udp.direction)?,
        outcome,
        bytes_sent: udp.bytes_sent,
        bytes_received: udp.bytes_received,
        packets_sent: udp.packets_sent,
        packets_received: udp.packets_received,
        sent: owner(udp.opener),
        closed: owner(udp.closer),
        ends: Ends::from(&udp.tuple),
    }))
}

/// The message is read here, and its bytes go no further.
pub(super) fn dns(record: &[u8]) -> Result<Input, DecodeError> {
    let (dns, rest) = split::<wire::Dns>(record)?;
    let captured = usize::try_from(dns.captured).map_err(|_| DecodeError::Field)?;
    if dns.captured > dns.payload_len || captured > wire::DNS_BYTES || dns.tuple.remote_port != DNS_PORT {
        return Err(DecodeError::Field);
    }
    let (bytes, _) = trailing(rest, captured)?;
    Ok(Input::Dns(Box::new(DnsFact {
        time: time(&dns.header),
        cgroup_id: dns.header.cgroup_id,
        cookie: dns.cookie,
        ends: Ends::from(&dns.tuple),
        bytes: dns.payload_len,
        message: dns::parse(bytes, dns.header.flags & flags::RESPONSE != 0),
    })))
}

pub(super) fn exec(record: &[u8], keep_args: bool) -> Result<Input, DecodeError> {
    let (exec, rest) = split::<wire::Exec>(record)?;
    let (path_len, args_len) = (usize::from(exec.path_len), usize::from(exec.args_len));
    if path_len > wire::EXE_PATH_BYTES || args_len > wire::ARGS_BYTES {
        return Err(DecodeError::Field);
    }
    let (path, rest) = trailing(rest, path_len)?;
    let (args, _) = trailing(rest, args_len)?;
    Ok(Input::Exec(ExecFact {
        time: time(&exec.header),
        cgroup_id: exec.header.cgroup_id,
        process: named(&exec.process).ok_or(DecodeError::Field)?,
        parent: owner(exec.parent),
        path: text(path),
        path_cut: exec.header.flags & flags::PATH_CUT != 0,
        args: if keep_args { redact::args(args, MAX_ARGS) } else { Vec::new() },
        uid: exec.uid,
    }))
}

pub(super) fn fork(record: &[u8]) -> Result<Input, DecodeError> {
    let (fork, _) = split::<wire::Fork>(record)?;
    Ok(Input::Fork(ForkFact {
        time: time(&fork.header),
        cgroup_id: fork.header.cgroup_id,
        child: named(&fork.child).ok_or(DecodeError::Field)?,
        parent: required_owner(fork.parent)?,
    }))
}

pub(super) fn exit(record: &[u8]) -> Result<Input, DecodeError> {
    let (exit, _) = split::<wire::Exit>(record)?;
    Ok(Input::Exit { time: time(&exit.header), process: required_owner(exit.process)? })
}

pub(super) fn cgroup_mkdir(record: &[u8]) -> Result<Input, DecodeError> {
    let (mkdir, rest) = split::<wire::CgroupMkdir>(record)?;
    let path_len = usize::try_from(mkdir.path_len).map_err(|_| DecodeError::Field)?;
    if path_len > wire::CGROUP_PATH_BYTES {
        return Err(DecodeError::Field);
    }
    let (path, _) = trailing(rest, path_len)?;
    if path.first() != Some(&b'/') {
        return Err(DecodeError::Field);
    }
    Ok(Input::CgroupPresent { id: mkdir.header.cgroup_id, path: text(path) })
}

pub(super) fn cgroup_rmdir(record: &[u8]) -> Result<Input, DecodeError> {
    let (rmdir, _) = split::<wire::CgroupRmdir>(record)?;
    Ok(Input::CgroupGone { id: rmdir.header.cgroup_id, time: time(&rmdir.header) })
}

pub(super) fn metadata_segment(record: &[u8]) -> Result<Segment<'_>, DecodeError> {
    let (segment, rest) = split::<wire::MetadataSegment>(record)?;
    if segment.captured > segment.payload_len {
        return Err(DecodeError::Field);
    }
    let captured = usize::try_from(segment.captured).map_err(|_| DecodeError::Field)?;
    let (payload, _) = trailing(rest, captured)?;
    let has = |flag| segment.header.flags & flag != 0;
    Ok(Segment {
        who: Who {
            cgroup_id: segment.header.cgroup_id,
            cookie: segment.cookie,
            process: named(&segment.process),
            ancestors: named_list(&segment.ancestors),
            sender_only: has(flags::OWNER_SENT),
            ends: Ends::from(&segment.tuple),
            service: service(segment.service)?,
        },
        way: if has(flags::RESPONSE) { Way::Answer } else { Way::Request },
        seq: segment.seq,
        payload_len: segment.payload_len,
        payload,
        stamp: Stamp { time: time(&segment.header), ttl: segment.ttl },
    })
}

pub(super) fn metadata_end(record: &[u8]) -> Result<ConnectionEnd, DecodeError> {
    let (end, _) = split::<wire::MetadataEnd>(record)?;
    let outcome = outcome(end.outcome)?;
    if outcome == Outcome::OneWay {
        return Err(DecodeError::Field);
    }
    Ok(ConnectionEnd {
        who: Who {
            cgroup_id: end.header.cgroup_id,
            cookie: end.cookie,
            process: named(&end.process),
            ancestors: named_list(&end.ancestors),
            sender_only: false,
            ends: Ends::from(&end.tuple),
            service: service(end.service)?,
        },
        time: time(&end.header),
        start: moment(end.start_ns),
        established: end.header.flags & flags::ESTABLISHED != 0,
        outcome,
    })
}

fn outcome(byte: u8) -> Result<Outcome, DecodeError> {
    Outcome::from_wire(byte).ok_or(DecodeError::Field)
}

fn direction(byte: u8) -> Result<Direction, DecodeError> {
    Direction::from_wire(byte).ok_or(DecodeError::Field)
}

fn service(byte: u8) -> Result<Service, DecodeError> {
    Service::from_wire(byte).ok_or(DecodeError::Field)
}
