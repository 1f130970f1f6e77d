//! Names of maps and links in a BPF file system, by which they outlive the agent: while it is away, the probes go on and
//! fill their rings. One directory, mode 0700, of one agent at a time.
//!
//! ```text
//! notebook       what stands here, and what was taken out of the rings
//! map_NAME       the maps
//! link_NAME      the attached programs, which hold them
//! ```

use std::fs::{self, DirBuilder, File};
use std::io;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};

use aya::programs::links::FdLink;
use rustix::fs::{FlockOperation, flock, fstatfs};

use super::notebook::Notebook;

/// `BPF_FS_MAGIC` of `include/uapi/linux/magic.h`.
const BPF_FS: u64 = 0xcafe_4a11;
const NOTEBOOK: &str = "notebook";
const MAP: &str = "map_";
const LINK: &str = "link_";

/// The directory, held by this agent.
#[derive(Debug)]
pub(super) struct Pins {
    directory: PathBuf,
    _lock: File,
}

/// What stands in the directory.
pub(super) enum Found {
    /// Nothing, or what a start left that did not come to its end.
    Nothing,
    /// The same programs with the same settings.
    Same(Notebook),
    /// Other programs, or the same with other settings.
    Other(Notebook),
}

// === impl Pins ===

impl Pins {
    /// Makes the directory, or takes it over from an agent that is gone; the error says why it cannot be used.
    pub(super) fn open(directory: &Path) -> Result<Self, String> {
        let parent = directory.parent().unwrap_or(directory);
        let fails = |what: &str, error: &dyn std::fmt::Display| format!("{what} {}: {error}", directory.display());
        let system = File::open(parent).and_then(|file| Ok(fstatfs(&file)?));
        match system {
            Ok(system) if system.f_type.cast_unsigned() == BPF_FS => {}
            Ok(_) => {
                let parent = parent.display();
                return Err(format!(
                    "{parent} is no BPF file system: mount one there (mount -t bpf bpf {parent}), or name another by kernel.pin"
                ));
            }
            Err(error) => return Err(fails("cannot look at the file system of", &error)),
        }
        match DirBuilder::new().mode(0o700).create(directory) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(fails("cannot make", &error)),
            _ => {}
        }
        let lock = File::open(directory).map_err(|error| fails("cannot open", &error))?;
        flock(&lock, FlockOperation::NonBlockingLockExclusive)
            .map_err(|error| fails("another agent keeps its pins in", &error))?;
        Ok(Self { directory: directory.to_owned(), _lock: lock })
    }

    /// What stands here; whatever is not whole is removed.
    pub(super) fn look(&self, build: u64) -> io::Result<Found> {
        let notebook = match Notebook::open(&self.notebook()) {
            Ok(Some(notebook)) => notebook,
            Ok(None) => return remove(&self.directory).map(|_| Found::Nothing),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return remove(&self.directory).map(|_| Found::Nothing);
            }
            Err(error) => return Err(error),
        };
        Ok(if notebook.build() == build { Found::Same(notebook) } else { Found::Other(notebook) })
    }

    /// Removes all pins.
    pub(super) fn clear(&self) -> io::Result<usize> {
        remove(&self.directory)
    }

    pub(super) fn notebook(&self) -> PathBuf {
        self.directory.join(NOTEBOOK)
    }

    pub(super) fn map(&self, name: &str) -> PathBuf {
        self.directory.join(format!("{MAP}{name}"))
    }

    /// Whether a program is attached by its pin.
    pub(super) fn has_link(&self, name: &str) -> bool {
        self.link(name).exists()
    }

    /// Lets an attached program outlive the agent.
    pub(super) fn pin_link(&self, name: &str, link: FdLink) -> Result<(), String> {
        link.pin(self.link(name)).map(drop).map_err(|error| super::load::reason(&error))
    }

    fn link(&self, name: &str) -> PathBuf {
        self.directory.join(format!("{LINK}{name}"))
    }
}

/// How many pins stand in a directory; none where there is no directory.
pub(crate) fn count(directory: &Path) -> io::Result<usize> {
    list(directory).map(|pins| pins.len())
}

/// Ends what goes on by the pins of a directory, and removes it; how many there were. Refused while an agent uses them.
pub(crate) fn unpin(directory: &Path) -> io::Result<usize> {
    let lock = match File::open(directory) {
        Ok(lock) => lock,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(0),
        Err(error) => return Err(error),
    };
    flock(&lock, FlockOperation::NonBlockingLockExclusive).map_err(|error| match error {
        rustix::io::Errno::WOULDBLOCK => io::Error::other("an agent uses them: stop it first"),
        error => error.into(),
    })?;
    let removed = remove(directory)?;
    // Where files of others stand in it, it stays.
    let _ = fs::remove_dir(directory);
    Ok(removed)
}

/// Removes all pins of a directory, links first; how many there were. What the rings hold is lost with them.
fn remove(directory: &Path) -> io::Result<usize> {
    let mut pins = list(directory)?;
    // Detached before their maps go; the notebook first of all, so that a half-removed directory is never taken for whole.
    pins.sort_by_cached_key(|path| {
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        (name != NOTEBOOK, !name.starts_with(LINK), name.to_owned())
    });
    for pin in &pins {
        fs::remove_file(pin)?;
    }
    Ok(pins.len())
}

/// The pins that an agent makes; files of others are left alone.
fn list(directory: &Path) -> io::Result<Vec<PathBuf>> {
    let entries = match fs::read_dir(directory) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error),
    };
    let mut pins = Vec::new();
    for entry in entries {
        let entry = entry?;
        let name = entry.file_name();
        let name = name.to_str().unwrap_or_default();
        if name == NOTEBOOK || name.starts_with(MAP) || name.starts_with(LINK) {
            pins.push(entry.path());
        }
    }
    Ok(pins)
}
