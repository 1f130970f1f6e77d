//! Reading kernel structs: fields at the offsets that the agent took from the running kernel's BTF.
//!
//! Pointers here are what the verifier calls `PTR_TO_BTF_ID` (tracepoint arguments, `bpf_skc_to_tcp_sock`,
//! `bpf_get_current_task_btf`, and pointers read through those): it checks each load against the struct's type, and a
//! load from a stale pointer yields zero instead of a fault.

use aya_ebpf::helpers::generated::{bpf_get_current_task_btf, bpf_sk_storage_get, bpf_skc_to_tcp_sock};

use agent_ebpf::rules;
use agent_ebpf::shared::Offsets;
use agent_ebpf::wire::{ANCESTORS, COMM_BYTES, Named, Owner, Tuple};

/// A pointer into a kernel struct.
pub type Kptr = *const u8;

const AF_INET: u16 = 2;

/// Offset of one field; volatile, or the compiler would fold the placeholder zero.
macro_rules! offset {
    ($field:ident) => {{
        // SAFETY: a static of plain integers.
        unsafe { core::ptr::read_volatile(core::ptr::addr_of!($crate::probes::maps::OFFSETS.$field)) as usize }
    }};
}
pub(crate) use offset;

/// Reads a field.
#[inline(always)]
pub fn read<T: Copy>(base: Kptr, offset: usize) -> T {
    // SAFETY: the offset of a member of what `base` points to.
    let field = unsafe { base.add(offset) }.cast::<T>();
    // SAFETY: see the module's documentation.
    unsafe { *field }
}

const _: () = assert!(size_of::<Offsets>() == 4 * Offsets::SOURCES.len());

/// The current task.
#[inline(always)]
pub fn current() -> Kptr {
    // SAFETY: no argument.
    unsafe { bpf_get_current_task_btf() }.cast::<u8>()
}

/// The process a task belongs to.
#[inline(always)]
pub fn owner_of(task: Kptr) -> Owner {
    let leader: Kptr = read(task, offset!(task_leader));
    Owner { start_ns: read(leader, offset!(task_start)), tgid: read(task, offset!(task_tgid)), pad: 0 }
}

/// The process a task belongs to, with its name.
#[inline(always)]
pub fn named_of(task: Kptr) -> Named {
    let leader: Kptr = read(task, offset!(task_leader));
    let comm_at = offset!(task_comm);
    let mut comm = [0u8; COMM_BYTES];
    let halves: [u64; 2] = [read(leader, comm_at), read(leader, comm_at + 8)];
    comm[..8].copy_from_slice(&halves[0].to_ne_bytes());
    comm[8..].copy_from_slice(&halves[1].to_ne_bytes());
    Named {
        owner: Owner { start_ns: read(leader, offset!(task_start)), tgid: read(leader, offset!(task_tgid)), pad: 0 },
        comm,
    }
}

/// The process that made a process.
#[inline(always)]
pub fn parent_of(task: Kptr) -> Owner {
    let leader: Kptr = read(task, offset!(task_leader));
    owner_of(read(leader, offset!(task_parent)))
}

/// Fills a list of ancestors, parent first. `init` and kthreadd have themselves or the idle task above: the list ends.
#[inline(always)]
pub fn ancestors_of(task: Kptr, ancestors: &mut [Named; ANCESTORS]) {
    let mut at = task;
    for slot in ancestors.iter_mut() {
        let leader: Kptr = read(at, offset!(task_leader));
        at = read(leader, offset!(task_parent));
        *slot = named_of(at);
    }
}

/// cgroup2 id of a task.
#[inline(always)]
pub fn task_cgroup_id(task: Kptr) -> u64 {
    let set: Kptr = read(task, offset!(task_cgroups));
    cgroup_id(read(set, offset!(css_dfl_cgroup)))
}

/// Id of a cgroup: the inode of its directory.
#[inline(always)]
pub fn cgroup_id(cgroup: Kptr) -> u64 {
    let node: Kptr = read(cgroup, offset!(cgroup_kn));
    read(node, offset!(kernfs_id))
}

/// cgroup2 id of a socket.
#[inline(always)]
pub fn sock_cgroup_id(sk: Kptr) -> u64 {
    cgroup_id(read(sk, offset!(sk_cgroup)))
}

/// The `tcp_sock` behind a socket that the context hands out; `None` for other protocols and request sockets.
#[inline(always)]
pub fn tcp_sock<T>(sk: *mut T) -> Option<Kptr> {
    // SAFETY: the verifier admits only socket pointers here.
    let tcp = unsafe { bpf_skc_to_tcp_sock(sk.cast()) }.cast::<u8>().cast_const();
    if tcp.is_null() { None } else { Some(tcp) }
}

/// Addresses and ports of a TCP socket.
#[inline(always)]
pub fn tuple_of(sk: Kptr) -> Tuple {
    let family: u16 = read(sk, offset!(sk_family));
    let (local, remote) = if family == AF_INET {
        (
            rules::mapped(read::<u32>(sk, offset!(sk_rcv_saddr)).to_ne_bytes()),
            rules::mapped(read::<u32>(sk, offset!(sk_daddr)).to_ne_bytes()),
        )
    } else {
        (read_v6(sk, offset!(sk_v6_rcv_saddr)), read_v6(sk, offset!(sk_v6_daddr)))
    };
    Tuple {
        local,
        remote,
        local_port: u16::from_be(read(sk, offset!(inet_sport))),
        remote_port: u16::from_be(read(sk, offset!(sk_dport))),
        netns: netns_of(sk),
    }
}

/// Inode of a socket's network namespace.
#[inline(always)]
pub fn netns_of(sk: Kptr) -> u32 {
    let net: Kptr = read(sk, offset!(sk_net));
    read(net, offset!(net_inum))
}

#[inline(always)]
fn read_v6(sk: Kptr, at: usize) -> [u8; 16] {
    let words: [u32; 4] = [read(sk, at), read(sk, at + 4), read(sk, at + 8), read(sk, at + 12)];
    // SAFETY: same size, no padding.
    unsafe { core::mem::transmute(words) }
}

/// An entry of a socket storage map; `create` makes a zeroed one when there is none.
#[inline(always)]
pub fn storage<M, V, S>(map: &M, sk: *mut S, create: bool) -> Option<&'static mut V> {
    let flags = u64::from(create);
    let map = core::ptr::from_ref(map).cast_mut().cast();
    // SAFETY: the verifier checks the map's and the socket's types; the value lives as long as the socket, under RCU.
    let value = unsafe { bpf_sk_storage_get(map, sk.cast(), core::ptr::null_mut(), flags) }.cast::<V>();
    // SAFETY: null or a valid value of the map's type; racing writers use atomics or own their fields.
    unsafe { value.as_mut() }
}
