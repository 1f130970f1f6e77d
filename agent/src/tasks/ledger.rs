//! What was found, over a restart: one file in the data directory, written beside itself and renamed. A file that cannot be
//! used is set aside under another name and told, never deleted.

use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{ErrorKind, Read as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use agent_core::engine::Engine;
use agent_core::finding::ledger::Snapshot;
use serde::{Deserialize, Serialize};
use tokio::task::JoinHandle;

use super::pump::Recorded;
use crate::lines::chain;

/// How long the disk may take while the agent stops.
const SAVE_WAIT: Duration = Duration::from_secs(1);
const FILE: &str = "findings.json";
/// Where a file goes that cannot be used; the one set aside before is replaced.
const ASIDE: &str = "findings.json.unusable";
/// Longest file: a full ledger has 1,024 findings of 3 KiB and 4,096 members of 300 bytes.
const FILE_BYTES_MAX: u64 = 16 << 20;

/// The file, with what tells one boot from another.
#[derive(Clone)]
pub(super) struct Store {
    directory: PathBuf,
    boot_id: Option<String>,
}

#[derive(Serialize, Deserialize)]
struct Stored {
    boot_id: Option<String>,
    ledger: Snapshot,
}

/// Why nothing is kept, or nothing was found.
#[derive(Debug, thiserror::Error)]
pub(super) enum Error {
    /// The directory.
    #[error("could not make the data directory {}; findings will not survive a restart (see data_dir)", .0.display())]
    Directory(PathBuf, #[source] std::io::Error),
    /// The file could not be read.
    #[error("could not read {}", .0.display())]
    Read(PathBuf, #[source] std::io::Error),
    /// The file could not be written.
    #[error("could not write {}", .0.display())]
    Write(PathBuf, #[source] std::io::Error),
    /// The file is not what an agent writes.
    #[error("{} is not a list of findings and was set aside as {ASIDE}", .0.display())]
    Unusable(PathBuf, #[source] serde_json::Error),
}

impl Store {
    /// A store in this directory, which is made when it is not there.
    pub(super) fn new(directory: &Path, boot_id: Option<String>) -> Result<Self, Error> {
        let made = DirBuilder::new().recursive(true).mode(0o700).create(directory);
        made.map_err(|source| Error::Directory(directory.to_owned(), source))?;
        Ok(Self { directory: directory.to_owned(), boot_id })
    }

    /// What was found before, and whether in this boot; `None`: nothing is there.
    pub(super) fn load(&self) -> Result<Option<(Snapshot, bool)>, Error> {
        let path = self.directory.join(FILE);
        let fail = |source| Error::Read(path.clone(), source);
        let mut text = String::new();
        match File::open(&path) {
            Ok(file) => file.take(FILE_BYTES_MAX).read_to_string(&mut text).map_err(fail)?,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(fail(error)),
        };
        match serde_json::from_str::<Stored>(&text) {
            Ok(stored) => {
                let same_boot = stored.boot_id.is_some() && stored.boot_id == self.boot_id;
                Ok(Some((stored.ledger, same_boot)))
            }
            Err(source) => {
                self.set_aside()?;
                Err(Error::Unusable(path, source))
            }
        }
    }

    /// Puts the file out of the way.
    pub(super) fn set_aside(&self) -> Result<(), Error> {
        let path = self.directory.join(FILE);
        std::fs::rename(&path, self.directory.join(ASIDE)).map_err(|source| Error::Write(path, source))
    }

    /// The ledger as the file holds it.
    pub(super) fn encode(&self, ledger: Snapshot) -> Vec<u8> {
        let stored = Stored { boot_id: self.boot_id.clone(), ledger };
        // Only maps with keys that are no strings fail, and there are none.
        serde_json::to_vec(&stored).unwrap_or_default()
    }

    /// Writes the file: whole, or not at all.
    pub(super) fn save(&self, bytes: &[u8]) -> Result<(), Error> {
        let path = self.directory.join(FILE);
        let new = self.directory.join(format!("{FILE}.new"));
        let write = || {
            let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&new)?;
            file.write_all(bytes)?;
            file.sync_all()?;
            std::fs::rename(&new, &path)
        };
        write().map_err(|source| Error::Write(path.clone(), source))
    }
}

/// Keeps the findings of an Engine: writes them when they changed, one write at a time.
#[derive(Default)]
pub(super) struct Saver {
    /// `None`: nowhere.
    store: Option<Store>,
    /// The write under way.
    saving: Option<JoinHandle<()>>,
    /// Something changed since the last write.
    is_unsaved: bool,
}

impl Saver {
    /// One that keeps them in this store.
    pub(super) fn new(store: Store) -> Self {
        Self { store: Some(store), ..Self::default() }
    }

    /// Tells the Engine what was found before a restart.
    pub(super) fn restore(&self, engine: &mut Recorded) {
        let Some(store) = &self.store else { return };
        match store.load() {
            Ok(None) => {}
            Ok(Some((ledger, same_boot))) => match engine.restore(ledger, same_boot) {
                Ok(findings) => tracing::info!(findings, "findings of before the start are restored"),
                Err(error) => {
                    tracing::warn!(%error, "findings of before the start are set aside");
                    if let Err(error) = store.set_aside() {
                        tracing::warn!(error = chain(&error), "they could not be set aside");
                    }
                }
            },
            Err(error) => tracing::warn!(error = chain(&error), "findings of before the start are not known"),
        }
    }

    /// Notes whether something changed.
    pub(super) fn changed(&mut self, it_did: bool) {
        self.is_unsaved |= it_did;
    }

    /// Begins a write when something changed and none is under way.
    pub(super) fn save(&mut self, engine: &Engine) {
        if self.is_unsaved && self.saving.as_ref().is_none_or(JoinHandle::is_finished) {
            self.begin(engine);
        }
    }

    /// The last write: after one that may be under way, for the file has one new one beside it.
    pub(super) async fn finish(&mut self, engine: &Engine) {
        let both = async {
            if let Some(saving) = self.saving.take() {
                // It has told by itself what went wrong.
                let _ = saving.await;
            }
            self.begin(engine);
            if let Some(saving) = self.saving.take() {
                let _ = saving.await;
            }
        };
        if tokio::time::timeout(SAVE_WAIT, both).await.is_err() {
            tracing::warn!("the disk takes nothing; findings stay on it as they were written last");
        }
    }

    /// Writes in a thread of its own: a disk may take its time.
    fn begin(&mut self, engine: &Engine) {
        let Some(store) = self.store.clone() else { return };
        self.is_unsaved = false;
        let bytes = store.encode(engine.snapshot());
        self.saving = Some(tokio::task::spawn_blocking(move || {
            if let Err(error) = store.save(&bytes) {
                tracing::warn!(error = chain(&error), "findings could not be kept");
            }
        }));
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use agent_core::finding::Ledger;

    use super::{ASIDE, Error, FILE, Store};

    #[test]
    fn what_is_saved_is_loaded_and_nobody_else_may_read_it() {
        let home = tempfile::tempdir().expect("a directory");
        let directory = home.path().join("a/b");
        let store = Store::new(&directory, Some("this".to_owned())).expect("makes it");
        assert!(store.load().expect("reads").is_none());
        let ledger = Ledger::default().snapshot();
        store.save(&store.encode(ledger.clone())).expect("writes");
        assert_eq!(store.load().expect("reads"), Some((ledger.clone(), true)));
        let mode = |path: &std::path::Path| std::fs::metadata(path).expect("is there").permissions().mode() & 0o777;
        assert_eq!((mode(&directory), mode(&directory.join(FILE))), (0o700, 0o600));
        let other = Store::new(&directory, Some("another".to_owned())).expect("is there");
        assert_eq!(other.load().expect("reads"), Some((ledger.clone(), false)));
        let unknown = Store::new(&directory, None).expect("is there");
        assert_eq!(unknown.load().expect("reads"), Some((ledger, false)));
    }

    #[test]
    fn a_file_that_cannot_be_used_is_set_aside_and_named() {
        let home = tempfile::tempdir().expect("a directory");
        let store = Store::new(home.path(), None).expect("is there");
        std::fs::write(home.path().join(FILE), "{\"ledger\":").expect("writes");
        assert!(matches!(store.load(), Err(Error::Unusable(..))));
        assert!(home.path().join(ASIDE).exists() && !home.path().join(FILE).exists());
        assert!(store.load().expect("reads").is_none());
    }

    #[test]
    fn a_directory_that_cannot_be_made_is_named() {
        let home = tempfile::tempdir().expect("a directory");
        let file = home.path().join("file");
        std::fs::write(&file, "").expect("writes");
        let error = Store::new(&file.join("data"), None).err().expect("is none").to_string();
        assert!(error.contains("file/data") && error.contains("data_dir"), "{error}");
    }
}
