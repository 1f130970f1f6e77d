//! The bpf(2) system call itself: what is loaded, and a program of "another party" that refuses connects.
#![expect(unsafe_code, reason = "bpf(2) has no wrapper here; the agent's library is what these tests judge")]

use std::collections::BTreeSet;
use std::ffi::CString;
use std::fs::{self, File};
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::path::Path;

use anyhow::{Context, Result};

/// Commands of `enum bpf_cmd`.
const PROG_LOAD: i32 = 5;
const PROG_ATTACH: i32 = 8;
const PROG_DETACH: i32 = 9;
const PROG_GET_NEXT_ID: i32 = 11;
const MAP_GET_NEXT_ID: i32 = 12;
const LINK_GET_NEXT_ID: i32 = 31;
/// `BPF_PROG_TYPE_CGROUP_SOCK_ADDR`.
const CGROUP_SOCK_ADDR: u32 = 18;
/// `BPF_CGROUP_INET4_CONNECT`.
const INET4_CONNECT: u32 = 10;
/// `BPF_F_ALLOW_MULTI`.
const ALLOW_MULTI: u32 = 2;
/// `r0 = 0; exit`: a connect program's way to refuse.
const REFUSE: [u64; 2] = [0x0000_0000_0000_00b7, 0x0000_0000_0000_0095];

/// Ids of BPF objects.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Objects {
    /// Programs.
    pub programs: BTreeSet<u32>,
    /// Maps.
    pub maps: BTreeSet<u32>,
    /// Links.
    pub links: BTreeSet<u32>,
}

impl Objects {
    /// Everything that the kernel holds now.
    pub fn loaded() -> Result<Self> {
        Ok(Self {
            programs: ids(PROG_GET_NEXT_ID).context("list BPF programs")?,
            maps: ids(MAP_GET_NEXT_ID).context("list BPF maps")?,
            links: ids(LINK_GET_NEXT_ID).context("list BPF links")?,
        })
    }

    /// What a process holds by descriptors, the programs behind its links included.
    pub fn held_by(pid: u32) -> Result<Self> {
        let mut objects = Self::default();
        let directory = format!("/proc/{pid}/fdinfo");
        for entry in fs::read_dir(&directory).with_context(|| format!("list {directory}"))? {
            // A descriptor may be closed between the listing and the reading.
            let Ok(text) = fs::read_to_string(entry.context("list descriptors")?.path()) else { continue };
            for line in text.lines() {
                let Some((key, value)) = line.split_once(":\t") else { continue };
                let Ok(id) = value.trim().parse() else { continue };
                match key {
                    "prog_id" => objects.programs.insert(id),
                    "map_id" => objects.maps.insert(id),
                    "link_id" => objects.links.insert(id),
                    _ => false,
                };
            }
        }
        Ok(objects)
    }

    /// Those that are in `other` too.
    #[must_use]
    pub fn also_in(&self, other: &Self) -> Self {
        Self {
            programs: &self.programs & &other.programs,
            maps: &self.maps & &other.maps,
            links: &self.links & &other.links,
        }
    }
}

/// A connect program that refuses every IPv4 connect from a control group, until dropped.
#[derive(Debug)]
pub struct Refusal {
    cgroup: File,
    program: OwnedFd,
}

impl Refusal {
    /// Attaches it, beside programs of others.
    pub fn attach(cgroup: &Path) -> Result<Self> {
        let program = load().context("load a connect program")?;
        let cgroup = File::open(cgroup).with_context(|| format!("open {}", cgroup.display()))?;
        let refusal = Self { cgroup, program };
        bpf(PROG_ATTACH, &mut refusal.attribute(ALLOW_MULTI)).context("attach a connect program")?;
        Ok(refusal)
    }

    fn attribute(&self, flags: u32) -> Attach {
        Attach {
            target: self.cgroup.as_raw_fd().cast_unsigned(),
            program: self.program.as_raw_fd().cast_unsigned(),
            kind: INET4_CONNECT,
            flags,
        }
    }
}

impl Drop for Refusal {
    fn drop(&mut self) {
        if let Err(error) = bpf(PROG_DETACH, &mut self.attribute(0)) {
            eprintln!("detach a connect program: {error}");
        }
    }
}

/// `union bpf_attr` for `BPF_PROG_LOAD`, up to the last field used.
#[repr(C)]
struct Load {
    kind: u32,
    instruction_count: u32,
    instructions: u64,
    license: u64,
    log_level: u32,
    log_size: u32,
    log: u64,
    kernel_version: u32,
    flags: u32,
    name: [u8; 16],
    interface: u32,
    attach_kind: u32,
}

/// `union bpf_attr` for `BPF_PROG_ATTACH` and `BPF_PROG_DETACH`.
#[repr(C)]
struct Attach {
    target: u32,
    program: u32,
    kind: u32,
    flags: u32,
}

/// `union bpf_attr` for the commands that walk ids.
#[repr(C)]
struct Walk {
    start: u32,
    next: u32,
    flags: u32,
}

fn load() -> Result<OwnedFd> {
    let license = CString::new("Apache-2.0").context("name a license")?;
    let mut attribute = Load {
        kind: CGROUP_SOCK_ADDR,
        instruction_count: 2,
        instructions: REFUSE.as_ptr().addr() as u64,
        license: license.as_ptr().addr() as u64,
        log_level: 0,
        log_size: 0,
        log: 0,
        kernel_version: 0,
        flags: 0,
        name: *b"refuse_connect\0\0",
        interface: 0,
        attach_kind: INET4_CONNECT,
    };
    let fd = bpf(PROG_LOAD, &mut attribute)?;
    // SAFETY: the kernel has just made this descriptor, and nobody else knows it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

fn ids(command: i32) -> io::Result<BTreeSet<u32>> {
    let mut ids = BTreeSet::new();
    let mut walk = Walk { start: 0, next: 0, flags: 0 };
    loop {
        match bpf(command, &mut walk) {
            Ok(_) => {}
            Err(error) if error.raw_os_error() == Some(libc::ENOENT) => return Ok(ids),
            Err(error) => return Err(error),
        }
        ids.insert(walk.next);
        walk.start = walk.next;
    }
}

fn bpf<T>(command: i32, attribute: &mut T) -> io::Result<i32> {
    // SAFETY: the attribute is the command's, lives through the call, and its pointers point to what it says.
    let result = unsafe { libc::syscall(libc::SYS_bpf, command, std::ptr::from_mut(attribute), size_of::<T>()) };
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    i32::try_from(result).map_err(io::Error::other)
}
