//! What the rules of security groups say of connections that stay without an answer.

use std::net::IpAddr;

use super::flows::{About, Try, Wire};
use super::why;
use crate::facts::PodFacts;
use crate::finding::{Evidence, View};
use crate::flow_groups::audit::probe_flow;
use crate::flow_groups::{Explained, Question, Truth};
use crate::output::{ActualPeer, SgVerdict, SgWhy};
use crate::sg::{Flow, Missing, Near, Side, SideVerdict, Traffic, Transport};

/// An answer.
pub(super) enum Said {
    /// No rule lets it pass.
    Missing(Lack),
    /// No rule lets DNS out to anybody, unless the resolver is on this node.
    MissingUnlessHere(Lack),
    /// The groups of all ends let it pass, or none is in its way.
    NotTheGroups(&'static str),
    /// The pod's groups let it out, and whose groups are at the other end, out of the VPC, nobody can know.
    OwnEndAllows,
    /// Not enough is known; what is, as the end of a sentence.
    CannotTell(String),
}

/// A rule that is missing.
pub(super) struct Lack {
    pub(super) cause: &'static str,
    pub(super) text: String,
    pub(super) evidence: Vec<Evidence>,
}

/// What rules say of a pod's probes.
pub(super) enum Probes {
    Missing(Lack),
    Admitted,
    CannotTell,
}

/// Asks about one pair of a pod and a peer.
pub(super) fn ask(pair: &Try, wire: Wire, pod: &PodFacts, view: View<'_>) -> Said {
    let (peer, port, is_service) = match wire {
        Wire::Same { is_service } => match pair.ip.parse::<IpAddr>() {
            Ok(ip) => (ip, pair.port, is_service),
            Err(_) => return Said::CannotTell(String::new()),
        },
        Wire::Backend(ActualPeer { ip, port }) => (ip, port, false),
    };
    let scene = view.flow_groups.scene(view.known);
    // DNS over TCP is for long answers, so what is missing is missing for UDP.
    let transport = if pair.about == About::Dns { Transport::Udp } else { Transport::Tcp };
    let traffic = Traffic::Port(transport, port);
    let truth = scene.truth(&Question { pod, outbound: true, local: None, peer, traffic, is_service });
    let judged = match &truth {
        Truth::Judged(judged) => judged,
        Truth::NotJudged(SgWhy::LinkLocal) | Truth::CannotTell(_) => return Said::CannotTell(String::new()),
        Truth::NotJudged(_) => return Said::NotTheGroups(why::NOT_JUDGED),
    };
    let explained = scene.explain(judged);
    let lack = || lack(&explained, &judged.flow);
    match (explained.row.verdict, explained.row.why) {
        (SgVerdict::NoRule, _) => lack().map_or_else(|| Said::CannotTell(String::new()), Said::Missing),
        // Behind a public address there may be groups that nobody here can know.
        (SgVerdict::Allowed, None) if judged.is_public => Said::OwnEndAllows,
        (SgVerdict::Allowed, None) => Said::NotTheGroups(why::ALLOWED),
        (SgVerdict::NotJudged, _) => Said::NotTheGroups(why::NOT_JUDGED),
        (SgVerdict::Allowed, Some(why)) => {
            Said::CannotTell(format!(". Its groups let it out by {}; {}", explained.row.rules.join(", "), why.text()))
        }
        (SgVerdict::CannotTell, why) => match (lack(), why) {
            (Some(lack), _) => Said::MissingUnlessHere(lack),
            // Without rules there is nothing to add.
            (None, None | Some(SgWhy::RulesUnknown)) => Said::CannotTell(String::new()),
            (None, Some(why)) => Said::CannotTell(format!(". What its rules say cannot be told: {}", why.text())),
        },
    }
}

/// Asks whether a pod's groups admit the node's probes of a port.
pub(super) fn probes(pod: &PodFacts, port: u16, view: View<'_>) -> Probes {
    let scene = view.flow_groups.scene(view.known);
    let node = view.cluster.node().and_then(|node| node.addresses.first().copied());
    let (Some(own), Some(flow)) = (scene.interface_groups(pod), probe_flow(node, pod, port)) else {
        return Probes::CannotTell;
    };
    let own = own.groups;
    let others = scene.node_groups().map(|held| held.groups);
    let compiled = scene.compiled();
    match compiled.judge(&flow, Side::Ingress, Some(&own), others.as_deref()) {
        SideVerdict::Allowed(_) => Probes::Admitted,
        SideVerdict::NoRule => {
            let missing = compiled.missing(&flow, Side::Ingress, &own, others.as_deref());
            let nearest = compiled.nearest(&flow, Side::Ingress, &own, others.as_deref());
            missing.map_or(Probes::CannotTell, |missing| Probes::Missing(describe(&[missing], &nearest, &flow)))
        }
        _ => Probes::CannotTell,
    }
}

fn lack(explained: &Explained, flow: &Flow) -> Option<Lack> {
    if explained.missing.is_empty() {
        return None;
    }
    let mut lack = describe(&explained.missing, &explained.nearest, flow);
    if let Some(told) = explained.told {
        lack.evidence.push(says("security group rules", "told by EC2", told.to_string()));
    }
    Some(lack)
}

fn describe(missing: &[Missing], nearest: &[Near], flow: &Flow) -> Lack {
    let cause = match missing.first().map(|missing| missing.side) {
        Some(Side::Ingress) => "ingress_rule_missing",
        Some(Side::Egress) | None => "egress_rule_missing",
    };
    let mut evidence = Vec::new();
    for missing in missing {
        let object = format!("security group {}", missing.group);
        evidence.push(says(&object, &format!("{} rules", missing.side.name()), missing.text()));
        // One of each suffices: where the other end is not known there is nothing to paste.
        evidence.extend(missing.aws_cli().map(|command| says(&object, "add by AWS CLI", command)));
        evidence.extend(missing.terraform().map(|block| says(&object, "add by Terraform", block)));
    }
    for near in nearest {
        let value = format!("{}; it lacks {}", near.rule.text(), near.lacks_text(flow));
        evidence.push(says(&format!("rule {} of {}", near.rule.rule.id, near.rule.group), "nearest", value));
    }
    let text = missing.iter().map(Missing::text).collect::<Vec<_>>().join("; ");
    Lack { cause, text, evidence }
}

fn says(object: &str, field: &str, value: String) -> Evidence {
    Evidence { object: object.to_owned(), field: field.to_owned(), generation: None, value }
}
