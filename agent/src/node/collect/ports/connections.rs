//! `/proc/net/tcp` and `tcp6`, read line by line, for there may be 100,000 connections: which local address, remote address
//! and remote port share the most local ports. `/proc/net/udp` and `udp6`: how many local ports are taken.

use std::collections::{HashMap, HashSet};
use std::fs;
use std::io::{BufRead as _, BufReader, Read as _};
use std::net::{IpAddr, SocketAddr};
use std::ops::RangeInclusive;
use std::path::Path;

use crate::node::collect::{Error, read};

/// Longest table: 200,000 connections of 150 bytes.
const TABLE_BYTES_MAX: u64 = 32 << 20;
/// Most triples told apart in a namespace, at about 60 bytes: 4 MiB.
const MAX_TRIPLES: usize = 65_536;
/// Bytes asked for at a time: the kernel gives a page.
const READ_BYTES: usize = 16 << 10;
/// States of the kernel's enum as the tables show them.
const TIME_WAIT: u8 = 6;
const LISTEN: u8 = 10;

/// The most crowded triple.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Crowd {
    pub(super) local: IpAddr,
    pub(super) remote: SocketAddr,
    /// Local ports in use from the one to the other.
    pub(super) ports: u64,
    /// The lowest of them.
    pub(super) lowest: u16,
    /// The highest of them.
    pub(super) highest: u16,
}

/// A line of a table.
struct Line {
    local: SocketAddr,
    remote: SocketAddr,
    state: u8,
}

/// The most crowded triple of the namespace of a process; `None` without connections. With a range, ports outside of it
/// were chosen by programs and do not count.
pub(super) fn crowd(process: &Path, range: Option<&RangeInclusive<u16>>) -> Result<Option<Crowd>, Error> {
    let mut triples: HashMap<(IpAddr, SocketAddr), Crowd> = HashMap::new();
    let mut listening = HashSet::new();
    for name in ["net/tcp", "net/tcp6"] {
        let path = process.join(name);
        let lines = each_line(&path, |Line { local, remote, state }| {
            let port = local.port();
            // The kernel lists listeners before all others.
            if state == LISTEN {
                listening.insert(port);
            }
            // Within a second such a port may be taken again towards this same machine.
            let is_reusable = state == TIME_WAIT && remote.ip().is_loopback();
            let is_chosen = range.is_some_and(|range| !range.contains(&port)) || listening.contains(&port);
            if is_reusable || is_chosen || remote.port() == 0 {
                return;
            }
            let key = (local.ip(), remote);
            if let Some(crowd) = triples.get_mut(&key) {
                crowd.ports += 1;
                crowd.lowest = crowd.lowest.min(port);
                crowd.highest = crowd.highest.max(port);
            } else if triples.len() < MAX_TRIPLES {
                let crowd = Crowd { local: local.ip(), remote, ports: 1, lowest: port, highest: port };
                triples.insert(key, crowd);
            }
        });
        match lines {
            // A kernel without IPv6.
            Err(error) if name == "net/tcp6" && read::is_gone(&error) => {}
            other => other?,
        }
    }
    Ok(triples.into_values().max_by_key(|crowd| (crowd.ports, crowd.local, crowd.remote)))
}

/// Local ports of a range that sockets for datagrams hold in the namespace of a process. The kernel gives each of them a port
/// of its own, to whomever they talk, so all of them count together.
pub(super) fn datagram_ports(process: &Path, range: &RangeInclusive<u16>) -> Result<u64, Error> {
    let mut ports = HashSet::new();
    for name in ["net/udp", "net/udp6"] {
        let lines = each_line(&process.join(name), |Line { local, .. }| {
            if range.contains(&local.port()) {
                ports.insert(local.port());
            }
        });
        match lines {
            // A kernel without IPv6.
            Err(error) if name == "net/udp6" && read::is_gone(&error) => {}
            other => other?,
        }
    }
    Ok(ports.len() as u64)
}

fn each_line(path: &Path, take: impl FnMut(Line)) -> Result<(), Error> {
    each_line_of(path, TABLE_BYTES_MAX, take)
}

/// Of a longer table what stands within the bound: the most crowded triple of so many is crowded enough.
fn each_line_of(path: &Path, bytes_max: u64, mut take: impl FnMut(Line)) -> Result<(), Error> {
    let refused = |source| Error::Read { path: path.to_owned(), source };
    let file = fs::File::open(path).map_err(refused)?;
    let mut reader = BufReader::with_capacity(READ_BYTES, file.take(bytes_max));
    let mut text = String::new();
    let mut is_head = true;
    loop {
        text.clear();
        if reader.read_line(&mut text).map_err(refused)? == 0 {
            return Ok(());
        }
        if reader.get_ref().limit() == 0 && !text.ends_with('\n') {
            return Ok(());
        }
        if !std::mem::take(&mut is_head) {
            take(line(&text).ok_or_else(|| read::malformed(path, "holds a line that is no connection"))?);
        }
    }
}

fn line(text: &str) -> Option<Line> {
    let mut words = text.split_ascii_whitespace().skip(1);
    let (local, remote) = (address(words.next()?)?, address(words.next()?)?);
    Some(Line { local, remote, state: u8::from_str_radix(words.next()?, 16).ok()? })
}

/// Addresses stand as words of the machine's own byte order.
fn address(text: &str) -> Option<SocketAddr> {
    let (ip, port) = text.split_once(':')?;
    let word = |at: usize| u32::from_str_radix(ip.get(at * 8..at * 8 + 8)?, 16).ok().map(u32::to_ne_bytes);
    let ip = match ip.len() {
        8 => IpAddr::from(word(0)?),
        32 => {
            let mut bytes = [0; 16];
            for (at, place) in bytes.chunks_exact_mut(4).enumerate() {
                place.copy_from_slice(&word(at)?);
            }
            // An IPv4 connection of an IPv6 socket shares its ports with plain ones.
            IpAddr::from(bytes).to_canonical()
        }
        _ => return None,
    };
    Some(SocketAddr::new(ip, u16::from_str_radix(port, 16).ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_that_is_too_long_tells_what_stands_within_the_bound() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("tcp");
        let line = "   0: 0700000A:9C40 0800000A:01BB 01 00000000:00000000 00:00000000 00000000 0 0 1\n";
        fs::write(&path, format!("head\n{}", line.repeat(10))).expect("writes");
        let lines = |bytes_max| {
            let mut count = 0;
            each_line_of(&path, bytes_max, |_| count += 1).map(|()| count)
        };
        let length = line.len() as u64;
        for (bytes_max, wanted) in [(5 + 3 * length, 3), (5 + 3 * length + 20, 3), (3, 0), (1 << 20, 10)] {
            assert_eq!(lines(bytes_max).expect("is read"), wanted, "{bytes_max}");
        }
        // Only the bound may cut a line.
        fs::write(&path, "head\n   0: 0700000A:9C").expect("writes");
        assert!(lines(1 << 20).is_err());
    }

    #[test]
    fn addresses_of_both_families() {
        for (text, ip) in [
            ("0100007F:1F90", "127.0.0.1:8080"),
            ("0000000000000000FFFF00000701000A:0050", "10.0.1.7:80"),
            ("B80D01200000000067452301EFCDAB89:0001", "[2001:db8::123:4567:89ab:cdef]:1"),
        ] {
            assert_eq!(address(text), ip.parse().ok(), "{text}");
        }
        for text in ["", "0100007F", "0100007:1F90", "0100007F:", "0100007F:123456", "é100007F:1F90"] {
            assert_eq!(address(text), None, "{text}");
        }
    }
}
