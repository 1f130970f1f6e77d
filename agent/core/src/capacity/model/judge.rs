//! Which cliffs are near, and which were stepped over. Once raised, a finding stays until the use falls clearly below its
//! threshold, so that a value at the edge does not flap.

use std::collections::{BTreeMap, BTreeSet};

use super::known::Known;
use super::line::Line;
use super::readings::Refusal;
use super::settings::{DISTANCE_PERCENT, EXHAUSTED_PERCENT, Settings};
use super::waiting::{self, WaitingPod};
use crate::capacity::forecast::Series;
use crate::capacity::{CounterName, Resource, Scope};
use crate::finding::{Code, Evidence, Judgement, Severity, Verdict, Violation};
use crate::output::Exhaustion;

/// A forecast raises a finding only when growth was watched for one part in so many of the time that it foretells.
const WATCHED_PART: u64 = 6;
/// And only from this part of the limit on, percent: below it much can still happen.
const FORECAST_FROM_PERCENT: u64 = 50;
/// A pod that asks for an address while ipamd fetches more is refused and asks again. It is a lack when this goes on for so
/// long: two minutes, longer than attaching an interface takes.
const ADDRESS_LACK_NS: u64 = 120_000_000_000;

/// A subject that is watched.
type Key = (Resource, Scope);

/// What was raised and not taken back yet. Bounded by the lines.
#[derive(Debug, Default)]
pub(super) struct Judge {
    low: BTreeSet<Key>,
    exhausted: BTreeSet<Key>,
}

/// What an evaluation looks at.
pub(super) struct Seen<'a> {
    pub(super) lines: &'a [Line],
    pub(super) series: &'a BTreeMap<Key, Series>,
    pub(super) refusals: &'a [Refusal],
    /// Pods that have waited for their sandbox for too long.
    pub(super) waiting: &'a [WaitingPod],
    /// Tasks wait for memory.
    pub(super) memory_stalls: bool,
    pub(super) settings: &'a Settings,
    pub(super) known: &'a Known,
}

impl Judge {
    /// One evaluation: complete, so that what is not mentioned is well. Of pods only those that are not are mentioned.
    pub(super) fn evaluate(&mut self, seen: &Seen<'_>) -> Vec<Judgement> {
        let mut judgements = Vec::new();
        let (mut low, mut exhausted) = (BTreeSet::new(), BTreeSet::new());
        let mut refusals: Vec<&Refusal> = seen.refusals.iter().filter(|refusal| is_lack(refusal)).collect();
        for line in seen.lines.iter().filter(|line| line.resource.is_cliff()) {
            let key = (line.resource, line.scope.clone());
            let refusal = refusals.iter().position(|refusal| (refusal.resource, &refusal.scope) == (key.0, &key.1));
            let refusal = refusal.map(|index| refusals.remove(index));
            let refusal = refusal.filter(|refusal| !is_ambiguous(refusal) || self.is_near(&key, line, seen));
            let (used_up, nearly) = match self.verdicts(&key, line, refusal, seen) {
                Ok(found) => found,
                Err(why) => {
                    // Whatever stands stays as it is.
                    if self.exhausted.contains(&key) {
                        exhausted.insert(key.clone());
                    }
                    if self.low.contains(&key) {
                        low.insert(key.clone());
                    }
                    judgements.push(judgement(Code::CapacityExhausted, &key, Verdict::CannotTell(why), seen));
                    judgements.push(judgement(Code::CapacityLow, &key, Verdict::CannotTell(why), seen));
                    continue;
                }
            };
            // One thing is said once: used up, or nearly.
            let nearly = nearly.filter(|_| used_up.is_none());
            let quiet = matches!(key.1, Scope::Pod(_));
            for (code, found, raised) in
                [(Code::CapacityExhausted, used_up, &mut exhausted), (Code::CapacityLow, nearly, &mut low)]
            {
                match found {
                    Some(violation) => {
                        raised.insert(key.clone());
                        judgements.push(judgement(code, &key, Verdict::Violated(Box::new(violation)), seen));
                    }
                    None if quiet => {}
                    None => judgements.push(judgement(code, &key, Verdict::Holds, seen)),
                }
            }
        }
        // Refused, and nobody tells how much there is.
        for refusal in refusals.into_iter().filter(|refusal| !is_ambiguous(refusal)) {
            let key = (refusal.resource, refusal.scope.clone());
            let verdict = Verdict::Violated(Box::new(refused(refusal, seen)));
            judgements.push(judgement(Code::CapacityExhausted, &key, verdict, seen));
        }
        self.doubt(&low, &exhausted, seen, &mut judgements);
        self.low.extend(low);
        self.exhausted.extend(exhausted);
        judgements
    }

    /// Used up, and nearly used up; an error where nobody can tell.
    fn verdicts(
        &self,
        key: &Key,
        line: &Line,
        refusal: Option<&Refusal>,
        seen: &Seen<'_>,
    ) -> Result<(Option<Violation>, Option<Violation>), &'static str> {
        if let Some(refusal) = refusal {
            return Ok((Some(refused(refusal, seen)), None));
        }
        let (Some(used), Some(limit)) = (line.used, line.limit) else {
            // Without a limit there is nothing to reach.
            return if line.limit.is_none() { Ok((None, None)) } else { Err("what is used is not known") };
        };
        let at = |percent: u32, raised: bool| {
            let percent = if raised { percent.saturating_sub(DISTANCE_PERCENT) } else { percent };
            u128::from(used) * 100 >= u128::from(limit) * u128::from(percent)
        };
        let share = super::line::filled(used, limit).unwrap_or(0).saturating_mul(100) / 65_536;
        let name = seen.known.name(&key.1);
        let resource = key.0.name();
        let used_up = at(EXHAUSTED_PERCENT, self.exhausted.contains(key)).then(|| {
            let text = format!("{resource} of {name}: {used} of {limit} are used, none is left to speak of");
            violation(Severity::High, key.0, text, line)
        });
        let threshold = seen.settings.low_percent(key.0, seen.memory_stalls);
        let nearly = if at(threshold, self.low.contains(key)) {
            let text = format!("{resource} of {name}: {used} of {limit} are used, {share} %");
            Some(violation(Severity::Warning, key.0, text, line))
        } else {
            soon(key, share, limit, seen).map(|minutes| {
                let text = format!(
                    "{resource} of {name}: {used} of {limit} are used, {share} %; at the present pace none is left in \
                     {minutes} min"
                );
                violation(Severity::Warning, key.0, text, line)
            })
        };
        let raised = used_up.is_some() || nearly.is_some();
        if key.0 == Resource::PodIps && raised && !addresses_bind(line, seen)? {
            return Ok((None, None));
        }
        Ok((used_up, nearly))
    }

    /// Whether the limit is so near that whoever was refused may have been refused for it.
    fn is_near(&self, key: &Key, line: &Line, seen: &Seen<'_>) -> bool {
        let distance = if self.exhausted.contains(key) { DISTANCE_PERCENT } else { 0 };
        let percent = u64::from(seen.settings.low_percent(key.0, seen.memory_stalls).saturating_sub(distance));
        line.filled().is_some_and(|filled| filled.saturating_mul(100) >= percent.saturating_mul(65_536))
    }

    /// What was raised and is not seen any more: a scope that is gone is well, a source that is silent leaves doubt.
    fn doubt(
        &mut self,
        low: &BTreeSet<Key>,
        exhausted: &BTreeSet<Key>,
        seen: &Seen<'_>,
        judgements: &mut Vec<Judgement>,
    ) {
        let told: BTreeSet<Resource> = seen.lines.iter().map(|line| line.resource).collect();
        let codes =
            [(Code::CapacityLow, low, &mut self.low), (Code::CapacityExhausted, exhausted, &mut self.exhausted)];
        for (code, now, raised) in codes {
            raised.retain(|key| now.contains(key) || !told.contains(&key.0));
            for key in raised.iter().filter(|key| !now.contains(*key)) {
                let verdict = Verdict::CannotTell(super::NOT_TOLD);
                judgements.push(judgement(code, key, verdict, seen));
            }
        }
    }
}

/// Whether a refusal is more than a wait.
fn is_lack(refusal: &Refusal) -> bool {
    refusal.resource != Resource::PodIps || refusal.for_ns >= ADDRESS_LACK_NS
}

/// The kernel's counter of dropped packets grows also when two packets race for one entry (two DNS requests of one socket
/// through a service's address do) and when a protocol's tracker refuses one: `nf_ct_resolve_clash` and `nf_conntrack_in`.
/// <https://elixir.bootlin.com/linux/v6.12/source/net/netfilter/nf_conntrack_core.c>
fn is_ambiguous(refusal: &Refusal) -> bool {
    refusal.name == CounterName::ConntrackDrop
}

/// A full node is healthy as long as the kubelet's limit of pods is reached first, for then the scheduler sends no more.
/// Addresses are a cliff where pods would still be sent.
fn addresses_bind(line: &Line, seen: &Seen<'_>) -> Result<bool, &'static str> {
    let pods = seen.lines.iter().find(|line| line.resource == Resource::Pods && line.scope == Scope::Node);
    let places = pods.and_then(Line::headroom).ok_or("how many pods the scheduler may still send is not known")?;
    Ok(line.headroom().is_some_and(|addresses| addresses < places))
}

/// Minutes until it is used up, when that is soon and well founded.
fn soon(key: &Key, share: u64, limit: u64, seen: &Seen<'_>) -> Option<u64> {
    // Most pods are far from any limit: those cost no forecast.
    let series = seen.series.get(key).filter(|_| share >= FORECAST_FROM_PERCENT)?;
    let Exhaustion::Range { likely_s, .. } = series.forecast(limit) else { return None };
    let founded = series.span_s().saturating_mul(WATCHED_PART) >= likely_s;
    (founded && likely_s <= u64::from(seen.settings.low_within_s)).then_some(likely_s.div_ceil(60))
}

fn refused(refusal: &Refusal, seen: &Seen<'_>) -> Violation {
    let (resource, name) = (refusal.resource.name(), seen.known.name(&refusal.scope));
    let counter = format!("{:?}", refusal.name);
    let mut violation = Violation {
        severity: Severity::High,
        cause: resource,
        text: match (refusal.resource, refusal.name) {
            (Resource::SubnetIps, CounterName::SubnetFull) => {
                format!("{resource} of {name}: EC2 had none left for the CNI {} times", refusal.times)
            }
            (Resource::SubnetIps, _) => format!(
                "{resource} of {name}: the CNI's calls to EC2 failed {} times while pods wait for an address and the \
                 instance has places for more: the subnet runs dry, or the CNI lacks a permission",
                refusal.times
            ),
            _ => format!("{resource} of {name}: none was left {} times", refusal.times),
        },
        evidence: vec![Evidence {
            object: format!("counter {counter}"),
            field: String::new(),
            generation: None,
            value: format!("grew by {}", refusal.times),
        }],
    };
    if matches!(refusal.resource, Resource::PodIps | Resource::SubnetIps) {
        violation.text.push_str(&waiting::text(seen.waiting));
        violation.evidence.extend(waiting::evidence(seen.waiting));
    }
    violation
}

fn violation(severity: Severity, resource: Resource, text: String, line: &Line) -> Violation {
    let shown = |figure: Option<u64>| figure.map_or_else(|| "not known".to_owned(), |figure| figure.to_string());
    Violation {
        severity,
        cause: resource.name(),
        text,
        evidence: vec![Evidence {
            object: line.source.to_string(),
            field: String::new(),
            generation: None,
            value: format!("{} of {}", shown(line.used), shown(line.limit)),
        }],
    }
}

fn judgement(code: Code, key: &Key, verdict: Verdict, seen: &Seen<'_>) -> Judgement {
    Judgement { code, subject: seen.known.subject(key.0.name(), &key.1), verdict }
}
