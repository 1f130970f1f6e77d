//! The last facts on disk: what an agent that starts without the API server goes by.

use std::fs::{self, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError, mpsc};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::runtime::Handle;

use super::known::Known;
use super::pace;
use super::teller::Teller;

/// What the file is; another number is another form.
const VERSION: u32 = 1;
/// News are written after this long at the soonest, so a node in turmoil writes a file of some 300 KB twice a minute.
const WRITE_EVERY: Duration = Duration::from_secs(30);
/// Longest file that is read: 1,000 pods with 16 KB each.
const FILE_BYTES_MAX: u64 = 16 << 20;

/// How long the last write may take: the disk must not hold up the agent's end.
const LAST_WAIT: Duration = Duration::from_millis(500);

/// The file.
#[derive(Clone)]
pub(super) struct File {
    path: PathBuf,
    node: Arc<str>,
    /// Held by whoever writes: all write to the one new file beside it.
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
    pub(super) async fn load(&self) -> Option<Known> {
        let file = self.clone();
        let read =
            tokio::task::spawn_blocking(move || file.read()).await.unwrap_or_else(|error| Err(io::Error::other(error)));
        match read {
            Ok(known) => known,
            Err(error) => {
                let aside = self.path.with_extension("json.unreadable");
                let moved = fs::rename(&self.path, &aside);
                tracing::warn!(path = %self.path.display(), %error, aside = %aside.display(), moved = moved.is_ok(), "the facts on disk cannot be read");
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
            tracing::info!(path = %self.path.display(), of = %content.node, "the facts on disk are of another node");
            return Ok(None);
        }
        Ok(Some(content.known))
    }

    fn warn(&self, error: &io::Error) {
        tracing::warn!(path = %self.path.display(), %error, "cannot keep the facts of the cluster on disk");
    }

    /// Writes all of it beside the old file, and only then in its place.
    fn write(&self, known: &Known) -> io::Result<()> {
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
}

/// Writes what is known whenever something is new, for ever; and at the end what is new since.
pub(super) async fn keep(file: Option<&File>, teller: &Teller) {
    let Some(file) = file else { return };
    let mut kept = Kept { file, teller, written: teller.news() };
    let mut failed = false;
    loop {
        tokio::time::sleep(pace::jittered(WRITE_EVERY)).await;
        let news = teller.news();
        if news == kept.written {
            continue;
        }
        let known = teller.known(Known::clone);
        let to = file.clone();
        let result = tokio::task::spawn_blocking(move || to.write(&known))
            .await
            .unwrap_or_else(|error| Err(io::Error::other(error)));
        match result {
            Ok(()) => {
                kept.written = news;
                failed = false;
            }
            Err(error) if !failed => {
                file.warn(&error);
                failed = true;
            }
            Err(_) => {}
        }
    }
}

/// What was written last. The follower is ended by dropping it, and so the last news are written here: after a write that
/// may be under way still, for dropping the follower does not end that one, and on a thread that can be left behind.
struct Kept<'a> {
    file: &'a File,
    teller: &'a Teller,
    written: u64,
}

impl Drop for Kept<'_> {
    fn drop(&mut self) {
        if self.teller.news() == self.written {
            return;
        }
        let Ok(runtime) = Handle::try_current() else { return };
        let (file, known) = (self.file.clone(), self.teller.known(Known::clone));
        let (tell, told) = mpsc::channel();
        runtime.spawn_blocking(move || {
            // Nobody may wait for it any more.
            let _ = tell.send(file.write(&known));
        });
        match told.recv_timeout(LAST_WAIT) {
            Ok(Ok(())) => {}
            Ok(Err(error)) => self.file.warn(&error),
            Err(_) => self.file.warn(&io::Error::from(io::ErrorKind::TimedOut)),
        }
    }
}

#[cfg(test)]
mod tests {
    use agent_core::facts::ClusterFact;

    use super::*;

    #[test]
    fn what_is_written_is_read_again_by_the_same_node() {
        let directory = tempfile::tempdir().unwrap();
        let file = File::new(directory.path().join("deep/er/facts.json"), "n1".into());
        assert_eq!(file.read().unwrap(), None);
        let known = Known { policies_installed: Some(true), ..Known::default() };
        file.write(&known).unwrap();
        file.write(&known).unwrap();
        assert_eq!(file.read().unwrap(), Some(known));
        let mode = std::os::unix::fs::PermissionsExt::mode(&fs::metadata(&file.path).unwrap().permissions());
        assert_eq!(mode & 0o777, 0o600);
        assert_eq!(File::new(file.path.clone(), "n2".into()).read().unwrap(), None);
        assert_eq!(fs::read_dir(file.path.parent().unwrap()).unwrap().count(), 1, "nothing is left beside it");
    }

    /// Dropping the follower does not end a write that is under way.
    #[tokio::test]
    async fn the_last_write_comes_after_one_under_way_and_holds_up_nobody() {
        let directory = tempfile::tempdir().unwrap();
        let file = File::new(directory.path().join("facts.json"), "n1".into());
        let old = Known::default();
        file.write(&old).unwrap();
        let (tell, _facts) = tokio::sync::mpsc::channel(4);
        let teller = Teller::new(tell, || agent_core::time::WallNs(1));
        teller.tell(vec![ClusterFact::PoliciesReplaced { policies: Vec::new(), installed: true }]).await;
        assert_ne!(teller.known(Known::clone), old);

        let under_way = file.writing.lock().unwrap();
        let beside = directory.path().join("facts.json.new");
        fs::write(&beside, "half of").unwrap();
        drop(Kept { file: &file, teller: &teller, written: 0 });
        assert_eq!(fs::read_to_string(&beside).unwrap(), "half of");
        assert_eq!(file.read().unwrap(), Some(old));
        drop(under_way);
        while beside.exists() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        assert_eq!(file.read().unwrap(), Some(teller.known(Known::clone)));
    }

    #[tokio::test]
    async fn what_cannot_be_read_is_set_aside() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("facts.json");
        let file = File::new(path.clone(), "n1".into());
        for text in [
            "",
            "{",
            "{\"version\":2,\"node\":\"n1\",\"known\":{}}",
            "{\"version\":1,\"node\":\"n1\",\"known\":{\"pods\":7}}",
        ] {
            fs::write(&path, text).unwrap();
            assert_eq!(file.load().await, None);
            assert!(!path.exists());
            assert_eq!(fs::read_to_string(directory.path().join("facts.json.unreadable")).unwrap(), text);
        }
    }
}
