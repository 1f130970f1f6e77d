//! The cluster in the running agent: facts into the pump, and back from its outputs what the cluster is told or asked.

use std::net::IpAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use agent_core::finding::Severity;
use agent_core::input::Input;
use agent_core::output::{FindingRow, FlowRow, Output, PeerClass, State};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use crate::cluster::convert::Conversion;
use crate::cluster::{self, Asker, Note, Options, Publisher, Reviewer};
use crate::config::{Config, Listen};
use crate::node;

/// Pods of one finding that get an event. A workload with more says the same on all of them.
const PODS_MAX: usize = 4;
/// The file of the last facts, in the data directory.
const FACTS_FILE: &str = "facts.json";

/// The part, running.
pub(super) struct Cluster {
    /// Ends when it is aborted; `None` without a cluster.
    pub(super) work: Option<JoinHandle<()>>,
    /// The way back.
    pub(super) reach: Reach,
    /// Asks who scrapes; `None` where nobody may from elsewhere.
    pub(super) reviewer: Option<Reviewer>,
}

/// What of the outputs goes back to the cluster: nothing, without one.
#[derive(Clone, Default)]
pub(super) struct Reach {
    asker: Option<Asker>,
    publisher: Option<Publisher>,
}

/// Starts to follow the cluster, or the manifests that stand for it.
pub(super) fn start(config: &Config, node: &Arc<str>, tell: &mpsc::Sender<Vec<Input>>) -> Cluster {
    if !config.standalone {
        let cluster::Cluster { work, asker, publisher, reviewer } = cluster::new(options(config, node), tell.clone());
        return Cluster { work: Some(tokio::spawn(work)), reach: Reach { asker, publisher }, reviewer };
    }
    let manifests = Some(&config.cluster.manifests).filter(|path| !path.as_os_str().is_empty());
    let work = manifests.map(|directory| {
        let (directory, node, tell) = (directory.clone(), Arc::clone(node), tell.clone());
        tokio::spawn(cluster::follow_directory(directory, node, conversion(config), tell, now))
    });
    Cluster { work, reach: Reach::default(), reviewer: None }
}

fn conversion(config: &Config) -> Conversion {
    Conversion { irsa_prefix: config.findings.irsa_annotation_prefix.clone() }
}

/// How the cluster is reached.
pub(super) fn options(config: &Config, node: &Arc<str>) -> Options {
    let given = |path: &Path| (!path.as_os_str().is_empty()).then(|| path.to_owned());
    Options {
        node: Arc::clone(node),
        kubeconfig: given(&config.cluster.kubeconfig),
        facts_file: Some(config.data_dir.join(FACTS_FILE)),
        start_jitter: Duration::from_secs(config.cluster.start_jitter_seconds.into()),
        conversion: conversion(config),
        events: config.cluster.events,
        remote_lookup: config.cluster.remote_lookup,
        reviews: config.metrics.secure_listen != Listen::Off,
        now,
    }
}

/// What `sekisho doctor` finds at the API server, and how old the facts on disk are; nothing in standalone mode.
pub(crate) fn examine(config: &Config) -> std::io::Result<Vec<cluster::Finding>> {
    if config.standalone {
        return Ok(Vec::new());
    }
    let options = options(config, &config.node().into());
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let mut findings = runtime.block_on(cluster::examine(&options));
    findings.extend(options.facts_file.and_then(|path| age(&path)));
    Ok(findings)
}

/// How old the facts on disk are: `None` without any.
fn age(facts_file: &Path) -> Option<cluster::Finding> {
    let written = std::fs::metadata(facts_file).and_then(|metadata| metadata.modified()).ok()?;
    // A clock that was set back makes them as good as new.
    let seconds = written.elapsed().unwrap_or_default().as_secs();
    let text =
        format!("last written {seconds} s ago, in {}; a start without the API goes by them", facts_file.display());
    Some(cluster::Finding { name: "facts on disk".to_owned(), state: cluster::State::Ok, text })
}

fn now() -> agent_core::time::WallNs {
    node::clock().1
}

// === impl Reach ===

impl Reach {
    /// Looks at an output.
    pub(super) fn observe(&self, output: &Output) {
        match output {
            Output::Flow(row) => self.ask(row),
            Output::Finding(row) => self.publish(row),
            Output::Metadata(_) | Output::Process(_) | Output::Gap(_) | Output::Capacity(_) | Output::Object(_) => {}
        }
    }

    /// Peers that may be pods of other nodes, named ones too: a name ends before a connection does.
    fn ask(&self, row: &FlowRow) {
        let Some(asker) = &self.asker else { return };
        let may_be_pod = matches!(row.peer.class, PeerClass::Unknown | PeerClass::ClusterPod | PeerClass::Vpc);
        let ip = row.peer.ip.as_ref().filter(|_| may_be_pod);
        if let Some(ip) = ip.and_then(|ip| ip.parse::<IpAddr>().ok()) {
            asker.ask(ip);
        }
    }

    /// Kubernetes events by what became of them; nothing where none are written.
    pub(super) fn events(&self) -> impl Iterator<Item = (&'static str, u64)> {
        self.publisher.iter().flat_map(Publisher::ends)
    }

    fn publish(&self, row: &FindingRow) {
        let Some(publisher) = &self.publisher else { return };
        for note in notes(row) {
            publisher.publish(note);
        }
    }
}

/// The events of a finding: on each of its pods, when it opened and when it ended. One that is accepted is not news.
fn notes(row: &FindingRow) -> Vec<Note> {
    let (action, text) = match row.state {
        State::Open => ("Opened", format!("{} {}", row.text, row.advice)),
        State::Resolved => ("Resolved", format!("no longer so: {}", row.text)),
        State::Accepted => return Vec::new(),
    };
    let of_row = (!row.subject.pod.is_empty()).then_some(&row.subject.pod);
    let named = row.pods.iter().filter(|pod| of_row != Some(*pod));
    let note = |pod: &Arc<str>| Note {
        namespace: Arc::clone(&row.subject.namespace),
        pod: Arc::clone(pod),
        uid: Some(&row.subject.uid).filter(|uid| of_row == Some(pod) && !uid.is_empty()).cloned(),
        reason: camel_case(row.code.name()),
        action,
        text: text.clone(),
        warning: row.state == State::Open && row.severity != Severity::Info,
        at: row.time,
    };
    of_row.into_iter().chain(named).take(PODS_MAX).map(note).collect()
}

/// `sgp-not-enforced` as `SgpNotEnforced`.
fn camel_case(code: &str) -> String {
    let word = |word: &str| {
        let mut letters = word.chars();
        letters.next().map(|first| first.to_ascii_uppercase()).into_iter().chain(letters).collect::<String>()
    };
    code.split('-').map(word).collect()
}

#[cfg(test)]
mod tests {
    use agent_core::finding::{Code, Subject};
    use agent_core::time::WallNs;

    use super::*;

    fn row(state: State, pod: &str, pods: &[&str]) -> FindingRow {
        FindingRow {
            time: WallNs(7),
            id: "1".to_owned(),
            code: Code::SgpNotEnforced,
            severity: Severity::High,
            state,
            subject: Subject {
                namespace: "shop".into(),
                pod: pod.into(),
                uid: if pod.is_empty() { "" } else { "u" }.into(),
                ..Subject::default()
            },
            pods: pods.iter().map(|pod| Arc::from(*pod)).collect(),
            pods_count: pods.len() as u64,
            cause: "webhook_missed".to_owned(),
            first_seen: WallNs(0),
            last_seen: WallNs(0),
            resolved_at: None,
            count: 1,
            watched_since: WallNs(0),
            text: "it is so.".to_owned(),
            advice: "do this.".to_owned(),
            evidence: Vec::new(),
            accepted_reason: None,
        }
    }

    #[test]
    fn a_finding_is_told_on_its_pods_when_it_opens_and_when_it_ends() {
        let told = notes(&row(State::Open, "a", &["a", "b"]));
        let about: Vec<_> = told.iter().map(|note| (&*note.pod, note.uid.as_deref(), note.warning)).collect();
        assert_eq!(about, [("a", Some("u"), true), ("b", None, true)]);
        assert_eq!((told[0].reason.as_str(), told[0].text.as_str()), ("SgpNotEnforced", "it is so. do this."));
        let told = notes(&row(State::Resolved, "", &["a"]));
        assert_eq!((told.len(), told[0].action, told[0].warning), (1, "Resolved", false));
        assert!(notes(&row(State::Accepted, "a", &[])).is_empty());
        let many: Vec<String> = (0..20).map(|n| format!("p{n}")).collect();
        let many: Vec<&str> = many.iter().map(String::as_str).collect();
        assert_eq!(notes(&row(State::Open, "", &many)).len(), PODS_MAX);
    }
}
