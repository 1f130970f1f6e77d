//! `sekisho sg audit`: every policy on this node, what its groups allow, and what its pods really used.

use std::collections::BTreeMap;
use std::fmt::{self, Write as _};

use agent_core::flow_groups::audit::{Basis, GroupAudit, PodAudit, PolicyAudit, RuleAudit, UseAudit};
use agent_core::sg::Side;
use clap::Args;
use serde_json::Value;

use crate::api::client;
use crate::api::protocol::Verb;
use crate::command::{Exit, Shape, Socket, print};
use crate::lines;

/// Uses of a pod that people are shown; programs get more.
const USES_SHOWN: usize = 20;

/// Every SecurityGroupPolicy that is about a pod of this node: its groups, what they allow, what its pods really used, rules
/// that no flow used since they are watched, flows that no rule explains. Asks the running agent. Exits with 1 when
/// something cannot work, when no rule explains a flow, or when a part of the answer cannot be read.
#[derive(Args)]
pub(super) struct Audit {
    /// How the answer looks.
    #[arg(short, value_enum, default_value = "text")]
    output: Shape,

    #[command(flatten)]
    socket: Socket,
}

/// The agent's answer, sorted out.
#[derive(Default)]
struct Answer {
    policies: Vec<PolicyAudit>,
    groups: BTreeMap<String, GroupAudit>,
    pods: Vec<PodAudit>,
    basis: Basis,
    /// Lines that this version cannot read, as those of a newer agent.
    unread: usize,
}

impl Audit {
    pub(super) fn run(self) -> anyhow::Result<Exit> {
        let Self { output, socket } = self;
        let lines: Vec<Value> = client::state(&socket.socket, Verb::SgAudit)?;
        let answer = Answer::read(&lines);
        print(&match output {
            Shape::Json => lines::of_objects(&lines),
            Shape::Text => answer.text(),
        })?;
        lines::warn_unread(answer.unread);
        Ok(if answer.found() { Exit::Found } else { Exit::Fine })
    }
}

impl Answer {
    /// Lines of a kind that this version does not know are left out; what it should know and cannot read is counted.
    fn read(lines: &[Value]) -> Self {
        let mut answer = Self::default();
        for line in lines {
            let unread = &mut answer.unread;
            match line.get("kind").and_then(Value::as_str) {
                Some("sg_policy") => lines::put_read(line, unread, |policy| answer.policies.push(policy)),
                Some("sg_pod") => lines::put_read(line, unread, |pod| answer.pods.push(pod)),
                Some("sg_basis") => lines::put_read(line, unread, |basis| answer.basis = basis),
                Some("sg_group") => lines::put_read(line, unread, |group: GroupAudit| {
                    answer.groups.insert(group.group.to_string(), group);
                }),
                _ => {}
            }
        }
        answer
    }

    fn found(&self) -> bool {
        let unexplained = |pod: &PodAudit| pod.uses.iter().any(|used| used.unexplained);
        self.unread > 0 || self.pods.iter().any(|pod| !pod.problems.is_empty() || unexplained(pod))
    }

    fn text(&self) -> String {
        let mut out = String::new();
        // Writing to a string does not fail.
        let _ = self.write(&mut out);
        // Names come from workloads and from whoever names groups: no escape sequence of theirs reaches a terminal.
        lines::clean_lines(&out)
    }

    fn write(&self, out: &mut String) -> fmt::Result {
        if !self.basis.policies_known {
            writeln!(out, "no policies are known: no cluster is watched, or its policies were not read yet")?;
        } else if self.policies.is_empty() {
            writeln!(out, "no policy selects a pod of this node")?;
        }
        for policy in &self.policies {
            let PolicyAudit { namespace, policy, groups, pods } = policy;
            writeln!(out, "policy {namespace}/{policy}: {} for {}", list(groups), list(pods))?;
        }
        for group in self.groups.values() {
            self.group(out, group)?;
        }
        for pod in &self.pods {
            self::pod(out, pod)?;
        }
        self.rests_on(out)
    }

    fn group(&self, out: &mut String, group: &GroupAudit) -> fmt::Result {
        let GroupAudit { group: id, name, told, absent, watched_since: _, rules, rules_left_out } = group;
        write!(out, "\ngroup {id}")?;
        if let Some(name) = name {
            write!(out, " ({name})")?;
        }
        match told {
            _ if *absent => return writeln!(out, ": EC2 says that there is no such group"),
            None => return writeln!(out, ": its rules are not known"),
            Some(told) => writeln!(out, ", rules as EC2 told them {told}")?,
        }
        for RuleAudit { rule, side, text, connections, last_used, perhaps, watched_since } in rules {
            write!(out, "  {:<8}{text:<40} {rule}  ", side.name())?;
            match (connections, last_used, watched_since) {
                (Some(connections), Some(last), _) => writeln!(out, "used {connections} times, last {last}")?,
                (_, _, None) => writeln!(out, "not watched yet")?,
                // What was used may have found no room.
                (None, _, Some(since)) if self.basis.rules_dropped > 0 => writeln!(out, "no use noted since {since}")?,
                (_, _, Some(since)) if perhaps.is_some() => writeln!(out, "no use seen since {since}")?,
                (_, _, Some(since)) => writeln!(out, "not used by pods of this node since {since}")?,
            }
            if let Some(connections) = perhaps {
                writeln!(out, "            may have let {connections} more connections pass: that cannot be told")?;
            }
        }
        match rules_left_out {
            0 => Ok(()),
            more => writeln!(out, "  and {more} more"),
        }
    }

    /// What does not answer, and what found no room.
    fn rests_on(&self, out: &mut String) -> fmt::Result {
        let Basis { calls, policies_known: _, rules_dropped, uses_dropped } = &self.basis;
        if calls.is_empty() {
            writeln!(out, "\nEC2 is not asked: no rule is known, and nothing can be told of what they allow")?;
        }
        let mut refused = BTreeMap::<_, Vec<_>>::new();
        for call in calls {
            if let Some(error) = &call.error {
                refused.entry((error, call.fresh_at)).or_default().push(call.call.name());
            }
        }
        for ((error, last), names) in refused {
            let last = last.map_or_else(|| "never did".to_owned(), |at| format!("last did {at}"));
            writeln!(out, "\nEC2 does not answer {}, {last}: {error}", names.join(", "))?;
        }
        if *rules_dropped > 0 || *uses_dropped > 0 {
            writeln!(out, "\n{rules_dropped} uses of rules and {uses_dropped} of pods found no room and are not told")?;
        }
        Ok(())
    }
}

fn pod(out: &mut String, pod: &PodAudit) -> fmt::Result {
    let PodAudit { namespace, pod, enforced, mode, groups, uses, uses_left_out, problems, cannot_tell } = pod;
    let how = match (enforced, mode) {
        (Some(true), Some(mode)) => format!("in force, {} mode", mode.name()),
        (Some(true), None) => "in force, in which mode is not known".to_owned(),
        (Some(false), _) => "not in force: the node's groups apply".to_owned(),
        (None, _) => "cannot tell whether in force".to_owned(),
    };
    let groups = groups.as_ref().map_or_else(|| "groups not known".to_owned(), list);
    writeln!(out, "\npod {namespace}/{pod}: {groups}, {how}")?;
    for problem in problems {
        writeln!(out, "  will not work: {}", problem.text)?;
        if let Some(command) = &problem.aws_cli {
            writeln!(out, "    {command}")?;
        }
    }
    for doubt in cannot_tell {
        writeln!(out, "  cannot tell {doubt}")?;
    }
    for used in uses.iter().take(USES_SHOWN) {
        let UseAudit { side, protocol, port, peer, verdict, unexplained, connections, last_used } = used;
        let arrow = if *side == Side::Egress { "->" } else { "<-" };
        let peer = if *side == Side::Egress { format!("{peer} {port}") } else { format!("{port} from {peer}") };
        let verdict = if *unexplained { "no rule explains it" } else { &verdict.replace('_', " ") };
        writeln!(out, "  {arrow} {protocol} {peer}  {verdict}, {connections} connections, last {last_used}")?;
    }
    let more = uses.len().saturating_sub(USES_SHOWN) as u64 + uses_left_out;
    if more > 0 { writeln!(out, "  and {more} more") } else { Ok(()) }
}

/// `a, b, c`, or `nothing`.
fn list<T: AsRef<str>>(items: impl IntoIterator<Item = T>) -> String {
    let items: Vec<_> = items.into_iter().map(|item| item.as_ref().to_owned()).collect();
    if items.is_empty() { "nothing".to_owned() } else { items.join(", ") }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn lines(unexplained: bool) -> Vec<Value> {
        let used = json!({"side": "egress", "protocol": "tcp", "port": 5432, "peer": "10.0.5.5", "verdict": "no_rule",
            "unexplained": unexplained, "connections": 3, "last_used": "2026-01-02T03:04:05Z"});
        let rule = |id: &str, connections: Option<u64>| {
            let last = connections.map(|_| "2026-01-02T03:04:05Z");
            json!({"rule": id, "side": "egress", "text": "tcp 443 to 0.0.0.0/0", "connections": connections,
                "last_used": last, "watched_since": "2026-01-02T03:00:00Z"})
        };
        vec![
            json!({"kind": "sg_policy", "namespace": "shop", "policy": "cart", "groups": ["sg-1"], "pods": ["cart-0"]}),
            json!({"kind": "sg_group", "group": "sg-1", "name": "ca\u{1b}rt", "told": "2026-01-02T03:00:00Z",
                "absent": false, "watched_since": "2026-01-02T03:00:00Z", "rules_left_out": 0,
                "rules": [rule("sgr-1", Some(2)), rule("sgr-2", None)]}),
            json!({"kind": "sg_pod", "namespace": "shop", "pod": "cart-0", "enforced": true, "mode": "strict",
                "groups": ["sg-1"], "uses": [used], "uses_left_out": 0, "problems": []}),
            json!({"kind": "of a version to come"}),
            json!({"kind": "sg_basis", "calls": [], "policies_known": true, "rules_dropped": 0, "uses_dropped": 0}),
        ]
    }

    #[test]
    fn the_answer_says_what_is_used_what_is_not_and_what_no_rule_explains() {
        let answer = Answer::read(&lines(true));
        let text = answer.text();
        for part in [
            "policy shop/cart: sg-1 for cart-0",
            "sgr-1  used 2 times, last 2026-01-02T03:04:05",
            "sgr-2  not used by pods of this node since 2026-01-02T03:00:00",
            "pod shop/cart-0: sg-1, in force, strict mode",
            "-> tcp 10.0.5.5 5432  no rule explains it, 3 connections",
            "EC2 is not asked",
        ] {
            assert!(text.contains(part), "{part}: {text}");
        }
        assert!(!text.contains('\u{1b}'), "{text}");
        assert!(answer.found());
        assert!(!Answer::read(&lines(false)).found());
    }

    #[test]
    fn what_may_have_been_used_and_what_cannot_be_told_stand_out() {
        let mut lines = lines(false);
        lines[1]["rules"][1]["perhaps"] = json!(7);
        lines[1]["rules"][0]["watched_since"] = json!(null);
        lines[2]["cannot_tell"] = json!(["whether its groups let DNS out over udp: its dnsPolicy is not known"]);
        let text = Answer::read(&lines).text();
        for part in [
            "sgr-2  no use seen since 2026-01-02T03:00:00",
            "may have let 7 more connections pass",
            "cannot tell whether its groups let DNS out over udp",
        ] {
            assert!(text.contains(part), "{part}: {text}");
        }
        assert!(!text.contains("sgr-2  not used"), "{text}");
    }

    #[test]
    fn a_line_that_cannot_be_read_is_counted_and_is_no_success() {
        for (at, line) in lines(false).iter().enumerate().filter(|(_, line)| line["kind"] != "of a version to come") {
            let mut lines = lines(false);
            lines[at] = json!({"kind": line["kind"], "of": "another version"});
            let answer = Answer::read(&lines);
            assert_eq!((answer.unread, answer.found()), (1, true), "{line}");
        }
        assert_eq!(Answer::read(&lines(false)).unread, 0);
    }

    #[test]
    fn without_policies_that_is_what_is_said() {
        let basis =
            json!({"kind": "sg_basis", "calls": [], "policies_known": false, "rules_dropped": 0, "uses_dropped": 0});
        assert!(Answer::read(&[basis]).text().starts_with("no policies are known"));
    }
}
