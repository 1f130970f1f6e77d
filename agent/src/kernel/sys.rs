//! What neither aya nor rustix offers safely: bpf(2) commands, and memory shared with the kernel.

#![allow(unsafe_code, reason = "bpf(2) and mmap(2)")]

use std::ffi::{CString, c_void};
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;
use std::sync::atomic::{AtomicU32, AtomicU64};

use rustix::mm::{MapFlags, ProtFlags, mmap, munmap};

const BPF_MAP_CREATE: libc::c_long = 0;
const BPF_OBJ_PIN: libc::c_long = 6;
const BPF_OBJ_GET: libc::c_long = 7;
const BPF_MAP_TYPE_ARRAY: u32 = 2;
const BPF_F_MMAPABLE: u32 = 1 << 10;

/// `union bpf_attr` of `BPF_MAP_CREATE`, as far as it is used.
#[repr(C)]
struct MapCreate {
    map_type: u32,
    key_size: u32,
    value_size: u32,
    max_entries: u32,
    map_flags: u32,
    inner_map_fd: u32,
    numa_node: u32,
    map_name: [u8; 16],
}

/// `union bpf_attr` of `BPF_OBJ_PIN` and `BPF_OBJ_GET`.
#[repr(C)]
struct Object {
    pathname: u64,
    bpf_fd: u32,
    file_flags: u32,
}

/// Memory that the kernel shares.
#[derive(Debug)]
pub(super) struct Mapping {
    start: *mut c_void,
    bytes: usize,
}

// SAFETY: plain memory, reached by atomics and by slices whose owner keeps them from being written.
unsafe impl Send for Mapping {}

// === impl Mapping ===

impl Mapping {
    /// Maps part of a map.
    pub(super) fn new(map: BorrowedFd<'_>, offset: usize, bytes: usize, writable: bool) -> io::Result<Self> {
        let protection = if writable { ProtFlags::READ | ProtFlags::WRITE } else { ProtFlags::READ };
        // SAFETY: a null hint lets the kernel choose a free range.
        let start = unsafe { mmap(std::ptr::null_mut(), bytes, protection, MapFlags::SHARED, map, offset as u64) }?;
        Ok(Self { start, bytes })
    }

    /// A word; `None` beyond the end, or not aligned. Only mappings that are writable may be stored to.
    pub(super) fn word(&self, offset: usize) -> Option<&AtomicU64> {
        let word = self.at(offset, 8).filter(|_| offset.is_multiple_of(8))?;
        // SAFETY: inside the mapping and aligned, for mappings begin at a page; lives as long as `self`.
        Some(unsafe { AtomicU64::from_ptr(word.cast()) })
    }

    /// Half a word, as [`Mapping::word`].
    pub(super) fn half_word(&self, offset: usize) -> Option<&AtomicU32> {
        let word = self.at(offset, 4).filter(|_| offset.is_multiple_of(4))?;
        // SAFETY: as above.
        Some(unsafe { AtomicU32::from_ptr(word.cast()) })
    }

    /// Bytes that nobody writes while the slice lives: of a record that the kernel handed over, and that was not given
    /// back.
    pub(super) fn bytes(&self, offset: usize, bytes: usize) -> Option<&[u8]> {
        let start = self.at(offset, bytes)?;
        // SAFETY: inside the mapping; the caller holds the record, see above.
        Some(unsafe { std::slice::from_raw_parts(start, bytes) })
    }

    /// Where so many bytes stand; `None` when they do not.
    fn at(&self, offset: usize, bytes: usize) -> Option<*mut u8> {
        let fits = offset.checked_add(bytes)? <= self.bytes;
        fits.then(|| self.start.cast::<u8>().wrapping_add(offset))
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: mapped by `new` and by nobody else; no reference outlives `self`.
        let _ = unsafe { munmap(self.start, self.bytes) };
    }
}

/// Calls bpf(2) for a command that gives a descriptor.
pub(super) fn bpf<T>(command: libc::c_long, attr: &T) -> io::Result<OwnedFd> {
    let fd = i32::try_from(call(command, attr)?).map_err(|_| io::Error::from(io::ErrorKind::InvalidData))?;
    // SAFETY: a descriptor that the kernel just gave to us alone.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Makes a map of one value that may be mapped into memory.
pub(super) fn create_page(name: &str, bytes: u32) -> io::Result<OwnedFd> {
    let mut map_name = [0; 16];
    for (to, from) in map_name.iter_mut().take(15).zip(name.bytes()) {
        *to = from;
    }
    let attr = MapCreate {
        map_type: BPF_MAP_TYPE_ARRAY,
        key_size: 4,
        value_size: bytes,
        max_entries: 1,
        map_flags: BPF_F_MMAPABLE,
        inner_map_fd: 0,
        numa_node: 0,
        map_name,
    };
    bpf(BPF_MAP_CREATE, &attr)
}

/// Gives an object a name in a BPF file system, where it outlives the process.
pub(super) fn pin(object: BorrowedFd<'_>, path: &Path) -> io::Result<()> {
    let path = CString::new(path.as_os_str().as_bytes())?;
    let bpf_fd = object.as_raw_fd().cast_unsigned();
    call(BPF_OBJ_PIN, &Object { pathname: path.as_ptr().addr() as u64, bpf_fd, file_flags: 0 }).map(drop)
}

/// Opens an object by its name in a BPF file system.
pub(super) fn get(path: &Path) -> io::Result<OwnedFd> {
    let path = CString::new(path.as_os_str().as_bytes())?;
    bpf(BPF_OBJ_GET, &Object { pathname: path.as_ptr().addr() as u64, bpf_fd: 0, file_flags: 0 })
}

fn call<T>(command: libc::c_long, attr: &T) -> io::Result<libc::c_long> {
    // SAFETY: `attr` is a valid prefix of union bpf_attr of the size given, and outlives the call.
    let result = unsafe { libc::syscall(libc::SYS_bpf, command, std::ptr::from_ref(attr), size_of::<T>()) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}
