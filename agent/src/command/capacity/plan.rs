//! `sekisho capacity plan`: for an instance type, a number of pods and the CNI's settings what a node holds, and how many
//! such nodes fit in a subnet.

use std::fmt::Write as _;

use agent_core::capacity::instances::{InstanceType, instance_type, instance_types, nearest};
use agent_core::capacity::plan::{Ask, Fleet, FleetPlan, HOST_NETWORK_PODS, Plan as Answer, Recommended, plan};
use agent_core::capacity::pool::Settings;
use clap::Args;
use clap::value_parser;
use serde::Serialize;

use crate::command::{Exit, Shape, print};
use crate::lines::{SCHEMA, json};

/// Stands for every type.
const ALL: &str = "all";
/// Names shown beside one that is not known.
const NEAREST: usize = 3;
/// More pods than on any node there is, so that a slip of the finger is told.
const PODS_MAX: i64 = 5_000;
/// The same for addresses and interfaces that are kept ready.
const TARGET_MAX: i64 = 5_000;

/// What a node of an instance type holds for so many pods: interfaces and addresses, max-pods, branch interfaces, volumes.
/// The figures of types are those compiled in; targets are the VPC CNI's environment variables.
#[expect(clippy::struct_excessive_bools, reason = "switches of the command line")]
#[derive(Args)]
pub(super) struct Plan {
    /// As m5.large; all: every type that is known.
    #[arg(long, value_name = "TYPE")]
    instance_type: String,

    /// Pods with an address of their own on a node; those with hostNetwork and those with branch interfaces do not count.
    #[arg(long, value_name = "N", value_parser = value_parser!(u32).range(0..=PODS_MAX))]
    pods: u32,

    /// Pods with hostNetwork on a node; they count against max-pods.
    #[arg(long, value_name = "N", default_value_t = HOST_NETWORK_PODS, value_parser = value_parser!(u32).range(0..=PODS_MAX))]
    host_network_pods: u32,

    /// The kubelet's max-pods [default: what EKS recommends for the type]
    #[arg(long, value_name = "N", value_parser = value_parser!(u32).range(1..=PODS_MAX))]
    max_pods: Option<u32>,

    /// `WARM_ENI_TARGET`.
    #[arg(long, value_name = "N", default_value = "1", value_parser = value_parser!(u32).range(0..=TARGET_MAX))]
    warm_eni_target: u32,

    /// `WARM_IP_TARGET`; 0: not set.
    #[arg(long, value_name = "N", default_value = "0", value_parser = value_parser!(u32).range(0..=TARGET_MAX))]
    warm_ip_target: u32,

    /// `MINIMUM_IP_TARGET`; 0: not set.
    #[arg(long, value_name = "N", default_value = "0", value_parser = value_parser!(u32).range(0..=TARGET_MAX))]
    minimum_ip_target: u32,

    /// `WARM_PREFIX_TARGET`, under prefix delegation.
    #[arg(long, value_name = "N", default_value = "1", value_parser = value_parser!(u32).range(0..=TARGET_MAX))]
    warm_prefix_target: u32,

    /// `MAX_ENI` [default: as many as the type has]
    #[arg(long, value_name = "N", value_parser = value_parser!(u32).range(1..=TARGET_MAX))]
    max_eni: Option<u32>,

    /// `ENABLE_PREFIX_DELEGATION`.
    #[arg(long)]
    prefix_delegation: bool,

    /// `ENABLE_POD_ENI`: security groups for pods.
    #[arg(long)]
    pod_eni: bool,

    /// `AWS_VPC_K8S_CNI_CUSTOM_NETWORK_CFG`: pods in other subnets than the node.
    #[arg(long)]
    custom_networking: bool,

    /// `ENABLE_IPv6`: pods have IPv6 addresses; the warm targets do not count.
    #[arg(long, conflicts_with = "custom_networking")]
    ipv6: bool,

    /// Nodes that shall fit in one subnet.
    #[arg(long, value_name = "N", requires = "subnet_free_ips", value_parser = value_parser!(u32).range(1..=1_000_000))]
    nodes: Option<u32>,

    /// Free addresses of the subnet that the pods' interfaces are in.
    #[arg(long, value_name = "M", requires = "nodes", value_parser = value_parser!(u64).range(0..=16_777_216))]
    subnet_free_ips: Option<u64>,

    /// How the answer looks; json: one object per type.
    #[arg(short, value_enum, default_value = "text")]
    output: Shape,
}

/// No such type.
#[derive(Debug, thiserror::Error)]
#[error("instance type {name} is not known to this version{}; `--instance-type all` shows those that are", Near(.near))]
struct Unknown {
    name: String,
    near: Vec<&'static str>,
}

struct Near<'a>(&'a [&'static str]);

#[derive(Serialize)]
struct Line<'a> {
    schema: &'static str,
    kind: &'static str,
    #[serde(flatten)]
    plan: &'a Answer,
}

// === impl Plan ===

impl Plan {
    pub(super) fn run(&self) -> anyhow::Result<Exit> {
        let types: Vec<InstanceType> = if self.instance_type == ALL {
            instance_types().collect()
        } else {
            vec![instance_type(&self.instance_type).ok_or_else(|| Unknown {
                name: self.instance_type.clone(),
                near: nearest(&self.instance_type, NEAREST),
            })?]
        };
        let ask = self.ask();
        let plans = types.iter().map(|of| (of, plan(of, &ask)));
        let mut text = String::new();
        match (self.output, &*types) {
            (Shape::Json, _) => {
                for (_, plan) in plans {
                    text.push_str(&json(&Line { schema: SCHEMA, kind: "plan", plan: &plan }));
                    text.push('\n');
                }
            }
            (Shape::Text, [_]) => plans.for_each(|(of, plan)| one(&mut text, of, &plan, &ask)),
            (Shape::Text, _) => {
                row(
                    &mut text,
                    ["type", "pods fit", "max-pods", "interfaces", "held", "recommended", "branch", "volumes"],
                );
                plans.for_each(|(_, plan)| {
                    let recommended =
                        plan.recommended.map_or(plan.holding.addresses_held, |found| found.holding.addresses_held);
                    row(
                        &mut text,
                        [
                            plan.instance_type,
                            &plan.pods_fit.to_string(),
                            &plan.max_pods.to_string(),
                            &plan.holding.interfaces.to_string(),
                            &plan.holding.addresses_held.to_string(),
                            &recommended.to_string(),
                            &plan.branch_interfaces.to_string(),
                            &plan.volume_slots.to_string(),
                        ],
                    );
                });
            }
        }
        print(&text)?;
        Ok(Exit::Fine)
    }

    fn ask(&self) -> Ask {
        let fleet = self.nodes.zip(self.subnet_free_ips);
        Ask {
            pods: self.pods,
            host_network_pods: self.host_network_pods,
            settings: Settings {
                warm_eni_target: self.warm_eni_target,
                warm_ip_target: self.warm_ip_target,
                minimum_ip_target: self.minimum_ip_target,
                warm_prefix_target: self.warm_prefix_target,
                max_eni: self.max_eni,
                prefix_delegation: self.prefix_delegation,
                pod_eni: self.pod_eni,
                custom_networking: self.custom_networking,
                ipv6: self.ipv6,
            },
            max_pods: self.max_pods,
            fleet: fleet.map(|(nodes, subnet_free_ips)| Fleet { nodes, subnet_free_ips }),
        }
    }
}

// === impl Near ===

impl std::fmt::Display for Near<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if self.0.is_empty() { Ok(()) } else { write!(f, "; near it: {}", self.0.join(", ")) }
    }
}

// === text; writing to a string does not fail ===

fn row(text: &mut String, [name, cells @ ..]: [&str; 8]) {
    let _ = write!(text, "{name:<20}");
    for cell in cells {
        let _ = write!(text, " {cell:>11}");
    }
    text.push('\n');
}

fn one(text: &mut String, of: &InstanceType, plan: &Answer, ask: &Ask) {
    let known = |figure: Option<u32>| figure.map_or_else(|| "?".to_owned(), |figure| figure.to_string());
    let memory = of.memory_mib.map_or_else(|| "?".to_owned(), |mib| format!("{}", f64::from(mib) / 1_024.0));
    let _ = writeln!(
        text,
        "{}: {} vCPU, {memory} GiB, {} Mbit/s ({} for a while)",
        of.name,
        known(of.vcpus),
        known(of.network_mbps),
        known(of.network_peak_mbps)
    );
    let limit = format!("max-pods {}, {} of them with hostNetwork", plan.max_pods, ask.host_network_pods);
    let why = if plan.stopped_by == "pods" { "max-pods stops the next one" } else { "no address for the next one" };
    if plan.fits {
        let _ = writeln!(text, "{} pods fit; {} would ({limit}; {why})", plan.pods, plan.pods_fit);
    } else {
        let _ = writeln!(text, "{} pods do not fit: {} do ({limit}; {why})", plan.pods, plan.pods_fit);
        let _ = writeln!(text, "the figures below are for {}", plan.pods_fit);
    }
    text.push('\n');
    let recommended = plan.recommended.as_ref();
    let heads = ["", "these settings", if recommended.is_some() { "recommended" } else { "" }];
    let _ = writeln!(text, "{}", format!("{:<22} {:>16} {:>16}", heads[0], heads[1], heads[2]).trim_end());
    let (least, most) = (plan.holding, plan.at_most.unwrap_or(plan.holding));
    let mut line = |name: &str, least: u32, most: u32, recommended: Option<u32>| {
        let here = if least == most { least.to_string() } else { format!("{least} to {most}") };
        let there = recommended.map(|figure| figure.to_string()).unwrap_or_default();
        let _ = writeln!(text, "{}", format!("{name:<22} {here:>16} {there:>16}").trim_end());
    };
    let there = recommended.map(|found| found.holding);
    line("interfaces", least.interfaces, most.interfaces, there.map(|there| there.interfaces));
    line("addresses held", least.addresses_held, most.addresses_held, there.map(|there| there.addresses_held));
    line(
        "  of them for pods",
        least.pod_addresses_held,
        most.pod_addresses_held,
        there.map(|there| there.pod_addresses_held),
    );
    if most.prefixes_held > 0 {
        let name = if ask.settings.ipv6 { "IPv6 prefixes (/80)" } else { "  in prefixes of 16" };
        line(name, least.prefixes_held, most.prefixes_held, there.map(|there| there.prefixes_held));
    }
    if ask.settings.pod_eni {
        line(
            "branch interfaces",
            plan.branch_interfaces,
            plan.branch_interfaces,
            Some(plan.branch_interfaces).filter(|_| there.is_some()),
        );
    }
    let slots = there.map(|there| of.volumes.slots(there.interfaces));
    line("EBS volumes for pods", plan.volume_slots, plan.volume_slots, slots);
    if let Some(found) = recommended {
        cost(text, found);
    }
    if let Some(fleet) = &plan.fleet {
        fleet_line(text, fleet, recommended.is_some());
    }
    for note in &plan.notes {
        let _ = writeln!(text, "\nnote: {note}");
    }
}

fn cost(text: &mut String, found: &Recommended) {
    let Recommended { warm_ip_target, minimum_ip_target, ec2_calls, ec2_calls_before, burst_pods, .. } = found;
    let _ = writeln!(
        text,
        "\nrecommended: WARM_IP_TARGET={warm_ip_target} MINIMUM_IP_TARGET={minimum_ip_target} on the aws-node daemon set; \
         saves {} addresses a node",
        found.addresses_saved
    );
    let _ = writeln!(
        text,
        "cost: {burst_pods} more pods start at once; the next waits up to {} s and for a call to EC2,\n      up to {} s when \
         it takes a new interface. {ec2_calls} calls instead of {ec2_calls_before} while these pods start.",
        found.wait_s, found.wait_interface_s
    );
}

fn fleet_line(text: &mut String, fleet: &FleetPlan, recommended: bool) {
    let fits = |fits: bool| if fits { "enough" } else { "too few" };
    let _ = writeln!(text, "\n{} nodes in a subnet with {} free addresses:", fleet.nodes, fleet.subnet_free_ips);
    let mut line = |name: &str, per_node: u32, fit: u64, enough: bool| {
        let _ = writeln!(text, "  {name:<22} {fit:>8} fit at {per_node} addresses a node: {}", fits(enough));
    };
    line("these settings", fleet.addresses_per_node, fleet.nodes_fit, fleet.fits);
    if recommended {
        let (per_node, fit) = (fleet.addresses_per_node_recommended, fleet.nodes_fit_recommended);
        line("recommended settings", per_node, fit, fleet.fits_recommended);
    }
}
