//! Layers and archives, the same from the same entries: sorted, owned by root, with one time for all.

use std::fmt::Write as _;
use std::io::Write as _;

use anyhow::{Context, Result};
use flate2::{Compression, GzBuilder};
use sha2::{Digest as _, Sha256};
use tar::{Builder, EntryType, Header};

use super::root::{Entry, Tree};

/// A tree as an archive.
pub(super) fn archive(tree: &Tree, epoch_s: u64) -> Result<Vec<u8>> {
    let mut builder = Builder::new(Vec::new());
    for (path, entry) in tree {
        let added = match entry {
            Entry::Directory(mode) => add(&mut builder, &format!("{path}/"), EntryType::Directory, *mode, &[], epoch_s),
            Entry::File(mode, content) => add(&mut builder, path, EntryType::Regular, *mode, content, epoch_s),
            Entry::Link(target) => {
                let mut header = header(EntryType::Symlink, 0o777, 0, epoch_s);
                builder.append_link(&mut header, path, target)
            }
        };
        added.with_context(|| format!("put {path} into an archive"))?;
    }
    builder.into_inner().context("end an archive")
}

fn add(
    builder: &mut Builder<Vec<u8>>,
    path: &str,
    kind: EntryType,
    mode: u32,
    content: &[u8],
    epoch_s: u64,
) -> std::io::Result<()> {
    let mut header = header(kind, mode, content.len() as u64, epoch_s);
    builder.append_data(&mut header, path, content)
}

fn header(kind: EntryType, mode: u32, size: u64, epoch_s: u64) -> Header {
    let mut header = Header::new_gnu();
    header.set_entry_type(kind);
    header.set_mode(mode);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(epoch_s);
    header.set_size(size);
    header
}

/// Compressed, without a name or a time. Every runtime unpacks gzip; not all unpack zstd.
pub(super) fn compressed(bytes: &[u8]) -> Result<Vec<u8>> {
    let mut encoder = GzBuilder::new().write(Vec::new(), Compression::default());
    encoder.write_all(bytes).context("compress a layer")?;
    encoder.finish().context("compress a layer")
}

/// `sha256:` and 64 hexadecimal digits.
pub(super) fn digest(bytes: &[u8]) -> String {
    let hash = Sha256::digest(bytes);
    let mut text = "sha256:".to_owned();
    for byte in hash.as_slice() {
        // Writing to a string does not fail.
        let _ = write!(text, "{byte:02x}");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_have_one_owner_and_one_time() {
        let tree = Tree::from([
            ("a".to_owned(), Entry::Directory(0o755)),
            ("a/b".to_owned(), Entry::File(0o644, b"text".to_vec())),
            ("a/l".to_owned(), Entry::Link("b".to_owned())),
        ]);
        let bytes = archive(&tree, 7).unwrap();
        assert_eq!(bytes, archive(&tree, 7).unwrap());
        let mut names = Vec::new();
        for entry in tar::Archive::new(bytes.as_slice()).entries().unwrap() {
            let entry = entry.unwrap();
            let header = entry.header();
            assert_eq!((header.uid().unwrap(), header.gid().unwrap(), header.mtime().unwrap()), (0, 0, 7));
            assert_eq!((header.username().unwrap(), header.groupname().unwrap()), (Some(""), Some("")));
            names.push(entry.path().unwrap().display().to_string());
        }
        assert_eq!(names, ["a/", "a/b", "a/l"]);
        assert_ne!(archive(&tree, 8).unwrap(), bytes);
    }

    #[test]
    fn a_digest_is_that_of_the_standard() {
        let empty = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
        assert_eq!(digest(b""), empty);
        assert_eq!(compressed(b"a").unwrap(), compressed(b"a").unwrap());
        assert_eq!(compressed(b"a").unwrap()[4..8], [0; 4], "no time");
    }
}
