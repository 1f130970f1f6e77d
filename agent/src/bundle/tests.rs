//! Bundles that are whole, cut, changed, and added to.

use std::fs;
use std::io::{Read as _, Write as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use agent_core::time::WallNs;
use serde_json::json;

use super::verify::What;
use super::write::Draft;
use super::{Error, MANIFEST, Manifest, Target, Writer, verify};

fn manifest() -> Manifest {
    Manifest {
        schema: "sekisho/1".to_owned(),
        kind: "evidence".to_owned(),
        created: WallNs(1_795_305_600_000_000_000),
        tool: "sekisho 0".to_owned(),
        kernel: "6.12 x86_64".to_owned(),
        node: "node-1".to_owned(),
        query: json!({ "pods": ["shop/cart-0"] }),
        since: None,
        until: Some(WallNs(1_000)),
        runs: vec![Writer {
            started: WallNs(1_000),
            from: WallNs(2_000),
            to: WallNs(3_000),
            version: "0".to_owned(),
            kernel: None,
        }],
        unreadable: Vec::new(),
        files: Vec::new(),
    }
}

fn make(path: &Path, force: bool) -> Result<(Manifest, String), Error> {
    let target = Target::new(path, force)?;
    let mut parts = Vec::new();
    for (name, lines) in [("rows.jsonl", 5_000), ("gaps.jsonl", 0), ("objects.jsonl", 2)] {
        let mut part = target.part(name)?;
        for n in 0..lines {
            part.line(&format!("{{\"n\":{n},\"name\":\"{name}\"}}")).expect("a line");
        }
        parts.push(part);
    }
    target.write(manifest(), parts)
}

/// A directory with a bundle, and the manifest's sum.
fn bundle() -> (tempfile::TempDir, PathBuf, String) {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("incident.tar.zst");
    let (_, sum) = make(&path, false).expect("is made");
    (directory, path, sum)
}

fn problems(path: &Path) -> Vec<(String, What)> {
    let checked = verify(path, None).expect("is read");
    checked.problems.into_iter().map(|problem| (problem.file, problem.what)).collect()
}

/// Makes the archive anew with other entries.
fn rebuild(path: &Path, change: impl FnOnce(&mut Vec<(String, Vec<u8>)>)) {
    let mut archive = tar::Archive::new(zstd::Decoder::new(fs::File::open(path).expect("opens")).expect("decodes"));
    let mut entries = Vec::new();
    for entry in archive.entries().expect("entries") {
        let mut entry = entry.expect("an entry");
        let mut content = Vec::new();
        entry.read_to_end(&mut content).expect("reads");
        entries.push((entry.path().expect("a name").display().to_string(), content));
    }
    change(&mut entries);
    let encoder = zstd::Encoder::new(fs::File::create(path).expect("creates"), 1).expect("encodes");
    let mut archive = tar::Builder::new(encoder);
    for (name, content) in entries {
        let mut header = tar::Header::new_gnu();
        header.set_mode(0o600);
        header.set_size(content.len() as u64);
        archive.append_data(&mut header, name, &content[..]).expect("is added");
    }
    archive.into_inner().expect("ends").finish().expect("ends");
}

#[test]
fn a_bundle_is_whole_private_and_tells_what_is_in_it() {
    let (directory, path, sum) = bundle();
    let checked = verify(&path, Some(&sum.to_uppercase())).expect("is read");
    assert_eq!(checked.problems, []);
    assert_eq!(checked.manifest_sha256.as_ref(), Some(&sum));
    let found = checked.manifest.expect("a manifest");
    let files: Vec<_> = found.files.iter().map(|file| (file.name.as_str(), file.lines)).collect();
    assert_eq!(files, [("rows.jsonl", 5_000), ("gaps.jsonl", 0), ("objects.jsonl", 2)]);
    assert_eq!(Manifest { files: Vec::new(), ..found }, manifest());
    assert_eq!(fs::metadata(&path).expect("is there").mode() & 0o777, 0o600);
    assert_eq!(fs::read_dir(directory.path()).expect("lists").count(), 1, "nothing else is left");
}

#[test]
fn what_is_there_is_not_replaced_unless_that_is_asked_for() {
    let (_directory, path, sum) = bundle();
    fs::write(&path, "mine").expect("writes");
    assert!(matches!(make(&path, false), Err(Error::Exists(_))));
    assert_eq!(fs::read_to_string(&path).expect("reads"), "mine");
    assert_eq!(make(&path, true).expect("is made").1, sum, "the same content has the same sum");
    assert_eq!(problems(&path), []);
}

#[test]
fn a_bundle_that_cannot_be_made_leaves_nothing() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("taken");
    let target = Target::new(&path, false).expect("is free");
    let part = target.part("rows.jsonl").expect("begins");
    // Somebody takes the name meanwhile.
    fs::create_dir(&path).expect("makes");
    assert!(matches!(target.write(manifest(), vec![part]), Err(Error::Exists(_))));
    let left: Vec<_> = fs::read_dir(directory.path()).expect("lists").map(|entry| entry.expect("one").path()).collect();
    assert_eq!(left, [path]);
    assert!(matches!(make(&directory.path().join("nowhere/x"), false), Err(Error::Write(..))));
}

/// Whoever is interrupted leaves nothing: what is written has no name until it is whole.
#[test]
fn a_bundle_that_is_being_written_has_no_name() {
    let directory = tempfile::tempdir().expect("a directory");
    let names = || fs::read_dir(directory.path()).expect("lists").count();
    let target = Target::new(&directory.path().join("incident.tar.zst"), false).expect("is free");
    let mut part = target.part("rows.jsonl").expect("begins");
    part.line("{}").expect("a line");
    let mut draft = Draft::new(directory.path()).expect("begins");
    draft.write_all(&vec![7; 100_000]).expect("writes");
    draft.flush().expect("writes");
    assert_eq!(names(), 0, "one that is interrupted now stays");
    drop(draft);
    target.write(manifest(), vec![part]).expect("is made");
    assert_eq!(names(), 1);
}

#[test]
fn a_cut_at_any_place_is_found_out() {
    let (_directory, path, _) = bundle();
    let whole = fs::read(&path).expect("reads");
    for length in (0..whole.len()).step_by(97).chain([whole.len() - 1]) {
        fs::write(&path, &whole[..length]).expect("writes");
        let found = problems(&path);
        assert!(found.iter().any(|(_, what)| *what == What::Truncated), "{length} of {}: {found:?}", whole.len());
    }
}

#[test]
fn a_byte_changed_at_any_place_is_found_out_unless_it_means_nothing() {
    let (_directory, path, _) = bundle();
    let whole = fs::read(&path).expect("reads");
    let wanted = zstd::decode_all(&whole[..]).expect("decodes");
    let mut passed = 0;
    for at in (0..whole.len()).step_by(61).chain([whole.len() - 1]) {
        let mut changed = whole.clone();
        changed[at] ^= 0x20;
        fs::write(&path, &changed).expect("writes");
        if problems(&path).is_empty() {
            // A few bits of a frame have no meaning, or another one with the same content.
            assert!(zstd::decode_all(&changed[..]).is_ok_and(|content| content == wanted), "at {at}");
            passed += 1;
        }
    }
    assert!(passed <= 3, "{passed} changes mean nothing");
}

#[test]
fn files_that_are_changed_missing_or_added_are_named() {
    let (_directory, path, sum) = bundle();
    let whole = fs::read(&path).expect("reads");
    let again = |change: fn(&mut Vec<(String, Vec<u8>)>)| {
        fs::write(&path, &whole).expect("writes");
        rebuild(&path, change);
        problems(&path)
    };
    let named = |file: &str, what| (file.to_owned(), what);
    assert_eq!(again(|_| {}), []);
    assert_eq!(again(|entries| entries[1].1[3] = b'x'), [named("rows.jsonl", What::Changed)]);
    assert_eq!(again(|entries| entries[3].1.truncate(9)), [named("objects.jsonl", What::Changed)]);
    assert_eq!(again(|entries| drop(entries.remove(2))), [named("gaps.jsonl", What::Missing)]);
    let added = again(|entries| entries.push(("notes.txt".to_owned(), b"by hand".to_vec())));
    assert_eq!(added, [named("notes.txt", What::Extra)]);
    assert_eq!(again(|entries| entries.push(entries[1].clone())), [named("rows.jsonl", What::Extra)]);
    assert_eq!(again(|entries| drop(entries.remove(0))), [named(MANIFEST, What::NoManifest)]);
    assert_eq!(again(|entries| entries[0].1 = b"{}".to_vec()), [named(MANIFEST, What::NoManifest)]);
    assert_eq!(again(Vec::clear), [named(MANIFEST, What::NoManifest)]);

    // A manifest that was made anew with what it names is known by its sum alone.
    let changed = again(|entries| {
        let text = String::from_utf8(entries[0].1.clone()).expect("UTF-8").replace("shop/cart-0", "shop/cart-1");
        entries[0].1 = text.into_bytes();
    });
    assert_eq!(changed, []);
    let checked = verify(&path, Some(&sum)).expect("is read");
    assert_eq!(checked.problems.iter().map(|problem| problem.what).collect::<Vec<_>>(), [What::OtherManifest]);
}

#[test]
fn what_stands_behind_it_is_found_out_and_what_is_no_bundle_is_said() {
    let (directory, path, _) = bundle();
    let mut more = fs::read(&path).expect("reads");
    more.extend_from_slice(b"more");
    fs::write(&path, more).expect("writes");
    assert_eq!(problems(&path), [(String::new(), What::Extra)]);
    for content in [&b""[..], b"this is text, and no archive at all"] {
        fs::write(&path, content).expect("writes");
        assert!(problems(&path).contains(&(MANIFEST.to_owned(), What::NoManifest)));
    }
    assert!(matches!(verify(&directory.path().join("nowhere"), None), Err(Error::Open(..))));
}
