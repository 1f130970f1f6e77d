//! The bpf(2) system call itself: what is loaded, and a program of "another party" that refuses connects.
#![expect(unsafe_code, reason = "bpf(2) has no wrapper here; the agent's library is what these tests judge")]

use std::collections::BTreeSet;
use std::ffi::CString;
use std::fs::{self, File};
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::path::Path;

use anyhow::{Context, Result};

/// Programs that the kernel lets stand beside one another on a hook of a control group (`BPF_CGROUP_MAX_PROGS`).
const CROWD: usize = 64;
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
/// `BPF_PROG_TYPE_SOCK_OPS`.
const SOCK_OPS: u32 = 13;
/// `BPF_CGROUP_SOCK_OPS`.
const OF_SOCK_OPS: u32 = 3;
/// `BPF_F_ALLOW_MULTI`.
const ALLOW_MULTI: u32 = 2;
/// `r0 = 0; exit`: a connect program's way to refuse.
const REFUSE: [u64; 2] = [0x0000_0000_0000_00b7, 0x0000_0000_0000_0095];
/// `r0 = 1; exit`: what changes nothing.
const PASS: [u64; 2] = [0x0000_0001_0000_00b7, 0x0000_0000_0000_0095];

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

/// A hook of a control group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hook {
    /// `connect(2)` over IPv4.
    Connect4,
    /// TCP's states.
    SockOps,
}

impl Hook {
    /// Type of program, type of attachment.
    fn types(self) -> (u32, u32) {
        match self {
            Self::Connect4 => (CGROUP_SOCK_ADDR, INET4_CONNECT),
            Self::SockOps => (SOCK_OPS, OF_SOCK_OPS),
        }
    }
}

/// As many programs of "another party" as fit on a hook of a control group, so that nobody else's does, until dropped.
#[derive(Debug)]
pub struct Crowd(Vec<Attached>);

impl Crowd {
    /// Attaches them.
    pub fn attach(cgroup: &Path, hook: Hook) -> Result<Self> {
        (0..CROWD).map(|_| Attached::new(cgroup, hook, &PASS)).collect::<Result<_>>().map(Self)
    }

    /// How many.
    pub fn programs(&self) -> usize {
        self.0.len()
    }
}

/// A connect program that refuses every IPv4 connect from a control group, until dropped.
#[derive(Debug)]
pub struct Refusal {
    _program: Attached,
}

/// A program on a hook of a control group, until dropped.
#[derive(Debug)]
struct Attached {
    cgroup: File,
    program: OwnedFd,
    hook: Hook,
}

impl Refusal {
    /// Attaches it, beside programs of others.
    pub fn attach(cgroup: &Path) -> Result<Self> {
        Ok(Self { _program: Attached::new(cgroup, Hook::Connect4, &REFUSE)? })
    }
}

impl Attached {
    fn new(cgroup: &Path, hook: Hook, instructions: &[u64; 2]) -> Result<Self> {
        let program = load(hook, instructions).context("load a program")?;
        let cgroup = File::open(cgroup).with_context(|| format!("open {}", cgroup.display()))?;
        let this = Self { cgroup, program, hook };
        bpf(PROG_ATTACH, &mut this.attribute(ALLOW_MULTI)).context("attach a program")?;
        Ok(this)
    }

    fn attribute(&self, flags: u32) -> Attach {
        Attach {
            target: self.cgroup.as_raw_fd().cast_unsigned(),
            program: self.program.as_raw_fd().cast_unsigned(),
            kind: self.hook.types().1,
            flags,
        }
    }
}

impl Drop for Attached {
    fn drop(&mut self) {
        if let Err(error) = bpf(PROG_DETACH, &mut self.attribute(0)) {
            eprintln!("detach a program: {error}");
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

fn load(hook: Hook, instructions: &[u64; 2]) -> Result<OwnedFd> {
    let (kind, attach_kind) = hook.types();
    let license = CString::new("Apache-2.0").context("name a license")?;
    let mut attribute = Load {
        kind,
        instruction_count: 2,
        instructions: instructions.as_ptr().addr() as u64,
        license: license.as_ptr().addr() as u64,
        log_level: 0,
        log_size: 0,
        log: 0,
        kernel_version: 0,
        flags: 0,
        name: *b"others_program\0\0",
        interface: 0,
        attach_kind,
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
