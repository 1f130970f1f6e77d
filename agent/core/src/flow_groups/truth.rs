//! Who judged a flow: the pod's groups, the node's, or nobody's.
//!
//! | the pod | the flow | judged by |
//! |---|---|---|
//! | strict mode | any | its groups; link-local addresses of the node are out of reach |
//! | standard mode | on this node | nobody's |
//! | standard mode | within the VPC, or from another host | its groups |
//! | standard mode | out of the VPC, translated by the CNI | the node's, by the node's address |
//! | standard mode | out of the VPC, translated elsewhere (`AWS_VPC_K8S_CNI_EXTERNALSNAT`) | its groups |
//! | groups not in force, host network | on this node | nobody's |
//! | groups not in force, host network | any other | those of the node's interface that it leaves by |
//!
//! An address of a service is translated on the node: neither peer nor port on the wire are known. Only a rule that fits
//! whatever they are tells anything, unless the backend is known: then it is the peer.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::scene::{Held, Here, Placement, Scene};
use crate::facts::PodFacts;
use crate::output::{JudgedBy, PeerClass, SgWhy};
use crate::papers::enforcement::Mode;
use crate::peer::{classify, is_link_local, is_public};
use crate::sg::{Ends, Family, Flow, GroupId, Side, Traffic};
use crate::time::WallNs;

/// Addresses that the CNI gives pods of an IPv6 cluster for IPv4, and of an IPv4 cluster for IPv6: always translated to
/// the node's (<https://github.com/aws/amazon-vpc-cni-k8s/tree/master/cmd/egress-cni-plugin>).
const EGRESS_V4: (Ipv4Addr, u32) = (Ipv4Addr::new(169, 254, 172, 0), 22);
const EGRESS_V6: (Ipv6Addr, u32) = (Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0xac, 0), 118);

/// A flow of a pod.
#[derive(Clone, Copy, Debug)]
pub struct Question<'a> {
    /// The pod.
    pub pod: &'a PodFacts,
    /// It began it.
    pub outbound: bool,
    /// Its address; `None`: one of the pod's.
    pub local: Option<IpAddr>,
    /// The other end: the backend behind a service's address, where it is known, else the address that the pod knows.
    pub peer: IpAddr,
    /// Protocol and the listening side's port, of the backend where it is known.
    pub traffic: Traffic,
    /// The peer's address is a service's, and the backend is not known.
    pub is_service: bool,
}

/// See the module's text.
#[derive(Clone, Debug, PartialEq)]
pub enum Truth {
    /// No group saw it.
    NotJudged(SgWhy),
    /// Not enough is known.
    CannotTell(SgWhy),
    /// These groups judged it.
    Judged(Judged),
}

/// Whose groups judged a flow.
#[derive(Clone, Debug, PartialEq)]
pub struct Judged {
    /// Whose the own end's groups are.
    pub by: JudgedBy,
    /// The flow on the wire.
    pub flow: Flow,
    /// The side that the own end's groups judge.
    pub side: Side,
    /// Groups of the own end.
    pub own: Vec<GroupId>,
    /// Groups of the other end; `None`: not known, empty: it has none that are known of.
    pub peer: Option<Vec<GroupId>>,
    /// When EC2 told the older of both; `None`: it told neither.
    pub told: Option<WallNs>,
    /// The other end is out of the VPC: it may have groups that nobody here can know, as instances and load balancers have
    /// behind public addresses.
    pub is_public: bool,
    /// The other end hands on what comes to it, as a Network Load Balancer does.
    pub forwards: bool,
    /// Peer and port on the wire may be others, and why.
    pub translated: Option<SgWhy>,
    /// The backend may be on this node, where nobody judges.
    pub may_stay: bool,
}

impl Scene<'_> {
    /// Who judged a flow.
    pub fn truth(&self, question: &Question<'_>) -> Truth {
        let pod = question.pod;
        let peer = question.peer.to_canonical();
        let is_own = !pod.host_network && pod.ips.iter().any(|ip| ip.to_canonical() == peer);
        if peer.is_loopback() || is_own {
            return Truth::NotJudged(SgWhy::SamePod);
        }
        let port = match question.traffic {
            Traffic::Port(_, port) if question.outbound => Some(port),
            _ => None,
        };
        let class = classify(peer, port, self.known.node);
        if matches!(class, PeerClass::Imds | PeerClass::PodIdentity) {
            return Truth::NotJudged(SgWhy::UnfilteredService);
        }
        let here = self.here(peer, class);
        let asked = Asked { question, peer, class, here };
        match self.placement(pod) {
            Placement::CannotTell(why) => Truth::CannotTell(why),
            Placement::Node => self.of_node(&asked),
            Placement::Own(mode) => self.of_pod(&asked, mode),
        }
    }

    /// What the pod's own groups would say of a flow that went past them.
    pub(crate) fn had_it_been_judged(&self, question: &Question<'_>) -> Option<Judged> {
        if question.is_service {
            return None;
        }
        let peer = question.peer.to_canonical();
        let class = classify(peer, None, self.known.node);
        let asked = Asked { question, peer, class, here: self.here(peer, class) };
        match self.judged(&asked, JudgedBy::Pod, self.interface_groups(question.pod), None) {
            Truth::Judged(judged) => Some(judged),
            Truth::NotJudged(_) | Truth::CannotTell(_) => None,
        }
    }

    fn of_pod(&self, asked: &Asked<'_, '_>, mode: Option<Mode>) -> Truth {
        let Asked { question, peer, here, .. } = *asked;
        let own = || self.interface_groups(question.pod);
        let by_node = || self.judged(asked, JudgedBy::Node, self.node_groups(), None);
        let by_pod = |translated| self.judged(asked, JudgedBy::Pod, own(), translated);
        if leaves_by_plugin(question, peer) {
            return by_node();
        }
        let in_vpc = self.is_in_vpc(asked);
        match (mode, here) {
            // Within the VPC and on another host both modes are alike.
            (None, Here::No) if in_vpc == Some(true) => by_pod(None),
            (None, _) => Truth::CannotTell(SgWhy::ModeUnknown),
            (Some(Mode::Strict), _) if is_link_local(peer) => Truth::NotJudged(SgWhy::LinkLocal),
            (Some(Mode::Strict), Here::Pod(_) | Here::Node) => by_pod(None),
            (Some(Mode::Strict), Here::No) => by_pod(translated(asked, in_vpc)),
            (Some(Mode::Standard), Here::Pod(other)) => match self.placement(other) {
                Placement::Own(Some(Mode::Strict) | None) => Truth::CannotTell(SgWhy::ModesDiffer),
                _ => Truth::NotJudged(SgWhy::SameNode),
            },
            (Some(Mode::Standard), Here::Node) => Truth::NotJudged(SgWhy::SameNode),
            (Some(Mode::Standard), Here::No) if is_link_local(peer) => Truth::NotJudged(SgWhy::SameNode),
            (Some(Mode::Standard), Here::No) if !question.outbound || in_vpc == Some(true) => by_pod(None),
            (Some(Mode::Standard), Here::No) => match (translated(asked, in_vpc), self.known.external_snat) {
                // Nobody translates IPv6 on the way out.
                (None, _) if peer.is_ipv6() => by_pod(None),
                (None, Some(true)) => by_pod(None),
                // Public by its looks, and perhaps the VPC's all the same.
                (None, _) if in_vpc.is_none() => Truth::CannotTell(SgWhy::VpcUnknown),
                (None, Some(false)) => by_node(),
                (None, None) => Truth::CannotTell(SgWhy::SnatUnknown),
                (Some(why), _) => match by_pod(Some(why)) {
                    Truth::Judged(judged) => Truth::Judged(Judged { may_stay: true, ..judged }),
                    other => other,
                },
            },
        }
    }

    fn of_node(&self, asked: &Asked<'_, '_>) -> Truth {
        let Asked { question, peer, here, .. } = *asked;
        let pod = question.pod;
        let is_strict = |other: &PodFacts| matches!(self.placement(other), Placement::Own(Some(Mode::Strict)));
        match here {
            // Pods in strict mode are reached by way of the VPC, from this node too.
            Here::Pod(other) if is_strict(other) => {}
            Here::Pod(_) | Here::Node => return Truth::NotJudged(SgWhy::SameNode),
            Here::No if is_link_local(peer) => return Truth::NotJudged(SgWhy::SameNode),
            Here::No => {}
        }
        let in_vpc = self.is_in_vpc(asked);
        let translated = translated(asked, in_vpc);
        let own = if pod.host_network || leaves_by_plugin(question, peer) {
            self.node_groups()
        } else {
            let addresses = question.local.into_iter().chain(pod.ips.iter().copied());
            let of_interface = addresses.map(|ip| ip.to_canonical()).find_map(|ip| self.groups_here(ip));
            match self.leaves_by_node(asked, in_vpc, translated) {
                Ok(true) => self.node_groups(),
                Ok(false) => of_interface,
                // By whichever: where both have the same groups that is of no matter.
                Err(why) => match (self.node_groups(), of_interface) {
                    (Some(node), Some(interface)) if !node.is_same(&interface) => return Truth::CannotTell(why),
                    (node, interface) => node.and(interface),
                },
            }
        };
        match self.judged(asked, JudgedBy::Node, own, translated) {
            Truth::Judged(judged) => {
                let may_stay = judged.translated.is_some();
                Truth::Judged(Judged { may_stay, ..judged })
            }
            other => other,
        }
    }

    /// Whether what a pod without groups of its own sends leaves by the node's address, and so by its first interface; or
    /// why that cannot be told.
    fn leaves_by_node(
        &self,
        asked: &Asked<'_, '_>,
        in_vpc: Option<bool>,
        translated: Option<SgWhy>,
    ) -> Result<bool, SgWhy> {
        // Nobody translates IPv6 on the way out.
        if !asked.question.outbound || asked.peer.is_ipv6() || self.known.external_snat == Some(true) {
            return Ok(false);
        }
        match (translated, in_vpc, self.known.external_snat) {
            (Some(why), ..) => Err(why),
            (None, Some(true), _) => Ok(false),
            (None, None, _) => Err(SgWhy::VpcUnknown),
            (None, Some(false), Some(_)) => Ok(true),
            (None, Some(false), None) => Err(SgWhy::SnatUnknown),
        }
    }

    /// Whether the peer is in the VPC. A service's address is not, whatever it looks like.
    fn is_in_vpc(&self, asked: &Asked<'_, '_>) -> Option<bool> {
        if asked.question.is_service {
            return Some(false);
        }
        self.in_vpc(asked.peer, asked.question.pod, asked.class)
    }

    fn judged(&self, asked: &Asked<'_, '_>, by: JudgedBy, own: Option<Held>, translated: Option<SgWhy>) -> Truth {
        let Asked { question, peer, .. } = *asked;
        let Some(own) = own else {
            return Truth::CannotTell(match by {
                JudgedBy::Pod => SgWhy::InterfaceGroupsUnknown,
                JudgedBy::Node => SgWhy::NodeGroupsUnknown,
            });
        };
        // Where the node translates on the way out of the VPC no rule about it is asked: the peer's side is not judged then.
        let same_family = |ip: &IpAddr| ip.is_ipv4() == peer.is_ipv4();
        let of_node = || self.known.cluster.node().and_then(|node| node.addresses.iter().copied().find(same_family));
        let of_pod = || question.pod.ips.iter().map(IpAddr::to_canonical).find(same_family);
        let local = if leaves_by_plugin(question, peer) {
            of_node()
        } else {
            question.local.map(|ip| ip.to_canonical()).filter(same_family).or_else(of_pod)
        };
        let known_peer = Some(peer).filter(|_| translated.is_none());
        let side = if question.outbound { Side::Egress } else { Side::Ingress };
        let (source, destination) = if question.outbound { (local, known_peer) } else { (known_peer, local) };
        let ends = Ends::new(source, destination).ok().flatten().unwrap_or(Ends::unknown(Family::of(peer)));
        let is_public = is_public(peer) && self.is_in_vpc(asked) == Some(false);
        let held = known_peer.and_then(|ip| self.peer_groups(ip, is_public));
        let told = [own.told, held.as_ref().and_then(|held| held.told)].into_iter().flatten().min();
        let (is_public, forwards) =
            (is_public && known_peer.is_some(), held.as_ref().is_some_and(|held| held.forwards));
        let flow = Flow { traffic: question.traffic, ends };
        let (own, peer) = (own.groups, held.map(|held| held.groups));
        Truth::Judged(Judged { by, flow, side, own, peer, told, is_public, forwards, translated, may_stay: false })
    }
}

/// A question, and what its peer's address tells.
#[derive(Clone, Copy)]
struct Asked<'a, 'q> {
    question: &'q Question<'q>,
    peer: IpAddr,
    class: PeerClass,
    here: Here<'a>,
}

/// Whether the peer may be a service, whose address stands for others: a private one outside the VPC, as far as is known.
fn translated(asked: &Asked<'_, '_>, in_vpc: Option<bool>) -> Option<SgWhy> {
    if asked.question.is_service {
        return Some(SgWhy::ServiceAddress);
    }
    if !asked.question.outbound || is_public(asked.peer) {
        return None;
    }
    match in_vpc {
        Some(true) => None,
        Some(false) => Some(SgWhy::ServiceAddress),
        None => Some(SgWhy::VpcUnknown),
    }
}

/// Whether the CNI's plugin for the other family translates it to the node's address. A pod that has no address of the
/// peer's family has one of the plugin's.
fn leaves_by_plugin(question: &Question<'_>, peer: IpAddr) -> bool {
    let ips = &question.pod.ips;
    let has_other_family = !ips.is_empty() && ips.iter().all(|ip| ip.to_canonical().is_ipv4() != peer.is_ipv4());
    question.outbound && (is_egress_address(question.local) || (question.local.is_none() && has_other_family))
}

fn is_egress_address(local: Option<IpAddr>) -> bool {
    match local.map(|ip| ip.to_canonical()) {
        Some(IpAddr::V4(ip)) => (ip.to_bits() ^ EGRESS_V4.0.to_bits()) >> (u32::BITS - EGRESS_V4.1) == 0,
        Some(IpAddr::V6(ip)) => (ip.to_bits() ^ EGRESS_V6.0.to_bits()) >> (u128::BITS - EGRESS_V6.1) == 0,
        None => false,
    }
}
