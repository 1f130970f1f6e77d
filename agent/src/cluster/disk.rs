//! The last facts on disk: what an agent that starts without the API server goes by.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use super::known::Known;
use super::pace;
use super::teller::Teller;
use crate::kept::{self, Form};

/// 1,000 pods with 16 KB each are 16 MiB.
const FORM: Form = Form { what: "the facts of the cluster", version: 1, bytes_max: 16 << 20 };
/// News are written after this long at the soonest, so a node in turmoil writes a file of some 300 KB twice a minute.
const WRITE_EVERY: Duration = Duration::from_secs(30);

/// The file.
pub(super) type File = kept::File<Known>;

/// The file at a path, of a node.
pub(super) fn file(path: PathBuf, node: Arc<str>) -> File {
    File::new(path, node, FORM)
}

/// Writes what is known whenever something is new, for ever; and at the end what is new since.
pub(super) async fn keep(file: Option<&File>, teller: &Teller) {
    let Some(file) = file else { return };
    let mut kept = Kept { file, teller, written: teller.news() };
    loop {
        tokio::time::sleep(pace::jittered(WRITE_EVERY)).await;
        let news = teller.news();
        if news != kept.written && file.write(teller.known(Known::clone)).await {
            kept.written = news;
        }
    }
}

/// What was written last. The follower is ended by dropping it, and so the last news are written here.
struct Kept<'a> {
    file: &'a File,
    teller: &'a Teller,
    written: u64,
}

impl Drop for Kept<'_> {
    fn drop(&mut self) {
        if self.teller.news() != self.written {
            self.file.write_last(self.teller.known(Known::clone));
        }
    }
}

#[cfg(test)]
mod tests {
    use agent_core::facts::ClusterFact;

    use super::*;

    #[tokio::test]
    async fn the_last_news_are_written_at_the_end_and_only_news() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("facts.json");
        let file = file(path.clone(), "n1".into());
        let (tell, _facts) = tokio::sync::mpsc::channel(4);
        let teller = Teller::new(tell, || agent_core::time::WallNs(1));
        drop(Kept { file: &file, teller: &teller, written: teller.news() });
        assert!(!path.exists());
        teller.tell(vec![ClusterFact::PoliciesReplaced { policies: Vec::new(), installed: true }]).await;
        drop(Kept { file: &file, teller: &teller, written: 0 });
        assert_eq!(file.load().await, Some(teller.known(Known::clone)));
    }
}
