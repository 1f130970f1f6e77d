//! Empty programs on the hooks of the probes.

use std::collections::BTreeSet;
use std::fs::File;

use anyhow::{Context, Result, bail};
use aya::programs::cgroup_skb::CgroupSkbAttachType;
use aya::programs::{CgroupAttachMode, Program};
use aya::{Btf, Ebpf};
use system_tests::cgroup;

/// Attached empty programs, gone with their guard.
pub(crate) struct Empty {
    _ebpf: Ebpf,
}

/// Which tracepoint each program is for, by the program's name.
const TRACEPOINTS: [(&str, &str); 6] = [
    ("preexisting", "inet_sock_set_state"),
    ("exec", "sched_process_exec"),
    ("fork", "sched_process_fork"),
    ("exit", "sched_process_exit"),
    ("cgroup_mkdir", "cgroup_mkdir"),
    ("cgroup_rmdir", "cgroup_rmdir"),
];

impl Empty {
    /// Attaches every program of the object, cgroup programs at the root, as the agent does.
    pub(crate) fn attach(object: &[u8]) -> Result<Self> {
        let mut ebpf = Ebpf::load(object).context("load the empty programs")?;
        let root = cgroup::mount_point()?;
        let root = File::open(&root).with_context(|| format!("open {}", root.display()))?;
        let types = Btf::from_sys_fs().context("read the kernel's type information")?;
        for (name, program) in ebpf.programs_mut() {
            attach(name, program, &root, &types).with_context(|| format!("attach the empty program {name}"))?;
        }
        Ok(Self { _ebpf: ebpf })
    }
}

/// Names of the object's programs.
pub(crate) fn programs(object: &[u8]) -> Result<BTreeSet<String>> {
    let object = Ebpf::load(object).context("read the empty programs")?;
    Ok(object.programs().map(|(name, _)| name.to_owned()).collect())
}

fn attach(name: &str, program: &mut Program, root: &File, types: &Btf) -> Result<()> {
    let mode = CgroupAttachMode::Single;
    match program {
        Program::SockOps(program) => {
            program.load()?;
            program.attach(root, mode)?;
        }
        Program::CgroupSock(program) => {
            program.load()?;
            program.attach(root, mode)?;
        }
        Program::CgroupSockAddr(program) => {
            program.load()?;
            program.attach(root, mode)?;
        }
        Program::CgroupSkb(program) => {
            let direction = match name {
                "egress" => CgroupSkbAttachType::Egress,
                "ingress" => CgroupSkbAttachType::Ingress,
                _ => bail!("neither egress nor ingress"),
            };
            program.load()?;
            program.attach(root, direction, mode)?;
        }
        Program::BtfTracePoint(program) => {
            let tracepoint = TRACEPOINTS.iter().find(|(program, _)| *program == name);
            let (_, tracepoint) = tracepoint.context("its tracepoint is unknown")?;
            program.load(tracepoint, types)?;
            program.attach()?;
        }
        other => bail!("programs of type {:?} are unknown here", other.prog_type()),
    }
    Ok(())
}
