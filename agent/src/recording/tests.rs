//! Recordings through real files, whole, cut, damaged, foreign, full and too slow.

use std::borrow::Cow;
use std::io::{self, Read as _, Write};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::Duration;

use agent_core::engine::EngineConfig;
use agent_core::input::Input;
use agent_core::recording::{End, Entry, Header, Why};
use agent_core::time::{BootNs, WallNs};

use super::{Error, Reader, Recorder};

const EVER: Duration = Duration::from_mins(10);

fn header() -> Header {
    Header::new("0.9.9", "n", EngineConfig::default())
}

fn tick(n: u64) -> Entry<'static> {
    Entry::Input(Cow::Owned(Input::Tick { boot: BootNs(n), wall: WallNs(1_767_323_045_123_456_789) }))
}

/// About 70 bytes that do not compress well.
fn noise(n: u64) -> Entry<'static> {
    let part = |part: u64| (n * 4 + part).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let path = format!("{:016x}{:016x}{:016x}{:016x}", part(0), part(1), part(2), part(3));
    Entry::Input(Cow::Owned(Input::CgroupPresent { id: n, path }))
}

fn finish(recorder: Recorder) {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(recorder.finish(EVER));
}

fn record(path: &Path, entries: impl IntoIterator<Item = Entry<'static>>) {
    let mut recorder = Recorder::create(path, 16 << 20, &header()).unwrap();
    for entry in entries {
        recorder.push(&entry);
    }
    finish(recorder);
}

fn read(path: &Path) -> (Vec<Entry<'static>>, Result<End, Error>) {
    let mut reader = match Reader::open(path) {
        Ok(reader) => reader,
        Err(error) => return (Vec::new(), Err(error)),
    };
    let mut entries = Vec::new();
    loop {
        match reader.next() {
            Ok(Some(entry)) => entries.push(entry),
            Ok(None) => return (entries, Ok(reader.end().unwrap())),
            Err(error) => return (entries, Err(error)),
        }
    }
}

fn home() -> (tempfile::TempDir, PathBuf) {
    let home = tempfile::tempdir().unwrap();
    let path = home.path().join("run.rec");
    (home, path)
}

#[test]
fn what_is_recorded_is_read() {
    let (_home, path) = home();
    record(&path, (0..20_000).map(tick));
    assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    assert_eq!(Reader::open(&path).unwrap().header(), &header());
    let (entries, end) = read(&path);
    assert_eq!(end.unwrap(), End { why: Why::Stopped, entries: 20_000 });
    assert!(entries.into_iter().eq((0..20_000).map(tick)), "exact, and in order");
}

#[test]
fn a_file_that_is_there_is_left_alone() {
    let (_home, path) = home();
    std::fs::write(&path, "mine").unwrap();
    let error = Recorder::create(&path, 1 << 20, &header()).err().unwrap();
    assert!(error.to_string().contains("run.rec; name a new file"), "{error}");
    assert_eq!(std::fs::read(&path).unwrap(), b"mine");
}

/// At every length a recording that was cut says so, and gives the entries that are whole.
#[test]
fn a_cut_recording_says_where() {
    let (_home, path) = home();
    record(&path, (0..50).map(tick));
    let whole = std::fs::read(&path).unwrap();
    let cut = path.with_extension("cut");
    for length in 0..whole.len() {
        std::fs::write(&cut, &whole[..length]).unwrap();
        let (entries, end) = read(&cut);
        let count = entries.len() as u64;
        assert!(entries.into_iter().eq((0..count).map(tick)));
        match end.unwrap_err() {
            Error::Cut { entries, .. } => assert_eq!(entries, count),
            Error::Foreign(_) | Error::Open(..) => assert_eq!(count, 0),
            error => panic!("{length}: {error}"),
        }
    }
}

fn compressed(bytes: &[u8]) -> Vec<u8> {
    zstd::encode_all(bytes, 1).unwrap()
}

#[test]
fn what_is_no_recording_is_named() {
    let (_home, path) = home();
    let entry = |bytes: &[u8]| {
        let length = u32::try_from(bytes.len()).unwrap().to_le_bytes();
        [crate::lines::json(&header()).as_bytes(), b"\n", &length, bytes].concat()
    };
    let end = |entries| rmp_serde::to_vec_named(&Entry::End(End { why: Why::Full, entries })).unwrap();
    let huge = [crate::lines::json(&header()).as_bytes(), b"\n\xff\xff\xff\xff"].concat();
    let version = "line 1: recorded by sekisho 9.0.0 in format 7, and this one reads format 1";
    let cases = [
        (b"text\n".to_vec(), "is no recording"),
        (compressed(b"text\n"), "is no recording"),
        (compressed(b"{\"schema\":\"sekisho/1\"}\n"), "is no recording"),
        (compressed(b"{\"recording\":7,\"agent\":\"9.0.0\",\"other\":1}\n"), version),
        (compressed(b"{\"recording\":1,\"agent\":\"9.0.0\"}\n"), "entry 0: its header cannot be understood"),
        (compressed(&entry(b"\x01")), "entry 1: cannot be understood"),
        (compressed(&entry(b"\x81\xa5input\xa4Nope")), "entry 1: cannot be understood, perhaps of a newer version"),
        (compressed(&huge), "entry 1: 4294967295 bytes are more than any entry has"),
        (compressed(&entry(&end(3))), "entry 1: the end speaks of 3 entries"),
        (compressed(&[entry(&end(0)), vec![0]].concat()), "something stands after the end"),
        ([compressed(&entry(&end(0))), b"rubbish".to_vec()].concat(), "entry 1: "),
    ];
    for (bytes, wanted) in cases {
        std::fs::write(&path, &bytes).unwrap();
        let error = read(&path).1.unwrap_err().to_string();
        assert!(error.contains(wanted) && error.contains("run.rec"), "{wanted}: {error}");
    }
    assert!(matches!(read(&path.join("nothing")).1, Err(Error::Open(..))));
    assert!(matches!(read(path.parent().unwrap()).1, Err(Error::Open(..))));
}

/// The file stays below its bound, and ends with whole entries and the reason.
#[test]
fn a_full_recording_ends_and_says_why() {
    let (_home, path) = home();
    let mut recorder = Recorder::create(&path, 1 << 20, &header()).unwrap();
    for n in 0..100_000 {
        recorder.push(&noise(n));
    }
    finish(recorder);
    let length = std::fs::metadata(&path).unwrap().len();
    assert!(length < 1 << 20 && length > 1 << 19, "{length}");
    let (entries, end) = read(&path);
    let count = entries.len() as u64;
    assert_eq!(end.unwrap(), End { why: Why::Full, entries: count });
    assert!(count > 5_000 && count < 100_000, "{count}");
    assert!(entries.into_iter().eq((0..count).map(noise)));
}

/// A disk that takes a write when it is told to, and shows what it took.
struct Gate(Receiver<()>, Sender<Vec<u8>>);

impl Write for Gate {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        // Nobody holds it any more: it is open.
        let _ = self.0.recv();
        self.1.send(bytes.to_vec()).map_err(io::Error::other)?;
        Ok(bytes.len())
    }
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Behind a disk that stands still what waits is bounded; what is written in the end is exact, and says that it is not all.
#[test]
fn a_disk_that_is_too_slow_ends_the_recording() {
    let (open, gate) = channel();
    let (taken, bytes) = channel();
    // For the header.
    (0..8).for_each(|_| open.send(()).unwrap());
    let mut recorder = Recorder::start(Gate(gate, taken), PathBuf::from("gate"), 1 << 30, &header()).unwrap();
    let long = |n: u64| Entry::Input(Cow::Owned(Input::CgroupPresent { id: n, path: "x".repeat(1 << 20) }));
    for n in 0..60 {
        recorder.push(&long(n));
    }
    drop(open);
    finish(recorder);
    let written: Vec<u8> = bytes.try_iter().flatten().collect();
    let (_home, path) = home();
    std::fs::write(&path, written).unwrap();
    let (entries, end) = read(&path);
    let count = entries.len() as u64;
    assert_eq!(end.unwrap(), End { why: Why::TooSlow, entries: count });
    assert!((30..60).contains(&count), "{count}");
    assert!(entries.into_iter().eq((0..count).map(long)));
}

/// A disk that takes nothing any more costs the recording and nothing else.
#[test]
fn a_disk_that_fails_cuts_the_recording() {
    struct Full(u64);
    impl Write for Full {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0 = self.0.checked_sub(1).ok_or(io::ErrorKind::StorageFull)?;
            Ok(bytes.len())
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }
    let mut recorder = Recorder::start(Full(4), PathBuf::from("full"), 1 << 30, &header()).unwrap();
    for n in 0..200_000 {
        recorder.push(&noise(n));
    }
    finish(recorder);
}

#[test]
fn anybody_can_look_at_the_header() {
    let (_home, path) = home();
    record(&path, []);
    let mut text = String::new();
    let _ = zstd::Decoder::new(std::fs::File::open(&path).unwrap()).unwrap().take(30).read_to_string(&mut text);
    assert_eq!(text, "{\"recording\":1,\"agent\":\"0.9.9\"");
}
