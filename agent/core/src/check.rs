//! A review of manifests: what their pods will run with, and what is wrong with them, without a cluster.
//!
//! The rules are those of [`crate::papers`], which judge pods on a node too. An object without a uid was not admitted
//! yet and is judged by what admission will make of it; one with a uid, taken from a cluster, as it is.

mod forecast;
mod report;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use serde::Serialize;

use crate::facts::{GroupEvent, NodeFacts, PodFacts, PolicyFacts, ServiceAccountFacts};
use crate::finding::{Judgement, Verdict, Violation};
use crate::output::State;
use crate::papers::demand::demanded;
use crate::papers::enforcement::Mode;
use crate::papers::identity::Associations;
use crate::papers::waivers::{self, Waiver, Who};
use crate::papers::{
    Account, Belongs, PodContext, Selected, Settings, admission, judge_pod, judge_policy, pod_object, policy_object,
};
use crate::time::WallNs;

pub use self::report::{CannotTell, CheckReport, Finding, Identity, PodReport, Problem};

/// Where an object stands.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Place {
    /// The file, `-` for standard input.
    pub file: Arc<str>,
    /// Number of the document in it, from 1; 0: the file as a whole.
    pub document: u64,
    /// Its first line, from 1; 0: not known.
    pub line: u64,
}

/// A fact and where it stands.
#[derive(Clone, Debug, PartialEq)]
pub struct Placed<T> {
    /// Where.
    pub place: Place,
    /// What.
    pub fact: T,
}

/// A pod, or the one that a workload will make.
#[derive(Clone, Debug, PartialEq)]
pub struct PodManifest {
    /// Where the object stands.
    pub place: Place,
    /// The object's kind, as `Deployment`.
    pub kind: Arc<str>,
    /// The pod.
    pub pod: PodFacts,
}

/// What was read. Of objects that stand there more than once the last one counts, as when they are applied in order.
#[derive(Clone, Debug, Default)]
pub struct Manifests {
    /// Pods, and those that workloads will make.
    pub pods: Vec<PodManifest>,
    /// Service accounts.
    pub accounts: Vec<Placed<ServiceAccountFacts>>,
    /// Policies.
    pub policies: Vec<Placed<PolicyFacts>>,
    /// Nodes.
    pub nodes: Vec<NodeFacts>,
    /// Events of the controller, by the pod's uid.
    pub events: BTreeMap<Arc<str>, Vec<GroupEvent>>,
    /// Objects that say nothing about groups and identities, by kind.
    pub skipped: BTreeMap<String, u64>,
    /// What could not be read.
    pub problems: Vec<Problem>,
}

/// What manifests do not tell.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// Settings of the rules.
    pub settings: Settings,
    /// The mode that the CNI is set to.
    pub mode: Option<Mode>,
    /// Pod Identity associations of the cluster.
    pub associations: Associations,
    /// Findings that are as they should be; those for AWS's own node agents are built in.
    pub waivers: Vec<Waiver>,
    /// Now: waivers end.
    pub now: WallNs,
}

/// Reviews manifests.
pub fn check(manifests: Manifests, options: &Options) -> CheckReport {
    let Manifests { pods, accounts, policies, nodes, events, skipped, problems } = manifests;
    let nodes: BTreeMap<_, _> = nodes.into_iter().map(|node| (node.name.clone(), node)).collect();
    let pods = last_of(pods, |PodManifest { pod, kind, .. }| {
        (pod.namespace.clone(), kind.clone(), pod.name.clone(), pod.uid.clone())
    });
    let workloads: BTreeSet<_> =
        pods.keys().map(|(namespace, kind, name, _)| (namespace.clone(), kind.clone(), name.clone())).collect();
    let accounts = last_of(accounts, |Placed { fact: account, .. }| (account.namespace.clone(), account.name.clone()));
    let accounts: BTreeMap<_, _> = accounts.into_iter().map(|(key, placed)| (key, placed.fact)).collect();
    let policies = last_of(policies, |Placed { fact: policy, .. }| (policy.namespace.clone(), policy.name.clone()));
    let mut by_namespace: BTreeMap<Arc<str>, Vec<Arc<PolicyFacts>>> = BTreeMap::new();
    let mut findings = Vec::new();
    for Placed { place, fact: policy } in policies.into_values() {
        for judgement in judge_policy(&policy, Selected::Always, &options.settings, &|_| Belongs::Unknown) {
            let who = Who { namespace: &policy.namespace, ..Who::default() };
            findings.extend(finding(judgement, &place, &policy_object(&policy), &who, options));
        }
        by_namespace.entry(policy.namespace.clone()).or_default().push(Arc::new(policy));
    }
    // The node of a pod that was not admitted yet: with branch interfaces, and not of Auto Mode. That of one from a cluster
    // is what it is, and not known unless it is among the manifests.
    let ordinary = NodeFacts { branch_interfaces: Some(1), ..NodeFacts::default() };
    let mut reports = Vec::with_capacity(pods.len());
    for ((namespace, kind, name, _), manifest) in pods {
        let pod = &manifest.pod;
        // A `ReplicaSet` beside its Deployment, a Job beside its `CronJob`: said already, and as it will be.
        let owner = (namespace, pod.workload.kind.clone(), pod.workload.name.clone());
        let is_owner = (&owner.1, &owner.2) == (&kind, &name);
        if pod.uid.is_none() && !is_owner && workloads.contains(&owner) {
            continue;
        }
        let none = Vec::new();
        let policies = by_namespace.get(&pod.namespace).unwrap_or(&none);
        let key = (pod.namespace.clone(), pod.service_account.clone());
        let account = accounts.get(&key).map_or(Account::Unknown, Account::Known);
        let around = PodContext {
            account,
            policies: Some(policies),
            node: pod.node.as_ref().and_then(|name| nodes.get(name)).or(pod.uid.is_none().then_some(&ordinary)),
            events: pod.uid.as_ref().and_then(|uid| events.get(uid)).map(Vec::as_slice),
            ..PodContext::new(pod)
        };
        let report = review(&manifest.place, &kind, &around, options);
        findings.extend(report.findings.iter().cloned());
        reports.push(report);
    }
    CheckReport::new(reports, findings, skipped, problems)
}

/// One pod.
fn review(place: &Place, kind: &Arc<str>, around: &PodContext<'_>, options: &Options) -> PodReport {
    let PodContext { pod: object, account, policies, .. } = *around;
    let demand = demanded(object, account, policies);
    let admitted = object.uid.is_some();
    let forecast = (!admitted).then(|| admission::admitted(object, account, &demand, &options.associations));
    let pod = forecast.as_ref().unwrap_or(object);
    let context = PodContext { pod, ..*around };
    let mut judgements = judge_pod(&context, &options.settings);
    let identity = forecast::identity(pod, account, &options.associations);
    let (groups, unsure) = forecast::groups(pod, &demand);
    let mode = options.mode.filter(|_| !groups.is_empty() && !pod.fargate);
    judgements.extend(forecast::pod_identity_in_strict_mode(pod, mode, &demand));
    let name = pod_object(object);
    let mut findings = Vec::new();
    let mut cannot_tell = Vec::new();
    for judgement in judgements {
        if let Verdict::CannotTell(why) = judgement.verdict {
            let container = judgement.subject.container.clone();
            cannot_tell.push(CannotTell { code: judgement.code, container, why });
        } else {
            let container = Some(&*judgement.subject.container).filter(|name| !name.is_empty()).map(str::to_owned);
            let who = Who::of(pod, container.as_deref());
            findings.extend(finding(judgement, place, &name, &who, options));
        }
    }
    PodReport {
        namespace: object.namespace.clone(),
        name: object.name.clone(),
        kind: kind.clone(),
        workload: object.workload.name.clone(),
        place: place.clone(),
        admitted,
        security_groups_source: if groups.is_empty() { "node" } else { "policy" },
        security_groups_cannot_tell: unsure,
        policies: if groups.is_empty() { Vec::new() } else { forecast::policy_names(&demand) },
        security_groups: groups,
        enforcement_mode: mode,
        identity,
        findings,
        cannot_tell,
    }
}

fn finding(judgement: Judgement, place: &Place, object: &str, who: &Who<'_>, options: &Options) -> Option<Finding> {
    let Judgement { code, subject, verdict } = judgement;
    let Verdict::Violated(violation) = verdict else { return None };
    let Violation { severity, cause, text, evidence } = *violation;
    let advice = code.advice(cause);
    let accepted = waivers::accepting(&options.waivers, code, who, options.now);
    Some(Finding {
        code,
        severity,
        state: if accepted.is_some() { State::Accepted } else { State::Open },
        accepted_reason: accepted.map(Arc::from),
        text,
        cause,
        advice,
        object: object.to_owned(),
        place: place.clone(),
        subject,
        evidence,
    })
}

/// Each object once, the last one given, ordered by its key.
fn last_of<T, K: Ord>(objects: Vec<T>, key: impl Fn(&T) -> K) -> BTreeMap<K, T> {
    objects.into_iter().map(|object| (key(&object), object)).collect()
}

#[cfg(test)]
mod tests;
