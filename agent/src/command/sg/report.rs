//! The answer, for people and for programs.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::net::IpAddr;

use agent_core::sg::{
    Compiled, Doubt, Flow, Group, GroupId, GroupRule, Missing, Overall, Side, SideVerdict, Tracking, Traffic, Verdict,
};
use serde::Serialize;

use super::question::Asked;
use crate::lines::{SCHEMA, clean_into};

/// Doubts that people are shown; programs get all.
const DOUBTS_SHOWN: usize = 3;

/// The answer.
#[derive(Serialize)]
pub(super) struct Report {
    schema: &'static str,
    kind: &'static str,
    verdict: &'static str,
    /// The flow in words.
    flow: String,
    egress: End,
    ingress: End,
    missing: Vec<MissingRule>,
    why: String,
}

/// What one end says.
#[derive(Serialize)]
struct End {
    verdict: &'static str,
    /// No groups of this end were given.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    not_judged: bool,
    groups: Vec<GroupId>,
    /// Ids of the rules that allow.
    rules: Vec<String>,
    /// The same, and what they say.
    allowed_by: Vec<RuleView>,
    /// Where no rule allows: those that come nearest.
    nearest: Vec<RuleView>,
    /// Whether groups remember the flow: `tracked` or `untracked`; `None` unless rules allow it and all are known.
    tracking: Option<&'static str>,
    why: Vec<String>,
}

#[derive(Serialize)]
struct RuleView {
    id: String,
    group: GroupId,
    group_name: Option<String>,
    text: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    lacks: String,
}

#[derive(Serialize)]
struct MissingRule {
    side: &'static str,
    text: String,
    group: GroupId,
    /// `None`: the other end is not known.
    aws_cli: Option<String>,
    /// See `aws_cli`.
    terraform: Option<String>,
}

/// What everything here is made of.
struct Scene<'a> {
    compiled: &'a Compiled,
    names: BTreeMap<&'a GroupId, &'a str>,
    asked: &'a Asked,
}

impl Report {
    pub(super) fn new(compiled: &Compiled, groups: &[Group], asked: &Asked) -> (Self, Overall) {
        let names = groups.iter().filter_map(|group| Some((&group.id, group.name.as_deref()?))).collect();
        let scene = Scene { compiled, names, asked };
        let verdict = compiled.verdict(&asked.flow, asked.source.as_deref(), asked.destination.as_deref());
        let overall = verdict.overall();
        let missing: Vec<_> =
            [Side::Egress, Side::Ingress].into_iter().filter_map(|side| scene.missing(&verdict, side)).collect();
        let report = Self {
            schema: SCHEMA,
            kind: "sg_explain",
            verdict: overall.name(),
            flow: asked.flow.text(),
            why: why(asked, &verdict, overall, &missing),
            missing: missing.iter().map(MissingRule::new).collect(),
            egress: scene.end(&verdict, Side::Egress),
            ingress: scene.end(&verdict, Side::Ingress),
        };
        (report, overall)
    }

    /// For people: the flow, both ends, the verdict, and what to do about it.
    pub(super) fn text(&self) -> String {
        let mut out = format!("{}\n\n", self.flow);
        self.egress.write("egress", &mut out);
        self.ingress.write("ingress", &mut out);
        // Writing to a string does not fail.
        let _ = writeln!(out, "{:<9}{}: {}", "verdict", self.verdict.replace('_', " "), self.why);
        for MissingRule { side, aws_cli, terraform, .. } in &self.missing {
            let (Some(aws_cli), Some(terraform)) = (aws_cli, terraform) else { continue };
            let _ =
                write!(out, "\nto allow it on {side}, by the AWS CLI:\n\n{aws_cli}\n\nor by Terraform:\n\n{terraform}");
        }
        out
    }
}

/// The verdict's reason in one sentence.
fn why(asked: &Asked, verdict: &Verdict, overall: Overall, missing: &[Missing]) -> String {
    let unknown = |groups: &Option<Vec<GroupId>>| groups.is_none();
    let not_judged = match (&verdict.egress, &verdict.ingress) {
        (SideVerdict::Unfiltered(_), _) | (_, SideVerdict::Unfiltered(_)) => "",
        (SideVerdict::NotJudged, _) if unknown(&asked.source) => {
            "; egress was not judged, for the source's groups are not given"
        }
        (_, SideVerdict::NotJudged) if unknown(&asked.destination) => {
            "; ingress was not judged, for the destination's groups are not given"
        }
        _ => "",
    };
    let reason = match overall {
        Overall::Allowed => match (&verdict.egress, &verdict.ingress) {
            (SideVerdict::Unfiltered(service), _) | (_, SideVerdict::Unfiltered(service)) => service.text().to_owned(),
            (SideVerdict::NotJudged, _) => "the destination's groups let it in".to_owned(),
            (_, SideVerdict::NotJudged) => "the source's groups let it out".to_owned(),
            _ => "the groups at both ends let it pass".to_owned(),
        },
        Overall::NoRule => missing.iter().map(Missing::text).collect::<Vec<_>>().join("; "),
        Overall::CannotTell => {
            let doubts = [&verdict.egress, &verdict.ingress].into_iter().filter_map(|side| match side {
                SideVerdict::CannotTell(doubts) => doubts.first(),
                _ => None,
            });
            doubts.map(Doubt::text).collect::<Vec<_>>().join("; ")
        }
    };
    format!("{reason}{not_judged}")
}

// === impl Scene ===

impl Scene<'_> {
    /// The groups of one end and of the other.
    fn members(&self, side: Side) -> (Option<&[GroupId]>, Option<&[GroupId]>) {
        let (source, destination) = (self.asked.source.as_deref(), self.asked.destination.as_deref());
        match side {
            Side::Egress => (source, destination),
            Side::Ingress => (destination, source),
        }
    }

    fn missing(&self, verdict: &Verdict, side: Side) -> Option<Missing> {
        let (own, others) = self.members(side);
        let dropped = matches!(verdict.side(side), SideVerdict::NoRule);
        self.compiled.missing(&self.asked.flow, side, own.filter(|_| dropped)?, others)
    }

    fn end(&self, verdict: &Verdict, side: Side) -> End {
        let flow = &self.asked.flow;
        let (own, others) = self.members(side);
        let verdict = verdict.side(side);
        let mut end = End {
            verdict: verdict.overall().unwrap_or(Overall::CannotTell).name(),
            not_judged: matches!(verdict, SideVerdict::NotJudged),
            groups: own.unwrap_or_default().to_vec(),
            rules: Vec::new(),
            allowed_by: Vec::new(),
            nearest: Vec::new(),
            tracking: None,
            why: Vec::new(),
        };
        let (own, given) = (own.unwrap_or_default(), own.is_some());
        match verdict {
            SideVerdict::Allowed(rules) => {
                end.rules = rules.iter().map(|rule| rule.rule.id.to_string()).collect();
                end.allowed_by = rules.iter().map(|rule| self.rule(rule, String::new())).collect();
                end.tracking = match self.compiled.tracking(flow, side, own) {
                    Tracking::Tracked => Some("tracked"),
                    Tracking::Untracked => Some("untracked"),
                    Tracking::CannotTell => None,
                };
                end.why.extend(smtp(flow, side));
            }
            SideVerdict::Unfiltered(service) => end.why.push(service.text().to_owned()),
            SideVerdict::NoRule => {
                let near = self.compiled.nearest(flow, side, own, others);
                end.nearest = near.iter().map(|near| self.rule(&near.rule, near.lacks_text(flow))).collect();
            }
            SideVerdict::CannotTell(doubts) => end.why.extend(doubts.iter().map(Doubt::text)),
            SideVerdict::NotJudged => end.why.push(match (side, given) {
                (Side::Egress, true) => "the source has no groups".to_owned(),
                (Side::Ingress, true) => "the destination has no groups".to_owned(),
                (Side::Egress, false) => "the source's groups are not given: --source-groups".to_owned(),
                (Side::Ingress, false) => "the destination's groups are not given: --dest-groups".to_owned(),
            }),
        }
        end
    }

    fn rule(&self, rule: &GroupRule, lacks: String) -> RuleView {
        let name = self.names.get(&rule.group).map(|name| (*name).to_owned());
        RuleView { id: rule.rule.id.to_string(), group: rule.group.clone(), group_name: name, text: rule.text(), lacks }
    }
}

/// EC2 stops mail to the internet whatever the groups say, until somebody asks for it.
/// <https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/ec2-resource-limits.html#port-25-throttle>
fn smtp(flow: &Flow, side: Side) -> Option<String> {
    let public = matches!(flow.ends.destination(), Some(IpAddr::V4(ip)) if !ip.is_private());
    let mail = side == Side::Egress && matches!(flow.traffic, Traffic::Port(_, 25)) && public;
    mail.then(|| "EC2 blocks port 25 to public addresses besides, unless the account asked to lift that".to_owned())
}

// === impl End ===

impl End {
    fn write(&self, name: &str, out: &mut String) {
        let verdict = if self.not_judged { "not judged".to_owned() } else { self.verdict.replace('_', " ") };
        let mut head = name;
        let mut line = |text: &str| {
            // Writing to a string does not fail.
            let _ = writeln!(out, "{head:<9}{text}");
            head = "";
        };
        match &self.allowed_by[..] {
            [] => line(&verdict),
            rules => rules.iter().for_each(|rule| line(&format!("{verdict} by {}", rule.line()))),
        }
        if self.tracking == Some("untracked") {
            line("not tracked: open connections break when the rule goes");
        }
        for rule in &self.nearest {
            line(&format!("nearest: {}; it lacks {}", rule.line(), rule.lacks));
        }
        for why in self.why.iter().take(DOUBTS_SHOWN) {
            line(why);
        }
        if self.why.len() > DOUBTS_SHOWN {
            line(&format!("and {} more", self.why.len() - DOUBTS_SHOWN));
        }
    }
}

// === impl RuleView ===

impl RuleView {
    fn line(&self) -> String {
        let Self { id, group, group_name, text, .. } = self;
        let mut name = String::new();
        if let Some(group_name) = group_name {
            name.push_str(" (");
            clean_into(group_name, &mut name);
            name.push(')');
        }
        format!("{id} of {group}{name}: {text}")
    }
}

// === impl MissingRule ===

impl MissingRule {
    fn new(missing: &Missing) -> Self {
        Self {
            side: missing.side.name(),
            text: missing.text(),
            group: missing.group.clone(),
            aws_cli: missing.aws_cli(),
            terraform: missing.terraform(),
        }
    }
}
