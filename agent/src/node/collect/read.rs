//! Reading small files: bounded, and with the path in every error.

use std::fs::File;
use std::io::{ErrorKind, Read};
use std::path::Path;
use std::str::FromStr;

use super::Error;

/// Longest file of /proc and /sys that is read whole, unless a source says otherwise: `meminfo`, `snmp` and the tables of
/// counters have a few KiB; one line per CPU of 200 bytes and 1,024 CPUs make 200 KiB.
const FILE_BYTES_MAX: u64 = 1 << 20;

/// The whole text of a small file.
pub(super) fn text(path: &Path) -> Result<String, Error> {
    text_of_at_most(path, FILE_BYTES_MAX)
}

/// The whole text of a file of at most so many bytes; a longer one is refused, for half of it would say something wrong.
pub(super) fn text_of_at_most(path: &Path, bytes_max: u64) -> Result<String, Error> {
    let refused = |source| Error::Read { path: path.to_owned(), source };
    let mut text = String::new();
    File::open(path)
        .and_then(|file| file.take(bytes_max.saturating_add(1)).read_to_string(&mut text))
        .map_err(refused)?;
    if text.len() as u64 > bytes_max {
        return Err(refused(std::io::Error::other(format!("longer than {bytes_max} bytes"))));
    }
    Ok(text)
}

/// The same, for a file whose absence says that the node has no such thing.
pub(super) fn text_or_absent(path: &Path, absent: &str) -> Result<String, Error> {
    text(path).map_err(|error| match &error {
        Error::Read { source, .. } if source.kind() == ErrorKind::NotFound => {
            Error::Absent(format!("{absent}: there is no {}", path.display()))
        }
        _ => error,
    })
}

/// A file that holds one number.
pub(super) fn number<T: FromStr>(path: &Path) -> Result<T, Error> {
    parse(path, text(path)?.trim())
}

/// A number that a file holds.
pub(super) fn parse<T: FromStr>(path: &Path, text: &str) -> Result<T, Error> {
    text.parse().map_err(|_| malformed(path, format!("expected a number, not {:?}", shown(text))))
}

/// What a file holds is not what it should be.
pub(super) fn malformed(path: &Path, why: impl Into<String>) -> Error {
    Error::Malformed { what: path.display().to_string(), why: why.into() }
}

/// Whether an error says that what was read is gone: a process or a cgroup that ended meanwhile.
pub(super) fn is_gone(error: &Error) -> bool {
    // ESRCH: the process ended between open and read. ENODEV: so did the cgroup.
    matches!(error, Error::Read { source, .. }
        if source.kind() == ErrorKind::NotFound || matches!(source.raw_os_error(), Some(libc::ESRCH | libc::ENODEV)))
}

/// Keeps the first of several errors, which stands for the others.
pub(super) fn keep_first(first: &mut Result<(), Error>, error: Error) {
    if first.is_ok() {
        *first = Err(error);
    }
}

/// The beginning of a text that was not understood.
fn shown(text: &str) -> String {
    const SHOWN: usize = 40;
    text.chars().take(SHOWN).collect()
}
