//! What the VPC CNI's address manager (ipamd) holds on this node.

use std::net::IpAddr;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

/// What ipamd holds, as far as its sources tell.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct IpamFacts {
    /// Interfaces it manages; empty when introspection does not answer.
    pub interfaces: Vec<IpamInterface>,
    /// Addresses for pods that it holds (of all interfaces, without their primary ones); `None`: no source tells.
    pub total: Option<u32>,
    /// Addresses given to pods; `None`: no source tells.
    pub assigned: Option<u32>,
    /// Prefixes (/28) it holds; `None`: no source tells.
    pub prefixes: Option<u32>,
    /// Its settings; `None`: introspection does not answer.
    pub settings: Option<IpamSettings>,
    /// Addresses and the pods that hold them, from the checkpoint.
    pub allocations: Vec<IpamAllocation>,
}

/// An address of a pod.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct IpamAllocation {
    /// The address.
    pub ip: IpAddr,
    /// Namespace.
    pub namespace: Arc<str>,
    /// Pod.
    pub pod: Arc<str>,
    /// The pod's sandbox; empty when not told.
    pub sandbox: Arc<str>,
}

/// An interface that ipamd manages.
#[expect(clippy::struct_excessive_bools, reason = "marks of an object, independent of each other")]
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct IpamInterface {
    /// `eni-…`.
    pub id: Arc<str>,
    /// Network card.
    pub card: u32,
    /// Device number.
    pub device: u32,
    /// The instance's first interface.
    pub primary: bool,
    /// Carries branch interfaces.
    pub trunk: bool,
    /// For Elastic Fabric Adapter.
    pub efa: bool,
    /// Left out for pods.
    pub excluded: bool,
    /// Addresses for pods on it.
    pub addresses: u32,
    /// Prefixes on it.
    pub prefixes: u32,
    /// Addresses of it that pods have.
    pub assigned: u32,
}

/// What the environment of the CNI's own container (`aws-node`) sets, as its pod shows it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CniEnvironment {
    /// The settings that stand there as literal values; what is not set is `None`, or off.
    pub settings: IpamSettings,
    /// Some setting may come from elsewhere (`valueFrom`, `envFrom`), so what seems not to be set may be.
    pub partial: bool,
}

/// ipamd's settings in force (`/v1/ipamd-env-settings`, or the aws-node container's environment).
#[expect(clippy::struct_excessive_bools, reason = "settings as the CNI names them")]
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct IpamSettings {
    /// `WARM_ENI_TARGET`; `None`: not set (the CNI's default is 1).
    pub warm_eni_target: Option<u32>,
    /// `WARM_IP_TARGET`; `None`: not set.
    pub warm_ip_target: Option<u32>,
    /// `MINIMUM_IP_TARGET`; `None`: not set.
    pub minimum_ip_target: Option<u32>,
    /// `WARM_PREFIX_TARGET`; `None`: not set.
    pub warm_prefix_target: Option<u32>,
    /// `MAX_ENI`; `None`: not set or not positive, which means no limit.
    pub max_eni: Option<u32>,
    /// `ENABLE_PREFIX_DELEGATION`.
    pub prefix_delegation: bool,
    /// `ENABLE_POD_ENI`.
    pub pod_eni: bool,
    /// `AWS_VPC_K8S_CNI_CUSTOM_NETWORK_CFG`.
    pub custom_networking: bool,
    /// `ENABLE_IPv6`.
    pub ipv6: bool,
    /// `AWS_VPC_K8S_CNI_EXTERNALSNAT`; `None`: not told.
    pub external_snat: Option<bool>,
    /// `POD_SECURITY_GROUP_ENFORCING_MODE`, the present setting, which says nothing about pods that run already.
    pub enforcing_mode: Option<Arc<str>>,
}

// === impl IpamSettings ===

impl IpamSettings {
    /// With what these leave open taken from the environment that ipamd was started with. Introspection tells few settings,
    /// and which way ipamd works shows only in what it holds: that is on which either of the two says so.
    #[must_use]
    pub fn or_environment(mut self, environment: &Self) -> Self {
        let Self {
            warm_eni_target,
            warm_ip_target,
            minimum_ip_target,
            warm_prefix_target,
            max_eni,
            prefix_delegation,
            pod_eni,
            custom_networking,
            ipv6,
            external_snat,
            enforcing_mode,
        } = environment;
        self.warm_eni_target = self.warm_eni_target.or(*warm_eni_target);
        self.warm_ip_target = self.warm_ip_target.or(*warm_ip_target);
        self.minimum_ip_target = self.minimum_ip_target.or(*minimum_ip_target);
        self.warm_prefix_target = self.warm_prefix_target.or(*warm_prefix_target);
        self.max_eni = self.max_eni.or(*max_eni);
        self.prefix_delegation |= prefix_delegation;
        self.pod_eni |= pod_eni;
        self.custom_networking |= custom_networking;
        self.ipv6 |= ipv6;
        self.external_snat = self.external_snat.or(*external_snat);
        self.enforcing_mode = self.enforcing_mode.or_else(|| enforcing_mode.clone());
        self
    }
}
