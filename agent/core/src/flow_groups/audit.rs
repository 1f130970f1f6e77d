//! Every policy about pods of this node: its groups, what they allow, what its pods really used, and what cannot work.
//!
//! A rule that no flow used may still be needed: by what happens once a month, and by pods of other nodes. So each group
//! tells since when its rules were watched here.

mod needs;

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use self::needs::Needs;
pub(crate) use self::needs::probe_flow;
use super::scene::Scene;
use super::usage::{Usage, Use, Used};
use super::{FlowGroups, Known};
use crate::cluster::Found;
use crate::facts::{Ec2Call, PodFacts};
use crate::papers::Account;
use crate::papers::demand::demanded;
use crate::papers::enforcement::Mode;
use crate::sg::{GroupId, Side};
use crate::time::WallNs;

/// Most rules and uses told of one group or pod, so that a line stays below 256 KiB at about 200 bytes each.
const MAX_TOLD: usize = 1_000;

/// See the module's text.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Audit {
    /// Policies that select a pod here.
    pub policies: Vec<PolicyAudit>,
    /// Groups that these policies name, or their pods' interfaces have.
    pub groups: Vec<GroupAudit>,
    /// Pods that policies or a branch interface are about.
    pub pods: Vec<PodAudit>,
    /// What all this rests on.
    pub basis: Basis,
}

/// A policy.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PolicyAudit {
    /// Namespace.
    pub namespace: Arc<str>,
    /// Name.
    pub policy: Arc<str>,
    /// Groups, as it lists them.
    pub groups: Vec<Arc<str>>,
    /// Pods of this node that it selects.
    pub pods: Vec<Arc<str>>,
}

/// A group.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct GroupAudit {
    /// Its id.
    pub group: Arc<str>,
    /// Its name; `None`: not told.
    pub name: Option<Arc<str>>,
    /// When EC2 told its rules; `None`: it did not.
    pub told: Option<WallNs>,
    /// EC2 says that there is no such group.
    pub absent: bool,
    /// Since when it is known without a break; `None`: it is not, or what EC2 told of it is too old.
    pub watched_since: Option<WallNs>,
    /// Its rules.
    pub rules: Vec<RuleAudit>,
    /// Rules left out of that.
    pub rules_left_out: u64,
}

/// A rule.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RuleAudit {
    /// Its id.
    pub rule: Arc<str>,
    /// `egress` or `ingress`.
    pub side: Side,
    /// What it allows.
    pub text: String,
    /// Connections of this node's pods that ended and that it let pass; `None`: none at all was seen, open ones included.
    pub connections: Option<u64>,
    /// End of the last ten seconds that saw one.
    pub last_used: Option<WallNs>,
    /// Connections that it may have let pass: to a service whose backend is not known, or whose verdict could not be told for
    /// another reason. `None`: none.
    #[serde(default)]
    pub perhaps: Option<u64>,
    /// Since when this rule is known and watched, without a break; `None`: it is not.
    #[serde(default)]
    pub watched_since: Option<WallNs>,
}

/// A pod.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PodAudit {
    /// Namespace.
    pub namespace: Arc<str>,
    /// Name.
    pub pod: Arc<str>,
    /// Whether its own groups are in force; `None`: cannot tell.
    pub enforced: Option<bool>,
    /// How; `None`: not in force, or cannot tell.
    pub mode: Option<Mode>,
    /// Groups really on its interface; `None`: not known.
    pub groups: Option<Vec<Arc<str>>>,
    /// What it did, the latest first.
    pub uses: Vec<UseAudit>,
    /// Uses left out of that.
    pub uses_left_out: u64,
    /// What its groups will not let it do, as far as their rules are known.
    pub problems: Vec<Problem>,
    /// What else they may not let it do, and why that cannot be told; a sentence each.
    #[serde(default)]
    pub cannot_tell: Vec<String>,
}

/// Flows of a pod, alike in all that is told.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct UseAudit {
    /// `egress`: it began them; `ingress`: they came to it.
    pub side: Side,
    /// `tcp` or `udp`.
    pub protocol: String,
    /// The listening side's port.
    pub port: u16,
    /// Name or address of the other end.
    pub peer: Arc<str>,
    /// As in rows: `allowed`, `no_rule`, `cannot_tell`.
    pub verdict: String,
    /// Something came back although no rule lets it: tracked since before a rule went, or rules or groups are others by
    /// now.
    pub unexplained: bool,
    /// Connections that ended.
    pub connections: u64,
    /// End of the last ten seconds that saw one.
    pub last_used: WallNs,
}

/// Something that cannot work.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Problem {
    /// `no_dns` or `no_probe_path`.
    pub problem: String,
    /// What, in a sentence.
    pub text: String,
    /// A command that adds the missing rule; `None`: the other end's groups and addresses are not known.
    pub aws_cli: Option<String>,
    /// The same for Terraform.
    pub terraform: Option<String>,
}

/// What an audit rests on.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Basis {
    /// Calls of the EC2 API, by name.
    pub calls: Vec<CallAudit>,
    /// Policies are known.
    pub policies_known: bool,
    /// Uses of rules that found no room: with any, a rule that seems unused may have been used.
    pub rules_dropped: u64,
    /// Uses of pods that found no room.
    pub uses_dropped: u64,
}

/// How a call stands.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CallAudit {
    /// Which.
    pub call: Ec2Call,
    /// When it last worked.
    pub fresh_at: Option<WallNs>,
    /// Why it does not.
    pub error: Option<String>,
}

/// The audit as things stand.
pub fn audit(groups: &FlowGroups, known: Known<'_>) -> Audit {
    let scene = groups.scene(known);
    let mut seen: BTreeMap<Arc<str>, Option<GroupId>> = BTreeMap::new();
    let mut note = |id: &str| {
        seen.entry(Arc::from(id)).or_insert_with(|| id.parse().ok());
    };
    let mut by_policy: BTreeMap<(Arc<str>, Arc<str>), PolicyAudit> = BTreeMap::new();
    let mut pods = Vec::new();
    let policies = known.cluster.policies();
    let present = known.cluster.pods().present().filter(|pod| pod.is_certain()).map(|pod| &*pod.facts);
    let mut about: Vec<_> = present.filter(|pod| scene.is_about(pod)).collect();
    about.sort_by(|one, other| (&one.namespace, &one.name).cmp(&(&other.namespace, &other.name)));
    for pod in about {
        let account = match known.cluster.account(&pod.namespace, &pod.service_account) {
            Some(Found::Present(account)) => Account::Known(account),
            Some(Found::Absent) => Account::Gone,
            None => Account::Unknown,
        };
        for policy in demanded(pod, account, policies.as_deref()).policies {
            let key = (Arc::clone(&policy.namespace), Arc::clone(&policy.name));
            let entry = by_policy.entry(key).or_insert_with(|| PolicyAudit {
                namespace: Arc::clone(&policy.namespace),
                policy: Arc::clone(&policy.name),
                groups: policy.groups.clone(),
                pods: Vec::new(),
            });
            entry.pods.push(Arc::clone(&pod.name));
            policy.groups.iter().for_each(|id| note(id));
        }
        let of_interface = scene.interface_groups(pod).map(|held| held.groups);
        of_interface.iter().flatten().for_each(|id| note(id.as_str()));
        pods.push(of_pod(&scene, groups.usage(), pod, of_interface));
    }
    let (rules_dropped, uses_dropped) = groups.usage().dropped();
    let calls = known.ec2.calls().map(|(call, standing)| CallAudit {
        call,
        fresh_at: standing.fresh_at,
        error: standing.error.clone(),
    });
    Audit {
        policies: by_policy.into_values().collect(),
        groups: seen.into_iter().map(|(text, id)| group(&scene, groups.usage(), text, id.as_ref())).collect(),
        pods,
        basis: Basis { calls: calls.collect(), policies_known: policies.is_some(), rules_dropped, uses_dropped },
    }
}

fn group(scene: &Scene<'_>, usage: &Usage, text: Arc<str>, id: Option<&GroupId>) -> GroupAudit {
    let told = id.and_then(|id| scene.known.ec2.group(id));
    let facts = told.and_then(|told| told.what.as_deref());
    let rules = facts.map(|facts| facts.group.rules.as_slice()).unwrap_or_default();
    let rule = |rule: &crate::sg::Rule| {
        let used = usage.rule(rule.id.as_str());
        RuleAudit {
            rule: rule.id.as_str().into(),
            side: rule.side,
            text: rule.text(),
            connections: used.map(|used| used.connections),
            last_used: used.map(|used| used.last),
            perhaps: id.and_then(|id| usage.perhaps(id, rule)).map(|used| used.connections),
            watched_since: usage.rule_since(rule.id.as_str()),
        }
    };
    GroupAudit {
        group: text,
        name: facts.and_then(|facts| facts.group.name.clone()),
        told: told.filter(|told| told.what.is_some()).map(|told| told.at),
        absent: told.is_some_and(|told| told.what.is_none()),
        watched_since: id.and_then(|id| usage.group_since(id)),
        rules: rules.iter().take(MAX_TOLD).map(rule).collect(),
        rules_left_out: rules.len().saturating_sub(MAX_TOLD) as u64,
    }
}

fn of_pod(scene: &Scene<'_>, usage: &Usage, pod: &PodFacts, groups: Option<Vec<GroupId>>) -> PodAudit {
    let mut uses: Vec<_> = usage.of_pod(pod.uid.as_deref().unwrap_or_default()).collect();
    uses.sort_by_key(|(_, used)| std::cmp::Reverse(used.last));
    let left_out = uses.len().saturating_sub(MAX_TOLD) as u64;
    let enforced = scene.is_enforced(pod);
    let mode = scene.mode(pod).filter(|_| enforced == Some(true));
    let needs = match (&groups, enforced) {
        (Some(groups), Some(true)) => needs::of(scene, pod, mode, groups),
        _ => Needs::default(),
    };
    PodAudit {
        namespace: Arc::clone(&pod.namespace),
        pod: Arc::clone(&pod.name),
        enforced,
        mode,
        groups: groups.map(|groups| groups.iter().map(|id| Arc::from(id.as_str())).collect()),
        uses: uses.into_iter().take(MAX_TOLD).map(use_of).collect(),
        uses_left_out: left_out,
        problems: needs.problems,
        cannot_tell: needs.cannot_tell,
    }
}

fn use_of((of, used): (&Use, &Used)) -> UseAudit {
    UseAudit {
        side: of.side,
        protocol: of.transport.to_owned(),
        port: of.port,
        peer: Arc::clone(&of.peer),
        verdict: of.verdict.to_owned(),
        unexplained: of.unexplained,
        connections: used.connections,
        last_used: used.last,
    }
}
