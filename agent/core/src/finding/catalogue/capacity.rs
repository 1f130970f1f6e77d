//! Codes about what runs out.

use super::Entry;
use crate::finding::{Code, Severity};

const CAUSES: &[(&str, &str)] = &[
    ("pod_ips", "addresses for pods"),
    ("threads", "threads: of the node, of a slice or of a pod, whichever has the least left"),
    ("open_files", "open files of a process, against its own limit"),
    ("conntrack_entries", "the kernel's connection tracking table"),
    ("ena_conntrack_allowance", "connections that the instance tracks for security groups"),
    (
        "ephemeral_ports",
        "local ports towards one peer: of a pod, of the node, or of an address of the node that pods' connections leave with (SNAT)",
    ),
    ("neighbour_entries", "the neighbour table (ARP, NDP)"),
    ("memory", "memory of the node"),
    ("disk_bytes", "space of a file system"),
    ("disk_inodes", "inodes of a file system"),
    (
        "subnet_ips",
        "free addresses of a subnet, as EC2 tells them, or as the CNI's failures there and pods without a sandbox show",
    ),
];

const SILENT: &[&str] = &[
    "Resources where a full node is healthy because the scheduler refuses cleanly: CPU and memory requests, pods, branch interfaces, EBS volumes, interfaces, billed containers. They are shown by `sekisho capacity` and its metrics.",
    "Baseline bandwidths: only the counters of exceeded allowances tell that a limit was hit.",
    "A reading that is too old, or a limit that is not known, is \"cannot tell\".",
];

pub(super) const CAPACITY_LOW: Entry = Entry {
    code: Code::CapacityLow,
    severities: &[Severity::Warning],
    title: "a resource is nearly used up",
    about: "These are cliffs: nothing is wrong until the last one is taken, and then things that run break: forks fail, connections are dropped, disks fill. The finding names the resource and the scope whose limit is the nearest.",
    holds: "The resource's use is above its threshold, or at its present growth it is used up within the configured time.",
    silent: SILENT,
    ends: "Thresholds have a distance between opening and closing, so that a value at the edge does not flap.",
    causes: CAUSES,
    advice: "`sekisho capacity` shows what is left and when it runs out; raise the limit, or move pods, before it does.",
    commands: &[("what is left on this node", "sekisho capacity")],
    links: &[(
        "EKS scalability best practices",
        "https://docs.aws.amazon.com/eks/latest/best-practices/scalability.html",
    )],
};

pub(super) const CAPACITY_EXHAUSTED: Entry = Entry {
    code: Code::CapacityExhausted,
    severities: &[Severity::High],
    title: "a resource is used up",
    about: "Whoever needs one more of this resource fails now. What that looks like from inside a pod is often far from its cause: \"resource temporarily unavailable\", time-outs to one peer alone, pods that hang in ContainerCreating.",
    holds: "Nothing is left of the resource in some scope, or a counter of refusals rose.",
    silent: SILENT,
    ends: "Thresholds have a distance between opening and closing, so that a value at the edge does not flap.",
    causes: CAUSES,
    advice: "`sekisho capacity` names who uses it; cordon the node, then raise the limit or move pods.",
    commands: &[("what is used up, and by whom", "sekisho capacity"), ("no more pods here", "kubectl cordon NODE")],
    links: &[(
        "EKS scalability best practices",
        "https://docs.aws.amazon.com/eks/latest/best-practices/scalability.html",
    )],
};
