//! Services of a VPC that security groups do not filter.
//!
//! "Amazon security groups" in the VPC guide lists them:
//! <https://docs.aws.amazon.com/vpc/latest/userguide/vpc-security-groups.html>. DHCP and the router's own addresses are
//! there too and are left out here: no pod speaks to them.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;

use super::flow::{Flow, Traffic};

/// DNS over UDP and TCP.
const DNS_PORT: u16 = 53;
/// The resolver stands at the base of the VPC's first range plus so much.
const RESOLVER_OFFSET: u32 = 2;
/// The smallest VPC is a /28, so of an address that may be its base plus two, these bits are fixed.
const SMALLEST_VPC_HOST_BITS: u32 = 0xf;

/// A service that no group can block.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Unfiltered {
    /// The instance metadata service.
    Metadata,
    /// The VPC's resolver: 169.254.169.253, `fd00:ec2::253`, and the base of the VPC's first range plus two.
    Resolver,
    /// The Amazon Time Sync Service.
    TimeSync,
    /// The metadata service of ECS tasks.
    TaskMetadata,
    /// Activation of Windows.
    WindowsActivation,
    /// The EKS Pod Identity agent. It answers on the node itself; a pod that cannot reach it has no rule to blame.
    PodIdentity,
}

impl Unfiltered {
    /// By the destination of a flow. `vpc` holds the ranges of the VPC, its first one first.
    pub(super) fn of(flow: &Flow, vpc: &[IpNet]) -> Option<Self> {
        const fn v6(last: u16) -> IpAddr {
            IpAddr::V6(Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, last))
        }
        const fn v4(third: u8, last: u8) -> IpAddr {
            IpAddr::V4(Ipv4Addr::new(169, 254, third, last))
        }
        const SERVICES: [(IpAddr, Unfiltered); 11] = [
            (v4(169, 254), Unfiltered::Metadata),
            (v6(0x254), Unfiltered::Metadata),
            (v4(169, 253), Unfiltered::Resolver),
            (v6(0x253), Unfiltered::Resolver),
            (v4(169, 123), Unfiltered::TimeSync),
            (v6(0x123), Unfiltered::TimeSync),
            (v4(170, 2), Unfiltered::TaskMetadata),
            (v4(169, 250), Unfiltered::WindowsActivation),
            (v4(169, 251), Unfiltered::WindowsActivation),
            (v4(170, 23), Unfiltered::PodIdentity),
            (v6(0x23), Unfiltered::PodIdentity),
        ];
        let destination = flow.ends.destination()?;
        let service = SERVICES.iter().find(|(address, _)| *address == destination).map(|(_, service)| *service);
        service.or_else(|| (is_dns(flow) && resolver(vpc) == Some(destination)).then_some(Self::Resolver))
    }

    /// Whether a flow may go to the VPC's resolver and only the VPC's ranges could tell.
    pub(super) fn may_be_resolver(flow: &Flow, vpc: &[IpNet]) -> Option<IpAddr> {
        match flow.ends.destination()? {
            IpAddr::V4(ip) if vpc.is_empty() && is_dns(flow) => {
                (ip.to_bits() & SMALLEST_VPC_HOST_BITS == RESOLVER_OFFSET).then_some(IpAddr::V4(ip))
            }
            _ => None,
        }
    }

    /// As a sentence has it.
    pub const fn text(self) -> &'static str {
        match self {
            Self::Metadata => "security groups do not filter the instance metadata service",
            Self::Resolver => "security groups do not filter DNS requests to the VPC's resolver",
            Self::TimeSync => "security groups do not filter the Amazon Time Sync Service",
            Self::TaskMetadata => "security groups do not filter the metadata service of tasks",
            Self::WindowsActivation => "security groups do not filter the activation of Windows",
            Self::PodIdentity => "the Pod Identity agent answers on the node itself: no security group judges that",
        }
    }
}

fn is_dns(flow: &Flow) -> bool {
    matches!(flow.traffic, Traffic::Port(_, DNS_PORT))
}

fn resolver(vpc: &[IpNet]) -> Option<IpAddr> {
    vpc.iter().find_map(|net| match net {
        IpNet::V4(net) => Some(IpAddr::V4(Ipv4Addr::from_bits(net.network().to_bits().wrapping_add(RESOLVER_OFFSET)))),
        IpNet::V6(_) => None,
    })
}
