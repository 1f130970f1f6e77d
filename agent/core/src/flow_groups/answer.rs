//! What the rules say, as rows and as sentences tell it.

use std::sync::Arc;

use super::scene::Scene;
use super::truth::{Judged, Truth};
use crate::output::{JudgedBy, SgRow, SgVerdict, SgWhy};
use crate::sg::{Doubt, GroupRule, Missing, Near, Overall, Service, Side, SideVerdict, Traffic, Verdict};
use crate::time::WallNs;

const DNS_PORT: u16 = 53;

/// A verdict with what is missing.
#[derive(Clone, Debug, PartialEq)]
pub struct Explained {
    /// Of both ends.
    pub verdict: Verdict,
    /// In one word, and what it leaves open.
    pub row: SgRow,
    /// The rule that is missing on each end that drops it.
    pub missing: Vec<Missing>,
    /// Rules of that end that come nearest, and what each lacks.
    pub nearest: Vec<Near>,
    /// When EC2 told the oldest of the rules that this rests on; `None`: it rests on none.
    pub told: Option<WallNs>,
}

impl Scene<'_> {
    /// What the rules of the groups that judged a flow say of it.
    pub fn answer(&self, judged: &Judged) -> SgRow {
        row_of(judged, &self.verdict(judged))
    }

    /// As [`Scene::answer`], with what is missing. Takes longer: for the few flows that a finding is about.
    pub fn explain(&self, judged: &Judged) -> Explained {
        let verdict = self.verdict(judged);
        let row = row_of(judged, &verdict);
        let is_certain = judged.translated.is_none() || is_dns(judged);
        let drops = |side: &Side| is_certain && matches!(verdict.side(*side), SideVerdict::NoRule);
        let (mut missing, mut nearest) = (Vec::new(), Vec::new());
        for side in [Side::Egress, Side::Ingress].into_iter().filter(drops) {
            let (own, others) = judged.groups(side);
            let Some(own) = own else { continue };
            missing.extend(self.compiled.missing(&judged.flow, side, own, others));
            nearest.extend(self.compiled.nearest(&judged.flow, side, own, others));
        }
        let groups = judged.own.iter().chain(judged.peer.iter().flatten());
        let told = groups.filter_map(|id| self.known.ec2.group(id)).map(|told| told.at).min();
        Explained { verdict, row, missing, nearest, told }
    }

    /// [`Scene::explain`], for a question whose groups judged it.
    pub fn explained(&self, truth: &Truth) -> Option<Explained> {
        match truth {
            Truth::Judged(judged) => Some(self.explain(judged)),
            Truth::NotJudged(_) | Truth::CannotTell(_) => None,
        }
    }

    fn verdict(&self, judged: &Judged) -> Verdict {
        let (source, destination) = match judged.side {
            Side::Egress => (Some(&judged.own[..]), judged.peer.as_deref()),
            Side::Ingress => (judged.peer.as_deref(), Some(&judged.own[..])),
        };
        self.compiled.verdict(&judged.flow, source, destination)
    }
}

impl Judged {
    /// Groups of the end that a side is about, and of the other.
    fn groups(&self, side: Side) -> (Option<&[crate::sg::GroupId]>, Option<&[crate::sg::GroupId]>) {
        let (own, peer) = (Some(&self.own[..]), self.peer.as_deref());
        if side == self.side { (own, peer) } else { (peer, own) }
    }
}

/// A row without rules.
pub(super) fn row(verdict: SgVerdict, why: SgWhy) -> SgRow {
    SgRow { verdict, by: None, rules: Vec::new(), why: Some(why) }
}

fn row_of(judged: &Judged, verdict: &Verdict) -> SgRow {
    let (own, other) = match judged.side {
        Side::Egress => (&verdict.egress, &verdict.ingress),
        Side::Ingress => (&verdict.ingress, &verdict.egress),
    };
    if matches!(own, SideVerdict::Unfiltered(_)) {
        return row(SgVerdict::NotJudged, SgWhy::UnfilteredService);
    }
    let by = Some(judged.by);
    if let Some(why) = judged.translated {
        // Where the backend may be on this node, nobody may have judged.
        return SgRow { by: by.filter(|_| !judged.may_stay), ..translated(judged, own, why) };
    }
    let row = match verdict.overall() {
        Overall::Allowed => {
            let rules = [own, other].into_iter().flat_map(allowing);
            // Who is outside the VPC has no groups; who may have some, and is not known, may still drop it.
            let open = matches!(other, SideVerdict::NotJudged) && judged.peer.is_none();
            SgRow { verdict: SgVerdict::Allowed, by, rules: ids(rules), why: open.then_some(SgWhy::PeerSideUnknown) }
        }
        Overall::NoRule => SgRow { verdict: SgVerdict::NoRule, by, rules: Vec::new(), why: None },
        Overall::CannotTell => {
            let doubt = [own, other].into_iter().find_map(first_doubt);
            row(SgVerdict::CannotTell, doubt.unwrap_or(SgWhy::RulesUnknown))
        }
    };
    SgRow { by, ..row }
}

/// Of a flow whose peer and port on the wire may be others. DNS is the exception: its servers listen on its own port.
fn translated(judged: &Judged, own: &SideVerdict, why: SgWhy) -> SgRow {
    let is_dns = is_dns(judged);
    match own {
        // It may leave by the node's address.
        _ if judged.may_stay && judged.by == JudgedBy::Pod => row(SgVerdict::CannotTell, why),
        SideVerdict::Allowed(rules) => {
            let fits = |rule: &&Arc<GroupRule>| is_dns || is_any_port(rule.rule.service);
            let rules = ids(rules.iter().filter(fits));
            if rules.is_empty() {
                return row(SgVerdict::CannotTell, why);
            }
            SgRow { verdict: SgVerdict::Allowed, by: None, rules, why: Some(SgWhy::PeerSideUnknown) }
        }
        SideVerdict::NoRule if is_dns && !judged.may_stay => {
            SgRow { verdict: SgVerdict::NoRule, by: None, rules: Vec::new(), why: None }
        }
        _ => row(SgVerdict::CannotTell, first_doubt(own).filter(|doubt| *doubt == SgWhy::RulesUnknown).unwrap_or(why)),
    }
}

fn is_dns(judged: &Judged) -> bool {
    matches!(judged.flow.traffic, Traffic::Port(_, DNS_PORT))
}

fn is_any_port(service: Service) -> bool {
    matches!(service, Service::All | Service::Ports { first: 0, last: u16::MAX, .. })
}

fn allowing(side: &SideVerdict) -> impl Iterator<Item = &Arc<GroupRule>> {
    match side {
        SideVerdict::Allowed(rules) => rules.as_slice(),
        _ => &[],
    }
    .iter()
}

fn ids<'a>(rules: impl Iterator<Item = &'a Arc<GroupRule>>) -> Vec<Arc<str>> {
    rules.map(|rule| Arc::from(rule.rule.id.as_str())).take(SgRow::MAX_RULES).collect()
}

fn first_doubt(side: &SideVerdict) -> Option<SgWhy> {
    let SideVerdict::CannotTell(doubts) = side else { return None };
    doubts.first().map(|doubt| match doubt {
        Doubt::UnknownGroup(_) => SgWhy::RulesUnknown,
        Doubt::UnknownPrefixList(..) => SgWhy::ListUnknown,
        Doubt::PeerGroups(_) | Doubt::PeerAddress(_) | Doubt::PublicAddress(..) => SgWhy::PeerUnknown,
        Doubt::MayBeResolver(_) => SgWhy::VpcUnknown,
    })
}
