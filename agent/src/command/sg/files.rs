//! The files: what the AWS CLI printed.

use std::fs::File;
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use agent_core::sg::{self, Gathered, Group, InvalidId, PrefixList, PrefixListId};
use anyhow::Context as _;

/// As many rules as are taken ([`sg::MAX_RULES`]), some 200 bytes each as the CLI prints them, are 60 MB.
const FILE_BYTES_MAX: u64 = 64 * 1024 * 1024;

/// Whose entries a file holds.
#[derive(Clone)]
pub(super) struct ListFile {
    id: PrefixListId,
    path: PathBuf,
}

/// Why a word is no `ID=FILE`.
#[derive(Debug, thiserror::Error)]
pub(super) enum WrongListFile {
    #[error("expected pl-…=FILE")]
    Form,
    #[error(transparent)]
    Id(#[from] InvalidId),
}

impl FromStr for ListFile {
    type Err = WrongListFile;

    fn from_str(text: &str) -> Result<Self, WrongListFile> {
        let (id, path) = text.split_once('=').filter(|(_, path)| !path.is_empty()).ok_or(WrongListFile::Form)?;
        Ok(Self { id: id.parse()?, path: path.into() })
    }
}

/// All files as one set.
pub(super) fn read(groups: &[PathBuf], lists: &[ListFile]) -> anyhow::Result<(Vec<Group>, Vec<PrefixList>)> {
    let mut gathered = Gathered::default();
    for path in groups {
        read_one(path, None, &mut gathered).with_context(|| path.display().to_string())?;
    }
    for ListFile { id, path } in lists {
        read_one(path, Some(id), &mut gathered).with_context(|| path.display().to_string())?;
    }
    Ok(gathered.finish())
}

fn read_one(path: &Path, list: Option<&PrefixListId>, gathered: &mut Gathered) -> anyhow::Result<()> {
    let mut bytes = Vec::new();
    let mut file = File::open(path).context("cannot open it")?.take(FILE_BYTES_MAX + 1);
    file.read_to_end(&mut bytes).context("cannot read it")?;
    anyhow::ensure!(
        bytes.len() as u64 <= FILE_BYTES_MAX,
        "has more than {} MiB: ask the AWS CLI for the groups that the question is about, with --group-ids",
        FILE_BYTES_MAX / (1024 * 1024)
    );
    let text = String::from_utf8(bytes).context("is no text in UTF-8; expected the JSON that the AWS CLI prints")?;
    let mut document = sg::read(&text)?;
    if let Some(entries) = document.entries.take() {
        let named = path.file_stem().and_then(|stem| stem.to_str()).and_then(|stem| stem.parse().ok());
        let id = list.cloned().or(named).context(
            "holds entries of a prefix list and does not say of which: name the file pl-….json, or give it as \
             --prefix-list ID=FILE",
        )?;
        gathered.add_entries(&id, entries)?;
    } else if list.is_some() {
        anyhow::bail!("holds no entries of a prefix list: expected what get-managed-prefix-list-entries prints");
    }
    Ok(gathered.add(document)?)
}
