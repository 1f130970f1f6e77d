//! Checks a bundle, which may come from anybody: nothing is unpacked, and nothing is held in memory but the manifest.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, BufReader, Read};
use std::path::Path;

use serde::Serialize;
use sha2::{Digest as _, Sha256};

use super::{Error, Listed, MANIFEST, MANIFEST_BYTES_MAX, Manifest, digits};

/// Problems that are named; one more says that there are others.
const PROBLEMS_MAX: usize = 64;
/// Largest window that is decoded, as a power of two: what the format asks every decoder to support, and twice that.
const WINDOW_LOG_MAX: u32 = 24;
/// What may stand behind the archive's end: the rest of a block of 10 KiB, which tools fill with zeros.
const PADDING_BYTES_MAX: u64 = 64 << 10;
/// Largest file that is skipped because nothing names it.
const EXTRA_BYTES_MAX: u64 = 1 << 30;

/// What was found.
#[derive(Debug, Default, PartialEq, Serialize)]
pub(crate) struct Checked {
    /// As it stands in the bundle; `None`: there is none that can be read.
    pub(crate) manifest: Option<Manifest>,
    /// Its sum.
    pub(crate) manifest_sha256: Option<String>,
    /// What is wrong; empty: all is as the manifest says.
    pub(crate) problems: Vec<Problem>,
}

/// Something that is wrong with a bundle.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Problem {
    /// The file; empty for the bundle as a whole.
    pub(crate) file: String,
    /// What is wrong with it.
    pub(crate) what: What,
    /// More of it, in words.
    pub(crate) text: String,
}

/// See [`Problem`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum What {
    /// The archive cannot be read to its end: it was cut or damaged.
    Truncated,
    /// There is no manifest, or none that can be read.
    NoManifest,
    /// The manifest is not the one whose sum was given.
    OtherManifest,
    /// The content is not what the manifest says.
    Changed,
    /// The manifest names it, and it is not there.
    Missing,
    /// It is there, and the manifest does not name it, or it is there twice.
    Extra,
}

/// Checks a file. `expected`: the manifest's sum, as it was printed when the bundle was made.
pub(crate) fn verify(path: &Path, expected: Option<&str>) -> Result<Checked, Error> {
    let file = File::open(path).map_err(|error| Error::Open(path.to_owned(), error))?;
    let mut checked = Checked::default();
    if let Err(error) = checked.read(file) {
        checked.say("", What::Truncated, error.to_string());
    }
    let names = checked.manifest.as_ref().map(|manifest| manifest.files.clone());
    match names {
        None if checked.problems.iter().any(|problem| problem.what == What::NoManifest) => {}
        None => checked.say(MANIFEST, What::NoManifest, "the bundle does not begin with it".to_owned()),
        Some(_) => {
            let other = expected.filter(|expected| {
                checked.manifest_sha256.as_ref().is_none_or(|sum| !sum.eq_ignore_ascii_case(expected))
            });
            if let Some(expected) = other {
                let text = format!("its sum is not {expected}");
                checked.say(MANIFEST, What::OtherManifest, text);
            }
        }
    }
    Ok(checked)
}

// === impl Checked ===

impl Checked {
    fn say(&mut self, file: &str, what: What, text: String) {
        match self.problems.len() {
            ..PROBLEMS_MAX => self.problems.push(Problem { file: file.to_owned(), what, text }),
            PROBLEMS_MAX => {
                self.problems.push(Problem { file: String::new(), what, text: "and more of this".to_owned() });
            }
            _ => {}
        }
    }

    fn read(&mut self, file: File) -> io::Result<()> {
        let mut decoder = zstd::Decoder::with_buffer(BufReader::new(file))?.single_frame();
        decoder.window_log_max(WINDOW_LOG_MAX)?;
        let mut archive = tar::Archive::new(decoder);
        if self.entries(&mut archive)? { self.end(archive.into_inner()) } else { Ok(()) }
    }

    /// Whether they were read to their end: without a manifest there is nothing to hold them to.
    fn entries<R: Read>(&mut self, archive: &mut tar::Archive<R>) -> io::Result<bool> {
        let mut entries = archive.entries()?;
        let Some(first) = entries.next() else { return Ok(false) };
        let mut first = first?;
        if first.path_bytes() != MANIFEST.as_bytes() || !first.header().entry_type().is_file() {
            return Ok(false);
        }
        let mut bytes = Vec::new();
        (&mut first).take(MANIFEST_BYTES_MAX).read_to_end(&mut bytes)?;
        let mut sum = Sha256::new();
        sum.update(&bytes);
        let manifest: Manifest = match serde_json::from_slice(&bytes) {
            Ok(manifest) => manifest,
            Err(error) => {
                self.say(MANIFEST, What::NoManifest, error.to_string());
                return Ok(false);
            }
        };
        self.manifest_sha256 = Some(digits(sum));
        let mut awaited: BTreeMap<String, Listed> =
            manifest.files.iter().map(|file| (file.name.clone(), file.clone())).collect();
        self.manifest = Some(manifest);
        let mut result = Ok(());
        for entry in entries {
            result = entry.and_then(|mut entry| self.entry(&mut entry, &mut awaited));
            if result.is_err() {
                break;
            }
        }
        for name in awaited.keys() {
            self.say(name, What::Missing, "the manifest names it".to_owned());
        }
        result.map(|()| true)
    }

    fn entry<R: Read>(
        &mut self,
        entry: &mut tar::Entry<'_, R>,
        awaited: &mut BTreeMap<String, Listed>,
    ) -> io::Result<()> {
        let name = String::from_utf8_lossy(&entry.path_bytes()).into_owned();
        let listed = awaited.remove(&name).filter(|_| entry.header().entry_type().is_file());
        let Some(listed) = listed else {
            self.say(&name, What::Extra, "the manifest names no such file".to_owned());
            return if entry.size() > EXTRA_BYTES_MAX {
                Err(io::Error::other(format!("{name} is too large to look behind it")))
            } else {
                Ok(())
            };
        };
        if entry.size() != listed.bytes {
            self.say(&name, What::Changed, format!("it has {} bytes, and should have {}", entry.size(), listed.bytes));
            return if entry.size() > listed.bytes.saturating_add(EXTRA_BYTES_MAX) {
                Err(io::Error::other(format!("{name} is too large to look behind it")))
            } else {
                Ok(())
            };
        }
        let mut sum = Sha256::new();
        let mut buffer = vec![0; 64 << 10];
        let mut left = listed.bytes;
        while left > 0 {
            let read = match entry.read(&mut buffer) {
                Err(error) => {
                    self.say(&name, What::Changed, format!("it cannot be read to its end: {error}"));
                    return Err(error);
                }
                Ok(0) => {
                    self.say(&name, What::Changed, format!("its last {left} bytes are missing"));
                    return Err(io::ErrorKind::UnexpectedEof.into());
                }
                Ok(read) => read,
            };
            left = left.saturating_sub(read as u64);
            sum.update(buffer.get(..read).unwrap_or_default());
        }
        let sum = digits(sum);
        if sum != listed.sha256 {
            self.say(&name, What::Changed, format!("its SHA-256 is {sum}, and should be {}", listed.sha256));
        }
        Ok(())
    }

    /// Reads on to the end, where the checksum of the whole stands.
    fn end(&mut self, mut decoder: zstd::Decoder<'static, BufReader<File>>) -> io::Result<()> {
        let mut rest = Vec::new();
        (&mut decoder).take(PADDING_BYTES_MAX + 1).read_to_end(&mut rest)?;
        if rest.len() as u64 > PADDING_BYTES_MAX || rest.iter().any(|byte| *byte != 0) {
            self.say("", What::Extra, "something stands behind the archive's end".to_owned());
        }
        let mut behind = decoder.finish();
        if behind.read(&mut [0])? > 0 {
            self.say("", What::Extra, "something stands behind the compressed archive".to_owned());
        }
        Ok(())
    }
}
