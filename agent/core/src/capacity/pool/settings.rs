//! The CNI's settings that matter for its pool.

use crate::capacity::IpamSettings;
use crate::capacity::instances::InstanceType;

/// See the CNI's README. 0 for a target of addresses means that it is not set, as the CNI reads it.
#[expect(clippy::struct_excessive_bools, reason = "settings as the CNI names them")]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Settings {
    /// `WARM_ENI_TARGET`.
    pub warm_eni_target: u32,
    /// `WARM_IP_TARGET`.
    pub warm_ip_target: u32,
    /// `MINIMUM_IP_TARGET`.
    pub minimum_ip_target: u32,
    /// `WARM_PREFIX_TARGET`.
    pub warm_prefix_target: u32,
    /// `MAX_ENI`; `None`: as many as the type has.
    pub max_eni: Option<u32>,
    /// `ENABLE_PREFIX_DELEGATION`.
    pub prefix_delegation: bool,
    /// `ENABLE_POD_ENI`: security groups for pods, a trunk.
    pub pod_eni: bool,
    /// `AWS_VPC_K8S_CNI_CUSTOM_NETWORK_CFG`: the first interface carries no addresses for pods.
    pub custom_networking: bool,
    /// `ENABLE_IPv6`: the node holds one prefix (/80), and none of the targets counts.
    pub ipv6: bool,
}

impl Default for Settings {
    /// As AWS ships the CNI: `WARM_ENI_TARGET` 1 and `WARM_PREFIX_TARGET` 1, all else off.
    fn default() -> Self {
        Self {
            warm_eni_target: 1,
            warm_ip_target: 0,
            minimum_ip_target: 0,
            warm_prefix_target: 1,
            max_eni: None,
            prefix_delegation: false,
            pod_eni: false,
            custom_networking: false,
            ipv6: false,
        }
    }
}

impl Settings {
    /// With so many interfaces of the node that carry nothing for pods: each takes a place of those that may be attached.
    #[must_use]
    pub fn without(self, interfaces: u32, of: &InstanceType) -> Self {
        if interfaces == 0 {
            return self;
        }
        let most = self.max_eni.filter(|&most| most >= 1).map_or(of.interfaces, |most| most.min(of.interfaces));
        // The first interface is there, and is ipamd's.
        Self { max_eni: Some(most.saturating_sub(interfaces).max(1)), ..self }
    }
}

impl From<&IpamSettings> for Settings {
    /// What is not set is what ipamd takes itself, which for `WARM_PREFIX_TARGET` is 0.
    fn from(found: &IpamSettings) -> Self {
        Self {
            warm_eni_target: found.warm_eni_target.unwrap_or(1),
            warm_ip_target: found.warm_ip_target.unwrap_or(0),
            minimum_ip_target: found.minimum_ip_target.unwrap_or(0),
            warm_prefix_target: found.warm_prefix_target.unwrap_or(0),
            max_eni: found.max_eni,
            prefix_delegation: found.prefix_delegation,
            pod_eni: found.pod_eni,
            custom_networking: found.custom_networking,
            ipv6: found.ipv6,
        }
    }
}
