//! Codes about security groups for pods.

use super::Entry;
use crate::finding::{Code, Severity};

const GUIDE: (&str, &str) = (
    "Security groups for pods (EKS user guide)",
    "https://docs.aws.amazon.com/eks/latest/userguide/security-groups-for-pods.html",
);
const BEST_PRACTICES: (&str, &str) =
    ("Security groups per pod (EKS best practices)", "https://docs.aws.amazon.com/eks/latest/best-practices/sgpp.html");
const CONTROLLER: (&str, &str) =
    ("The VPC resource controller", "https://github.com/aws/amazon-vpc-resource-controller-k8s");
const MODES: (&str, &str) = (
    "Enforcing modes of the VPC CNI",
    "https://github.com/aws/amazon-vpc-cni-k8s#pod_security_group_enforcing_mode-v1110",
);
const AUTO_MODE: &str = "Nodes of EKS Auto Mode have another mechanism: every verdict is \"cannot tell\".";

const SHOW_POLICIES: (&str, &str) =
    ("the policies of the namespace", "kubectl get securitygrouppolicies -n NAMESPACE -o yaml");
const SHOW_POD: (&str, &str) = (
    "the pod's interface",
    "kubectl get pod -n NAMESPACE POD -o jsonpath='{.metadata.annotations.vpc\\.amazonaws\\.com/pod-eni}'",
);
const RESTART: (&str, &str) = ("make the pods anew", "kubectl rollout restart -n NAMESPACE deployment/WORKLOAD");

pub(super) const SGP_NOT_ENFORCED: Entry = Entry {
    code: Code::SgpNotEnforced,
    severities: &[Severity::Info, Severity::High, Severity::Critical],
    title: "a policy selects the pod, and its security groups are not in force",
    about: "A SecurityGroupPolicy takes effect at one moment only: an admission webhook asks for a branch interface when the pod is made. The webhook fails open, and nothing is mended later. The pod then runs with the node's security groups, which are usually wider, and no object says so. Databases that let in the pod's group refuse it; what the group should have kept out gets in.",
    holds: "A policy selects the pod, and the pod's address is not that of a branch interface of its annotation, or the node has no `vlan.eth.N` device with that interface's hardware address. Critical once the pod made connections that a group should have judged.",
    silent: &[
        "Pods that are pending or over.",
        "Pods on the host's network cannot have groups of their own: rated info, with that cause.",
        "Interfaces that were not read since the pod started, and an annotation that cannot be read: cannot tell.",
        AUTO_MODE,
    ],
    ends: "A running pod never gets its groups later; its successor does.",
    causes: &[
        ("webhook_missed", "the webhook did not ask for an interface, though the policy was there"),
        ("policy_newer", "the policy is younger than the pod"),
        ("labels_changed", "the pod's labels were changed after its creation, so that a policy selects it now"),
        (
            "cni_ignored",
            "an interface was made, and the CNI gave the pod another address: its limit stands on a container that is not the first",
        ),
        ("unsupported_node", "the node cannot have branch interfaces (type without a trunk, Windows)"),
        ("host_network", "the pod uses the host's network"),
        ("unknown", "it never asked for an interface; the objects do not tell why"),
    ],
    advice: "Make the pod anew. When its successor lacks its groups too, look at the cause: the webhook, the node's type, the order of containers.",
    commands: &[
        RESTART,
        SHOW_POD,
        ("the webhook", "kubectl get mutatingwebhookconfiguration vpc-resource-mutating-webhook -o yaml"),
        (
            "whether the node can",
            "kubectl get node NODE -o jsonpath='{.status.allocatable.vpc\\.amazonaws\\.com/pod-eni}'",
        ),
    ],
    links: &[
        GUIDE,
        ("Pods start without their groups", "https://github.com/aws/amazon-vpc-resource-controller-k8s/issues/167"),
        CONTROLLER,
    ],
};

pub(super) const SGP_STALE: Entry = Entry {
    code: Code::SgpStale,
    severities: &[Severity::High],
    title: "the pod's interface has other security groups than its policies ask for now",
    about: "Groups are put on a branch interface when it is made. Changing a policy, or the labels that it selects by, changes no running pod: those run on with the groups of yesterday, until each is made anew.",
    holds: "The groups on the interface, as EC2 tells them or else as the controller's event named them when it made the interface, differ as a set from the union over the policies that select the pod now.",
    silent: &[
        "EC2 is not asked, and the event is gone (the API server keeps events for an hour) and was not read in time: cannot tell.",
        "Completed pods, which keep their annotation.",
        AUTO_MODE,
    ],
    ends: "Pods made anew have the new groups.",
    causes: &[
        ("policy_changed", "a policy changed after the interface was made"),
        ("labels_changed", "the pod's labels changed after the interface was made"),
        ("unknown", "one of these, or the service account's labels; the objects do not tell which"),
    ],
    advice: "Make the pods anew after a change of policies.",
    commands: &[
        RESTART,
        SHOW_POLICIES,
        (
            "what is really on the interface",
            "aws ec2 describe-network-interfaces --network-interface-ids ENI --query 'NetworkInterfaces[].Groups'",
        ),
    ],
    links: &[
        ("Changes do not reach running pods", "https://github.com/aws/amazon-vpc-resource-controller-k8s/issues/11"),
        GUIDE,
    ],
};

pub(super) const SGP_ORPHANED: Entry = Entry {
    code: Code::SgpOrphaned,
    severities: &[Severity::Low],
    title: "the pod has a branch interface and no policy selects it",
    about: "The policy that gave the pod its interface is gone, or somebody set the limit `vpc.amazonaws.com/pod-eni` by hand. In the first case the pod keeps groups that nobody asks for any more; in the second it has an interface with the instance's groups.",
    holds: "The pod has a branch interface, and no policy of its namespace selects it.",
    silent: &["Completed pods, which keep their annotation.", AUTO_MODE],
    ends: "",
    causes: &[
        ("limit_by_hand", "the limit stands in the pod's spec, and no policy asked for it"),
        ("policy_gone", "the policy was deleted or changed, or the labels were"),
        ("unknown", "one of the two; the controller's event is gone"),
    ],
    advice: "Make the pod anew, or bring the policy back; a branch interface is scarce (see `sekisho capacity`).",
    commands: &[SHOW_POLICIES, RESTART],
    links: &[GUIDE, CONTROLLER],
};

pub(super) const SGP_INVALID: Entry = Entry {
    code: Code::SgpInvalid,
    severities: &[Severity::Medium],
    title: "a policy cannot work as it stands",
    about: "The API server accepts policies that the controller passes over, or that ask for more than EC2 gives. Nothing complains when they are applied. Pods run without the groups, or hang in ContainerCreating.",
    holds: "A policy has no selector, a selector that cannot be read, or no groups; or the groups of all policies that select one pod are more than an interface takes (5, configurable up to 16).",
    silent: &[
        "An empty selector `{}` is valid: it selects every pod of the namespace.",
        "Only nodes with a pod that is or would be selected report it.",
    ],
    ends: "",
    causes: &[
        ("no_selector", "neither podSelector nor serviceAccountSelector"),
        ("selector_invalid", "a selector that the controller cannot read"),
        ("no_groups", "no security groups"),
        ("too_many_groups", "the union over all policies that select the pod is too large"),
    ],
    advice: "Correct the policy. For more than five groups raise the quota \"security groups per network interface\" and set findings.max_groups to it.",
    commands: &[SHOW_POLICIES, ("before applying it", "sekisho check PATH")],
    links: &[GUIDE, CONTROLLER],
};

pub(super) const SGP_CLUSTER_GROUP: Entry = Entry {
    code: Code::SgpClusterGroup,
    severities: &[Severity::Info],
    title: "a policy names the cluster security group",
    about: "EKS makes the cluster security group with the cluster and deletes it with it. AWS's own tutorial names it in policies, and that works. At a blue/green upgrade the new cluster has another one, and every policy that names the old one breaks at the same time.",
    holds: "A policy that selects a pod of this node names a group of `findings.cluster_security_groups`, or one that EC2 shows with the tag `aws:eks:cluster-name` or the name of a cluster security group.",
    silent: &["Without that key and without EC2 nothing is known of cluster security groups: cannot tell."],
    ends: "",
    causes: &[
        ("cluster_group", "the group is a cluster's, as far as is known this one's"),
        ("other_cluster", "the group is the one of another cluster than the node's own"),
    ],
    advice: "Use an additional security group that is attached to the control plane and outlives the cluster.",
    commands: &[(
        "the cluster's groups",
        "aws eks describe-cluster --name CLUSTER --query 'cluster.resourcesVpcConfig.[clusterSecurityGroupId,securityGroupIds]'",
    )],
    links: &[
        ("Security group requirements", "https://docs.aws.amazon.com/eks/latest/userguide/sec-group-reqs.html"),
        GUIDE,
    ],
};

pub(super) const SGP_UNFILTERED_FLOW: Entry = Entry {
    code: Code::SgpUnfilteredFlow,
    severities: &[Severity::Medium],
    title: "a connection that the pod's groups would have refused went past them",
    about: "In standard mode a pod's groups do not see traffic to pods of the same node, nor traffic to the outside of the VPC, which leaves by the node's address and the node's groups. Every cluster in this mode has such traffic (CoreDNS on the same node, the internet), so it is counted and not reported. A finding takes the rules of the groups, from EC2.",
    holds: "An enforced pod in standard mode made a connection past its groups, and their rules would have refused it.",
    silent: &[
        "Connections that the pod's own groups would have let pass as well, whatever those at the other end say.",
        "Without the rules, or the CNI's setting for address translation: cannot tell. `sekisho_verdicts_total{code=\"sgp-unfiltered-flow\"}` counts such connections.",
    ],
    ends: "",
    causes: &[
        ("same_node", "the peer is on the same node"),
        ("outside_vpc", "the connection leaves by the node's address"),
    ],
    advice: "Where that traffic must be filtered use strict mode, or a NetworkPolicy beside the groups.",
    commands: &[(
        "strict mode, for pods made from then on",
        "kubectl set env daemonset/aws-node -n kube-system POD_SECURITY_GROUP_ENFORCING_MODE=strict",
    )],
    links: &[MODES, BEST_PRACTICES],
};

pub(super) const SGP_BLOCKED_FLOW: Entry = Entry {
    code: Code::SgpBlockedFlow,
    severities: &[Severity::Medium],
    title: "a pod with security groups of its own gets no answer from a peer",
    about: "Security groups drop without a word, so a rule that is missing looks like a peer that is dead: connections hang until the client gives up. This finding is for the workload whose connections hang. With the rules from EC2 it names the one that is missing, on the pod's side or on the peer's; without them it says that the peer does not answer, and no more.",
    holds: "A pod whose groups are in force made at least three connection attempts over at least 30 seconds to one peer and port without an answer, and none succeeded since it is watched.",
    silent: &[
        "A success to that peer and port before: then it is a fail-over or a dead host. Of a pod older than the agent's watch nobody can tell, unless others get answers meanwhile or it was found before.",
        "The rules of both ends let it pass, or no group judges it (same node in standard mode): not the groups.",
        "The pod's own rules let it out of the VPC: whose groups stand behind a public address nobody here can know, and cannot tell, unless others get answers.",
        "A service's address is judged by the backend behind it. While that is not known, rules have no say.",
        "A pod or process without these groups gets no answer either, and no rule is known to be missing: then the peer is dead. Others count while the pod fails, before and after their answer or since, and not while they open nothing new; a pod that may have the same groups is none of them.",
        "A NetworkPolicy that selects the pod, or a PolicyEndpoint of the VPC CNI: their drops look the same. Cannot tell, and the policy is named. As long as the policies are not known, the text says so.",
        "Refused connections: somebody answered.",
        "What no group judges: the metadata services, link-local addresses, AWS's services on the link, the pod itself.",
        "A pod in standard mode, and a peer on the same node or outside the VPC: its groups do not see that. Cannot tell, as while the pod's mode is not known.",
        "Drops on the way in happen before this node and cannot be seen here.",
    ],
    ends: "",
    causes: &[
        (
            "egress_rule_missing",
            "no rule of the pod's groups lets it out; the evidence has the rule, ready to be added",
        ),
        (
            "ingress_rule_missing",
            "no rule of the peer's groups lets it in; the evidence has the rule, ready to be added",
        ),
        ("unanswered", "the peer does not answer this pod; nothing is known of others"),
        ("only_this_pod", "the peer answers others on this node that do not have these groups"),
    ],
    advice: "Compare the pod's egress rules and the peer's ingress rules with the port; the peer must admit the pod's group, not the node's.",
    commands: &[
        (
            "the pod's groups",
            "kubectl get events -n NAMESPACE --field-selector involvedObject.name=POD,reason=SecurityGroupRequested",
        ),
        ("their rules", "aws ec2 describe-security-group-rules --filters Name=group-id,Values=GROUP"),
        ("what was tried", "sekisho observe --pod NAMESPACE/POD --kind flow"),
    ],
    links: &[GUIDE, BEST_PRACTICES],
};

pub(super) const SGP_DNS_BLOCKED: Entry = Entry {
    code: Code::SgpDnsBlocked,
    severities: &[Severity::Medium],
    title: "a pod with security groups of its own gets no answer from DNS",
    about: "Names do not resolve unless the pod's groups let TCP and UDP 53 out to CoreDNS, and CoreDNS's group lets them in. It is the most frequent mistake with security groups for pods, and everything else then looks broken.",
    holds: "A pod whose groups are in force got no answer to at least three queries over at least 30 seconds, while another pod on the node got answers from the same resolver, or the rules from EC2 let no query out.",
    silent: &[
        "The resolver answers nobody on this node, or left others without an answer half a minute ago: it is or was down for all.",
        "NodeLocal DNS is out of reach for pods in strict mode, which is named as the cause.",
        "The VPC's resolver at its link-local address (169.254.169.253): no group judges it.",
        "A pod in standard mode, and a resolver on the same node or outside the VPC: its groups do not see that. Cannot tell, as while the pod's mode is not known.",
    ],
    ends: "",
    causes: &[
        ("egress_rule_missing", "no rule of the pod's groups lets DNS out"),
        ("ingress_rule_missing", "no rule of the resolver's groups lets it in"),
        ("groups", "others get answers: port 53 is missing in the pod's egress rules or in CoreDNS's ingress rules"),
        ("groups_or_network_policy", "the same, or the NetworkPolicy that selects the pod and is named"),
        ("node_local_dns", "the resolver is a link-local address of the node, which pods in strict mode cannot reach"),
    ],
    advice: "Allow TCP and UDP 53 from the pod's group to CoreDNS's group, on both sides.",
    commands: &[
        (
            "let CoreDNS's group admit the pod's",
            "aws ec2 authorize-security-group-ingress --group-id COREDNS_GROUP --protocol udp --port 53 --source-group POD_GROUP",
        ),
        (
            "and over TCP",
            "aws ec2 authorize-security-group-ingress --group-id COREDNS_GROUP --protocol tcp --port 53 --source-group POD_GROUP",
        ),
    ],
    links: &[GUIDE, BEST_PRACTICES],
};

pub(super) const SGP_PROBE_BLOCKED: Entry = Entry {
    code: Code::SgpProbeBlocked,
    severities: &[Severity::Medium],
    title: "the kubelet's probes of a pod with security groups of its own time out",
    about: "Probes come from the node. In strict mode they reach the pod by its branch interface: the pod's groups must admit the node's group on every probed port, and the node must not demultiplex early (`net.ipv4.tcp_early_demux=0`). Else the pod never gets ready, or is restarted for ever.",
    holds: "At least three of the kubelet's connections to a probed port of an enforced pod stayed unanswered over at least 30 seconds, and none succeeded meanwhile.",
    silent: &[
        "Probes by exec make no traffic.",
        "A pod whose container does not run yet.",
        "Refused probes: the pod answered, and nobody listens.",
        "A pod in standard mode: nothing filters what its node sends. While the mode is not known: cannot tell.",
    ],
    ends: "",
    causes: &[
        ("early_demux", "strict mode, and the node demultiplexes early"),
        (
            "node_group_ingress",
            "strict mode, and the pod's groups do not admit the node's: by their rules, or because early demultiplexing is off",
        ),
        ("ambient_mesh", "the pod is in an ambient mesh, which gives probes an address that no group admits"),
        ("unknown", "which of these is not known"),
    ],
    advice: "Admit the node's group on the probed ports, and set DISABLE_TCP_EARLY_DEMUX=true on aws-node's init container (strict mode).",
    commands: &[
        ("the sysctl", "kubectl debug node/NODE --image=busybox -it -- sysctl net.ipv4.tcp_early_demux"),
        (
            "switch early demultiplexing off",
            "kubectl patch daemonset aws-node -n kube-system -p '{\"spec\":{\"template\":{\"spec\":{\"initContainers\":[{\"name\":\"aws-vpc-cni-init\",\"env\":[{\"name\":\"DISABLE_TCP_EARLY_DEMUX\",\"value\":\"true\"}]}]}}}}'",
        ),
        (
            "admit the node's group",
            "aws ec2 authorize-security-group-ingress --group-id POD_GROUP --protocol tcp --port PORT --source-group NODE_GROUP",
        ),
    ],
    links: &[
        GUIDE,
        ("TCP early demux and the CNI", "https://github.com/aws/amazon-vpc-cni-k8s#disable_tcp_early_demux-v173"),
    ],
};
