//! What security groups say of the connections of a row.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::time::WallNs;

/// What security groups say of a row's connections. Only in rows of pods that policies select or that have a branch
/// interface.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct SgRow {
    /// In one word.
    pub verdict: SgVerdict,
    /// Whose groups judged them; `None`: nobody's, or that cannot be told.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub by: Option<JudgedBy>,
    /// Ids of the rules that let them pass, of both ends as far as both were judged. At most [`SgRow::MAX_RULES`].
    pub rules: Vec<Arc<str>>,
    /// Why nobody judged, why that cannot be told, or what a verdict leaves open.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub why: Option<SgWhy>,
    /// When EC2 told the oldest of what `allowed` or `no_rule` stands on: rules, prefix lists, groups on interfaces.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub told: Option<WallNs>,
}

impl SgRow {
    /// Most rules named: of five groups with 60 rules each few let the same connection pass.
    pub const MAX_RULES: usize = 8;
}

/// See [`SgRow::verdict`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SgVerdict {
    /// The groups of every end that was judged let them pass.
    Allowed,
    /// The groups of an end have no rule for them.
    NoRule,
    /// Not enough is known.
    CannotTell,
    /// No security group sees them.
    NotJudged,
}

/// Whose groups judge.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum JudgedBy {
    /// The pod's own.
    Pod,
    /// The node's: of the interface that has the pod's address, or of the node's first one.
    Node,
}

macro_rules! whys {
    ($($(#[$doc:meta])* $variant:ident, $name:literal, $text:literal;)*) => {
        /// Reasons: a closed set.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
        #[serde(rename_all = "snake_case")]
        pub enum SgWhy {
            $($(#[$doc])* $variant,)*
        }

        impl SgWhy {
            /// All of them.
            pub const ALL: &[Self] = &[$(Self::$variant,)*];

            /// Name in rows.
            pub const fn name(self) -> &'static str {
                match self { $(Self::$variant => $name,)* }
            }

            /// In words.
            pub const fn text(self) -> &'static str {
                match self { $(Self::$variant => $text,)* }
            }
        }
    };
}

whys! {
    /// Not judged: to the pod itself.
    SamePod, "same_pod", "it stays in the pod";
    /// Not judged: it never leaves the node.
    SameNode, "same_node", "it stays on the node, where these groups are not in the way";
    /// Not judged: nothing was sent.
    NotSent, "not_sent", "nothing left the node";
    /// Not judged: a service that groups do not filter.
    UnfilteredService, "unfiltered_service", "security groups do not filter this service";
    /// Allowed, as far as the own end goes.
    PeerSideUnknown, "peer_side_unknown", "the groups of the other end are not known";
    /// Allowed, as far as the interface at the other end goes.
    PeerForwards, "peer_forwards", "the other end hands it on to others, whose groups are not known";
    /// No rule, and yet it was established.
    TrackedOrOtherGroups, "tracked_or_other_groups",
        "established all the same: tracked since before a rule went, or the rules or groups are others by now";
    /// The row does not tell both ends and a port.
    RowIncomplete, "row_incomplete", "the row does not tell both ends and the port";
    /// EKS Auto Mode and Fargate.
    OtherMechanism, "other_mechanism", "on this kind of node another mechanism applies security groups";
    /// Whether the groups are in force.
    EnforcementUnknown, "enforcement_unknown", "whether the pod's groups are in force is not known";
    /// Strict or standard.
    ModeUnknown, "mode_unknown", "whether the pod is in strict or in standard mode is not known";
    /// The pods of both ends are on this node, in different modes.
    ModesDiffer, "modes_differ", "both pods are on this node, in different modes";
    /// A link-local address of the node, in strict mode.
    LinkLocal, "link_local", "a link-local address of the node is out of reach in strict mode";
    /// The address may be one of a service.
    ServiceAddress, "service_address", "it may be the address of a service, whose backend is not known";
    /// Whether the address is in the VPC.
    VpcUnknown, "vpc_unknown", "the address ranges of the VPC are not known";
    /// Whether the CNI translates addresses.
    SnatUnknown, "snat_unknown", "whether it leaves by the node's address is not known";
    /// The groups of the pod's interface.
    InterfaceGroupsUnknown, "interface_groups_unknown", "the groups on the pod's interface are not known";
    /// The groups of the node's interface.
    NodeGroupsUnknown, "node_groups_unknown", "the groups on the node's interface are not known";
    /// The rules of a group.
    RulesUnknown, "rules_unknown", "the rules of a group are not known";
    /// What EC2 told of rules or of a prefix list.
    RulesTooOld, "rules_too_old", "what EC2 told of a group's rules is too old to go by";
    /// The addresses of a prefix list.
    ListUnknown, "list_unknown", "the addresses of a prefix list are not known";
    /// Groups or address of the peer, on which a rule depends.
    PeerUnknown, "peer_unknown", "a rule depends on the groups of the other end, which are not known";
}

// === impl SgVerdict ===

impl SgVerdict {
    /// Name in rows.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Allowed => "allowed",
            Self::NoRule => "no_rule",
            Self::CannotTell => "cannot_tell",
            Self::NotJudged => "not_judged",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::output::name_of;

    #[test]
    fn names_are_those_of_the_json_form() {
        for why in SgWhy::ALL {
            assert_eq!(name_of(why), why.name());
        }
        for verdict in [SgVerdict::Allowed, SgVerdict::NoRule, SgVerdict::CannotTell, SgVerdict::NotJudged] {
            assert_eq!(name_of(&verdict), verdict.name());
        }
    }
}
