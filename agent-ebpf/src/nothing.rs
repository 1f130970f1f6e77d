//! The empty programs. Asking for callbacks is work already: here `tcp` runs only as often as the kernel calls any
//! `sock_ops` program.
#![expect(clippy::needless_pass_by_value, reason = "aya's macros hand contexts over by value")]

use aya_ebpf::macros::{btf_tracepoint, cgroup_skb, cgroup_sock, cgroup_sock_addr, sock_ops};
use aya_ebpf::programs::{BtfTracePointContext, SkBuffContext, SockAddrContext, SockContext, SockOpsContext};

use agent_ebpf::rules::ALLOW;

/// The one form of cgroup programs has a call.
#[inline(always)]
fn try_nothing<T>(_: &T) {}

#[sock_ops]
pub fn tcp(ctx: SockOpsContext) -> u32 {
    try_nothing(&ctx);
    ALLOW as u32
}

#[cgroup_sock_addr(connect4)]
pub fn connect4(ctx: SockAddrContext) -> i32 {
    try_nothing(&ctx);
    ALLOW
}

#[cgroup_sock_addr(connect6)]
pub fn connect6(ctx: SockAddrContext) -> i32 {
    try_nothing(&ctx);
    ALLOW
}

#[cgroup_sock(sock_release)]
pub fn release(ctx: SockContext) -> i32 {
    try_nothing(&ctx);
    ALLOW
}

#[cgroup_skb(egress)]
pub fn egress(ctx: SkBuffContext) -> i32 {
    try_nothing(&ctx);
    ALLOW
}

#[cgroup_skb(ingress)]
pub fn ingress(ctx: SkBuffContext) -> i32 {
    try_nothing(&ctx);
    ALLOW
}

#[btf_tracepoint(function = "inet_sock_set_state")]
pub fn preexisting(_: BtfTracePointContext) -> i32 {
    0
}

#[btf_tracepoint(function = "sched_process_exec")]
pub fn exec(_: BtfTracePointContext) -> i32 {
    0
}

#[btf_tracepoint(function = "sched_process_fork")]
pub fn fork(_: BtfTracePointContext) -> i32 {
    0
}

#[btf_tracepoint(function = "sched_process_exit")]
pub fn exit(_: BtfTracePointContext) -> i32 {
    0
}

#[btf_tracepoint(function = "cgroup_mkdir")]
pub fn cgroup_mkdir(_: BtfTracePointContext) -> i32 {
    0
}

#[btf_tracepoint(function = "cgroup_rmdir")]
pub fn cgroup_rmdir(_: BtfTracePointContext) -> i32 {
    0
}
