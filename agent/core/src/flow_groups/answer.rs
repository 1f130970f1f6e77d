//! What the rules say, as rows and as sentences tell it.

use std::sync::Arc;

use super::scene::{Scene, is_too_old};
use super::truth::{Judged, Truth};
use crate::facts::PodFacts;
use crate::output::{JudgedBy, SgRow, SgVerdict, SgWhy};
use crate::sg::{Doubt, GroupId, GroupRule, Missing, Near, Overall, Service, Side, SideVerdict, Traffic, Verdict};
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
    /// When EC2 told the oldest of the rules and interfaces that this rests on; `None`: it rests on none.
    pub told: Option<WallNs>,
}

/// A verdict, and what it says of the use of rules.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Weighed {
    pub(super) row: SgRow,
    /// All rules that let it pass, of whichever end.
    pub(super) used: Vec<Arc<str>>,
    /// Rules that may have let it pass: it depends on what is not known.
    pub(super) perhaps: Vec<Arc<str>>,
    /// Groups of which any rule of the flow's side and protocol may have let it pass: port and peer on the wire, or whose
    /// groups they were, are not known.
    pub(super) open: Vec<GroupId>,
}

impl Scene<'_> {
    /// What the rules of the groups that judged a flow say of it.
    pub(super) fn weigh(&self, judged: &Judged) -> Weighed {
        let verdict = self.verdict(judged);
        let row = self.row_of(judged, &verdict);
        if judged.translated.is_some() {
            // Only the own end was asked, and about an address that is not on the wire.
            return Weighed { used: row.rules.clone(), row, perhaps: Vec::new(), open: judged.own.clone() };
        }
        // What does not get out never gets to whoever would let it in.
        let got_out = !matches!(verdict.egress, SideVerdict::NoRule);
        let sides = || [&verdict.egress].into_iter().chain(got_out.then_some(&verdict.ingress));
        let used = ids(sides().flat_map(allowing)).collect();
        let doubts = sides().flat_map(doubtful);
        Weighed { row, used, perhaps: ids(doubts).collect(), open: Vec::new() }
    }

    /// As [`Scene::weigh`], where not even is known who judged it.
    pub(super) fn unweighed(&self, why: SgWhy, pod: &PodFacts) -> Weighed {
        let groups = [self.interface_groups(pod), self.node_groups()].into_iter().flatten();
        let open = groups.flat_map(|held| held.groups).collect();
        Weighed { open, ..Weighed::none(row(SgVerdict::CannotTell, why)) }
    }

    /// What the rules say, with what is missing. Takes longer: for the few flows that a finding is about.
    pub fn explain(&self, judged: &Judged) -> Explained {
        let verdict = self.verdict(judged);
        let row = self.row_of(judged, &verdict);
        let is_certain = judged.translated.is_none() || is_dns(judged);
        let drops = |side: &Side| is_certain && matches!(verdict.side(*side), SideVerdict::NoRule);
        let (mut missing, mut nearest) = (Vec::new(), Vec::new());
        for side in [Side::Egress, Side::Ingress].into_iter().filter(drops) {
            let (own, others) = judged.groups(side);
            let Some(own) = own else { continue };
            missing.extend(self.compiled.missing(&judged.flow, side, own, others));
            nearest.extend(self.compiled.nearest(&judged.flow, side, own, others));
        }
        let told = self.told(judged);
        Explained { verdict, row, missing, nearest, told }
    }

    /// [`Scene::explain`], for a question whose groups judged it.
    pub fn explained(&self, truth: &Truth) -> Option<Explained> {
        match truth {
            Truth::Judged(judged) => Some(self.explain(judged)),
            Truth::NotJudged(_) | Truth::CannotTell(_) => None,
        }
    }

    /// When EC2 told the oldest of what a verdict stands on.
    fn told(&self, judged: &Judged) -> Option<WallNs> {
        let groups = judged.own.iter().chain(judged.peer.iter().flatten());
        groups.filter_map(|id| self.rules_told(id)).chain(judged.told).min()
    }

    fn verdict(&self, judged: &Judged) -> Verdict {
        let (source, destination) = match judged.side {
            Side::Egress => (Some(&judged.own[..]), judged.peer.as_deref()),
            Side::Ingress => (judged.peer.as_deref(), Some(&judged.own[..])),
        };
        self.compiled.verdict(&judged.flow, source, destination)
    }
}

impl Weighed {
    /// Of a flow that no group saw.
    pub(super) fn none(row: SgRow) -> Self {
        Self { row, used: Vec::new(), perhaps: Vec::new(), open: Vec::new() }
    }
}

impl Judged {
    /// Groups of the end that a side is about, and of the other.
    fn groups(&self, side: Side) -> (Option<&[GroupId]>, Option<&[GroupId]>) {
        let (own, peer) = (Some(&self.own[..]), self.peer.as_deref());
        if side == self.side { (own, peer) } else { (peer, own) }
    }
}

/// A row without rules.
pub(super) fn row(verdict: SgVerdict, why: SgWhy) -> SgRow {
    SgRow { verdict, by: None, rules: Vec::new(), why: Some(why), told: None }
}

impl Scene<'_> {
    fn row_of(&self, judged: &Judged, verdict: &Verdict) -> SgRow {
        let (own, other) = match judged.side {
            Side::Egress => (&verdict.egress, &verdict.ingress),
            Side::Ingress => (&verdict.ingress, &verdict.egress),
        };
        if matches!(own, SideVerdict::Unfiltered(_)) {
            return row(SgVerdict::NotJudged, SgWhy::UnfilteredService);
        }
        let by = Some(judged.by);
        let row = if let Some(why) = judged.translated {
            // Where the backend may be on this node, nobody may have judged.
            SgRow { by: by.filter(|_| !judged.may_stay), ..self.translated(judged, own, why) }
        } else {
            SgRow { by, ..self.plain(judged, verdict, (own, other)) }
        };
        let stands = matches!(row.verdict, SgVerdict::Allowed | SgVerdict::NoRule);
        SgRow { told: self.told(judged).filter(|_| stands), ..row }
    }

    fn plain(&self, judged: &Judged, verdict: &Verdict, (own, other): (&SideVerdict, &SideVerdict)) -> SgRow {
        match verdict.overall() {
            Overall::Allowed => {
                let rules = first(ids([own, other].into_iter().flat_map(allowing)));
                // Who may have groups, and is not known, may still drop it; and so may whoever is behind him.
                let is_open = matches!(other, SideVerdict::NotJudged) && judged.peer.is_none();
                let forwards = judged.forwards.then_some(SgWhy::PeerForwards);
                let why = if is_open { Some(SgWhy::PeerSideUnknown) } else { forwards };
                SgRow { why, ..with(SgVerdict::Allowed, rules) }
            }
            Overall::NoRule => with(SgVerdict::NoRule, Vec::new()),
            Overall::CannotTell => {
                let doubt = [own, other].into_iter().find_map(|side| self.first_doubt(side));
                row(SgVerdict::CannotTell, doubt.unwrap_or(SgWhy::RulesUnknown))
            }
        }
    }

    /// Of a flow whose peer and port on the wire may be others. DNS is the exception: its servers listen on its own port.
    fn translated(&self, judged: &Judged, own: &SideVerdict, why: SgWhy) -> SgRow {
        let is_dns = is_dns(judged);
        match own {
            // It may leave by the node's address.
            _ if judged.may_stay && judged.by == JudgedBy::Pod => row(SgVerdict::CannotTell, why),
            SideVerdict::Allowed(rules) => {
                let fits = |rule: &&Arc<GroupRule>| is_dns || is_any_port(rule.rule.service);
                let rules = first(ids(rules.iter().filter(fits)));
                if rules.is_empty() {
                    return row(SgVerdict::CannotTell, why);
                }
                SgRow { why: Some(SgWhy::PeerSideUnknown), ..with(SgVerdict::Allowed, rules) }
            }
            SideVerdict::NoRule if is_dns && !judged.may_stay => with(SgVerdict::NoRule, Vec::new()),
            _ => {
                let is_of_rules = |doubt: &SgWhy| matches!(doubt, SgWhy::RulesUnknown | SgWhy::RulesTooOld);
                row(SgVerdict::CannotTell, self.first_doubt(own).filter(is_of_rules).unwrap_or(why))
            }
        }
    }

    fn first_doubt(&self, side: &SideVerdict) -> Option<SgWhy> {
        let SideVerdict::CannotTell(doubts) = side else { return None };
        let ec2 = self.known.ec2;
        let is_old = |at: WallNs| is_too_old(at, self.known.now.wall);
        doubts.first().map(|doubt| match doubt {
            Doubt::UnknownGroup(id) if ec2.group(id).is_some_and(|told| told.what.is_some() && is_old(told.at)) => {
                SgWhy::RulesTooOld
            }
            Doubt::UnknownGroup(_) => SgWhy::RulesUnknown,
            Doubt::UnknownPrefixList(_, id)
                if ec2.list(id).is_some_and(|told| told.what.is_some() && is_old(told.at)) =>
            {
                SgWhy::RulesTooOld
            }
            Doubt::UnknownPrefixList(..) => SgWhy::ListUnknown,
            Doubt::PeerGroups(_) | Doubt::PeerAddress(_) | Doubt::PublicAddress(..) => SgWhy::PeerUnknown,
            Doubt::MayBeResolver(_) => SgWhy::VpcUnknown,
        })
    }
}

fn with(verdict: SgVerdict, rules: Vec<Arc<str>>) -> SgRow {
    SgRow { verdict, by: None, rules, why: None, told: None }
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

/// Rules that would let it pass, if something that is not known is so.
fn doubtful(side: &SideVerdict) -> impl Iterator<Item = &Arc<GroupRule>> {
    match side {
        SideVerdict::CannotTell(doubts) => doubts.as_slice(),
        _ => &[],
    }
    .iter()
    .filter_map(|doubt| match doubt {
        Doubt::UnknownPrefixList(rule, _)
        | Doubt::PeerGroups(rule)
        | Doubt::PeerAddress(rule)
        | Doubt::PublicAddress(rule, _) => Some(rule),
        Doubt::UnknownGroup(_) | Doubt::MayBeResolver(_) => None,
    })
}

fn ids<'a>(rules: impl Iterator<Item = &'a Arc<GroupRule>>) -> impl Iterator<Item = Arc<str>> {
    rules.map(|rule| rule.rule.id.shared())
}

/// As many as a row names.
fn first(rules: impl Iterator<Item = Arc<str>>) -> Vec<Arc<str>> {
    rules.take(SgRow::MAX_RULES).collect()
}
