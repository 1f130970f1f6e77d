//! Whether a flow that passes is tracked.
//!
//! A tracked connection lives on when its rule goes; an untracked one breaks at once. A TCP or UDP flow is untracked
//! when the rule that lets it in or out is for all addresses, and a rule of the other side lets all addresses on all
//! ports answer:
//! <https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/security-group-connection-tracking.html#untracked-connections>.
//! Load balancers, NAT gateways, transit gateways and their like are tracked whatever the rules say, which rules cannot
//! tell.

use ipnet::IpNet;

use super::compile::Compiled;
use super::flow::{Family, Flow, Traffic};
use super::model::{GroupId, Peer, Rule, Service, Side, Transport};

/// Whether groups remember a flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tracking {
    /// It is remembered: it outlives the rule that let it begin.
    Tracked,
    /// By the rules alone it is not remembered: each packet needs a rule, and it breaks when that goes.
    Untracked,
    /// A group's rules are not known.
    CannotTell,
}

impl Compiled {
    /// For a flow that the groups `own` let pass on this side.
    pub fn tracking(&self, flow: &Flow, side: Side, own: &[GroupId]) -> Tracking {
        let Traffic::Port(transport, port) = flow.traffic else { return Tracking::Tracked };
        let family = flow.family();
        let begins = |rule: &Rule| rule.side == side && opens(rule.service, transport, port, port);
        let answers = |rule: &Rule| rule.side != side && opens(rule.service, transport, 0, u16::MAX);
        if self.any_open(own, family, begins) && self.any_open(own, family, answers) {
            Tracking::Untracked
        } else if own.iter().all(|id| self.defines(id)) {
            Tracking::Tracked
        } else {
            Tracking::CannotTell
        }
    }

    /// Whether one of the groups' rules for all addresses of a family is such.
    fn any_open(&self, own: &[GroupId], family: Family, such: impl Fn(&Rule) -> bool) -> bool {
        own.iter().filter_map(|id| self.sieves(id)).any(|sieves| {
            let numbers = sieves.egress.rules.iter().chain(&sieves.ingress.rules);
            numbers
                .filter_map(|number| self.rule(*number))
                .any(|rule| is_all(&rule.rule.peer, family) && such(&rule.rule))
        })
    }
}

/// Whether a service covers these ports.
fn opens(service: Service, transport: Transport, from: u16, to: u16) -> bool {
    match service {
        Service::All => true,
        Service::Ports { transport: own, first, last } => own == transport && first <= from && to <= last,
        Service::Icmp { .. } | Service::Protocol(_) => false,
    }
}

fn is_all(peer: &Peer, family: Family) -> bool {
    matches!(peer, Peer::Net(net) if net.prefix_len() == 0 && matches!(
        (net, family),
        (IpNet::V4(_), Family::V4) | (IpNet::V6(_), Family::V6)
    ))
}
