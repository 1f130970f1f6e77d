//! The answers on disk: what an agent that starts again goes by until they are too old, without asking anybody.

use std::fs::{self, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use serde::{Deserialize, Serialize};

use super::known::Known;

/// What the file is; another number is another form.
const VERSION: u32 = 1;
/// Longest file that is read: 1,024 groups with 120 rules of 200 bytes are 24 MB, more than any node has.
const FILE_BYTES_MAX: u64 = 32 << 20;

/// The file.
#[derive(Clone, Debug)]
pub(super) struct File {
    path: PathBuf,
    node: Arc<str>,
    /// Held while it is written: the last write, at the end, may meet the one before.
    writing: Arc<Mutex<()>>,
}

/// What stands in it.
#[derive(Serialize, Deserialize)]
struct Content<K> {
    version: u32,
    node: Arc<str>,
    known: K,
}

/// As much as tells whether the rest can be read.
#[derive(Deserialize)]
struct Head {
    version: u32,
}

// === impl File ===

impl File {
    pub(super) fn new(path: PathBuf, node: Arc<str>) -> Self {
        Self { path, node, writing: Arc::default() }
    }

    /// What was known; a file that cannot be read is set aside and named.
    pub(super) fn load(&self) -> Option<Known> {
        match self.read() {
            Ok(known) => known,
            Err(error) => {
                let aside = self.path.with_extension("json.unreadable");
                let moved = fs::rename(&self.path, &aside);
                tracing::warn!(path = %self.path.display(), %error, aside = %aside.display(), moved = moved.is_ok(), "the answers of EC2 on disk cannot be read");
                None
            }
        }
    }

    fn read(&self) -> io::Result<Option<Known>> {
        let file = match fs::File::open(&self.path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error),
        };
        let mut bytes = Vec::new();
        file.take(FILE_BYTES_MAX + 1).read_to_end(&mut bytes)?;
        if bytes.len() as u64 > FILE_BYTES_MAX {
            return Err(io::Error::other(format!("it is longer than {FILE_BYTES_MAX} bytes")));
        }
        let head: Head = serde_json::from_slice(&bytes)?;
        if head.version != VERSION {
            return Err(io::Error::other(format!("it has version {}, this agent reads {VERSION}", head.version)));
        }
        let content: Content<Known> = serde_json::from_slice(&bytes)?;
        if content.node != self.node {
            tracing::info!(path = %self.path.display(), of = %content.node, "the answers of EC2 on disk are of another node");
            return Ok(None);
        }
        Ok(Some(content.known))
    }

    /// Writes all of it beside the old file, and only then in its place.
    pub(super) fn write(&self, known: &Known) -> io::Result<()> {
        let _writing = self.writing.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(directory) = self.path.parent()
            && !directory.exists()
        {
            fs::DirBuilder::new().recursive(true).mode(0o700).create(directory)?;
        }
        let beside = self.path.with_extension("json.new");
        let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&beside)?;
        let content = Content { version: VERSION, node: Arc::clone(&self.node), known };
        let mut writer = io::BufWriter::new(&mut file);
        serde_json::to_writer(&mut writer, &content)?;
        writer.flush()?;
        drop(writer);
        file.sync_all()?;
        fs::rename(&beside, &self.path)
    }

    pub(super) fn warn(&self, error: &io::Error) {
        tracing::warn!(path = %self.path.display(), %error, "cannot keep the answers of EC2 on disk");
    }
}
