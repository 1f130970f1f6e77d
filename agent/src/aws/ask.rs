//! What is asked of EC2 at a time.

use std::net::IpAddr;
use std::sync::Arc;

use agent_core::facts::Ec2Call;
use agent_core::sg::{GroupId, PrefixListId};

/// One question. Lists are never empty and fit one filter.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Ask {
    /// Interfaces by id.
    Interfaces(Vec<Arc<str>>),
    /// Interfaces by hardware address.
    Macs(Vec<Arc<str>>),
    /// Whose addresses are.
    Peers(Vec<IpAddr>),
    /// Groups with their rules.
    Groups(Vec<GroupId>),
    /// Prefix lists with their entries.
    Lists(Vec<PrefixListId>),
    /// Subnets.
    Subnets(Vec<Arc<str>>),
    /// A VPC.
    Vpc(Arc<str>),
    /// An instance type.
    InstanceType(Arc<str>),
}

impl Ask {
    /// The call that answers it; groups have another one for their rules.
    pub(super) fn call(&self) -> Ec2Call {
        match self {
            Self::Interfaces(_) | Self::Macs(_) | Self::Peers(_) => Ec2Call::NetworkInterfaces,
            Self::Groups(_) => Ec2Call::SecurityGroups,
            Self::Lists(_) => Ec2Call::PrefixLists,
            Self::Subnets(_) => Ec2Call::Subnets,
            Self::Vpc(_) => Ec2Call::Vpcs,
            Self::InstanceType(_) => Ec2Call::InstanceTypes,
        }
    }
}
