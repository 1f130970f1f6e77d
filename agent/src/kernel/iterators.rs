//! BPF iterators over a map: aya 0.14 attaches iterators, but cannot name the map that they walk.

use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};

use super::sys::bpf;

const BPF_LINK_CREATE: libc::c_long = 28;
const BPF_ITER_CREATE: libc::c_long = 33;
const BPF_TRACE_ITER: u32 = 28;

/// `union bpf_attr` of `BPF_LINK_CREATE`, as far as iterators use it.
#[repr(C)]
struct LinkCreate {
    prog_fd: u32,
    target_fd: u32,
    attach_type: u32,
    flags: u32,
    iter_info: u64,
    iter_info_len: u32,
    pad: u32,
}

/// `union bpf_attr` of `BPF_ITER_CREATE`.
#[repr(C)]
struct IterCreate {
    link_fd: u32,
    flags: u32,
}

/// An iterator program bound to what it walks.
#[derive(Debug)]
pub(super) struct Walk {
    link: OwnedFd,
}

impl Walk {
    /// Binds a program to a map, or to all of its kind of object when there is no map.
    pub(super) fn new(program: BorrowedFd<'_>, map: Option<BorrowedFd<'_>>) -> io::Result<Self> {
        // union bpf_iter_link_info: the map's descriptor.
        let info: u32 = map.map_or(0, |fd| fd.as_raw_fd().cast_unsigned());
        let attr = LinkCreate {
            prog_fd: program.as_raw_fd().cast_unsigned(),
            target_fd: 0,
            attach_type: BPF_TRACE_ITER,
            flags: 0,
            iter_info: if map.is_some() { (&raw const info).addr() as u64 } else { 0 },
            iter_info_len: if map.is_some() { 4 } else { 0 },
            pad: 0,
        };
        Ok(Self { link: bpf(BPF_LINK_CREATE, &attr)? })
    }

    /// Walks once.
    pub(super) fn run(&self) -> io::Result<()> {
        let attr = IterCreate { link_fd: self.link.as_raw_fd().cast_unsigned(), flags: 0 };
        let mut file = File::from(bpf(BPF_ITER_CREATE, &attr)?);
        let mut buffer = [0u8; 64];
        // The programs write nothing: the first read comes back empty, after the last object.
        loop {
            match file.read(&mut buffer) {
                Ok(0) => return Ok(()),
                Ok(_) => {}
                // After a million objects the kernel lets others run first.
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Err(error),
            }
        }
    }
}
