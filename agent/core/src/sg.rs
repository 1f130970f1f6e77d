//! Security groups: which rule lets a flow pass, or which one is missing.
//!
//! Groups and prefix lists ([`Group`], [`PrefixList`]) come from what the EC2 API says, for instance by [`read`] from
//! files that the AWS CLI printed. [`Compiled`] holds them ready for many questions, and [`Compiled::verdict`] answers
//! one: per end of a [`Flow`], the rules that allow it, that none does and which come nearest, or what is not known.
//!
//! The rules of evaluation are those of the public documentation:
//!
//! - Rules only allow. The rules of all groups of an interface count as one set, and the most permissive wins
//!   (<https://docs.aws.amazon.com/vpc/latest/userguide/security-group-rules.html>).
//! - Groups are stateful: who begins is judged, answers pass
//!   (<https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/security-group-connection-tracking.html>). So a [`Flow`] is
//!   given in the direction of its first packet: outbound rules of the source, inbound rules of the destination.
//! - Only the destination's port counts. Protocol -1 and protocols without ports allow whatever the range says
//!   (<https://docs.aws.amazon.com/AWSEC2/latest/APIReference/API_IpPermission.html>).
//! - A rule that names a group means interfaces with that group, by their private addresses, and takes over none of
//!   its rules.
//! - Some services of the VPC are not filtered at all; see [`Unfiltered`].
//!
//! Not judged here: network ACLs, routes, DHCP, the limit on tracked connections, and whether a flow meets an interface
//! with groups at all.

mod compile;
mod document;
mod flow;
mod gather;
mod missing;
mod model;
mod nearest;
mod text;
mod tracking;
mod unfiltered;
mod verdict;

#[cfg(test)]
mod tests;

pub use self::compile::Compiled;
pub use self::document::{Document, ReadError, read};
pub use self::flow::{Ends, Family, Flow, MixedFamilies, Traffic};
pub use self::gather::{Gathered, MAX_NETS, MAX_RULES, TooMany};
pub use self::missing::Missing;
pub use self::model::{
    Group, GroupId, GroupRule, IcmpVersion, InvalidId, Peer, PrefixList, PrefixListId, Rule, RuleId, Service, Side,
    Transport,
};
pub use self::nearest::{Lack, MAX_NEAREST, Near};
pub use self::tracking::Tracking;
pub use self::unfiltered::Unfiltered;
pub use self::verdict::{Doubt, Interface, Overall, SideVerdict, Verdict};
