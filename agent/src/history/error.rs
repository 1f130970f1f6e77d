//! Why the history cannot be written.

use std::path::PathBuf;

/// Why rows cannot be written.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// The directory cannot be used.
    #[error("could not use the directory {}", .0.display())]
    Directory(PathBuf, #[source] std::io::Error),
    /// Another agent writes there.
    #[error("another agent keeps its history in {}; give each its own data_dir", .0.display())]
    Taken(PathBuf),
    /// A file cannot be made, removed or put aside.
    #[error("could not keep the files of {} in order", .0.display())]
    Files(PathBuf, #[source] std::io::Error),
    /// No thread.
    #[error("could not start the thread that writes the history")]
    Thread(#[source] std::io::Error),
    /// The file system is full.
    #[error("the file system of {} has no room; free some, or lower history.free_percent", .0.display())]
    NoRoom(PathBuf),
    /// The database refused.
    #[error("could not write {}", .0.display())]
    Write(PathBuf, #[source] Box<dyn std::error::Error + Send + Sync>),
}
