//! What EC2 told of subnets and of a type that the table lacks.

use std::sync::Arc;

use ipnet::IpNet;

use super::line::Line;
use super::shared;
use crate::capacity::instances::{Hypervisor, InstanceType, VolumeLimit};
use crate::capacity::{Resource, Scope};
use crate::facts::{Ec2Fact, InstanceTypeFacts, SubnetFacts};
use crate::time::WallNs;

/// Most subnets: an instance has at most 64 interfaces.
const MAX_SUBNETS: usize = 64;
/// Addresses that AWS keeps of each subnet (<https://docs.aws.amazon.com/vpc/latest/userguide/subnet-sizing.html>).
const RESERVED: u64 = 5;
/// Free addresses count for so long, seconds: clusters of 7,200 nodes ask every two hours.
const VALID_S: i64 = 7_200;
/// How a type that the table lacks is called in sources.
const UNLISTED: &str = "this type, as EC2 tells it,";

/// See the module's documentation.
#[derive(Debug, Default)]
pub(super) struct Told {
    subnets: Option<(WallNs, Vec<SubnetFacts>)>,
    instance: Option<(Arc<str>, InstanceType)>,
}

impl Told {
    pub(super) fn learn(&mut self, fact: &Ec2Fact) {
        match fact {
            Ec2Fact::Subnets { subnets, at } => {
                self.subnets = Some((*at, subnets.iter().take(MAX_SUBNETS).cloned().collect()));
            }
            Ec2Fact::InstanceType { figures: Some(figures), name, at: _ } => {
                self.instance = instance(figures).map(|of| (Arc::clone(name), of));
            }
            _ => {}
        }
    }

    /// A type by its name.
    pub(super) fn instance(&self, name: &str) -> Option<InstanceType> {
        self.instance.as_ref().filter(|(known, _)| **known == *name).map(|(_, of)| *of)
    }

    /// Addresses of the node's subnets. AWS tells how many are free; what is used, all of the VPC use.
    pub(super) fn lines(&self, now: WallNs) -> Vec<Line> {
        let Some((at, subnets)) = &self.subnets else { return Vec::new() };
        let age_s = now.0.saturating_sub(at.0).max(0) / 1_000_000_000;
        if age_s > VALID_S {
            return Vec::new();
        }
        let line = |subnet: &SubnetFacts| {
            let limit = match subnet.range {
                Some(IpNet::V4(range)) => (1_u64 << (32 - range.prefix_len())).saturating_sub(RESERVED),
                Some(IpNet::V6(_)) | None => return None,
            };
            Some(Line {
                resource: Resource::SubnetIps,
                scope: Scope::Subnet(Arc::clone(&subnet.id)),
                used: Some(limit.saturating_sub(subnet.free)),
                limit: Some(limit),
                source: shared(format!("EC2 DescribeSubnets: {} are free", subnet.free)),
                age_s: u64::try_from(age_s).unwrap_or(0),
            })
        };
        subnets.iter().filter_map(line).collect()
    }
}

/// `None`: EC2 does not tell how many interfaces and addresses, without which a type is of no use.
fn instance(figures: &InstanceTypeFacts) -> Option<InstanceType> {
    let interfaces = figures.interfaces.or(figures.interfaces_total)?;
    let hypervisor = match figures.hypervisor.as_deref() {
        Some("xen") => Hypervisor::Xen,
        Some(_) => Hypervisor::Nitro,
        None => Hypervisor::Metal,
    };
    let volumes = match (figures.ebs_volumes, figures.ebs_limit_type.as_deref(), hypervisor) {
        (Some(volumes), Some("dedicated"), _) => VolumeLimit { attachments: volumes, shared: false },
        // The first interface takes one of the places that volumes and interfaces share.
        (Some(volumes), _, _) => VolumeLimit { attachments: volumes.saturating_sub(1), shared: true },
        (None, ..) => VolumeLimit::DEFAULT,
    };
    Some(InstanceType {
        name: UNLISTED,
        vcpus: figures.vcpus,
        memory_mib: figures.memory_mib.and_then(|mib| u32::try_from(mib).ok()),
        interfaces,
        interfaces_total: figures.interfaces_total.unwrap_or(interfaces),
        network_cards: 1,
        ipv4_per_interface: figures.ipv4_per_interface?,
        // No public API tells it: 0 is taken for not known, see `derived`.
        branch_interfaces: 0,
        hypervisor,
        network_mbps: figures.network_mbps,
        network_peak_mbps: None,
        volumes,
        ebs_mbps: figures.ebs_mbps,
        ebs_peak_mbps: None,
        ebs_iops: figures.ebs_iops,
        ebs_peak_iops: None,
        conntrack_tcp_s: None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR_NS: i64 = 3_600_000_000_000;

    #[test]
    fn free_addresses_are_what_is_left_of_a_subnet_without_the_five_that_aws_keeps() {
        let mut told = Told::default();
        assert_eq!(told.lines(WallNs(0)), []);
        let subnet = |id: &str, range: Option<&str>, free| SubnetFacts {
            id: id.into(),
            range: range.map(|range| range.parse().unwrap()),
            free,
            zone: None,
        };
        let subnets = vec![subnet("subnet-1", Some("10.0.0.0/24"), 12), subnet("subnet-2", None, 3)];
        told.learn(&Ec2Fact::Subnets { subnets, at: WallNs(HOUR_NS) });
        let lines = told.lines(WallNs(HOUR_NS + 60_000_000_000));
        let [line] = &lines[..] else { panic!("{lines:?}") };
        assert_eq!((line.used, line.limit, line.headroom(), line.age_s), (Some(239), Some(251), Some(12), 60));
        assert_eq!(line.scope, Scope::Subnet("subnet-1".into()));
        assert_eq!(told.lines(WallNs(4 * HOUR_NS)), [], "too old");
    }

    #[test]
    fn a_type_that_the_table_lacks_is_known_by_its_own_name_alone() {
        let figures = InstanceTypeFacts {
            interfaces: Some(4),
            ipv4_per_interface: Some(15),
            hypervisor: Some("nitro".into()),
            ebs_volumes: Some(28),
            ebs_limit_type: Some("shared".into()),
            ..InstanceTypeFacts::default()
        };
        let mut told = Told::default();
        let fact = |figures| Ec2Fact::InstanceType { figures, name: "m9z.large".into(), at: WallNs(1) };
        told.learn(&fact(None));
        assert_eq!(told.instance("m9z.large"), None);
        told.learn(&fact(Some(figures)));
        assert_eq!(told.instance("m9z.xlarge"), None);
        let of = told.instance("m9z.large").expect("was told");
        assert_eq!((of.interfaces, of.interfaces_total, of.ipv4_per_interface, of.volumes.slots(2)), (4, 4, 15, 25));
        assert_eq!(instance(&InstanceTypeFacts::default()), None);
    }
}
