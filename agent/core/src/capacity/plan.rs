//! Sizing before there is a node: what an instance type holds for a number of pods with given CNI settings, how many fit,
//! and how many such nodes fit in a subnet.

use serde::Serialize;

use super::instances::{Hypervisor, InstanceType};
use super::pool::{
    ATTACH_S, Calls, Held, Holding, LOOP_S, Pool, Recommendation, Settings, has_trunk, prefix_delegation, recommend,
};

/// Pods on the node's own network that AWS's formula for max-pods allows for: aws-node and kube-proxy.
pub const HOST_NETWORK_PODS: u32 = 2;
/// What EKS recommends as max-pods under prefix delegation, up to 30 vCPUs and above.
const PREFIX_MAX_PODS: (u32, u32) = (110, 250);
/// vCPUs from which on the greater one is recommended.
const MANY_VCPUS: u32 = 30;

const NO_TRUNK: &str = "this type has no trunk: pods with security groups of their own do not run on it";

/// What is asked.
#[derive(Clone, Copy, Debug)]
pub struct Ask {
    /// Pods with an address of the pool.
    pub pods: u32,
    /// Pods on the node's own network; they need no address and count against max-pods.
    pub host_network_pods: u32,
    /// The CNI's settings.
    pub settings: Settings,
    /// The kubelet's max-pods; `None`: what EKS recommends for the type.
    pub max_pods: Option<u32>,
    /// A fleet in one subnet.
    pub fleet: Option<Fleet>,
}

/// A fleet.
#[derive(Clone, Copy, Debug)]
pub struct Fleet {
    /// Nodes that are wanted.
    pub nodes: u32,
    /// Free addresses of the subnet that the pods' interfaces are in.
    pub subnet_free_ips: u64,
}

/// The answer. Where the pods do not fit, the figures are for those that do.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Plan {
    /// The type.
    pub instance_type: &'static str,
    /// `ipv4` or `ipv6`: what pods have addresses of.
    pub ip_family: &'static str,
    /// Pods asked for.
    pub pods: u32,
    /// All of them fit, as far as addresses and max-pods decide; memory and processors are not asked.
    pub fits: bool,
    /// Pods that fit, as far as these two decide.
    pub pods_fit: u32,
    /// What stops the next one: `pods` or `pod_ips`.
    pub stopped_by: &'static str,
    /// The kubelet's max-pods.
    pub max_pods: u32,
    /// What is held for these pods.
    #[serde(flatten)]
    pub holding: PlanHolding,
    /// The most that may be held: only where the CNI's own course decides.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub at_most: Option<PlanHolding>,
    /// Branch interfaces that the type's trunk carries, for pods with security groups of their own where `ENABLE_POD_ENI` is
    /// set; 0: the type has no trunk.
    pub branch_interfaces: u32,
    /// EBS volumes for pods, the root volume not among them, with so many interfaces attached.
    pub volume_slots: u32,
    /// Network bandwidth that the type always has, Mbit/s; `None`: not known.
    pub network_mbps: Option<u32>,
    /// Network bandwidth that it has for a while, Mbit/s; `None`: not known.
    pub network_peak_mbps: Option<u32>,
    /// EBS bandwidth that it always has, Mbit/s; `None`: not known.
    pub ebs_mbps: Option<u32>,
    /// EBS operations a second that it always has; `None`: not known.
    pub ebs_iops: Option<u32>,
    /// Settings that hold fewer addresses; `None`: these hold few enough.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub recommended: Option<Recommended>,
    /// The fleet asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fleet: Option<FleetPlan>,
    /// What a reader should know about these figures.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub notes: Vec<&'static str>,
}

/// What a node holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct PlanHolding {
    /// Network interfaces, the first one and the trunk included.
    pub interfaces: u32,
    /// Addresses of the subnet, each interface's own included.
    pub addresses_held: u32,
    /// Addresses of the subnet for pods; 0 with IPv6, where pods have theirs from the prefix.
    pub pod_addresses_held: u32,
    /// Prefixes: of 16 addresses (/28), 0 without prefix delegation; with IPv6 one /80.
    pub prefixes_held: u32,
}

/// Settings that hold fewer addresses, and what they cost.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Recommended {
    /// `WARM_IP_TARGET`.
    pub warm_ip_target: u32,
    /// `MINIMUM_IP_TARGET`.
    pub minimum_ip_target: u32,
    /// What is held then.
    #[serde(flatten)]
    pub holding: PlanHolding,
    /// Addresses of the subnet that are no longer held.
    pub addresses_saved: u32,
    /// Pods beyond the planned ones that may start at once without waiting for EC2.
    pub burst_pods: u32,
    /// Calls to EC2 while the pods start one by one.
    pub ec2_calls: u32,
    /// The same with the settings asked for.
    pub ec2_calls_before: u32,
    /// What a pod beyond the burst waits for the next look of ipamd, at most, seconds; a call to EC2 comes on top.
    pub wait_s: u32,
    /// The same when a new interface is needed.
    pub wait_interface_s: u32,
}

/// How a fleet fits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct FleetPlan {
    /// Nodes wanted.
    pub nodes: u32,
    /// Free addresses of the subnet.
    pub subnet_free_ips: u64,
    /// Addresses of that subnet that a node takes.
    pub addresses_per_node: u32,
    /// Nodes that fit with the settings asked for.
    pub nodes_fit: u64,
    /// Addresses of that subnet that a node takes with the recommended settings.
    pub addresses_per_node_recommended: u32,
    /// Nodes that fit with the recommended settings.
    pub nodes_fit_recommended: u64,
    /// The wanted ones fit.
    pub fits: bool,
    /// They fit with the recommended settings.
    pub fits_recommended: bool,
}

/// The kubelet's max-pods that EKS recommends: interfaces times their addresses without the primary one, and two for pods
/// on the node's own network; under prefix delegation 110 or 250 when the interfaces carry more. Pods with branch
/// interfaces are not in it, and count against it.
pub fn recommended_max_pods(of: &InstanceType, settings: &Settings) -> u32 {
    let carriers = of.interfaces.saturating_sub(u32::from(settings.custom_networking));
    let places = carriers.saturating_mul(of.ipv4_per_interface.saturating_sub(1));
    if prefix_delegation(of, settings) {
        let cap = match of.vcpus {
            Some(vcpus) if vcpus >= MANY_VCPUS => PREFIX_MAX_PODS.1,
            _ => PREFIX_MAX_PODS.0,
        };
        return places.saturating_mul(super::pool::PREFIX_ADDRESSES).saturating_add(HOST_NETWORK_PODS).min(cap);
    }
    places.saturating_add(HOST_NETWORK_PODS)
}

/// Answers for one type.
pub fn plan(of: &InstanceType, ask: &Ask) -> Plan {
    let settings = &ask.settings;
    let max_pods = ask.max_pods.unwrap_or_else(|| recommended_max_pods(of, settings));
    let pool = Pool::new(of, settings, max_pods);
    let by_kubelet = max_pods.saturating_sub(ask.host_network_pods);
    let addresses = match settings.ipv6 {
        false => pool.reachable(),
        true if has_ipv6(of) => u32::MAX,
        true => 0,
    };
    let pods_fit = by_kubelet.min(addresses);
    let pods = ask.pods.min(pods_fit);
    let held = if settings.ipv6 { held_of_ipv6(of, settings) } else { pool.from_empty(pods) };
    let recommendation = if settings.ipv6 { None } else { recommend(of, settings, max_pods, pods) };
    let most = held.high.interfaces;
    Plan {
        instance_type: of.name,
        ip_family: if settings.ipv6 { "ipv6" } else { "ipv4" },
        pods: ask.pods,
        fits: ask.pods <= pods_fit,
        pods_fit,
        stopped_by: if by_kubelet <= addresses { "pods" } else { "pod_ips" },
        max_pods,
        holding: PlanHolding::of_least(&held),
        at_most: held.exact().is_none().then(|| PlanHolding::of_most(&held)),
        branch_interfaces: of.branch_interfaces,
        volume_slots: of.volumes.slots(most),
        network_mbps: of.network_mbps,
        network_peak_mbps: of.network_peak_mbps,
        ebs_mbps: of.ebs_mbps,
        ebs_iops: of.ebs_iops,
        recommended: recommendation.as_ref().map(|found| Recommended::new(&held, found)),
        fleet: ask.fleet.map(|fleet| FleetPlan::new(fleet, settings, &held, recommendation.as_ref())),
        notes: notes(of, ask),
    }
}

/// The CNI runs with IPv6 where there are prefixes: on Nitro, which carries bare metal types as well.
fn has_ipv6(of: &InstanceType) -> bool {
    of.hypervisor != Hypervisor::Xen
}

/// With IPv6 a node holds one prefix of a /80 on its first interface, whatever the pods are; each interface has an address
/// of the IPv4 subnet all the same. `docs/prefix-and-ip-target.md` of the CNI.
fn held_of_ipv6(of: &InstanceType, settings: &Settings) -> Held {
    let interfaces = 1 + u32::from(has_trunk(of, settings));
    let held = Holding { interfaces, addresses: 0, prefixes: u32::from(has_ipv6(of)) };
    Held { low: held, high: held }
}

fn notes(of: &InstanceType, ask: &Ask) -> Vec<&'static str> {
    let settings = &ask.settings;
    let mut notes = Vec::new();
    if settings.ipv6 {
        notes.push(if has_ipv6(of) {
            "IPv6: a node holds one prefix (/80) of 2^48 addresses and the warm targets do not count: max-pods binds, \
             not addresses; of the IPv4 subnet each interface takes one"
        } else {
            "this type has no IPv6 prefixes: the CNI does not run with IPv6 on it"
        });
        if settings.pod_eni && of.branch_interfaces == 0 {
            notes.push(NO_TRUNK);
        }
        return notes;
    }
    if settings.prefix_delegation && !prefix_delegation(of, settings) {
        notes.push("this type has no prefix delegation: the CNI falls back to single addresses");
    }
    if settings.pod_eni && of.branch_interfaces == 0 {
        notes.push(NO_TRUNK);
    }
    if settings.minimum_ip_target > 0 && settings.warm_ip_target == 0 {
        notes.push("MINIMUM_IP_TARGET without WARM_IP_TARGET ends at its value: pods beyond it get no address");
    }
    if prefix_delegation(of, settings) {
        notes.push("a prefix needs 16 addresses in a row: a fragmented subnet has fewer than its free addresses tell");
    }
    if settings.custom_networking && ask.fleet.is_some() {
        notes.push("the first interface takes its address from the node's subnet, not from that of the pods");
    }
    notes
}

// === impl PlanHolding ===

impl PlanHolding {
    fn of_least(held: &Held) -> Self {
        Self::new(held.low)
    }

    fn of_most(held: &Held) -> Self {
        Self::new(held.high)
    }

    fn new(holding: Holding) -> Self {
        Self {
            interfaces: holding.interfaces,
            addresses_held: holding.total(),
            pod_addresses_held: holding.addresses,
            prefixes_held: holding.prefixes,
        }
    }
}

// === impl Recommended ===

impl Recommended {
    fn new(before: &Held, found: &Recommendation) -> Self {
        let holding = PlanHolding::of_most(&found.held);
        Self {
            warm_ip_target: found.settings.warm_ip_target,
            minimum_ip_target: found.settings.minimum_ip_target,
            holding,
            addresses_saved: before.low.total().saturating_sub(holding.addresses_held),
            burst_pods: found.burst,
            ec2_calls: found.calls.total(),
            ec2_calls_before: found.calls_before.total(),
            wait_s: LOOP_S,
            wait_interface_s: LOOP_S + ATTACH_S,
        }
    }
}

// === impl Calls ===

impl Calls {
    /// All of them.
    pub fn total(&self) -> u32 {
        self.assign.saturating_add(self.attach)
    }
}

// === impl FleetPlan ===

impl FleetPlan {
    fn new(fleet: Fleet, settings: &Settings, held: &Held, found: Option<&Recommendation>) -> Self {
        let Fleet { nodes, subnet_free_ips } = fleet;
        // The first interface is in the node's subnet, which under custom networking is another one.
        let elsewhere = u32::from(settings.custom_networking);
        let per_node = held.high.total().saturating_sub(elsewhere);
        let recommended = found.map_or(per_node, |found| found.held.high.total().saturating_sub(elsewhere));
        let fit = |per_node: u32| subnet_free_ips.checked_div(u64::from(per_node)).unwrap_or(u64::from(nodes));
        let (nodes_fit, nodes_fit_recommended) = (fit(per_node), fit(recommended));
        Self {
            nodes,
            subnet_free_ips,
            addresses_per_node: per_node,
            nodes_fit,
            addresses_per_node_recommended: recommended,
            nodes_fit_recommended,
            fits: nodes_fit >= u64::from(nodes),
            fits_recommended: nodes_fit_recommended >= u64::from(nodes),
        }
    }
}

#[cfg(test)]
mod tests;
