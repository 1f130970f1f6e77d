//! What unanswered connections of pods with security groups of their own mean.

use std::net::IpAddr;
use std::sync::Arc;

use super::flows::{About, Others, Step, Try, Wire};
use super::judged::{self, Lack, Probes, Said};
use super::{violation, whom, why};
use crate::facts::{NetworkPolicyFacts, PodFacts, ProbeKind};
use crate::finding::{Code, Evidence, Severity, Subject, View, Violation};
use crate::papers::enforcement::Mode;
use crate::papers::{self, selector};

/// Label by which a pod joins Istio's ambient mesh (<https://istio.io/latest/docs/ambient/usage/add-workloads/>).
const AMBIENT_LABEL: (&str, &str) = ("istio.io/dataplane-mode", "ambient");

/// What a step leads to.
pub(in crate::finding) enum Outcome {
    Violated(Code, Subject, Violation, u64),
    /// And the object because of which it cannot, where there is one.
    CannotTell(Code, Subject, &'static str, Option<Arc<str>>),
    /// It is unanswered, and the groups are not to blame: what was said before is taken back.
    NotTheGroups(Code, Subject, &'static str),
    Cleared(Code, Subject),
}

/// What is known of a pod's connections before.
pub(in crate::finding) struct History<'a> {
    /// Successes were forgotten for want of room.
    pub(in crate::finding) has_forgotten: bool,
    /// The pod is older than the agent's watch.
    pub(in crate::finding) is_older: bool,
    /// Whether a finding stands: then it was found when more was known.
    pub(in crate::finding) is_open: &'a dyn Fn(Code, &Subject) -> bool,
}

/// Judges one step.
pub(in crate::finding) fn judge(
    step: Step,
    pod: &PodFacts,
    mode: Option<Mode>,
    history: &History<'_>,
    view: View<'_>,
) -> Option<Outcome> {
    match step {
        Step::Works(pair) => Some(Outcome::Cleared(code(pair.about), subject(&pair, pod))),
        Step::Unanswered { pair, times, failures, over_ns, is_past_groups, wire, others } => {
            let subject = subject(&pair, pod);
            let past = past_groups(is_past_groups, mode);
            let tried = Tried { pair, wire, times, failures, seconds: over_ns / 1_000_000_000, past, others };
            match tried.pair.about {
                About::Flow => Some(flow(&tried, subject, pod, history, view)),
                About::Dns => Some(dns(&tried, subject, pod, mode, view)),
                About::Probe => probe(&tried, subject, pod, mode, view),
            }
        }
    }
}

/// Why the groups may have nothing to do with it: the pod's mode leaves such connections alone, or may do so.
fn past_groups(is_past_groups: bool, mode: Option<Mode>) -> Option<&'static str> {
    match mode {
        _ if !is_past_groups => None,
        Some(Mode::Strict) => None,
        Some(Mode::Standard) => Some(why::NOT_FILTERED),
        None => Some(papers::why::MODE),
    }
}

struct Tried {
    pair: Try,
    wire: Wire,
    times: u64,
    failures: u64,
    seconds: u64,
    /// Why the groups may not see it at all.
    past: Option<&'static str>,
    others: Others,
}

fn code(about: About) -> Code {
    match about {
        About::Flow => Code::SgpBlockedFlow,
        About::Dns => Code::SgpDnsBlocked,
        About::Probe => Code::SgpProbeBlocked,
    }
}

fn subject(pair: &Try, pod: &PodFacts) -> Subject {
    let Try { uid: _, ip, port, about } = pair;
    let host = if ip.contains(':') { format!("[{ip}]") } else { ip.to_string() };
    // Of a probe the peer is the pod itself: its port tells the findings apart, its address would tell pods apart.
    let peer = match about {
        About::Probe => format!("port {port}"),
        About::Flow => format!("{host}:{port}/tcp"),
        About::Dns => format!("{host}:{port}"),
    };
    Subject { peer: peer.into(), ..papers::subject(pod) }
}

fn flow(tried: &Tried, subject: Subject, pod: &PodFacts, history: &History<'_>, view: View<'_>) -> Outcome {
    let code = Code::SgpBlockedFlow;
    if let Some(policy) = network_policy(pod, &tried.pair.ip, view) {
        return Outcome::CannotTell(code, subject, why::NETWORK_POLICY, Some(policy));
    }
    if history.has_forgotten {
        return Outcome::CannotTell(code, subject, why::FORGOTTEN, None);
    }
    let known = match judged::ask(&tried.pair, tried.wire, pod, view) {
        Said::Missing(lack) => return lacking(code, subject, lack, tried),
        Said::NotTheGroups(why) => return Outcome::NotTheGroups(code, subject, why),
        // That others get answers says more than their not knowing.
        Said::OwnEndAllows if tried.others != Others::Reached => {
            return Outcome::CannotTell(code, subject, why::OWN_END_ALLOWS, None);
        }
        Said::OwnEndAllows => ". Its groups let it out".to_owned(),
        Said::MissingUnlessHere(_) => String::new(),
        Said::CannotTell(known) => known,
    };
    if let Some(why) = tried.past {
        return Outcome::CannotTell(code, subject, why, None);
    }
    let is_watched = !history.is_older || (history.is_open)(code, &subject);
    let (cause, others) = match tried.others {
        // It may be a fail-over of a peer that answered before the agent's start.
        Others::NotKnown if !is_watched => return Outcome::CannotTell(code, subject, why::OLDER, None),
        Others::Failed => return Outcome::CannotTell(code, subject, why::PEER_SILENT, None),
        Others::Reached => ("only_this_pod", "; others on this node, without its groups, get answers"),
        Others::NotKnown => {
            ("unanswered", "; a rule of its groups or of the peer's may be missing, or the peer is dead")
        }
    };
    let unread = unread(view);
    let answered = if history.is_older { "none answered since the agent watches" } else { "none ever answered" };
    let text = format!(
        "{} gets no answer from {}: {} attempts in {} s, {answered}{others}{unread}{known}",
        whom(&subject),
        subject.peer,
        tried.failures,
        tried.seconds
    );
    violated(code, subject, cause, text, tried)
}

/// The first by name of the network policies that may drop what a pod sends to a peer, as far as they are known: one about
/// what leaves the pod, else one about what enters the peer, where that is a pod of this node.
fn network_policy(pod: &PodFacts, peer: &str, view: View<'_>) -> Option<Arc<str>> {
    let leaves = selecting(pod, view, |policy| !policy.ingress_only);
    leaves.or_else(|| {
        let peer: IpAddr = peer.parse().ok()?;
        let mut here = view.cluster.pods().present().filter(|other| other.is_certain() && !other.facts.host_network);
        let other = here.find(|other| other.facts.ips.iter().any(|ip| ip.to_canonical() == peer))?;
        selecting(&other.facts, view, |policy| !policy.egress_only)
    })
}

/// The first by name of the policies of some kind that select a pod. One whose selector cannot be read may select it.
fn selecting(pod: &PodFacts, view: View<'_>, is_about: impl Fn(&NetworkPolicyFacts) -> bool) -> Option<Arc<str>> {
    let selects = |policy: &&Arc<NetworkPolicyFacts>| {
        policy.namespace == pod.namespace
            && is_about(policy)
            && selector::matches(&policy.pod_selector, &pod.labels).unwrap_or(true)
    };
    let policies = view.cluster.network_policies()?.iter().filter(selects);
    // What people wrote comes before what a controller made of it.
    let policy = policies.min_by(|a, b| (a.made_of.is_some(), &a.name).cmp(&(b.made_of.is_some(), &b.name)))?;
    let kind = if policy.made_of.is_some() { "PolicyEndpoint" } else { "NetworkPolicy" };
    Some(format!("{kind} {}/{}", policy.namespace, policy.name).into())
}

/// What is to be added when network policies may be there that nobody knows.
fn unread(view: View<'_>) -> &'static str {
    match view.cluster.network_policies() {
        None => ". Network policies are not known: one would look the same",
        Some(_) if view.cluster.network_policies_may_be_missing() => {
            ". Network policies cannot be read just now: a new one would look the same"
        }
        Some(_) => "",
    }
}

fn dns(tried: &Tried, subject: Subject, pod: &PodFacts, mode: Option<Mode>, view: View<'_>) -> Outcome {
    let code = Code::SgpDnsBlocked;
    let is_link_local = tried.pair.ip.starts_with("169.254.");
    if is_link_local && mode == Some(Mode::Strict) {
        let text = format!(
            "{} gets no answer from DNS at {}: a link-local address of the node is out of reach in strict mode",
            whom(&subject),
            subject.peer
        );
        return violated(code, subject, "node_local_dns", text, tried);
    }
    match (judged::ask(&tried.pair, tried.wire, pod, view), tried.others) {
        (_, Others::Failed) => return Outcome::CannotTell(code, subject, why::PEER_SILENT, None),
        (Said::Missing(lack), _) => return lacking(code, subject, lack, tried),
        (Said::NotTheGroups(why), _) => return Outcome::NotTheGroups(code, subject, why),
        _ if let Some(why) = tried.past => return Outcome::CannotTell(code, subject, why, None),
        (Said::MissingUnlessHere(lack), Others::Reached) => return lacking(code, subject, lack, tried),
        (_, Others::NotKnown) => return Outcome::CannotTell(code, subject, why::PEER_SILENT, None),
        (Said::OwnEndAllows, _) => return Outcome::CannotTell(code, subject, why::OWN_END_ALLOWS, None),
        (Said::CannotTell(_), Others::Reached) => {}
    }
    // That names do not resolve is so whoever drops the queries.
    let (cause, because) = match network_policy(pod, &tried.pair.ip, view) {
        Some(policy) => {
            ("groups_or_network_policy", format!(": its groups refuse it, or {policy}, which selects the pod"))
        }
        None => ("groups", unread(view).to_owned()),
    };
    let text = format!(
        "{} gets no answer from DNS at {}: {} queries in {} s, while others on this node get answers from it{because}",
        whom(&subject),
        subject.peer,
        tried.failures,
        tried.seconds
    );
    violated(code, subject, cause, text, tried)
}

/// No network policy is to blame for a probe: what comes from a pod's own node is always let in
/// (<https://kubernetes.io/docs/concepts/services-networking/network-policies/>).
fn probe(tried: &Tried, subject: Subject, pod: &PodFacts, mode: Option<Mode>, view: View<'_>) -> Option<Outcome> {
    let is_probed = pod.containers.iter().any(|container| {
        let by_port = |kind: ProbeKind| kind != ProbeKind::Exec;
        // One that does not run answers no probe.
        container.running
            && container.probes.iter().any(|probe| by_port(probe.kind) && probe.port == Some(tried.pair.port))
    });
    // In standard mode nothing filters what the node itself sends to its pods.
    if !is_probed || mode == Some(Mode::Standard) {
        return None;
    }
    if mode.is_none() {
        return Some(Outcome::CannotTell(Code::SgpProbeBlocked, subject, papers::why::MODE, None));
    }
    let (ambient, value) = AMBIENT_LABEL;
    // Where a whole namespace joins, the pod has no label: what was done to it stands in an annotation.
    let is_ambient = pod.ambient || pod.labels.get(ambient).is_some_and(|found| found == value);
    let rules = judged::probes(pod, tried.pair.port, view);
    let admitted = matches!(rules, Probes::Admitted);
    if let (false, Probes::Missing(lack)) = (is_ambient, rules) {
        let text = format!(
            "the kubelet's probes of {} on {} time out: {} in {} s: {}",
            whom(&subject),
            subject.peer,
            tried.failures,
            tried.seconds,
            lack.text
        );
        return Some(with(violated(Code::SgpProbeBlocked, subject, "node_group_ingress", text, tried), lack.evidence));
    }
    let (cause, because) = match (is_ambient, view.host.early_demux()) {
        (true, _) => {
            ("ambient_mesh", "the pod is in an ambient mesh, whose probes come from an address that no group admits")
        }
        (false, Some(true)) => (
            "early_demux",
            "the groups are in strict mode, and the node demultiplexes early (net.ipv4.tcp_early_demux=1)",
        ),
        (false, _) if admitted => ("unknown", "its groups admit the node, so it is something else"),
        (false, Some(false)) => ("node_group_ingress", "its groups do not admit the node's group on that port"),
        (false, None) => ("unknown", "its groups do not admit the node, or the node demultiplexes early"),
    };
    let text = format!(
        "the kubelet's probes of {} on {} time out: {} in {} s: {because}",
        whom(&subject),
        subject.peer,
        tried.failures,
        tried.seconds
    );
    Some(violated(Code::SgpProbeBlocked, subject, cause, text, tried))
}

/// No rule lets it pass.
fn lacking(code: Code, subject: Subject, lack: Lack, tried: &Tried) -> Outcome {
    let text = format!(
        "{} gets no answer from {}: {} attempts in {} s, and {}",
        whom(&subject),
        subject.peer,
        tried.failures,
        tried.seconds,
        lack.text
    );
    with(violated(code, subject, lack.cause, text, tried), lack.evidence)
}

/// With evidence of the rules, ahead of what was seen.
fn with(outcome: Outcome, mut evidence: Vec<Evidence>) -> Outcome {
    match outcome {
        Outcome::Violated(code, subject, violation, times) => {
            evidence.extend(violation.evidence);
            Outcome::Violated(code, subject, Violation { evidence, ..violation }, times)
        }
        other => other,
    }
}

fn violated(code: Code, subject: Subject, cause: &'static str, text: String, tried: &Tried) -> Outcome {
    let says = |field: &str, value: String| Evidence {
        object: format!("connections to {}", Arc::clone(&tried.pair.ip)),
        field: field.to_owned(),
        generation: None,
        value,
    };
    let others = match tried.others {
        Others::NotKnown => "not known",
        Others::Reached => "answered",
        Others::Failed => "unanswered",
    };
    let evidence = vec![
        says("port", tried.pair.port.to_string()),
        says("unanswered", format!("{} in {} s", tried.failures, tried.seconds)),
        says("others on this node", others.to_owned()),
    ];
    Outcome::Violated(code, subject, Violation { evidence, ..violation(Severity::Medium, cause, text) }, tried.times)
}
