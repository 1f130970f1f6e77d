//! A driver's own counters (`ethtool -S`), by ioctl: the netlink form of ethtool tells only those that all drivers share.
//! Layouts: `linux/ethtool.h`, `linux/sockios.h`.

use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};

use rustix::net::{AddressFamily, SocketFlags, SocketType, socket_with};

/// `SIOCETHTOOL`.
const SIOCETHTOOL: libc::c_ulong = 0x8946;
/// `ETHTOOL_GSSET_INFO`, `ETHTOOL_GSTRINGS`, `ETHTOOL_GSTATS`.
const GET_SET_INFO: u32 = 0x37;
const GET_STRINGS: u32 = 0x1b;
const GET_STATS: u32 = 0x1d;
/// `ETH_SS_STATS`, `ETH_GSTRING_LEN`.
const SET_STATS: u32 = 1;
const NAME_BYTES: usize = 32;
/// Most counters of an interface: ENA has some 30 and about 20 for each of up to 128 pairs of queues. There is room for all
/// of them at each look: with 32 bytes a name half a MiB, of which only what is written is ever touched.
const MAX_COUNTERS: usize = 16_384;
/// Words of 4 bytes before the names: command, set, number. Before the values: command, number.
const HEAD_BYTES: usize = 12;
const VALUES_HEAD_BYTES: usize = 8;

/// A socket to ask with.
pub(super) struct Ethtool(OwnedFd);

// === impl Ethtool ===

impl Ethtool {
    pub(super) fn open() -> io::Result<Self> {
        Ok(Self(socket_with(AddressFamily::INET, SocketType::DGRAM, SocketFlags::CLOEXEC, None)?))
    }

    /// Names and values of an interface's counters. An interface that went meanwhile is an error.
    pub(super) fn counters(&self, interface: &str) -> io::Result<Vec<(String, u64)>> {
        let count = self.count(interface)?;
        if count == 0 {
            return Ok(Vec::new());
        }
        if count > MAX_COUNTERS {
            return Err(io::Error::other(format!("more than {MAX_COUNTERS} counters")));
        }
        let mut names = vec![0; HEAD_BYTES + MAX_COUNTERS * NAME_BYTES];
        put(&mut names, &[GET_STRINGS, SET_STATS, as_u32(count)?]);
        self.ask(interface, &mut names)?;
        let mut values = vec![0; VALUES_HEAD_BYTES + MAX_COUNTERS * 8];
        put(&mut values, &[GET_STATS, as_u32(count)?]);
        self.ask(interface, &mut values)?;
        pairs(&names, &values)
    }

    /// How many counters there are.
    fn count(&self, interface: &str) -> io::Result<usize> {
        let mut info = vec![0; 16 + 4];
        // A reserved word, then a mask of 64 bits of the sets that are asked for.
        put(&mut info, &[GET_SET_INFO, 0]);
        info.get_mut(8..16).unwrap_or_default().copy_from_slice(&(1_u64 << SET_STATS).to_ne_bytes());
        self.ask(interface, &mut info)?;
        // The mask says which sets the driver has.
        let has = word(&info, 8) | word(&info, 12);
        Ok(if has == 0 { 0 } else { word(&info, 16) as usize })
    }

    #[expect(unsafe_code, reason = "no crate that is kept wraps this ioctl")]
    fn ask(&self, interface: &str, answer: &mut [u8]) -> io::Result<()> {
        let name = interface.as_bytes();
        if name.len() >= libc::IFNAMSIZ || name.contains(&0) {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "no name of an interface"));
        }
        let mut ifr_name = [0; libc::IFNAMSIZ];
        for (place, byte) in ifr_name.iter_mut().zip(name) {
            *place = byte.cast_signed();
        }
        let mut request =
            libc::ifreq { ifr_name, ifr_ifru: libc::__c_anonymous_ifr_ifru { ifru_data: answer.as_mut_ptr().cast() } };
        // SAFETY: the descriptor is a socket of ours, and open. `request` is an ifreq whose name ends with a NUL and whose
        // data points to `answer`, which lives, and is not touched by others, until the call is over. GSSET_INFO writes
        // one word behind its head, since one set is asked for. GSTRINGS and GSTATS write as many counters as the driver has
        // at that moment, whatever their heads ask for (`ethtool_get_strings`, `ethtool_get_stats` in `net/ethtool/ioctl.c`):
        // the callers made room for more than any driver asked here can have.
        let result = unsafe { libc::ioctl(self.0.as_fd().as_raw_fd(), SIOCETHTOOL as _, &raw mut request) };
        if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
    }
}

/// Names and values with their heads, as the kernel wrote them. When the number of counters changed in between, as with
/// `ethtool -L`, nobody can tell which value is whose.
fn pairs(names: &[u8], values: &[u8]) -> io::Result<Vec<(String, u64)>> {
    let (count, of_values) = (word(names, 8), word(values, 4));
    if count != of_values {
        return Err(io::Error::other(format!("the number of counters changed from {count} to {of_values} meanwhile")));
    }
    let names = names.get(HEAD_BYTES..).unwrap_or_default().chunks_exact(NAME_BYTES);
    let values = values.get(VALUES_HEAD_BYTES..).unwrap_or_default().chunks_exact(8);
    let pairs = names.zip(values).take(count as usize).map(|(name, value)| {
        let end = name.iter().position(|byte| *byte == 0).unwrap_or(name.len());
        let name = String::from_utf8_lossy(name.get(..end).unwrap_or_default()).into_owned();
        (name, u64::from_ne_bytes(value.try_into().unwrap_or_default()))
    });
    Ok(pairs.collect())
}

/// The word of 4 bytes there; 0 beyond the end.
fn word(bytes: &[u8], at: usize) -> u32 {
    bytes.get(at..at + 4).and_then(|bytes| bytes.try_into().ok()).map_or(0, u32::from_ne_bytes)
}

fn put(bytes: &mut [u8], words: &[u32]) {
    for (place, word) in bytes.chunks_exact_mut(4).zip(words) {
        place.copy_from_slice(&word.to_ne_bytes());
    }
}

fn as_u32(count: usize) -> io::Result<u32> {
    u32::try_from(count).map_err(io::Error::other)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(name: &str) -> Vec<u8> {
        let mut bytes = name.as_bytes().to_vec();
        bytes.resize(NAME_BYTES, 0);
        bytes
    }

    #[test]
    fn values_belong_to_names_only_while_their_number_stands() {
        let room = |mut bytes: Vec<u8>, words: &[u32]| {
            put(&mut bytes, words);
            bytes.resize(4_096, 0);
            bytes
        };
        let names = [vec![0; HEAD_BYTES], name("a"), name("bw_in")].concat();
        let values = [vec![0; VALUES_HEAD_BYTES], 7_u64.to_ne_bytes().to_vec(), 8_u64.to_ne_bytes().to_vec()].concat();
        let names = room(names, &[GET_STRINGS, SET_STATS, 2]);
        let told = pairs(&names, &room(values.clone(), &[GET_STATS, 2])).expect("two of each");
        assert_eq!(told, [("a".to_owned(), 7), ("bw_in".to_owned(), 8)]);
        let error = pairs(&names, &room(values, &[GET_STATS, 642])).expect_err("640 came meanwhile");
        assert!(error.to_string().contains("642"), "{error}");
        assert_eq!(pairs(&[], &[]).expect("nothing of nothing"), []);
    }

    /// The loopback device has no counters of its own, and a device that is not there is an error.
    #[test]
    fn interfaces_of_this_machine() {
        let ethtool = Ethtool::open().expect("a socket");
        assert!(
            ethtool
                .counters("lo")
                .map_or_else(|error| error.raw_os_error() == Some(libc::EOPNOTSUPP), |counters| counters.is_empty())
        );
        assert_eq!(ethtool.counters("no-such-device").map_err(|error| error.raw_os_error()), Err(Some(libc::ENODEV)));
        assert!(ethtool.counters("a-name-that-is-much-too-long").is_err());
    }
}
