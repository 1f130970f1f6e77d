//! One workload and one plan: what it would lose, and what it has instead.

use std::collections::BTreeSet;

use super::{Answer, Network, Own, Plan, Seen, Use, Work};
use crate::input::{Category, ImdsVersion};
use crate::output::name_of;

/// Which list a workload stands in; the worst comes first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum List {
    Breaks,
    CannotTell,
    FallsBack,
    DoesNotCare,
}

/// Why it stands there, and what is to be done.
#[derive(Debug)]
pub(super) struct Judged {
    pub(super) list: List,
    pub(super) why: String,
    pub(super) advice: &'static str,
    /// What the verdict rests on: the requests that the plan takes away; of whom it does not concern, all.
    pub(super) seen: Seen,
    pub(super) asked: BTreeSet<Category>,
}

/// Judges one workload. `hop_limit`: what is in force, as far as known.
pub(super) fn judge(plan: Plan, work: &Work, hop_limit: Option<u8>) -> Judged {
    let lost: Vec<(&Use, &Seen)> = work.uses.iter().filter(|(kind, _)| takes(plan, **kind)).collect();
    if lost.is_empty() {
        let why = unconcerned(plan, work);
        return Judged::new(List::DoesNotCare, why, "", work.uses.iter());
    }
    // Where the plan asks whose network it is, what is not known of it is no loss for certain.
    let is_certain = |kind: &Use| !spares_node(plan) || kind.network == Network::Own;
    let certain: Vec<_> = lost.iter().copied().filter(|(kind, _)| is_certain(kind)).collect();
    if certain.is_empty() {
        let why = "asks the metadata service, and whether it uses the node's network is not known".to_owned();
        return Judged::new(List::CannotTell, why, NETWORK, lost);
    }
    let mut verdicts: Vec<Judged> = Vec::new();
    let mut add = |list, why: String, advice, part: Vec<(&Use, &Seen)>| {
        if !part.is_empty() {
            verdicts.push(Judged::new(list, why, advice, part));
        }
    };
    let part = |wanted: &dyn Fn(&Use) -> bool| -> Vec<_> {
        certain.iter().copied().filter(|(kind, _)| wanted(kind)).collect()
    };
    let is_proxied = |kind: &Use| plan == Plan::TokensRequired && kind.forwarded;
    let proxied = part(&is_proxied);
    let why = "asks without a token through a proxy that adds X-Forwarded-For, and a request for a token that carries it is \
               refused: no newer client helps";
    add(List::Breaks, why.to_owned(), PROXY, proxied);

    let rest = |wanted: &dyn Fn(&Use) -> bool| part(&|kind| !is_proxied(kind) && wanted(kind));
    let beyond = rest(&|kind| class(kind.category) == Class::Facts);
    let mut why = format!("reads {}, which an identity of its own does not give", categories(&beyond));
    let advice = match plan {
        Plan::HopLimit1 => {
            why.push_str(
                "; a client that goes on without a token when its request for one stays unanswered is slowed instead",
            );
            FACTS
        }
        Plan::TokensRequired => CLIENT,
        Plan::BlockedForPods | Plan::Disabled => FACTS,
    };
    if plan == Plan::TokensRequired && asked_in_vain(work) {
        why.push_str(&in_vain(hop_limit));
    }
    add(List::Breaks, why, advice, beyond);

    let credentials = rest(&|kind| class(kind.category) == Class::Credentials);
    for (owns, list) in [
        (&[Own::No][..], List::Breaks),
        (&[Own::Missed], List::Breaks),
        (&[Own::Unknown], List::CannotTell),
        (&[Own::Irsa, Own::PodIdentity, Own::Static], List::FallsBack),
    ] {
        let part: Vec<_> = credentials.iter().copied().filter(|(kind, _)| owns.contains(&kind.own)).collect();
        let roles = part.iter().flat_map(|(_, seen)| seen.roles.iter().cloned()).collect::<BTreeSet<_>>();
        let role = if roles.is_empty() { String::new() } else { format!(" {}", list_of(&roles)) };
        let (mut why, advice) = match owns[0] {
            Own::No => (format!("lives on the node's role{role} and has no identity of its own"), IDENTITY),
            Own::Missed => {
                (format!("lives on the node's role{role}: the role of its service account did not reach it"), RESTART)
            }
            Own::Unknown => {
                (format!("asks for the node's role{role}; whether it has an identity of its own is not known"), SPEC)
            }
            _ => {
                let own: BTreeSet<_> = part.iter().map(|(kind, _)| own_name(kind.own).to_owned()).collect();
                let used = match work.own_credentials {
                    0 => String::new(),
                    n => format!(", by which it got credentials {n} times"),
                };
                (format!("asks for the node's role{role} although it has {}{used}", list_of(&own)), OLD_CLIENT)
            }
        };
        if plan == Plan::TokensRequired && list == List::Breaks && asked_in_vain(work) {
            why.push_str(&in_vain(hop_limit));
        }
        let advice = if plan == Plan::TokensRequired && owns[0] == Own::No { CLIENT } else { advice };
        add(list, why, advice, part);
    }
    let tokens = rest(&|kind| class(kind.category) == Class::Token);
    verdicts.sort_by_key(|judged| judged.list);
    let mut verdicts = verdicts.into_iter();
    let Some(mut worst) = verdicts.next() else {
        let why = "got tokens, and what it used them for was not seen".to_owned();
        return Judged::new(List::CannotTell, why, LOOK, tokens);
    };
    // A token is part of whatever it was used for.
    let tokens = Judged::new(worst.list, String::new(), "", tokens);
    worst.seen.merge(&tokens.seen);
    worst.asked.extend(tokens.asked);
    for other in verdicts {
        worst.seen.merge(&other.seen);
        worst.why = format!("{}; {}", worst.why, other.why);
        worst.asked.extend(other.asked);
    }
    worst
}

/// Whether a plan takes an answer away that was given.
fn takes(plan: Plan, kind: Use) -> bool {
    let reaches = match plan {
        Plan::HopLimit1 => kind.version == ImdsVersion::V2,
        Plan::TokensRequired => kind.version == ImdsVersion::V1,
        Plan::BlockedForPods | Plan::Disabled => true,
    };
    let spared = spares_node(plan) && kind.network == Network::Node;
    kind.answer == Answer::Given && class(kind.category) != Class::Foreign && reaches && !spared
}

/// Whether clients on the node's network do not feel a plan.
fn spares_node(plan: Plan) -> bool {
    matches!(plan, Plan::HopLimit1 | Plan::BlockedForPods)
}

/// What an answer is good for.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Class {
    Token,
    /// The node's role: an identity of its own takes its place.
    Credentials,
    /// What nobody else tells.
    Facts,
    /// Nothing of EC2's.
    Foreign,
}

fn class(category: Option<Category>) -> Class {
    match category {
        Some(Category::Token) => Class::Token,
        Some(Category::RoleList | Category::RoleCredentials) => Class::Credentials,
        Some(
            Category::RoleInfo
            | Category::IdentityCredentials
            | Category::UserData
            | Category::IdentityDocument
            | Category::Metadata,
        ) => Class::Facts,
        Some(Category::PodIdentityCredentials | Category::OtherCloud | Category::Other) | None => Class::Foreign,
    }
}

/// A client that asked for a token, got none, and went on without.
fn asked_in_vain(work: &Work) -> bool {
    work.uses.keys().any(|kind| kind.category == Some(Category::Token) && kind.answer == Answer::Silent)
}

fn in_vain(hop_limit: Option<u8>) -> String {
    let limit = hop_limit.map_or(String::new(), |hops| format!(" (it is {hops})"));
    format!(
        "; it asks for a token first and gets no answer, so it needs a greater hop limit{limit}, not another client"
    )
}

fn unconcerned(plan: Plan, work: &Work) -> String {
    let given: Vec<&Use> = work.uses.keys().filter(|kind| kind.answer == Answer::Given).collect();
    let ec2: Vec<&&Use> = given.iter().filter(|kind| class(kind.category) != Class::Foreign).collect();
    if work.uses.is_empty() {
        return "made no request to the metadata service".to_owned();
    }
    if ec2.is_empty() {
        let refused = work.uses.keys().any(|kind| matches!(kind.answer, Answer::Silent | Answer::Unauthorized));
        return if refused { "gets no answer as it is" } else { "got nothing of EC2's from the metadata service" }
            .to_owned();
    }
    if spares_node(plan) && ec2.iter().all(|kind| kind.network == Network::Node) {
        return "uses the node's network, which the change does not touch".to_owned();
    }
    match plan {
        Plan::HopLimit1 => "asks without tokens, whose answers the hop limit does not touch".to_owned(),
        _ => "asks with tokens".to_owned(),
    }
}

fn categories(part: &[(&Use, &Seen)]) -> String {
    list_of(&part.iter().filter_map(|(kind, _)| kind.category).map(|category| name_of(&category)).collect())
}

fn list_of(names: &BTreeSet<String>) -> String {
    names.iter().map(String::as_str).collect::<Vec<_>>().join(", ")
}

fn own_name(own: Own) -> &'static str {
    match own {
        Own::Irsa => "a role by IRSA",
        Own::PodIdentity => "EKS Pod Identity",
        Own::Static => "access keys in its environment",
        Own::Missed => "missed",
        Own::No => "none",
        Own::Unknown => "unknown",
    }
}

const NETWORK: &str = "see whether the pod has hostNetwork";
const PROXY: &str = "give the workloads behind the proxy roles by IRSA or EKS Pod Identity, and retire the proxy";
const FACTS: &str =
    "give it these facts by its configuration or the downward API, or hostNetwork where it manages the node";
const CLIENT: &str = "update its AWS client to one that asks for a token first";
const IDENTITY: &str = "give it a role by IRSA or EKS Pod Identity";
const RESTART: &str = "restart the pod, and see that the identity webhook adds the role";
const SPEC: &str = "look at the pod's spec for AWS_ROLE_ARN or AWS_CONTAINER_CREDENTIALS_FULL_URI";
const OLD_CLIENT: &str =
    "see that its AWS client knows this way to credentials: an old one asks the metadata service alone";
const LOOK: &str = "watch for longer";

// === impl Judged ===

impl Judged {
    fn new<'a>(
        list: List,
        why: String,
        advice: &'static str,
        part: impl IntoIterator<Item = (&'a Use, &'a Seen)>,
    ) -> Self {
        let mut judged = Self { list, why, advice, seen: Seen::default(), asked: BTreeSet::new() };
        for (kind, seen) in part {
            judged.seen.merge(seen);
            judged.asked.extend(kind.category);
        }
        judged
    }
}
