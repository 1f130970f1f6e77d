//! Processes: exec, fork (threads are skipped) and exit of the last thread. In process context, never from softirq, so
//! that the kernel has no reason to skip them.

use core::ptr::{addr_of, read_volatile, write_volatile};

use aya_ebpf::helpers::generated::{bpf_probe_read_kernel_str, bpf_probe_read_user};
use aya_ebpf::macros::btf_tracepoint;
use aya_ebpf::programs::BtfTracePointContext;

use agent_ebpf::wire::{self, ARGS_BYTES, EXE_PATH_BYTES, Kind, flags};

use super::emit::{self, Reserved};
use super::kernel::{self, Kptr, offset, read};
use super::maps::{EXEC_SCRATCH, SETTINGS};

/// `sched_process_exec(task, old_pid, bprm)`.
#[btf_tracepoint(function = "sched_process_exec")]
pub fn exec(ctx: BtfTracePointContext) -> i32 {
    try_exec(&ctx);
    0
}

#[inline(always)]
fn try_exec(ctx: &BtfTracePointContext) -> Option<()> {
    let task: Kptr = ctx.arg(0);
    let program: Kptr = ctx.arg(2);
    let now = emit::now_ns();
    let scratch = EXEC_SCRATCH.get_ptr_mut(0)?;
    // SAFETY: this CPU's scratch; tracepoints run with preemption off.
    let scratch = unsafe { &mut *scratch };
    let path: Kptr = read(program, offset!(bprm_filename));
    // SAFETY: the destination has this size.
    let copied =
        unsafe { bpf_probe_read_kernel_str(scratch.data.as_mut_ptr().cast(), EXE_PATH_BYTES as u32, path.cast()) };
    if copied < 1 {
        return None;
    }
    let mut bits = if copied as usize == EXE_PATH_BYTES { flags::PATH_CUT } else { 0 };
    // Without the NUL. Bounded where the verifier sees it: the copy says at most EXE_PATH_BYTES.
    let path_len = bounded((copied - 1) as u64, EXE_PATH_BYTES as u64 - 1);
    let mut args_len = 0;
    // SAFETY: plain integers, frozen.
    if unsafe { read_volatile(addr_of!(SETTINGS.keep_args)) } != 0 {
        let memory: Kptr = read(task, offset!(task_mm));
        let start: u64 = read(memory, offset!(mm_arg_start));
        let end: u64 = read(memory, offset!(mm_arg_end));
        let all = end.saturating_sub(start);
        if all > ARGS_BYTES as u64 {
            bits |= flags::ARGS_CUT;
        }
        let wanted = bounded(all.min(ARGS_BYTES as u64 - 1), ARGS_BYTES as u64 - 1);
        // SAFETY: path_len < EXE_PATH_BYTES.
        let to = unsafe { scratch.data.as_mut_ptr().add(path_len as usize) };
        // SAFETY: wanted < ARGS_BYTES, for which `data` has room behind the path.
        let result = unsafe { bpf_probe_read_user(to.cast(), wanted as u32, start as *const _) };
        if result == 0 {
            args_len = wanted;
        }
    }
    let cgroup_id = kernel::task_cgroup_id(task);
    let credentials: Kptr = read(task, offset!(task_cred));
    scratch.fixed = wire::Exec {
        header: emit::header::<wire::Exec>(Kind::Exec, bits, (path_len + args_len) as u32, now, cgroup_id),
        process: kernel::named_of(task),
        parent: kernel::parent_of(task),
        path_len: path_len as u16,
        args_len: args_len as u16,
        uid: read(credentials, offset!(cred_uid)),
    };
    let len = bounded(
        size_of::<wire::Exec>() as u64 + path_len + args_len,
        // One less than a power of two, and no more than the scratch holds.
        1023,
    )
    .min(size_of::<super::maps::ExecScratch>() as u64);
    emit::output(Kind::Exec, cgroup_id, now, core::ptr::from_ref(scratch), len as u32);
    Some(())
}

/// `sched_process_fork(parent, child)`.
#[btf_tracepoint(function = "sched_process_fork")]
pub fn fork(ctx: BtfTracePointContext) -> i32 {
    try_fork(&ctx);
    0
}

#[inline(always)]
fn try_fork(ctx: &BtfTracePointContext) -> Option<()> {
    let parent: Kptr = ctx.arg(0);
    let child: Kptr = ctx.arg(1);
    if read::<u32>(child, offset!(task_pid)) != read::<u32>(child, offset!(task_tgid)) {
        return None;
    }
    let now = emit::now_ns();
    let cgroup_id = kernel::task_cgroup_id(child);
    match emit::reserve::<wire::Fork>(Kind::Fork, cgroup_id, now) {
        Reserved::Slot(slot) => {
            let record = wire::Fork {
                header: emit::header::<wire::Fork>(Kind::Fork, 0, 0, now, cgroup_id),
                child: kernel::named_of(child),
                parent: kernel::owner_of(parent),
            };
            // SAFETY: a reserved place of this size.
            unsafe { slot.place().write(record) };
            slot.submit();
        }
        Reserved::No(refused) => refused.drop_record(),
    }
    Some(())
}

/// `sched_process_exit(task, …)`.
#[btf_tracepoint(function = "sched_process_exit")]
pub fn exit(ctx: BtfTracePointContext) -> i32 {
    try_exit(&ctx);
    0
}

#[inline(always)]
fn try_exit(ctx: &BtfTracePointContext) -> Option<()> {
    let task: Kptr = ctx.arg(0);
    let signal: Kptr = read(task, offset!(task_signal));
    if read::<i32>(signal, offset!(signal_live)) != 0 {
        return None;
    }
    let now = emit::now_ns();
    let cgroup_id = kernel::task_cgroup_id(task);
    match emit::reserve::<wire::Exit>(Kind::Exit, cgroup_id, now) {
        Reserved::Slot(slot) => {
            let record = wire::Exit {
                header: emit::header::<wire::Exit>(Kind::Exit, 0, 0, now, cgroup_id),
                process: kernel::owner_of(task),
            };
            // SAFETY: a reserved place of this size.
            unsafe { slot.place().write(record) };
            slot.submit();
        }
        Reserved::No(refused) => refused.drop_record(),
    }
    Some(())
}

/// `value & mask`, in a way that the compiler cannot see through and the verifier can.
#[inline(always)]
pub fn bounded(value: u64, mask: u64) -> u64 {
    let mut hidden = value;
    // SAFETY: a local.
    unsafe { write_volatile(&raw mut hidden, value) };
    // SAFETY: a local.
    let hidden = unsafe { read_volatile(&raw const hidden) };
    hidden & mask
}
