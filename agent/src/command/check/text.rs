//! The review for people.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

use agent_core::check::{CannotTell, CheckReport, Finding, Place, PodReport, Problem};
use agent_core::finding::Severity;
use agent_core::output::State;
use agent_core::papers::why;

use crate::lines::clean_into;

/// Where the second column begins.
const COLUMN: usize = 17;

/// The whole answer.
pub(super) fn report(report: &CheckReport) -> String {
    let mut out = String::new();
    let of_policies: Vec<_> = report.findings.iter().filter(|finding| !finding.subject.policy.is_empty()).collect();
    for finding in &of_policies {
        line(&mut out, &format!("{}  ({})", finding.object, place(&finding.place)));
        said(&mut out, finding);
        out.push('\n');
    }
    for pod in &report.pods {
        one_pod(&mut out, pod);
        out.push('\n');
    }
    // Causes of one code may need different things.
    let advice: BTreeSet<(&str, &str)> = open(report).map(|finding| (finding.code.name(), finding.advice)).collect();
    if !advice.is_empty() {
        line(&mut out, "What to do");
        for (code, advice) in advice {
            line(&mut out, &format!("  {code}: {advice}"));
        }
        out.push('\n');
    }
    line(&mut out, &summary(report));
    out
}

/// What could not be read, in a line.
pub(super) fn problem(problem: &Problem) -> String {
    let mut out = String::new();
    clean_into(&format!("{}: {}", place(&problem.place), problem.text), &mut out);
    out
}

fn one_pod(out: &mut String, pod: &PodReport) {
    line(out, &format!("{} {}/{}  ({})", pod.kind, pod.namespace, pod.name, place(&pod.place)));
    let groups = match (&pod.security_groups[..], pod.enforcement_mode) {
        ([], _) => "the node's".to_owned(),
        (groups, mode) => {
            let mode = mode.map(|mode| format!(", {} mode", mode.name())).unwrap_or_default();
            format!("{} (by {}{mode})", groups.join(", "), pod.policies.join(", "))
        }
    };
    let more = match pod.security_groups_cannot_tell {
        Some(why) => format!("; cannot tell for sure: {}", in_words(why)),
        None => String::new(),
    };
    column(out, "security groups", &format!("{groups}{more}"));
    let identity = &pod.identity;
    let role = identity.role.as_ref().map(|role| format!(" {role}")).unwrap_or_default();
    column(out, "AWS identity", &format!("{}{role}: {}", identity.kind.name(), identity.why));
    for finding in &pod.findings {
        said(out, finding);
    }
    let mut unsure: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for CannotTell { code, why, .. } in &pod.cannot_tell {
        let codes = unsure.entry(why).or_default();
        if !codes.contains(&code.name()) {
            codes.push(code.name());
        }
    }
    for (why, codes) in unsure {
        column(out, "cannot tell", &format!("{}: {}", codes.join(", "), in_words(why)));
    }
}

/// Why something cannot be told from manifests.
fn in_words(why: &str) -> &str {
    match why {
        why::ACCOUNT => "its service account is not among the manifests",
        why::ANNOTATION => "its annotation vpc.amazonaws.com/pod-eni cannot be read",
        why::LINKS => "the interfaces of its node are not in manifests",
        why::ADDRESS => "it has no address",
        why::PENDING => "it has not started",
        why::STATUS => "it has no status",
        why::AUTO_MODE => "EKS Auto Mode has a mechanism of its own",
        why::FARGATE => "Fargate has a mechanism of its own",
        why::EVENT | why::EVENT_PENDING => "the controller's events about it are not among the manifests",
        why::INSTANCE_GROUPS => "the groups of its node are not in manifests",
        why::ENVIRONMENT => "its environment comes from a ConfigMap or Secret as a whole",
        why::KEY => "the access key comes from a Secret or ConfigMap",
        other => other,
    }
}

fn said(out: &mut String, finding: &Finding) {
    let Finding { code, severity, accepted_reason, text, cause, .. } = finding;
    match accepted_reason {
        None => column(out, severity.name(), &format!("{} ({cause}): {text}", code.name())),
        Some(why) => column(out, "accepted", &format!("{} ({cause}): {text}; accepted: {why}", code.name())),
    }
}

fn column(out: &mut String, name: &str, text: &str) {
    line(out, &format!("  {name:<COLUMN$}{text}"));
}

fn summary(report: &CheckReport) -> String {
    let mut text = format!("{}, ", counted(report.pods.len() as u64, "pod or workload", "pods and workloads"));
    text.push_str(&counted(open(report).count() as u64, "finding", "findings"));
    let mut by_severity = Vec::new();
    for severity in Severity::ALL.iter().rev() {
        let count = open(report).filter(|finding| finding.severity == *severity).count();
        if count > 0 {
            by_severity.push(format!("{count} {}", severity.name()));
        }
    }
    // Writing to a string does not fail.
    if !by_severity.is_empty() {
        let _ = write!(text, " ({})", by_severity.join(", "));
    }
    let accepted = report.findings.len() - open(report).count();
    if accepted > 0 {
        let _ = write!(text, ", {accepted} accepted");
    }
    if report.skipped > 0 {
        let kinds: Vec<_> = report.skipped_kinds.iter().map(|(kind, count)| format!("{count} {kind}")).collect();
        let _ = write!(text, ", {} skipped ({})", counted(report.skipped, "object", "objects"), kinds.join(", "));
    }
    if !report.errors.is_empty() {
        let _ = write!(text, ", {} could not be read, see above", report.errors.len());
    }
    text
}

/// What nobody accepted.
fn open(report: &CheckReport) -> impl Iterator<Item = &Finding> {
    report.findings.iter().filter(|finding| finding.state == State::Open)
}

fn counted(count: u64, one: &str, many: &str) -> String {
    format!("{count} {}", if count == 1 { one } else { many })
}

fn place(place: &Place) -> String {
    let Place { file, document, line } = place;
    let file = if &**file == "-" { "standard input" } else { file };
    match (document, line) {
        (0 | 1, 0) => file.to_string(),
        (0 | 1, line) => format!("{file}:{line}"),
        (document, 0) => format!("{file}, document {document}"),
        (document, line) => format!("{file}:{line}, document {document}"),
    }
}

fn line(out: &mut String, text: &str) {
    clean_into(text, out);
    out.push('\n');
}
