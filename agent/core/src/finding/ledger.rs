//! The ledger: judgements become findings that open, repeat, are accepted, and end.
//!
//! One finding is one code and one workload (or policy, service account, peer, resource): its pods are members. A
//! Deployment with a fault is one finding with as many pods as have it.
//!
//! How a finding begins and ends depends on what it says, see [`Lasts`]. Intervals go by boot time, so that a clock that
//! is set opens and resolves nothing. What cannot be told neither opens a finding nor ends one; it is listed apart.

mod doubts;
mod entry;
mod row;
mod store;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use self::doubts::Doubts;
pub use self::doubts::{CannotTellRow, MAX_DOUBTS};
use self::entry::{Finding, Key, Member, Whom};
pub use self::store::{RestoreError, Snapshot};
use super::{Code, Judgement, Lasts, Severity, Subject, Verdict, Violation};
use crate::output::{FindingRow, Output, State};
use crate::time::{Moment, WallNs};

/// Most findings kept, resolved ones included: ten for each of 100 workloads. With text and evidence about 3 KiB: 3 MiB,
/// and 11 MiB if all were as long as they may be. Beyond it new ones are refused and counted.
pub const MAX_FINDINGS: usize = 1_024;
/// Most pods (or containers of pods) in all findings together, at about 300 bytes: 1.2 MiB.
pub const MAX_MEMBERS: usize = 4_096;
/// How long a request finding stands without a repeat, and how long a resolved one is still shown.
pub const DAY_NS: u64 = 24 * 3_600 * 1_000_000_000;
/// Evaluations in a row that must agree before a state finding opens or ends.
pub const AGREEING: u8 = 2;

/// See the module's documentation.
#[derive(Debug, Default)]
pub struct Ledger {
    findings: BTreeMap<Key, Finding>,
    doubts: Doubts,
    verdicts: BTreeMap<Code, [u64; 3]>,
    opened: BTreeMap<(Code, Severity, Arc<str>), u64>,
    refused: u64,
    /// See [`Ledger::hold_waivers`].
    holds_waivers: bool,
}

/// What every entry into the ledger needs to know.
#[derive(Clone, Copy)]
pub struct Context<'a> {
    /// Now.
    pub now: Moment,
    /// Since when a subject has been watched.
    pub watched_since: &'a dyn Fn(&Subject) -> WallNs,
    /// The reason of the waiver that accepts a finding, if one does.
    pub accept: &'a dyn Fn(Code, &Subject) -> Option<Arc<str>>,
}

/// Kinds of verdicts, as they are counted.
pub const VERDICTS: [&str; 3] = ["holds", "violated", "cannot_tell"];

/// A finding, as far as it is counted. See [`FindingRow`] for the fields.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Counted<'a> {
    /// What it is.
    pub code: Code,
    /// How bad.
    pub severity: Severity,
    /// Open, accepted or resolved.
    pub state: State,
    /// Of its subject; empty for none.
    pub namespace: &'a str,
    /// Of its subject; empty for none.
    pub workload: &'a str,
}

impl Ledger {
    /// Takes in one evaluation of state rules: complete for `codes`, so that a subject it does not mention is clean.
    /// Judgements with other codes are passed over.
    pub fn judge(&mut self, codes: &[Code], judgements: Vec<Judgement>, context: &Context<'_>) {
        self.doubts.begin(codes);
        let mut answered = BTreeSet::new();
        let mut worst: BTreeMap<Key, Box<Violation>> = BTreeMap::new();
        for Judgement { code, subject, verdict } in judgements {
            if !codes.contains(&code) {
                continue;
            }
            self.count(code, &verdict);
            let (key, whom) = (Key::of(code, &subject), Whom::of(&subject));
            answered.insert((key.clone(), whom.clone()));
            match verdict {
                Verdict::Holds => self.clean(&key, &whom),
                Verdict::CannotTell(why) => {
                    self.doubts.note(code, why, None, &subject, context.now.boot);
                    self.doubtful(&key, &whom);
                }
                Verdict::Violated(violation) => {
                    self.seen(&key, whom, &subject, &violation, context);
                    let replaces = worst.get(&key).is_none_or(|known| violation.severity > known.severity);
                    if replaces {
                        worst.insert(key, violation);
                    }
                }
            }
        }
        let judged = self.findings.iter().filter(|(key, _)| codes.contains(&key.code));
        let members = judged.flat_map(|(key, finding)| finding.members.keys().map(|whom| (key.clone(), whom.clone())));
        let silent: Vec<_> = members.filter(|pair| !answered.contains(pair)).collect();
        for (key, whom) in silent {
            self.clean(&key, &whom);
        }
        for (key, violation) in worst {
            if let Some(finding) = self.findings.get_mut(&key) {
                finding.tell(*violation);
            }
        }
        self.settle(context);
    }

    /// Something happened, `times` over: opens at once, or repeats.
    pub fn happened(&mut self, code: Code, subject: &Subject, violation: Violation, times: u64, context: &Context<'_>) {
        let key = Key::of(code, subject);
        let [_, violated, _] = self.verdicts.entry(code).or_default();
        *violated += 1;
        if !self.has_room(&key, &Whom::of(subject)) {
            self.refused += 1;
            return;
        }
        let finding = self.findings.entry(key.clone()).or_insert_with(|| Finding::new(&key, context.now.wall));
        let member = finding.members.entry(Whom::of(subject)).or_insert_with(|| Member::new(subject, context));
        member.open = true;
        // At once, so that what a waiver accepts is never told as open.
        if !(self.holds_waivers && member.accepted.is_some()) {
            member.accepted = (context.accept)(code, subject);
        }
        member.repeat(violation.severity, times, context);
        finding.count = finding.count.saturating_add(times);
        if finding.severity.is_none_or(|severity| violation.severity >= severity) {
            finding.tell(violation);
        }
        self.settle_one(&key, context);
    }

    /// A question that came up could not be answered; `object`: because of this one, as `NetworkPolicy shop/deny-all`.
    pub fn cannot_tell(
        &mut self,
        code: Code,
        subject: &Subject,
        why: &'static str,
        object: Option<Arc<str>>,
        now: Moment,
    ) {
        self.count(code, &Verdict::CannotTell(why));
        self.doubts.note(code, why, object, subject, now.boot);
    }

    /// What a flow finding complained of works again.
    pub fn cleared(&mut self, code: Code, subject: &Subject, context: &Context<'_>) {
        let key = Key::of(code, subject);
        let Some(finding) = self.findings.get_mut(&key) else { return };
        let uid = &subject.uid;
        finding.members.retain(|whom, _| whom.uid != *uid);
        self.settle_one(&key, context);
    }

    /// Whether a finding of this code stands for a pod.
    pub fn is_open(&self, code: Code, subject: &Subject) -> bool {
        let finding = self.findings.get(&Key::of(code, subject));
        finding.is_some_and(|finding| finding.members.get(&Whom::of(subject)).is_some_and(|member| member.open))
    }

    /// The members of findings of this code that stand.
    pub fn standing(&self, code: Code) -> impl Iterator<Item = Subject> {
        let findings = self.findings.iter().filter(move |(key, _)| key.code == code);
        findings.flat_map(|(key, finding)| {
            let open = finding.members.iter().filter(|(_, member)| member.open);
            open.map(|pair| key.subject(Some(pair)))
        })
    }

    /// While pods are not told again after a start, nobody can ask whether a waiver matches them: what was accepted stays so.
    pub fn hold_waivers(&mut self, hold: bool) {
        self.holds_waivers = hold;
    }

    /// Counts what found no room before it came here.
    pub fn refuse(&mut self, count: u64) {
        self.refused = self.refused.saturating_add(count);
    }

    /// Time passes: ends what had its day, what was about pods that are gone, and waivers.
    pub fn tick(&mut self, is_alive: &dyn Fn(&str) -> bool, context: &Context<'_>) {
        for (key, finding) in &mut self.findings {
            let lasts = key.code.lasts();
            finding.members.retain(|whom, member| match lasts {
                // These end by their evaluations.
                Lasts::WhileSo => true,
                Lasts::AfterRequest | Lasts::UntilSuccess => {
                    let is_over = context.now.boot.since(member.last.boot) > DAY_NS;
                    !is_over && (whom.uid.is_empty() || is_alive(&whom.uid))
                }
            });
            let held = |member: &Member| self.holds_waivers && member.accepted.is_some();
            for (whom, member) in finding.members.iter_mut().filter(|(_, member)| !held(member)) {
                let accepted = (context.accept)(key.code, &key.subject(Some((whom, &*member))));
                member.accepted = accepted;
            }
        }
        self.doubts.expire(context.now.boot);
        self.settle(context);
        let now = context.now.boot;
        self.findings.retain(|_, finding| !finding.is_forgotten(now));
    }

    /// Pods got their names: what was found of them goes on under these.
    pub fn rename(&mut self, name: &dyn Fn(&str) -> Option<Subject>, context: &Context<'_>) {
        let unnamed = self.findings.iter().filter(|(key, _)| key.namespace.is_empty()).flat_map(|(key, finding)| {
            let members = finding.members.iter().filter(|(whom, member)| member.pod.is_empty() && !whom.uid.is_empty());
            members.map(|(whom, _)| (key.clone(), whom.clone()))
        });
        let named: Vec<_> =
            unnamed.filter_map(|(key, whom)| name(&whom.uid).map(|subject| (key, whom, subject))).collect();
        for (before, whom, subject) in named {
            let key =
                Key { namespace: subject.namespace.clone(), workload: subject.workload.clone(), ..before.clone() };
            // Without room it goes on without a name. Asked while the old one has its member, so that it makes no room itself.
            if !self.has_room(&key, &whom) {
                continue;
            }
            let Some(old) = self.findings.get_mut(&before) else { continue };
            let Some(mut member) = old.members.remove(&whom) else { continue };
            let mut new = Finding::new(&key, old.first_seen);
            (new.count, new.watched_since) = (member.count, member.watched_since);
            new.tell(old.violation());
            new.cause.clone_from(&old.cause);
            old.continues_as(&new.id);
            member.pod = Arc::clone(&subject.pod);
            let finding = self.findings.entry(key).or_insert(new);
            finding.members.insert(whom, member);
        }
        self.settle(context);
    }

    /// Appends the findings that changed since the last time.
    pub fn put_out(&mut self, outputs: &mut Vec<Output>) {
        for (key, finding) in &mut self.findings {
            if std::mem::take(&mut finding.is_changed) {
                outputs.push(Output::Finding(Box::new(row::row(key, finding))));
            }
        }
    }

    /// All findings that stand, and those resolved within a day; by code, namespace and workload.
    pub fn rows(&self) -> impl Iterator<Item = FindingRow> {
        self.findings.iter().filter(|(_, finding)| finding.state.is_some()).map(|(key, finding)| row::row(key, finding))
    }

    /// Of what [`Ledger::rows`] tells, what is counted: without the texts and the evidence, which would be copied each time.
    pub fn counted(&self) -> impl Iterator<Item = Counted<'_>> {
        self.findings.iter().filter_map(|(key, finding)| {
            let (namespace, workload) = (&*key.namespace, &*key.workload);
            let severity = finding.severity.unwrap_or(Severity::Info);
            Some(Counted { code: key.code, severity, state: finding.state?, namespace, workload })
        })
    }

    /// What could not be told, by code and reason.
    pub fn doubts(&self) -> impl Iterator<Item = CannotTellRow> {
        self.doubts.rows()
    }

    /// How often each rule said what; positions as in [`VERDICTS`].
    pub fn verdicts(&self) -> impl Iterator<Item = (Code, [u64; 3])> {
        Code::ALL.iter().map(|code| (*code, self.verdicts.get(code).copied().unwrap_or_default()))
    }

    /// How many findings opened, by code, severity then, and namespace; at most [`MAX_OPENED`] of these.
    pub fn opened(&self) -> impl Iterator<Item = (Code, Severity, &str, u64)> {
        self.opened.iter().map(|((code, severity, namespace), count)| (*code, *severity, &**namespace, *count))
    }

    /// Findings and members that found no room.
    pub fn refused(&self) -> u64 {
        self.refused + self.doubts.refused()
    }

    fn seen(&mut self, key: &Key, whom: Whom, subject: &Subject, violation: &Violation, context: &Context<'_>) {
        if !self.has_room(key, &whom) {
            self.refused += 1;
            return;
        }
        let finding = self.findings.entry(key.clone()).or_insert_with(|| Finding::new(key, context.now.wall));
        let member = finding.members.entry(whom).or_insert_with(|| Member::new(subject, context));
        if member.see(violation, context) {
            member.accepted = (context.accept)(key.code, subject);
            finding.count = finding.count.saturating_add(1);
        }
    }

    fn clean(&mut self, key: &Key, whom: &Whom) {
        let Some(finding) = self.findings.get_mut(key) else { return };
        let is_over = finding.members.get_mut(whom).is_some_and(Member::is_over_after_clean);
        if is_over {
            finding.members.remove(whom);
        }
    }

    fn doubtful(&mut self, key: &Key, whom: &Whom) {
        if let Some(member) = self.findings.get_mut(key).and_then(|finding| finding.members.get_mut(whom)) {
            (member.bad, member.good) = (0, 0);
        }
    }

    fn count(&mut self, code: Code, verdict: &Verdict) {
        let [holds, violated, cannot_tell] = self.verdicts.entry(code).or_default();
        *match verdict {
            Verdict::Holds => holds,
            Verdict::Violated(_) => violated,
            Verdict::CannotTell(_) => cannot_tell,
        } += 1;
    }

    /// Whether another member fits; resolved findings make room.
    fn has_room(&mut self, key: &Key, whom: &Whom) -> bool {
        if self.findings.get(key).is_some_and(|finding| finding.members.contains_key(whom)) {
            return true;
        }
        if self.findings.values().map(|finding| finding.members.len()).sum::<usize>() >= MAX_MEMBERS {
            return false;
        }
        if self.findings.len() < MAX_FINDINGS || self.findings.contains_key(key) {
            return true;
        }
        let resolved = self.findings.iter().filter(|(_, finding)| finding.members.is_empty());
        let oldest =
            resolved.min_by_key(|(_, finding)| finding.ended.map(|ended| ended.boot)).map(|(key, _)| key.clone());
        oldest.is_some_and(|oldest| self.findings.remove(&oldest).is_some())
    }

    /// Brings one finding's state in line with its members: what happens often must not cost a look at all others.
    fn settle_one(&mut self, key: &Key, context: &Context<'_>) {
        let Some(finding) = self.findings.get_mut(key) else { return };
        if finding.settle(context) {
            count_opened(&mut self.opened, key, finding);
        }
        if finding.state.is_none() && finding.members.is_empty() {
            self.findings.remove(key);
        }
    }

    /// Brings every finding's state in line with its members, and notes what changed.
    fn settle(&mut self, context: &Context<'_>) {
        for (key, finding) in &mut self.findings {
            if finding.settle(context) {
                count_opened(&mut self.opened, key, finding);
            }
        }
        // What neither stands nor stood is not remembered.
        self.findings.retain(|_, finding| finding.state.is_some() || !finding.members.is_empty());
    }
}

/// Counts a finding that stands now and did not before.
fn count_opened(opened: &mut BTreeMap<(Code, Severity, Arc<str>), u64>, key: &Key, finding: &Finding) {
    if finding.state == Some(State::Resolved) {
        return;
    }
    let severity = finding.severity.unwrap_or(Severity::Info);
    let mut label = (key.code, severity, Arc::clone(&key.namespace));
    if opened.len() >= MAX_OPENED && !opened.contains_key(&label) {
        label.2 = Arc::from(OTHER);
    }
    *opened.entry(label).or_default() += 1;
}

/// Most counts of openings: 25 codes in some 40 namespaces. Beyond it they are counted for the namespace [`OTHER`].
pub const MAX_OPENED: usize = 1_024;
/// Namespace of what found no room.
pub const OTHER: &str = "other";

#[cfg(test)]
mod tests;
