//! cgroup2 directories as they come and go: a container's cgroup is announced before its first packet.

use aya_ebpf::helpers::generated::bpf_probe_read_kernel_str;
use aya_ebpf::macros::btf_tracepoint;
use aya_ebpf::programs::BtfTracePointContext;

use agent_ebpf::wire::{self, CGROUP_PATH_BYTES, Kind};

use super::emit::{self, Reserved};
use super::kernel::{self, Kptr, offset, read};
use super::maps::{CGROUP_SCRATCH, CgroupScratch};
use super::processes::bounded;

/// `cgroup_mkdir(cgroup, path)`.
#[btf_tracepoint(function = "cgroup_mkdir")]
pub fn cgroup_mkdir(ctx: BtfTracePointContext) -> i32 {
    try_mkdir(&ctx);
    0
}

#[inline(always)]
fn try_mkdir(ctx: &BtfTracePointContext) -> Option<()> {
    let cgroup: Kptr = ctx.arg(0);
    if !is_version2(cgroup) {
        return None;
    }
    let scratch = CGROUP_SCRATCH.get_ptr_mut(0)?;
    // SAFETY: this CPU's scratch; tracepoints run with preemption off.
    let scratch = unsafe { &mut *scratch };
    let path: Kptr = ctx.arg(1);
    // SAFETY: the destination has this size.
    let copied =
        unsafe { bpf_probe_read_kernel_str(scratch.path.as_mut_ptr().cast(), CGROUP_PATH_BYTES as u32, path.cast()) };
    if copied < 1 {
        return None;
    }
    let path_len = bounded((copied - 1) as u64, CGROUP_PATH_BYTES as u64 - 1);
    let now = emit::now_ns();
    let id = kernel::cgroup_id(cgroup);
    scratch.fixed = wire::CgroupMkdir {
        header: emit::header::<wire::CgroupMkdir>(Kind::CgroupMkdir, 0, path_len as u32, now, id),
        level: read(cgroup, offset!(cgroup_level)),
        path_len: path_len as u32,
    };
    let len = bounded(size_of::<wire::CgroupMkdir>() as u64 + path_len, 1023).min(size_of::<CgroupScratch>() as u64);
    // The record goes on the parent's account: a directory that was just made has none yet, and one that makes many
    // must not escape its budget. The root's account serves: only privileged processes make cgroups.
    emit::output(Kind::CgroupMkdir, 1, now, core::ptr::from_ref(scratch), len as u32);
    Some(())
}

/// `cgroup_rmdir(cgroup, path)`.
#[btf_tracepoint(function = "cgroup_rmdir")]
pub fn cgroup_rmdir(ctx: BtfTracePointContext) -> i32 {
    try_rmdir(&ctx);
    0
}

#[inline(always)]
fn try_rmdir(ctx: &BtfTracePointContext) -> Option<()> {
    let cgroup: Kptr = ctx.arg(0);
    if !is_version2(cgroup) {
        return None;
    }
    let now = emit::now_ns();
    let id = kernel::cgroup_id(cgroup);
    match emit::reserve::<wire::CgroupRmdir>(Kind::CgroupRmdir, 1, now) {
        Reserved::Slot(slot) => {
            let record =
                wire::CgroupRmdir { header: emit::header::<wire::CgroupRmdir>(Kind::CgroupRmdir, 0, 0, now, id) };
            // SAFETY: a reserved place of this size.
            unsafe { slot.place().write(record) };
            slot.submit();
        }
        Reserved::No(refused) => refused.drop_record(),
    }
    Some(())
}

/// Version 1 hierarchies announce their directories by the same tracepoints; cgroup2 is hierarchy 0.
#[inline(always)]
fn is_version2(cgroup: Kptr) -> bool {
    let root: Kptr = read(cgroup, offset!(cgroup_root));
    read::<i32>(root, offset!(root_hierarchy)) == 0
}
