//! The rotated file, and what becomes of rows when it cannot be written.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use agent_core::input::GapCause;
use agent_core::output::{GapRow, Output};
use agent_core::time::WallNs;

use super::rotating::Rotating;
use super::{FileExporter, FileOptions};
use crate::lines::LineKind;

const EVER: Duration = Duration::from_mins(10);

fn options(path: &Path, bytes_max: u64, files: u32) -> FileOptions {
    let (node, kinds) = (Arc::from("n"), Vec::new());
    FileOptions { path: path.to_owned(), bytes_max, files, kinds, node, now: || WallNs(0) }
}

/// A row that tells its number.
fn row(number: u64) -> Arc<Output> {
    let records_lost = [("tcp", number)].into();
    Arc::new(Output::Gap(GapRow { start: WallNs(0), end: WallNs(1), cause: GapCause::RingFull, records_lost }))
}

fn finish(exporter: FileExporter) {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(exporter.finish(EVER));
}

fn numbered(path: &Path, number: u32) -> PathBuf {
    path.with_extension(format!("json.{number}"))
}

/// Numbers of the rows in a file; every line is whole.
fn rows(path: &Path) -> Vec<u64> {
    let text = fs::read_to_string(path).unwrap();
    assert!(text.is_empty() || text.ends_with('\n'));
    let rows = text.lines().map(|line| serde_json::from_str::<serde_json::Value>(line).expect("a whole line"));
    rows.filter(|row| row["kind"] == "gap").map(|row| row["records_lost"]["tcp"].as_u64().unwrap()).collect()
}

/// All rows stand once and in order in the files, none of which is too large; beyond so many files the oldest rows go.
#[test]
fn files_rotate_and_lines_stay_whole() {
    let home = tempfile::tempdir().unwrap();
    let path = home.path().join("rows.json");
    let exporter = FileExporter::start(options(&path, 100_000, 3)).unwrap();
    for batch in 0..500 {
        exporter.push(&(0..10).map(|n| row(batch * 10 + n)).collect::<Vec<_>>());
        // Small chunks: the thread takes each batch by itself.
        while exporter.tally().shipped() < (batch + 1) * 10 {
            std::thread::yield_now();
        }
    }
    let tally = exporter.tally().clone();
    finish(exporter);
    assert_eq!((tally.shipped(), tally.lost(), tally.failing()), (5_000, 0, None));
    let mut all = Vec::new();
    for file in [numbered(&path, 3), numbered(&path, 2), numbered(&path, 1), path.clone()] {
        let metadata = fs::metadata(&file).unwrap();
        assert!(metadata.len() <= 100_000, "{}", metadata.len());
        assert_eq!(metadata.permissions().mode() & 0o777, 0o600);
        all.extend(rows(&file));
    }
    assert!(!numbered(&path, 4).exists());
    assert!(all.len() > 1_500, "{}", all.len());
    assert_eq!(all, (5_000 - all.len() as u64..5_000).collect::<Vec<_>>());
}

#[test]
fn a_restart_goes_on_and_cuts_what_a_killed_agent_left() {
    let home = tempfile::tempdir().unwrap();
    let path = home.path().join("rows.json");
    for run in 0..2 {
        let exporter = FileExporter::start(options(&path, 1 << 20, 1)).unwrap();
        exporter.push(&[row(run)]);
        finish(exporter);
        let whole = fs::read_to_string(&path).unwrap();
        fs::write(&path, format!("{whole}{}", "{\"half\":")).unwrap();
    }
    let mut file = Rotating::new(path.clone(), 1 << 20, 1);
    file.write(b"").unwrap();
    assert_eq!(rows(&path), [0, 1]);
    fs::write(&path, "half").unwrap();
    Rotating::new(path.clone(), 1 << 20, 1).write(b"{}\n").unwrap();
    assert_eq!(fs::read_to_string(&path).unwrap(), "{}\n");
}

/// logrotate and people move files away.
#[test]
fn a_file_that_was_moved_away_is_begun_anew() {
    let home = tempfile::tempdir().unwrap();
    let path = home.path().join("rows.json");
    let mut file = Rotating::new(path.clone(), 1 << 20, 1);
    file.write(b"1\n").unwrap();
    fs::rename(&path, home.path().join("theirs")).unwrap();
    file.write(b"2\n").unwrap();
    assert_eq!(fs::read_to_string(&path).unwrap(), "2\n");
    assert_eq!(fs::read_to_string(home.path().join("theirs")).unwrap(), "1\n");
}

#[test]
fn links_and_pipes_are_not_written_to() {
    let home = tempfile::tempdir().unwrap();
    let link = home.path().join("rows.json");
    std::os::unix::fs::symlink(home.path().join("else"), &link).unwrap();
    assert!(Rotating::new(link, 1 << 20, 1).write(b"1\n").is_err());
    assert!(!home.path().join("else").exists());
    assert!(Rotating::new(PathBuf::from("/dev/full"), 1 << 20, 1).write(b"1\n").is_err());
}

/// Rows that no disk takes are counted, said in place once it does, and the agent goes on.
#[test]
fn a_disk_that_takes_nothing_costs_rows_and_says_so() {
    let home = tempfile::tempdir().unwrap();
    let path = home.path().join("later/rows.json");
    let exporter = FileExporter::start(options(&path, 1 << 20, 1)).unwrap();
    let tally = exporter.tally().clone();
    exporter.push(&[row(1), row(2)]);
    // It counts first, and then says why.
    while tally.lost() < 2 || tally.failing().is_none() {
        std::thread::yield_now();
    }
    fs::create_dir(path.parent().unwrap()).unwrap();
    exporter.push(&[row(3)]);
    finish(exporter);
    assert_eq!((tally.shipped(), tally.lost(), tally.failing()), (1, 2, None));
    assert_eq!(rows(&path), [3]);
    let text = fs::read_to_string(&path).unwrap();
    assert!(
        text.starts_with("{\"schema\":\"sekisho/1\",\"kind\":\"dropped\"") && text.contains("\"lines\":2}"),
        "{text}"
    );
}

#[test]
fn only_the_kinds_that_are_wanted() {
    let home = tempfile::tempdir().unwrap();
    let path = home.path().join("rows.json");
    let wanted = FileOptions { kinds: vec![LineKind::Finding], ..options(&path, 1 << 20, 1) };
    let exporter = FileExporter::start(wanted).unwrap();
    exporter.push(&[row(1)]);
    let tally = exporter.tally().clone();
    finish(exporter);
    assert_eq!((tally.shipped(), path.exists()), (0, false));
}
