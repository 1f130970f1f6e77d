//! Makes a bundle: its files are gathered first, for the manifest at the front names their sums.

use std::fs::{File, OpenOptions, Permissions};
use std::io::{self, BufWriter, Seek as _, Write};
use std::os::fd::AsRawFd as _;
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use agent_core::time::WallNs;
use rustix::fs::{AtFlags, CWD, linkat};
use sha2::{Digest as _, Sha256};
use tempfile::NamedTempFile;

use super::{Error, Listed, MANIFEST, Manifest, digits};

/// How hard what is gathered is pressed: it is read once more and goes.
const SPOOL_LEVEL: i32 = 1;
/// How hard the bundle is pressed.
const LEVEL: i32 = 6;
/// Whoever has a bundle reads what pods did.
const FILE_MODE: u32 = 0o600;

/// Where a bundle goes.
pub(crate) struct Target {
    path: PathBuf,
    directory: PathBuf,
    force: bool,
}

/// A file of a bundle that is being gathered, pressed, in a file without a name beside the target.
pub(crate) struct Part {
    name: &'static str,
    spool: zstd::Encoder<'static, BufWriter<File>>,
    sum: Sha256,
    bytes: u64,
    lines: u64,
}

/// A bundle while it is written. It has no name, and so goes with this process however that ends; where the file system has no
/// such files its name is hidden.
pub(super) enum Draft {
    Nameless(File),
    Hidden(NamedTempFile),
}

// === impl Target ===

impl Target {
    /// A file that is not there yet, unless it may be replaced.
    pub(crate) fn new(path: &Path, force: bool) -> Result<Self, Error> {
        if !force && path.symlink_metadata().is_ok() {
            return Err(Error::Exists(path.to_owned()));
        }
        let directory = match path.parent() {
            Some(parent) if !parent.as_os_str().is_empty() => parent.to_owned(),
            _ => PathBuf::from("."),
        };
        Ok(Self { path: path.to_owned(), directory, force })
    }

    /// Begins a file of the bundle.
    pub(crate) fn part(&self, name: &'static str) -> Result<Part, Error> {
        let begin = || -> io::Result<Part> {
            let file = tempfile::tempfile_in(&self.directory)?;
            let spool = zstd::Encoder::new(BufWriter::new(file), SPOOL_LEVEL)?;
            Ok(Part { name, spool, sum: Sha256::new(), bytes: 0, lines: 0 })
        };
        begin().map_err(|error| self.failed(error))
    }

    /// Puts the bundle together under its name; its manifest and the manifest's sum. On an error nothing of it is left.
    pub(crate) fn write(&self, mut manifest: Manifest, parts: Vec<Part>) -> Result<(Manifest, String), Error> {
        manifest.files = parts.iter().map(Part::listed).collect();
        match self.try_write(&manifest, parts) {
            Ok(sum) => Ok((manifest, sum)),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Err(Error::Exists(self.path.clone())),
            Err(error) => Err(self.failed(error)),
        }
    }

    /// An error of what is gathered for it.
    pub(crate) fn failed(&self, error: io::Error) -> Error {
        Error::Write(self.path.clone(), error)
    }

    fn try_write(&self, manifest: &Manifest, parts: Vec<Part>) -> io::Result<String> {
        let file = Draft::new(&self.directory)?;
        let mut encoder = zstd::Encoder::new(BufWriter::new(file), LEVEL)?;
        encoder.include_checksum(true)?;
        let mut archive = tar::Builder::new(encoder);
        let first = serde_json::to_vec_pretty(manifest)?;
        let mut sum = Sha256::new();
        sum.update(&first);
        append(&mut archive, MANIFEST, first.len() as u64, manifest.created, &first[..])?;
        for part in parts {
            let (name, bytes) = (part.name, part.bytes);
            let mut spool = part.spool.finish()?.into_inner().map_err(io::IntoInnerError::into_error)?;
            spool.rewind()?;
            append(&mut archive, name, bytes, manifest.created, zstd::Decoder::new(spool)?)?;
        }
        let file = archive.into_inner()?.finish()?.into_inner().map_err(io::IntoInnerError::into_error)?;
        self.name(file)?;
        Ok(digits(sum))
    }

    /// Gives the whole file its name, on disk.
    fn name(&self, draft: Draft) -> io::Result<()> {
        draft.file().sync_all()?;
        match draft {
            Draft::Nameless(file) if self.force => {
                hidden().make_in(&self.directory, |path| link(&file, path))?.persist(&self.path)?;
            }
            Draft::Nameless(file) => link(&file, &self.path)?,
            Draft::Hidden(file) if self.force => drop(file.persist(&self.path)?),
            Draft::Hidden(file) => drop(file.persist_noclobber(&self.path)?),
        }
        File::open(&self.directory)?.sync_all()
    }
}

// === impl Draft ===

impl Draft {
    /// In a directory, for its owner alone, whatever the mask of this process is.
    pub(super) fn new(directory: &Path) -> io::Result<Self> {
        let mut options = OpenOptions::new();
        options.write(true).mode(FILE_MODE).custom_flags(libc::O_TMPFILE);
        // It is given its name through there.
        let has_names = Path::new("/proc/self/fd").is_dir();
        match options.open(directory).ok().filter(|_| has_names) {
            Some(file) => {
                file.set_permissions(Permissions::from_mode(FILE_MODE))?;
                Ok(Self::Nameless(file))
            }
            None => hidden().tempfile_in(directory).map(Self::Hidden),
        }
    }

    fn file(&self) -> &File {
        match self {
            Self::Nameless(file) => file,
            Self::Hidden(file) => file.as_file(),
        }
    }
}

impl Write for Draft {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.file().write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file().flush()
    }
}

/// A name for a moment.
fn hidden() -> tempfile::Builder<'static, 'static> {
    let mut builder = tempfile::Builder::new();
    builder.prefix(".sekisho-evidence-");
    builder
}

/// Gives a file without a name one that is free.
fn link(file: &File, path: &Path) -> io::Result<()> {
    let of = format!("/proc/self/fd/{}", file.as_raw_fd());
    Ok(linkat(CWD, of, CWD, path, AtFlags::SYMLINK_FOLLOW)?)
}

// === impl Part ===

impl Part {
    /// Adds a line.
    pub(crate) fn line(&mut self, text: &str) -> io::Result<()> {
        for bytes in [text.as_bytes(), b"\n"] {
            self.spool.write_all(bytes)?;
            self.sum.update(bytes);
            self.bytes += bytes.len() as u64;
        }
        self.lines += 1;
        Ok(())
    }

    fn listed(&self) -> Listed {
        let sha256 = digits(self.sum.clone());
        Listed { name: self.name.to_owned(), bytes: self.bytes, lines: self.lines, sha256 }
    }
}

fn append<W: Write>(
    archive: &mut tar::Builder<W>,
    name: &str,
    bytes: u64,
    created: WallNs,
    content: impl io::Read,
) -> io::Result<()> {
    let mut header = tar::Header::new_gnu();
    header.set_entry_type(tar::EntryType::Regular);
    header.set_mode(FILE_MODE);
    header.set_size(bytes);
    header.set_mtime(u64::try_from(created.0 / 1_000_000_000).unwrap_or(0));
    archive.append_data(&mut header, name, content)
}
