//! What the EC2 API tells: interfaces and their security groups, rules, subnets. And what the core would like it to tell.
//!
//! Every answer says when EC2 gave it: answers are kept for long, also on disk, and a verdict from an old one says so.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::Arc;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use crate::sg::{Group, GroupId, PrefixList, PrefixListId};
use crate::time::WallNs;

/// One thing that the EC2 API tells. What is asked for and not there is told as such: absent is not unknown.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Ec2Fact {
    /// Interfaces that were asked for by id.
    Interfaces {
        /// Those that exist.
        interfaces: Vec<InterfaceFacts>,
        /// Ids that EC2 does not know.
        missing: Vec<Arc<str>>,
        /// When EC2 said so.
        at: WallNs,
    },
    /// Security groups that were asked for, with all their rules.
    Groups {
        /// Those that exist.
        groups: Vec<GroupFacts>,
        /// Ids that EC2 does not know.
        missing: Vec<GroupId>,
        /// When EC2 said so.
        at: WallNs,
    },
    /// Prefix lists that rules of known groups name.
    PrefixLists {
        /// Those that exist; `entries: None`: they may not be read.
        lists: Vec<PrefixList>,
        /// Ids that EC2 does not know.
        missing: Vec<PrefixListId>,
        /// When EC2 said so.
        at: WallNs,
    },
    /// The subnets of this node's interfaces.
    Subnets {
        /// All of them.
        subnets: Vec<SubnetFacts>,
        /// When EC2 said so.
        at: WallNs,
    },
    /// The VPC of this node's interfaces.
    Vpc {
        /// Its id.
        id: Arc<str>,
        /// All its address ranges, the primary one first.
        ranges: Vec<IpNet>,
        /// When EC2 said so.
        at: WallNs,
    },
    /// Whose an address is that a flow went to or came from.
    Peers {
        /// The addresses that were asked for.
        peers: Vec<PeerInterface>,
        /// When EC2 said so.
        at: WallNs,
    },
    /// The figures of an instance type that is not in the compiled-in table.
    InstanceType {
        /// What EC2 says; `None`: it does not know the type either.
        figures: Option<InstanceTypeFacts>,
        /// The type's name.
        name: Arc<str>,
        /// When EC2 said so.
        at: WallNs,
    },
    /// How a kind of call stands.
    Source {
        /// Which.
        call: Ec2Call,
        /// When it last worked; `None`: never.
        fresh_at: Option<WallNs>,
        /// Why it does not; `None` while it does.
        error: Option<String>,
        /// The refusal is one of permission: nothing will change it but the role's policy.
        denied: bool,
    },
}

/// Calls of the EC2 API that are made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Ec2Call {
    /// `DescribeNetworkInterfaces`.
    NetworkInterfaces,
    /// `DescribeSecurityGroups`: names, tags, owners.
    SecurityGroups,
    /// `DescribeSecurityGroupRules`: rules with their ids.
    SecurityGroupRules,
    /// `DescribeManagedPrefixLists` and `GetManagedPrefixListEntries`.
    PrefixLists,
    /// `DescribeSubnets`.
    Subnets,
    /// `DescribeVpcs`.
    Vpcs,
    /// `DescribeInstanceTypes`.
    InstanceTypes,
}

impl Ec2Call {
    /// All of them.
    pub const ALL: [Self; 7] = [
        Self::NetworkInterfaces,
        Self::SecurityGroups,
        Self::SecurityGroupRules,
        Self::PrefixLists,
        Self::Subnets,
        Self::Vpcs,
        Self::InstanceTypes,
    ];

    /// Name in rows and metrics.
    pub const fn name(self) -> &'static str {
        match self {
            Self::NetworkInterfaces => "network_interfaces",
            Self::SecurityGroups => "security_groups",
            Self::SecurityGroupRules => "security_group_rules",
            Self::PrefixLists => "prefix_lists",
            Self::Subnets => "subnets",
            Self::Vpcs => "vpcs",
            Self::InstanceTypes => "instance_types",
        }
    }
}

/// A network interface.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct InterfaceFacts {
    /// `networkInterfaceId`.
    pub id: Arc<str>,
    /// Its security groups.
    pub groups: Vec<GroupId>,
    /// All its private addresses; of IPv6 too.
    pub addresses: Vec<IpAddr>,
    /// Prefixes delegated to it.
    pub prefixes: Vec<IpNet>,
    /// `subnetId`.
    pub subnet: Option<Arc<str>>,
    /// `vpcId`.
    pub vpc: Option<Arc<str>>,
    /// `macAddress`, lower case.
    pub mac: Option<Arc<str>>,
    /// `interfaceType`: `interface`, `branch`, `trunk`, `nat_gateway`, `network_load_balancer`, `vpc_endpoint`…
    pub kind: Option<Arc<str>>,
    /// `attachment.instanceId`.
    pub instance: Option<Arc<str>>,
    /// `requesterId`, or the service that manages it, as `amazon-elb`.
    pub requester: Option<Arc<str>>,
}

/// A security group, and what beside its rules tells what it is for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct GroupFacts {
    /// The group.
    pub group: Group,
    /// Its tags `aws:eks:cluster-name` and `kubernetes.io/cluster/NAME`: the clusters that own or share it.
    pub clusters: Vec<ClusterTag>,
}

/// A tag that ties a group to a cluster.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct ClusterTag {
    /// The cluster's name.
    pub cluster: Arc<str>,
    /// `aws:eks:cluster-name`, which only EKS itself can set: the cluster security group.
    pub by_eks: bool,
    /// The tag's value, as `owned` or `shared`.
    pub value: Arc<str>,
}

/// A subnet.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SubnetFacts {
    /// `subnetId`.
    pub id: Arc<str>,
    /// Its IPv4 range.
    pub range: Option<IpNet>,
    /// `availableIpAddressCount`.
    pub free: u64,
    /// `availabilityZone`.
    pub zone: Option<Arc<str>>,
}

/// Whose an address is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PeerInterface {
    /// The address.
    pub ip: IpAddr,
    /// Its interface in this account and region; `None`: nobody's, or another account's.
    pub interface: Option<InterfaceFacts>,
}

/// What EC2 tells of an instance type. `None`: it does not say.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct InstanceTypeFacts {
    /// Virtual CPUs.
    pub vcpus: Option<u32>,
    /// Memory, MiB.
    pub memory_mib: Option<u64>,
    /// Network interfaces of the default network card.
    pub interfaces: Option<u32>,
    /// Network interfaces of all network cards.
    pub interfaces_total: Option<u32>,
    /// IPv4 addresses an interface, its primary one included.
    pub ipv4_per_interface: Option<u32>,
    /// `nitro`, `xen`; `None` of a bare metal type.
    pub hypervisor: Option<Arc<str>>,
    /// Network bandwidth that it always has, Mbit/s.
    pub network_mbps: Option<u32>,
    /// EBS bandwidth that it always has, Mbit/s.
    pub ebs_mbps: Option<u32>,
    /// EBS operations a second that it always has.
    pub ebs_iops: Option<u32>,
    /// `maximumEbsAttachments`.
    pub ebs_volumes: Option<u32>,
    /// `attachmentLimitType`: `shared` or `dedicated`.
    pub ebs_limit_type: Option<Arc<str>>,
}

/// What the core would like EC2 to tell, at this moment. The edge asks for what it does not know or knows too old, within
/// its budget, and tells it as [`Ec2Fact`]. Bounded by what the node can hold.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ec2Wishes {
    /// Branch interfaces of this node's pods, by their annotations, and the node's own interfaces by hardware address.
    pub interfaces: BTreeSet<Arc<str>>,
    /// Hardware addresses of the node's own interfaces.
    pub macs: BTreeSet<Arc<str>>,
    /// Groups that policies name or interfaces have, and those that their rules name.
    pub groups: BTreeSet<GroupId>,
    /// Peers of flows on whose groups a verdict depends; none of the internet.
    pub peers: BTreeSet<IpAddr>,
    /// An instance type that is not in the table.
    pub instance_type: Option<Arc<str>>,
    /// No wish, but its measure: nodes that share the account's calls, as the cluster tells; `None`: it does not.
    pub fleet_nodes: Option<u32>,
}
