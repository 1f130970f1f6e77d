//! What a part keeps on disk for the next start: read once, written whole beside the old file and then in its place, and
//! written a last time at the end without holding up anybody.

use std::fs::{self, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::marker::PhantomData;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, mpsc};
use std::thread;
use std::time::Duration;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

/// How long the last write may take: the disk must not hold up the agent's end.
const LAST_WAIT: Duration = Duration::from_millis(500);

/// What is kept.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Form {
    /// In words, as `the facts of the cluster`.
    pub(crate) what: &'static str,
    /// Another number is another form, which this agent does not read.
    pub(crate) version: u32,
    /// Longest file that is read.
    pub(crate) bytes_max: u64,
}

/// A file of `K`, which belongs to one node.
#[derive(Debug)]
pub(crate) struct File<K> {
    path: PathBuf,
    node: Arc<str>,
    form: Form,
    /// Held by whoever writes: all write to the one new file beside it.
    writing: Arc<Mutex<()>>,
    /// Why the last write failed, as it was said; `None`: it did not.
    failing: Arc<Mutex<Option<String>>>,
    of: PhantomData<fn(K) -> K>,
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

impl<K> Clone for File<K> {
    fn clone(&self) -> Self {
        Self {
            path: self.path.clone(),
            node: Arc::clone(&self.node),
            form: self.form,
            writing: Arc::clone(&self.writing),
            failing: Arc::clone(&self.failing),
            of: PhantomData,
        }
    }
}

// === impl File ===

impl<K: Serialize + DeserializeOwned + Send + 'static> File<K> {
    pub(crate) fn new(path: PathBuf, node: Arc<str>, form: Form) -> Self {
        Self { path, node, form, writing: Arc::default(), failing: Arc::default(), of: PhantomData }
    }

    /// What was kept; `None` without a file, and for one of another node. A file that cannot be read is set aside and named.
    pub(crate) async fn load(&self) -> Option<K> {
        let file = self.clone();
        let work = tokio::task::spawn_blocking(move || file.read().unwrap_or_else(|error| file.set_aside(&error)));
        work.await.ok().flatten()
    }

    fn read(&self) -> io::Result<Option<K>> {
        let Form { what, version, bytes_max } = self.form;
        let file = match fs::File::open(&self.path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error),
        };
        let mut bytes = Vec::new();
        file.take(bytes_max + 1).read_to_end(&mut bytes)?;
        if bytes.len() as u64 > bytes_max {
            return Err(io::Error::other(format!("it is longer than {bytes_max} bytes")));
        }
        let head: Head = serde_json::from_slice(&bytes)?;
        if head.version != version {
            return Err(io::Error::other(format!("it has version {}, this agent reads {version}", head.version)));
        }
        let content: Content<K> = serde_json::from_slice(&bytes)?;
        if content.node != self.node {
            tracing::info!(path = %self.path.display(), of = %content.node, "{what} on disk are of another node");
            return Ok(None);
        }
        Ok(Some(content.known))
    }

    fn set_aside(&self, error: &io::Error) -> Option<K> {
        let aside = self.path.with_extension("json.unreadable");
        let moved = fs::rename(&self.path, &aside).is_ok();
        let (path, aside, what) = (self.path.display(), aside.display(), self.form.what);
        tracing::warn!(%path, %error, %aside, moved, "{what} on disk cannot be read");
        None
    }

    /// Writes, on a thread for files; whether that worked. Whoever drops this while it waits does not end the write.
    pub(crate) async fn write(&self, known: K) -> bool {
        let file = self.clone();
        tokio::task::spawn_blocking(move || file.write_now(&known)).await.unwrap_or(false)
    }

    /// Writes what is new at the end: after a write that may be under way still, on a thread that is left behind when it
    /// takes longer than half a second. Needs no runtime.
    pub(crate) fn write_last(&self, known: K) {
        let (tell, told) = mpsc::channel();
        let file = self.clone();
        let work = thread::Builder::new().name("last-write".to_owned()).spawn(move || {
            // Nobody may wait for it any more.
            let _ = tell.send(file.write_now(&known));
        });
        match work.map(|_| told.recv_timeout(LAST_WAIT)) {
            // How it went is said where it was written.
            Ok(Ok(_)) => {}
            Ok(Err(_)) => self.failed(&io::Error::from(io::ErrorKind::TimedOut)),
            Err(error) => self.failed(&error),
        }
    }

    fn write_now(&self, known: &K) -> bool {
        let written = self.replace(known);
        match &written {
            Ok(()) => self.worked(),
            Err(error) => self.failed(error),
        }
        written.is_ok()
    }

    /// Writes all of it beside the old file, and only then in its place.
    fn replace(&self, known: &K) -> io::Result<()> {
        let _writing = lock(&self.writing);
        if let Some(directory) = self.path.parent()
            && !directory.exists()
        {
            fs::DirBuilder::new().recursive(true).mode(0o700).create(directory)?;
        }
        let beside = self.path.with_extension("json.new");
        let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&beside)?;
        let content = Content { version: self.form.version, node: Arc::clone(&self.node), known };
        let mut writer = io::BufWriter::new(&mut file);
        serde_json::to_writer(&mut writer, &content)?;
        writer.flush()?;
        drop(writer);
        file.sync_all()?;
        fs::rename(&beside, &self.path)
    }

    /// Says so once for each cause, however often it is tried.
    fn failed(&self, error: &io::Error) {
        let text = error.to_string();
        let mut failing = lock(&self.failing);
        if failing.as_ref() != Some(&text) {
            tracing::warn!(path = %self.path.display(), %error, "cannot keep {} on disk", self.form.what);
            *failing = Some(text);
        }
    }

    fn worked(&self) {
        if lock(&self.failing).take().is_some() {
            tracing::info!(path = %self.path.display(), "{} are kept on disk again", self.form.what);
        }
    }

    /// Held, it stands for a write under way that does not end.
    #[cfg(test)]
    pub(crate) fn under_way(&self) -> MutexGuard<'_, ()> {
        lock(&self.writing)
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    type Known = Vec<u32>;

    fn file(path: &Path, node: &str) -> File<Known> {
        let form = Form { what: "the numbers", version: 1, bytes_max: 64 };
        File::new(path.to_owned(), node.into(), form)
    }

    /// Collects what is logged.
    #[derive(Clone, Default)]
    struct Log(Arc<Mutex<Vec<u8>>>);

    impl io::Write for Log {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            lock(&self.0).extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn what_is_written_is_read_again_by_the_same_node() {
        let directory = tempfile::tempdir().unwrap();
        let file = file(&directory.path().join("deep/er/facts.json"), "n1");
        assert_eq!(file.read().unwrap(), None);
        assert!(file.write_now(&vec![1]) && file.write_now(&vec![1, 2]));
        assert_eq!(file.read().unwrap(), Some(vec![1, 2]));
        let mode = std::os::unix::fs::PermissionsExt::mode(&fs::metadata(&file.path).unwrap().permissions());
        assert_eq!(mode & 0o777, 0o600);
        assert_eq!(self::file(&file.path, "n2").read().unwrap(), None);
        assert_eq!(fs::read_dir(file.path.parent().unwrap()).unwrap().count(), 1, "nothing is left beside it");
    }

    /// Dropping a follower does not end a write that is under way.
    #[test]
    fn the_last_write_comes_after_one_under_way_and_holds_up_nobody() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("facts.json");
        let file = file(&path, "n1");
        file.write_last(vec![1]);
        assert_eq!(file.read().unwrap(), Some(vec![1]), "without a runtime too");

        let under_way = file.under_way();
        let beside = directory.path().join("facts.json.new");
        fs::write(&beside, "half of").unwrap();
        file.write_last(vec![2]);
        assert_eq!(fs::read_to_string(&beside).unwrap(), "half of");
        assert_eq!(file.read().unwrap(), Some(vec![1]));
        drop(under_way);
        while beside.exists() {
            thread::sleep(Duration::from_millis(5));
        }
        assert_eq!(file.read().unwrap(), Some(vec![2]));
    }

    #[tokio::test]
    async fn what_cannot_be_read_is_set_aside() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("facts.json");
        let file = file(&path, "n1");
        let long = format!("{{\"version\":1,\"node\":\"n1\",\"known\":[1{}]}}", ",1".repeat(64));
        for text in [
            "",
            "{",
            "{\"version\":2,\"node\":\"n1\",\"known\":[]}",
            "{\"version\":1,\"node\":\"n1\",\"known\":{\"pods\":7}}",
            &long,
        ] {
            fs::write(&path, text).unwrap();
            assert_eq!(file.load().await, None);
            assert!(!path.exists());
            assert_eq!(fs::read_to_string(directory.path().join("facts.json.unreadable")).unwrap(), text);
        }
    }

    #[test]
    fn a_disk_that_takes_nothing_is_named_once_for_each_cause_and_when_it_is_well_again() {
        let log = Log::default();
        let lines = log.clone();
        let subscriber = tracing_subscriber::fmt().with_ansi(false).with_writer(move || lines.clone()).finish();
        // Where there is one dispatcher alone, a line that another test's thread comes to first is off for all.
        let _another = tracing::Dispatch::new(tracing::subscriber::NoSubscriber::default());
        let _guard = tracing::subscriber::set_default(subscriber);
        let directory = tempfile::tempdir().unwrap();
        let parent = directory.path().join("data");
        let file = file(&parent.join("facts.json"), "n1");
        // A file in the directory's place, and a directory in the file's: two causes.
        fs::write(&parent, "").unwrap();
        assert!(!file.write_now(&vec![1]) && !file.write_now(&vec![2]));
        fs::remove_file(&parent).unwrap();
        fs::create_dir_all(parent.join("facts.json.new")).unwrap();
        assert!(!file.write_now(&vec![3]) && !file.write_now(&vec![4]));
        fs::remove_dir(parent.join("facts.json.new")).unwrap();
        assert!(file.write_now(&vec![5]) && file.write_now(&vec![6]));
        let log = String::from_utf8(lock(&log.0).clone()).unwrap();
        let said: Vec<bool> = log.lines().map(|line| line.contains("cannot keep the numbers on disk")).collect();
        assert_eq!(said, [true, true, false], "{log}");
        assert!(log.contains("the numbers are kept on disk again"), "{log}");
    }
}
