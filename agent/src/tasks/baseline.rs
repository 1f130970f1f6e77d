//! What was there before the agent: the node's addresses, cgroups and processes, as inputs.

use std::net::IpAddr;
use std::path::Path;

use agent_core::facts::HostFact;
use agent_core::input::Input;

use crate::node;

/// In the order the Engine wants: cgroups before the processes in them.
pub(super) fn read(proc_root: &Path, cgroup_root: &Path, keep_args: bool) -> Vec<Input> {
    let mut inputs = vec![Input::NodeAddresses(addresses())];
    inputs.extend(node::cgroups(cgroup_root));
    inputs.extend(node::processes(proc_root, cgroup_root, keep_args));
    inputs
}

/// Settings of the node that findings rest on and that may change.
pub(super) fn settings(proc_root: &Path) -> Input {
    Input::Host(Box::new(HostFact::TcpEarlyDemux(node::tcp_early_demux(proc_root))))
}

/// The node's own addresses.
pub(super) fn addresses() -> Vec<IpAddr> {
    node::addresses()
}
