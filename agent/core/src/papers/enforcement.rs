//! Whether the security groups of a pod are in force on the node, and in which mode.
//!
//! The annotation proves nothing: the controller sums the resource over all containers, the CNI looks at the first
//! one's limits only. What counts is the pod's address and the interfaces that the CNI made. A pod's mode is fixed when
//! it is made, so the CNI's present setting says nothing about it either; the name of its host veth does. Sources:
//! `pkg/networkutils/names.go`, `pkg/sgpp/utils.go` and `cmd/routed-eni-cni-plugin/driver/driver.go` of
//! aws/amazon-vpc-cni-k8s.

use std::sync::Arc;

use serde::{Deserialize, Serialize};
use sha1::{Digest as _, Sha1};

use super::why;
use crate::facts::{Branch, BranchInterface, LinkFacts, PodFacts};
use crate::fast::{FastMap, FastSet};
use crate::time::WallNs;

/// Host veths of pods in strict mode begin with it, whatever the CNI is told.
const STRICT_PREFIX: &str = "vlan";
/// Hex digits of the digest in a name: with a prefix of four letters the 15 that Linux allows.
const DIGITS: usize = 11;

/// How security groups are applied to a pod.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Mode {
    /// All traffic goes through the branch interface.
    Strict,
    /// Traffic on the same node, and what leaves the VPC by the node's address, does not.
    Standard,
}

/// Whether a pod's groups are in force.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Enforcement {
    /// They are.
    Enforced,
    /// They are not.
    Not(Gap),
    /// Not enough is known.
    CannotTell(&'static str),
}

/// What is missing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Gap {
    /// The pod has no branch interface.
    Interface,
    /// It has one, and an address that is not its.
    Address,
    /// It has one and its address, and the node has no device for it.
    Device,
}

/// The node's interfaces by name.
#[derive(Debug)]
pub struct Links<'a> {
    by_name: FastMap<&'a str, &'a LinkFacts>,
    at: WallNs,
    /// Uids of pods that were told as running only after this.
    too_old_for: FastSet<Arc<str>>,
}

impl<'a> Links<'a> {
    /// Interfaces as they were at a moment.
    pub fn new(links: &'a [LinkFacts], at: WallNs) -> Self {
        let by_name = links.iter().map(|link| (&*link.name, link)).collect();
        Self { by_name, at, too_old_for: FastSet::default() }
    }

    /// They say nothing of these pods, which were told as running only later: the CNI makes a pod's device well after the
    /// kubelet took the pod.
    #[must_use]
    pub fn too_old_for(self, uids: impl IntoIterator<Item = Arc<str>>) -> Self {
        Self { too_old_for: uids.into_iter().collect(), ..self }
    }

    fn get(&self, name: &str) -> Option<&'a LinkFacts> {
        self.by_name.get(name).copied()
    }
}

impl Mode {
    /// Name in rows and on the command line.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Strict => "strict",
            Self::Standard => "standard",
        }
    }
}

/// Name of a pod's host veth: a prefix and 11 hex digits of the SHA-1 of `namespace.pod`, `namespace.pod.index` for
/// further network cards.
pub fn host_veth(prefix: &str, namespace: &str, pod: &str, index: u32) -> String {
    let mut digest = Sha1::new();
    digest.update(namespace);
    digest.update(".");
    digest.update(pod);
    if index > 0 {
        digest.update(format!(".{index}"));
    }
    let mut name = prefix.to_owned();
    let digits = digest.finalize().into_iter().flat_map(|byte| [byte >> 4, byte & 0xf]);
    name.extend(digits.take(DIGITS).filter_map(|digit| char::from_digit(u32::from(digit), 16)));
    name
}

/// The mode that a pod was made in, from its host veth; `prefix` is what the CNI's other veths begin with.
pub fn mode(pod: &PodFacts, links: Option<&Links<'_>>, prefix: &str) -> Result<Mode, &'static str> {
    let links = current(pod, links)?;
    let strict = links.get(&host_veth(STRICT_PREFIX, &pod.namespace, &pod.name, 0)).is_some();
    let plain = links.get(&host_veth(prefix, &pod.namespace, &pod.name, 0)).is_some();
    let device = || interfaces(pod).iter().any(|branch| links.get(&device_name(branch)).is_some());
    match (strict, plain) {
        (true, false) => Ok(Mode::Strict),
        (false, true) if device() => Ok(Mode::Standard),
        _ => Err(why::MODE),
    }
}

/// Whether a running pod's groups are in force: its address is a branch interface's, and the node has that interface's
/// VLAN device with its hardware address.
pub fn enforcement(pod: &PodFacts, links: Option<&Links<'_>>) -> Enforcement {
    match &pod.branch {
        Branch::Absent => return Enforcement::Not(Gap::Interface),
        Branch::Malformed(_) => return Enforcement::CannotTell(why::ANNOTATION),
        Branch::Interfaces(branches) if branches.is_empty() => return Enforcement::Not(Gap::Interface),
        Branch::Interfaces(_) => {}
    }
    if pod.ips.is_empty() {
        return Enforcement::CannotTell(why::ADDRESS);
    }
    let own = |branch: &&BranchInterface| [branch.ipv4, branch.ipv6].iter().flatten().any(|ip| pod.ips.contains(ip));
    let mut own = interfaces(pod).iter().filter(own).peekable();
    if own.peek().is_none() {
        return Enforcement::Not(Gap::Address);
    }
    let links = match current(pod, links) {
        Ok(links) => links,
        Err(why) => return Enforcement::CannotTell(why),
    };
    let has_device = |branch: &BranchInterface| {
        links.get(&device_name(branch)).is_some_and(|link| link.mac.eq_ignore_ascii_case(&branch.mac))
    };
    if own.any(has_device) { Enforcement::Enforced } else { Enforcement::Not(Gap::Device) }
}

/// The 802.1q device of a branch interface on the node.
pub fn device_name(branch: &BranchInterface) -> String {
    format!("vlan.eth.{}", branch.vlan_id)
}

fn interfaces(pod: &PodFacts) -> &[BranchInterface] {
    match &pod.branch {
        Branch::Interfaces(branches) => branches,
        Branch::Absent | Branch::Malformed(_) => &[],
    }
}

/// Interfaces that were read after the pod started and was told as running.
fn current<'a, 'b>(pod: &PodFacts, links: Option<&'a Links<'b>>) -> Result<&'a Links<'b>, &'static str> {
    let links = links.ok_or(why::LINKS)?;
    if pod.uid.as_ref().is_some_and(|uid| links.too_old_for.contains(uid)) {
        return Err(why::LINKS_OLD);
    }
    match pod.started.or(pod.created) {
        Some(started) if started >= links.at => Err(why::LINKS_OLD),
        _ => Ok(links),
    }
}

#[cfg(test)]
mod tests;
