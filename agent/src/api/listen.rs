//! The socket's file: made with its final mode, taken over from a dead agent, refused beside a live one, removed at the
//! end.

use std::os::fd::OwnedFd;
use std::os::unix::fs::{DirBuilderExt as _, FileTypeExt as _, MetadataExt as _};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::fs::{FlockOperation, Mode, OFlags};
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType};

/// Only the owner may connect.
const SOCKET_MODE: Mode = Mode::RUSR.union(Mode::WUSR);
const DIRECTORY_MODE: u32 = 0o700;
/// Clients that wait to be accepted.
const BACKLOG: i32 = 16;
/// Starting agents take turns by a lock on the directory, which each holds for a few system calls.
const LOCK_TRIES: u32 = 20;
const LOCK_PAUSE: Duration = Duration::from_millis(50);

/// A listening socket; its file goes when this is dropped.
#[derive(Debug)]
pub(crate) struct Bound {
    pub(super) listener: UnixListener,
    file: SocketFile,
}

#[derive(Debug)]
struct SocketFile {
    path: PathBuf,
    /// Device and inode, so that the file of an agent that came later stays.
    id: (u64, u64),
}

/// Why the socket cannot be had.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// Another agent listens there.
    #[error(
        "another agent listens on {}; stop it, or choose another path by --socket or SEKISHO_SOCKET",
        .0.display()
    )]
    Live(PathBuf),
    /// Not a socket.
    #[error("{} is in the way and no socket; remove it, or choose another path by --socket or SEKISHO_SOCKET", .0.display())]
    NoSocket(PathBuf),
    /// Some step failed.
    #[error("could not {what} {}; choose a path that can be written by --socket or SEKISHO_SOCKET", path.display())]
    Io {
        /// The step.
        what: &'static str,
        /// Where.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
}

/// Listens on a path.
pub(crate) fn bind(path: &Path) -> Result<Bound, Error> {
    let fail = |what, at: &Path| {
        let path = at.to_owned();
        move |source: std::io::Error| Error::Io { what, path, source }
    };
    let directory = path.parent().unwrap_or(Path::new("/"));
    std::fs::DirBuilder::new()
        .recursive(true)
        .mode(DIRECTORY_MODE)
        .create(directory)
        .map_err(fail("make the directory", directory))?;
    let _lock = lock(directory).map_err(fail("lock the directory", directory))?;

    clear(path)?;
    let listener = listen(path).map_err(|errno| fail("listen on", path)(errno.into()))?;
    let metadata = std::fs::symlink_metadata(path).map_err(fail("look at", path))?;
    let file = SocketFile { path: path.to_owned(), id: (metadata.dev(), metadata.ino()) };
    Ok(Bound { listener, file })
}

/// Two agents that start at once must not both find the same dead socket and remove each other's new one.
fn lock(directory: &Path) -> std::io::Result<OwnedFd> {
    let handle = rustix::fs::open(directory, OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
    for _ in 1..LOCK_TRIES {
        match rustix::fs::flock(&handle, FlockOperation::NonBlockingLockExclusive) {
            Err(Errno::WOULDBLOCK) => std::thread::sleep(LOCK_PAUSE),
            result => return Ok(result.map(|()| handle)?),
        }
    }
    Ok(rustix::fs::flock(&handle, FlockOperation::NonBlockingLockExclusive).map(|()| handle)?)
}

/// Removes what a dead agent left.
fn clear(path: &Path) -> Result<(), Error> {
    match std::fs::symlink_metadata(path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
        Err(source) => return Err(Error::Io { what: "look at", path: path.to_owned(), source }),
        Ok(metadata) if !metadata.file_type().is_socket() => return Err(Error::NoSocket(path.to_owned())),
        Ok(_) => {}
    }
    match super::connect(path) {
        Err(error) if error.kind() == std::io::ErrorKind::ConnectionRefused => {}
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
        // Nobody accepts, but somebody could.
        Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => return Err(Error::Live(path.to_owned())),
        Err(source) => return Err(Error::Io { what: "ask who listens on", path: path.to_owned(), source }),
        Ok(_) => return Err(Error::Live(path.to_owned())),
    }
    std::fs::remove_file(path).map_err(|source| Error::Io { what: "remove the old", path: path.to_owned(), source })
}

fn listen(path: &Path) -> Result<UnixListener, Errno> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = rustix::net::socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
    // unix(7): on Linux bind makes the file with the mode of the socket's own inode, so that there is no moment at
    // which others may connect.
    rustix::fs::fchmod(&socket, SOCKET_MODE)?;
    rustix::net::bind(&socket, &SocketAddrUnix::new(path)?)?;
    rustix::net::listen(&socket, BACKLOG)?;
    Ok(UnixListener::from(socket))
}

// === impl SocketFile ===

impl Drop for SocketFile {
    fn drop(&mut self) {
        let ours = std::fs::symlink_metadata(&self.path).is_ok_and(|now| (now.dev(), now.ino()) == self.id);
        if ours && let Err(error) = std::fs::remove_file(&self.path) {
            tracing::warn!(path = %self.path.display(), %error, "could not remove the socket");
        }
    }
}

impl Bound {
    /// Where.
    pub(crate) fn path(&self) -> &Path {
        &self.file.path
    }
}
