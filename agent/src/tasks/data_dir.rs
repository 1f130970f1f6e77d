//! The data directory tells what every pod did: it is for its owner alone, also when somebody else made it. The kubelet
//! makes the directory of a `hostPath` for all to read.

use std::fs;
use std::io;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::Path;

use crate::lines::chain;

/// For its owner alone.
const MODE: u32 = 0o700;
/// What others may do.
const OTHERS: u32 = 0o077;
/// How the names of the agent's own files begin; on a volume of its own stands one thing more.
const OWN: [&str; 6] = ["findings.json", "facts.json", "ec2.json", "shipped.json", "history", "lost+found"];
/// Names that are looked at: a directory of the agent's has a few dozen.
const NAMES_MAX: usize = 10_000;

/// Why a directory stays as it is.
#[derive(Debug, PartialEq, Eq)]
enum Left {
    /// It is not there; whoever makes it makes it private.
    Absent,
    /// Nobody else may anything.
    Private,
    /// It is not this process's own.
    OfAnother,
    /// Something stands in it that is not the agent's: a directory of others, such as /tmp.
    Shared(String),
}

/// Takes the rights of others off a data directory that holds nothing but the agent's own files. Says so when it does, and
/// when others may look into it after all.
pub(super) fn tighten(directory: &Path) {
    let (path, mode) = (directory.display(), |mode: u32| format!("{:04o}", mode & 0o7777));
    match take_off(directory) {
        Ok(Ok(was)) => tracing::info!(
            "the data directory {path} had mode {}: it has {} now, for it tells what every pod did",
            mode(was),
            mode(MODE)
        ),
        Ok(Err(Left::Absent | Left::Private)) => {}
        Ok(Err(Left::OfAnother)) => tracing::warn!(
            "others may look into the data directory {path}, which belongs to another user: `chmod 700` it, or name another by data_dir"
        ),
        Ok(Err(Left::Shared(name))) => tracing::warn!(
            "others may look into the data directory {path}, and it is left so, for {name:?} in it is not the agent's: name a \
             directory of its own by data_dir"
        ),
        Err(error) => tracing::warn!(
            error = chain(&error),
            "could not see to it that nobody else looks into the data directory {path}"
        ),
    }
}

/// The mode that it had, when it was changed.
fn take_off(directory: &Path) -> io::Result<Result<u32, Left>> {
    // By one handle, so that what is changed is what was looked at.
    let handle = match fs::File::open(directory) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Err(Left::Absent)),
        handle => handle?,
    };
    let found = handle.metadata()?;
    if !found.is_dir() {
        return Err(io::ErrorKind::NotADirectory.into());
    }
    if found.mode() & OTHERS == 0 {
        return Ok(Err(Left::Private));
    }
    if found.uid() != rustix::process::geteuid().as_raw() {
        return Ok(Err(Left::OfAnother));
    }
    for entry in fs::read_dir(directory)?.take(NAMES_MAX) {
        let name = entry?.file_name();
        let name = name.to_string_lossy();
        if !OWN.iter().any(|own| name.starts_with(own)) {
            return Ok(Err(Left::Shared(name.into_owned())));
        }
    }
    handle.set_permissions(fs::Permissions::from_mode(MODE))?;
    Ok(Ok(found.mode()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn directory(mode: u32) -> tempfile::TempDir {
        let home = tempfile::tempdir().expect("a directory");
        fs::set_permissions(home.path(), fs::Permissions::from_mode(mode)).expect("is ours");
        home
    }

    fn mode(home: &tempfile::TempDir) -> u32 {
        fs::metadata(home.path()).expect("is there").mode() & 0o7777
    }

    #[test]
    fn an_empty_one_as_the_kubelet_makes_it_becomes_private() {
        let home = directory(0o755);
        assert_eq!(take_off(home.path()).expect("changes it").map(|was| was & 0o7777), Ok(0o755));
        assert_eq!(mode(&home), 0o700);
        assert_eq!(take_off(home.path()).expect("looks"), Err(Left::Private), "said once");
    }

    #[test]
    fn one_with_an_agents_files_becomes_private() {
        let home = directory(0o775);
        for name in ["findings.json", "findings.json.new", "history.lock", "history-2026-11-22-000001.db-wal"] {
            fs::write(home.path().join(name), "").expect("writes");
        }
        assert!(take_off(home.path()).expect("changes it").is_ok());
        assert_eq!(mode(&home), 0o700);
    }

    #[test]
    fn one_that_others_use_stays_as_it_is() {
        let home = directory(0o1777);
        fs::write(home.path().join("findings.json"), "").expect("writes");
        fs::write(home.path().join("theirs"), "").expect("writes");
        assert_eq!(take_off(home.path()).expect("looks"), Err(Left::Shared("theirs".to_owned())));
        assert_eq!(mode(&home), 0o1777);
    }

    #[test]
    fn what_is_absent_or_of_another_is_left_alone() {
        let home = directory(0o755);
        assert_eq!(take_off(&home.path().join("none")).expect("looks"), Err(Left::Absent));
        let file = home.path().join("file");
        fs::write(&file, "").expect("writes");
        assert!(take_off(&file).is_err());
        if rustix::process::geteuid().is_root() {
            std::os::unix::fs::chown(home.path(), Some(65_534), None).expect("root may");
            assert_eq!(take_off(home.path()).expect("looks"), Err(Left::OfAnother));
        } else {
            // The root directory is root's.
            assert_eq!(take_off(Path::new("/")).expect("looks"), Err(Left::OfAnother));
        }
    }
}
