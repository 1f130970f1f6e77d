//! The system calls that have no safe wrapper.
#![expect(unsafe_code, reason = "fork, an ioctl and a socket option without a wrapper in rustix")]

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

/// Forks; `None` in the child. The caller must be the only thread of its process.
pub(crate) fn fork() -> io::Result<Option<u32>> {
    // SAFETY: no other thread runs, so that the child finds no lock held.
    match unsafe { libc::fork() } {
        -1 => Err(io::Error::last_os_error()),
        0 => Ok(None),
        pid => Ok(u32::try_from(pid).ok()),
    }
}

/// Ends the process at once, without the destructors and buffers that a forked child shares with its parent.
pub(crate) fn exit(code: i32) -> ! {
    // SAFETY: _exit has no condition.
    unsafe { libc::_exit(code) }
}

/// Bytes that were sent and not yet acknowledged.
pub(crate) fn unacknowledged(socket: BorrowedFd<'_>) -> io::Result<i32> {
    let mut bytes = 0;
    // SAFETY: TIOCOUTQ writes one int.
    let result = unsafe { libc::ioctl(socket.as_raw_fd(), libc::TIOCOUTQ, &raw mut bytes) };
    if result == 0 { Ok(bytes) } else { Err(io::Error::last_os_error()) }
}

/// Has the kernel cut what is sent into datagrams of `size` bytes; 0 switches it off.
pub(crate) fn set_udp_segment(socket: BorrowedFd<'_>, size: u16) -> io::Result<()> {
    let value = i32::from(size);
    let length = libc::socklen_t::try_from(size_of_val(&value)).map_err(io::Error::other)?;
    // SAFETY: the value is an int and lives through the call.
    let result = unsafe {
        libc::setsockopt(socket.as_raw_fd(), libc::SOL_UDP, libc::UDP_SEGMENT, (&raw const value).cast(), length)
    };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}
