//! Which sources an image is made of, and their time: the only time that is in it.

use std::env;
use std::process::Command;

use anyhow::{Context, Result};

use crate::{process, workspace};

/// Names the time of the sources where there is no git, as <https://reproducible-builds.org/specs/source-date-epoch/> says.
const EPOCH: &str = "SOURCE_DATE_EPOCH";

/// The sources.
#[derive(Clone, Debug)]
pub(super) struct Source {
    /// Version of the workspace.
    pub(super) version: String,
    /// The commit; None: files differ from it, or there is no git.
    pub(super) revision: Option<String>,
    /// Time of the commit, in seconds since 1970.
    pub(super) epoch_s: u64,
    /// The same as RFC 3339 has it.
    pub(super) created: String,
}

impl Source {
    /// Those of this workspace.
    pub(super) fn here() -> Result<Self> {
        let given = env::var(EPOCH).ok().filter(|text| !text.is_empty());
        let epoch = match given {
            Some(text) => text,
            None => git(&["log", "-1", "--format=%ct"])
                .with_context(|| format!("find out the time of the sources: set {EPOCH} where there is no git"))?,
        };
        let epoch_s = epoch.trim().parse().with_context(|| format!("read the time {epoch:?} (seconds since 1970)"))?;
        let is_clean = git(&["status", "--porcelain"]).is_ok_and(|changes| changes.trim().is_empty());
        let revision = git(&["rev-parse", "HEAD"]).ok().filter(|_| is_clean).map(|hash| hash.trim().to_owned());
        Ok(Self { version: env!("CARGO_PKG_VERSION").to_owned(), revision, epoch_s, created: rfc3339(epoch_s)? })
    }
}

fn git(arguments: &[&str]) -> Result<String> {
    process::capture(Command::new("git").args(arguments).current_dir(workspace::root()))
}

/// A time in UTC, by the program that every Linux has.
fn rfc3339(epoch_s: u64) -> Result<String> {
    let mut date = Command::new("date");
    let text = process::capture(date.args(["--utc", &format!("--date=@{epoch_s}"), "+%Y-%m-%dT%H:%M:%SZ"]))?;
    Ok(text.trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_is_told_in_utc() {
        assert_eq!(rfc3339(0).unwrap(), "1970-01-01T00:00:00Z");
        assert_eq!(rfc3339(1_754_438_400).unwrap(), "2025-08-06T00:00:00Z");
    }
}
