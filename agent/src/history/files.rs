//! The directory of the history: which files are whose, in which order they were written, and how large they are.
//!
//! A file is named `history-2026-11-22-000017.db`. The day is for people; the number orders, so that a clock that jumps
//! back mixes nothing up. Beside the file that is written stand its `-wal` and `-shm`. A file that could not be read is
//! renamed to `….db.broken-SECONDS` and goes with its age like any other.

use std::fs::{self, DirBuilder, OpenOptions};
use std::io::{self, ErrorKind};
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use agent_core::time::WallNs;

pub(super) const DAY_NS: i64 = 86_400 * 1_000_000_000;
const PREFIX: &str = "history-";
const SUFFIX: &str = ".db";
/// Held by whoever writes.
const LOCK: &str = "history.lock";
const BROKEN: &str = ".broken-";
/// What SQLite puts beside a file.
const BESIDE: [&str; 3] = ["-wal", "-shm", "-journal"];
/// Whoever may read the history reads what every pod did.
const FILE_MODE: u32 = 0o600;
const DIRECTORY_MODE: u32 = 0o700;

/// A file of the history, with what stands beside it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Segment {
    /// Place in the order of writing.
    pub(super) number: u64,
    /// The file itself.
    pub(super) path: PathBuf,
    /// It was set aside.
    pub(super) broken: bool,
}

/// All files, the oldest first. A directory that is not there has none.
pub(super) fn list(directory: &Path) -> io::Result<Vec<Segment>> {
    let entries = match fs::read_dir(directory) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries?,
    };
    let mut segments = Vec::new();
    for entry in entries {
        let entry = entry?;
        if let Some((number, broken)) = entry.file_name().to_str().and_then(parse) {
            segments.push(Segment { number, path: entry.path(), broken });
        }
    }
    segments.sort_unstable();
    Ok(segments)
}

/// Makes the directory, for its owner alone. One that is there stays as it is.
pub(super) fn make_directory(directory: &Path) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(DIRECTORY_MODE).create(directory)
}

/// A directory that is taken for one writer.
pub(super) struct Lock(fs::File);

impl Drop for Lock {
    fn drop(&mut self) {
        // By name: to close the file is not enough while a child that is just being started has it too.
        if let Err(error) = self.0.unlock() {
            tracing::debug!(%error, "a directory stays locked until the process ends");
        }
    }
}

/// Takes the directory for one writer; `WouldBlock` when another one has it.
pub(super) fn lock(directory: &Path) -> io::Result<Lock> {
    let path = directory.join(LOCK);
    let file = OpenOptions::new().write(true).create(true).truncate(false).mode(FILE_MODE).open(path)?;
    rustix::fs::flock(&file, rustix::fs::FlockOperation::NonBlockingLockExclusive)?;
    Ok(Lock(file))
}

/// Makes the next file, empty, for its owner alone.
pub(super) fn create(directory: &Path, number: u64, now: WallNs) -> io::Result<Segment> {
    let day = now.to_string();
    let day = day.get(..10).unwrap_or("0000-00-00");
    let path = directory.join(format!("{PREFIX}{day}-{number:06}{SUFFIX}"));
    let file = OpenOptions::new().write(true).create_new(true).mode(FILE_MODE).open(&path)?;
    // Whatever the mask of this process is.
    file.set_permissions(fs::Permissions::from_mode(FILE_MODE))?;
    fs::File::open(directory)?.sync_all()?;
    Ok(Segment { number, path, broken: false })
}

/// Ten characters of the day in a file's name.
pub(super) fn day(segment: &Segment) -> Option<&str> {
    segment.path.file_name()?.to_str()?.strip_prefix(PREFIX)?.get(..10)
}

/// The end of the day that a file's name tells.
pub(super) fn end_of_day(segment: &Segment) -> Option<WallNs> {
    let start: jiff::civil::Date = day(segment)?.parse().ok()?;
    let start = start.to_zoned(jiff::tz::TimeZone::UTC).ok()?.timestamp();
    i64::try_from(start.as_nanosecond()).ok().map(|start| WallNs(start.saturating_add(DAY_NS)))
}

impl Segment {
    /// Bytes on disk, with what stands beside it.
    pub(super) fn bytes(&self) -> u64 {
        self.all().iter().filter_map(|path| fs::symlink_metadata(path).ok()).map(|file| size(&file)).sum()
    }

    /// Removes it with what stands beside it; whether it is gone.
    pub(super) fn remove(&self) -> io::Result<()> {
        for path in self.all() {
            match fs::remove_file(path) {
                Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
                _ => {}
            }
        }
        Ok(())
    }

    /// Puts it aside under a name that says so, with its log.
    pub(super) fn set_aside(&self, now: WallNs) -> io::Result<PathBuf> {
        let seconds = now.0.div_euclid(1_000_000_000);
        let aside = |path: &Path| {
            let mut name = path.as_os_str().to_owned();
            name.push(format!("{BROKEN}{seconds}"));
            PathBuf::from(name)
        };
        let [file, wal, shm, journal] = self.all();
        let to = aside(&self.path);
        fs::rename(&file, &to)?;
        for path in [wal, journal] {
            match fs::rename(&path, aside(&path)) {
                Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
                _ => {}
            }
        }
        match fs::remove_file(shm) {
            Err(error) if error.kind() != ErrorKind::NotFound => Err(error),
            _ => Ok(to),
        }
    }

    /// Itself, `-wal`, `-shm` and `-journal`.
    fn all(&self) -> [PathBuf; 4] {
        let [wal, shm, journal] = BESIDE.map(|suffix| self.beside(suffix));
        [self.path.clone(), wal, shm, journal]
    }

    /// Path of what stands beside it.
    pub(super) fn beside(&self, suffix: &str) -> PathBuf {
        let mut name = self.path.as_os_str().to_owned();
        name.push(suffix);
        PathBuf::from(name)
    }
}

/// Number in a file's name, and whether it was set aside. What stands beside a file is no file of its own, except a log that
/// was set aside with it.
fn parse(name: &str) -> Option<(u64, bool)> {
    let rest = name.strip_prefix(PREFIX)?.get(10..)?.strip_prefix('-')?;
    let (number, end) = rest.split_once(SUFFIX)?;
    let number = number.bytes().all(|byte| byte.is_ascii_digit()).then(|| number.parse().ok())??;
    match end {
        "" => Some((number, false)),
        end if BESIDE
            .iter()
            .chain(&[""])
            .any(|beside| end.strip_prefix(beside).is_some_and(|end| end.starts_with(BROKEN))) =>
        {
            Some((number, true))
        }
        _ => None,
    }
}

/// Blocks or length, whichever is more: a file on a compressing file system must not look smaller than it may become.
fn size(file: &fs::Metadata) -> u64 {
    file.len().max(file.blocks().saturating_mul(512))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_tell_number_and_fate() {
        let cases = [
            ("history-2026-11-22-000017.db", Some((17, false))),
            ("history-2026-11-22-1234567.db", Some((1_234_567, false))),
            ("history-2026-11-22-000017.db.broken-1795310000", Some((17, true))),
            ("history-2026-11-22-000017.db-wal.broken-1795310000", Some((17, true))),
            ("history-2026-11-22-000017.db-wal", None),
            ("history-2026-11-22-.db", None),
            ("history-2026-11-22-x.db", None),
            ("history-2026-11-22-+7.db", None),
            ("history-é.db", None),
            ("facts.json", None),
        ];
        for (name, wanted) in cases {
            assert_eq!(parse(name), wanted, "{name}");
        }
    }

    #[test]
    fn the_number_orders_and_files_are_private() {
        let directory = tempfile::tempdir().expect("a directory");
        let later = WallNs(1_795_310_000_000_000_000);
        let first = create(directory.path(), 1, later).expect("creates");
        let second = create(directory.path(), 2, WallNs(0)).expect("creates");
        fs::write(second.beside("-wal"), [0; 100]).expect("writes");
        assert_eq!(list(directory.path()).expect("lists"), [first.clone(), second.clone()]);
        assert_eq!((day(&first), day(&second)), (Some("2026-11-22"), Some("1970-01-01")));
        assert_eq!(fs::metadata(&first.path).expect("is there").mode() & 0o777, 0o600);
        assert!(create(directory.path(), 1, later).is_err(), "an existing file is never taken over");
        assert!(second.bytes() >= 100);

        let aside = second.set_aside(WallNs(5_000_000_000)).expect("renames");
        assert!(aside.to_string_lossy().ends_with("000002.db.broken-5"));
        let listed = list(directory.path()).expect("lists");
        assert_eq!(listed.iter().map(|segment| segment.broken).collect::<Vec<_>>(), [false, true, true]);
        for segment in listed {
            segment.remove().expect("removes");
        }
        assert_eq!(list(directory.path()).expect("lists"), []);
        assert_eq!(list(&directory.path().join("nowhere")).expect("lists"), []);
    }
}
