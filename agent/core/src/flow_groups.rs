//! Which security groups met a flow of a pod, and what their rules say of it.
//!
//! A policy says which groups a pod should have; that says little about a flow. The groups are in force or not, in one
//! mode or the other; what stays on the node meets none in standard mode, what leaves the VPC may leave by the node's
//! address, and a service's address is another one on the wire. [`Scene::truth`] answers who judged a flow, from facts
//! alone, and says so when they do not suffice; [`Scene::answer`] asks the rules of those groups. What a verdict rests on
//! is written down in the mode's documentation: <https://github.com/aws/amazon-vpc-cni-k8s#pod_security_group_enforcing_mode-v1110>.
//!
//! [`FlowGroups`] keeps the rules in their compiled form, tells each row of a fold what groups say of it, and keeps count
//! of the rules that were used and of what pods did, for [`audit`].

mod answer;
pub mod audit;
mod scene;
mod truth;
mod usage;

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use crate::cluster::{Cluster, HostSide};
use crate::ec2::{Ec2, MAX_WISHED_PEERS};
use crate::facts::PodFacts;
use crate::fast::FastMap;
use crate::output::{ActualPeer, AttributionKind, FlowRow, Output, PeerClass, Protocol, SgRow, SgVerdict, SgWhy};
use crate::peer::NodeAddresses;
use crate::sg::{Compiled, GroupId, PrefixListId, Side, Traffic, Transport};
use crate::time::{Moment, WallNs};

pub use self::answer::Explained;
use self::answer::Weighed;
pub use self::scene::Scene;
use self::scene::is_too_old;
pub use self::truth::{Judged, Question, Truth};
use self::usage::{Noted, Usage};

/// A verdict that waits for a peer is wished for so long after the last row that asked for it: ten minutes.
const WAIT_NS: i64 = 600 * 1_000_000_000;

/// What a scene is made of.
#[derive(Clone, Copy, Debug)]
pub struct Known<'a> {
    /// Pods, policies, events, the node.
    pub cluster: &'a Cluster,
    /// The node's interfaces.
    pub host: &'a HostSide,
    /// What EC2 told.
    pub ec2: &'a Ec2,
    /// The node's addresses.
    pub node: &'a NodeAddresses,
    /// `AWS_VPC_K8S_CNI_EXTERNALSNAT`: somebody else translates the addresses of what leaves the VPC; `None`: not known.
    pub external_snat: Option<bool>,
    /// Now.
    pub now: Moment,
}

/// See the module's text.
#[derive(Debug)]
pub struct FlowGroups {
    veth_prefix: String,
    compiled: Compiled,
    /// Of [`Ec2::revision`], as of the compiled form.
    revision: u64,
    /// Groups and prefix lists in the compiled form: those that EC2 told lately.
    in_force: (Vec<GroupId>, Vec<PrefixListId>),
    /// Peers on whose groups a verdict depends, with the last row that asked.
    waiting: BTreeMap<IpAddr, WallNs>,
    usage: Usage,
}

impl FlowGroups {
    /// Knows no rules yet. `veth_prefix`: what the CNI's host veths begin with.
    pub fn new(veth_prefix: String) -> Self {
        Self {
            veth_prefix,
            compiled: Compiled::new(&[], &[]),
            revision: 0,
            in_force: Default::default(),
            waiting: BTreeMap::new(),
            usage: Usage::default(),
        }
    }

    /// Time passes: rules that changed are compiled anew, without those that were told too long ago, and what nobody waits
    /// for any more is forgotten.
    pub fn tick(&mut self, ec2: &Ec2, now: WallNs) {
        self.waiting.retain(|_, asked| now.0.saturating_sub(asked.0) <= WAIT_NS);
        let groups = || ec2.told_groups().filter(|(_, at)| !is_too_old(*at, now)).map(|(facts, _)| &facts.group);
        let lists = || ec2.told_lists().filter(|(_, at)| !is_too_old(*at, now)).map(|(list, _)| list);
        let is_as_before =
            groups().map(|group| &group.id).eq(&self.in_force.0) && lists().map(|list| &list.id).eq(&self.in_force.1);
        if self.revision == ec2.revision() && is_as_before {
            return;
        }
        self.revision = ec2.revision();
        self.in_force =
            (groups().map(|group| group.id.clone()).collect(), lists().map(|list| list.id.clone()).collect());
        let (groups, lists): (Vec<_>, Vec<_>) = (groups().cloned().collect(), lists().cloned().collect());
        self.compiled = Compiled::new(&groups, &lists).with_vpc(ec2.vpc_ranges().unwrap_or_default().to_vec());
        self.usage.know(&groups, now);
    }

    /// What is known now, ready for questions.
    pub fn scene<'a>(&'a self, known: Known<'a>) -> Scene<'a> {
        Scene::new(known, &self.compiled, &self.veth_prefix)
    }

    /// Peers on whose groups a verdict depends.
    pub fn waiting(&self) -> impl Iterator<Item = IpAddr> {
        self.waiting.keys().copied()
    }

    /// Tells the rows of a fold what groups say of them.
    pub fn rows(&mut self, outputs: &mut [Output], known: Known<'_>) {
        let scene = Scene::new(known, &self.compiled, &self.veth_prefix);
        if scene.is_idle() {
            return;
        }
        // Rows of one pod stand apart by program and outcome: most ask the same.
        let mut pods: FastMap<String, Option<Arc<PodFacts>>> = FastMap::default();
        let mut answers: FastMap<Asked, Answered> = FastMap::default();
        for output in outputs {
            let Output::Flow(row) = output else { continue };
            let uid = &row.who.identity.uid;
            if row.who.identity.attribution != AttributionKind::Pod || uid.is_empty() {
                continue;
            }
            if !pods.contains_key(uid) {
                pods.insert(uid.clone(), scene.pod(uid).map(Arc::clone));
            }
            let Some(Some(pod)) = pods.get(uid) else { continue };
            let asked = match Asked::new(row, uid) {
                Ok(asked) => asked,
                Err((verdict, why)) => {
                    if why == SgWhy::RowIncomplete {
                        self.usage.hidden(row, &scene.unweighed(why, pod).open);
                    }
                    row.sg = Some(Box::new(answer::row(verdict, why)));
                    continue;
                }
            };
            let answered = answers.entry(asked).or_insert_with_key(|asked| Answered::new(&scene, pod, asked));
            let sg = answered.row_for(row);
            if answered.waits
                && self.waiting.len() < MAX_WISHED_PEERS
                && let Some(peer) = answered.peer
            {
                self.waiting.insert(peer, row.window.end);
            }
            self.usage.note(&Noted { row, pod, sg: &sg, side: answered.side, weighed: &answered.weighed });
            row.sg = Some(Box::new(sg));
        }
        self.usage.expire(&|uid| known.cluster.pods().of_cgroup(uid).is_some());
    }

    /// What was used.
    pub(crate) fn usage(&self) -> &Usage {
        &self.usage
    }
}

/// What rows with the same answer have in common.
#[derive(PartialEq, Eq, Hash)]
struct Asked {
    uid: String,
    outbound: bool,
    local: Option<IpAddr>,
    peer: IpAddr,
    traffic: Traffic,
    is_service: bool,
}

/// The other end of a row's connections as it is on the wire: its address, what it listens on, and whether the address is
/// a service's all the same, whose backend is not known. `None`: the row does not tell.
pub(crate) fn on_the_wire(row: &FlowRow) -> Option<(IpAddr, Traffic, bool)> {
    let transport = match row.protocol? {
        Protocol::Tcp => Transport::Tcp,
        Protocol::Udp => Transport::Udp,
    };
    let is_outbound = row.direction == "outbound";
    let (peer, port) = match row.actual_peer.filter(|_| is_outbound) {
        Some(ActualPeer { ip, port }) => (ip, port),
        None => (row.peer.ip.as_ref()?.parse().ok()?, row.service_port?),
    };
    let is_service = is_outbound && row.actual_peer.is_none() && row.peer.class == PeerClass::Service;
    Some((peer, Traffic::Port(transport, port), is_service))
}

impl Asked {
    fn new(row: &FlowRow, uid: &str) -> Result<Self, (SgVerdict, SgWhy)> {
        let incomplete = (SgVerdict::CannotTell, SgWhy::RowIncomplete);
        if matches!(row.outcome, Some("unreachable" | "denied")) {
            return Err((SgVerdict::NotJudged, SgWhy::NotSent));
        }
        let outbound = match row.direction {
            "outbound" => true,
            "inbound" => false,
            _ => return Err(incomplete),
        };
        let (peer, traffic, is_service) = on_the_wire(row).ok_or(incomplete)?;
        let local = row.local.ip.as_ref().and_then(|text| text.parse().ok());
        Ok(Self { uid: uid.to_owned(), outbound, local, peer, traffic, is_service })
    }
}

/// An answer, before it is known whether anything came back.
struct Answered {
    weighed: Weighed,
    side: Option<Side>,
    peer: Option<IpAddr>,
    waits: bool,
}

impl Answered {
    fn new(scene: &Scene<'_>, pod: &PodFacts, asked: &Asked) -> Self {
        let Asked { uid: _, outbound, local, peer, traffic, is_service } = *asked;
        let question = Question { pod, outbound, local, peer, traffic, is_service };
        let (weighed, side) = match scene.truth(&question) {
            Truth::NotJudged(why) => (Weighed::none(answer::row(SgVerdict::NotJudged, why)), None),
            Truth::CannotTell(why) => {
                (scene.unweighed(why, pod), Some(if outbound { Side::Egress } else { Side::Ingress }))
            }
            Truth::Judged(judged) => (scene.weigh(&judged), Some(judged.side)),
        };
        let waits = weighed.row.why == Some(SgWhy::PeerUnknown);
        Self { weighed, side, peer: Some(peer), waits }
    }

    fn row_for(&self, row: &FlowRow) -> SgRow {
        let mut sg = self.weighed.row.clone();
        if sg.verdict == SgVerdict::NoRule && is_answered(row) {
            sg.why = Some(SgWhy::TrackedOrOtherGroups);
        }
        sg
    }
}

/// Whether something came back, or came in.
pub(crate) fn is_answered(row: &FlowRow) -> bool {
    row.direction == "inbound"
        || row.bytes_received > 0
        || row.rtt_us.is_some()
        || matches!(row.outcome, Some("established" | "reset" | "refused"))
}
