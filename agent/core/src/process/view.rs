//! A process as rows show it: with its ancestors, as far as they are known.

use agent_ebpf::wire::Owner;

use super::{Process, ProcessTable};
use crate::input::NamedProcess;
use crate::output::{Ancestor, By, ProcessView};

/// Most ancestors shown: enough for shell, supervisor, container shim and init.
pub const ANCESTORS: usize = 8;

impl ProcessTable {
    /// The process behind an owner mark. One that is not known shows its number alone.
    pub fn view(&self, owner: Owner, by: By) -> ProcessView {
        let process = self.get(owner);
        let mut ancestors = Vec::new();
        self.climb(process.and_then(|process| process.parent), &mut ancestors);
        build(owner.tgid, process, None, ancestors, by)
    }

    /// A process that a record named itself, with the ancestors that it carried: those come first, the table completes
    /// them.
    pub fn named_view(&self, named: &NamedProcess, carried: &[NamedProcess], by: By) -> ProcessView {
        let mut ancestors: Vec<Ancestor> = carried
            .iter()
            .take(ANCESTORS)
            .map(|ancestor| Ancestor {
                pid: ancestor.owner.tgid,
                comm: ancestor.comm.clone(),
                exe: self.get(ancestor.owner).and_then(exe),
            })
            .collect();
        let last = carried.last().map_or(named.owner, |ancestor| ancestor.owner);
        self.climb(self.get(last).and_then(|process| process.parent), &mut ancestors);
        build(named.owner.tgid, self.get(named.owner), Some(&named.comm), ancestors, by)
    }

    /// Appends ancestors from `next` upwards until the chain breaks or [`ANCESTORS`] are there.
    fn climb(&self, mut next: Option<Owner>, ancestors: &mut Vec<Ancestor>) {
        while ancestors.len() < ANCESTORS {
            let Some((owner, process)) = next.and_then(|owner| Some((owner, self.get(owner)?))) else { return };
            ancestors.push(Ancestor { pid: owner.tgid, comm: process.comm.to_string(), exe: exe(process) });
            next = process.parent;
        }
    }
}

fn build(pid: u32, process: Option<&Process>, comm: Option<&str>, ancestors: Vec<Ancestor>, by: By) -> ProcessView {
    ProcessView {
        pid,
        exe: process.and_then(exe),
        exe_resolved: process.and_then(|process| process.exe_resolved.as_deref().map(str::to_owned)),
        comm: comm.or(process.map(|process| &*process.comm)).unwrap_or_default().to_owned(),
        args: process.map(|process| process.args.to_vec()).unwrap_or_default(),
        ancestors,
        by,
    }
}

fn exe(process: &Process) -> Option<String> {
    process.exe.as_deref().map(str::to_owned)
}
