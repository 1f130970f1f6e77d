//! Codes about trust in the picture itself.

use super::Entry;
use crate::finding::{Code, Severity};

pub(super) const TRAFFIC_UNACCOUNTED: Entry = Entry {
    code: Code::TrafficUnaccounted,
    severities: &[Severity::Medium],
    title: "a pod moves traffic that its sockets do not account for",
    about: "Flows are told from sockets. A program with a packet socket (AF_PACKET) sends and receives frames by itself, past every socket and past the hooks that see them. For this pod the picture is incomplete: what it reached may not stand among its flows. Packet captures, DHCP clients, some VPNs and load balancers work that way; so do tools that want to stay unseen.",
    holds: "A packet socket is open in the pod's network namespace, or its interface on the node moved over 1 MB and over 10 % more than its sockets did, headers and retransmissions allowed for, in each of two spans of five minutes.",
    silent: &[
        "Pods on the host's network: its packet sockets may be anybody's.",
        "Pods in a sandbox of their own (a runtime class, as Kata): their sockets are not seen.",
        "Spans in which records were lost or sockets were not followed, and nodes where no flow of a protocol was seen at all.",
        "Sidecars and VPNs that forward for others: give them a waiver.",
    ],
    ends: "",
    causes: &[
        ("packet_sockets", "a packet socket is open"),
        ("interface_bytes", "the interface moved more than the sockets"),
    ],
    advice: "Find the program (ss -0 in the pod's namespace). Where it is meant, give it a waiver; where it is not, take CAP_NET_RAW from the pod.",
    commands: &[
        (
            "packet sockets and their processes",
            "kubectl debug -n NAMESPACE POD --image=nicolaka/netshoot --profile=netadmin -it -- ss -0 -p",
        ),
        ("what the pod started lately", "sekisho observe --pod NAMESPACE/POD --kind process"),
    ],
    links: &[
        ("packet(7)", "https://man7.org/linux/man-pages/man7/packet.7.html"),
        (
            "Pod Security Standards: capabilities",
            "https://kubernetes.io/docs/concepts/security/pod-security-standards/",
        ),
    ],
};

pub(super) const RECORD_FLOOD: Entry = Entry {
    code: Code::RecordFlood,
    severities: &[Severity::Medium],
    title: "a pod makes more records than its share",
    about: "Each pod has a share of the rings by which the kernel reports. A pod that starts processes or opens connections faster than that loses records beyond its share, and no other pod does. Its bytes and connections stay exact (they are summed up per pod), but who was behind them, and which processes and metadata requests there were, is not known for what was suppressed. Crash loops and port scans look like this.",
    holds: "Records of a cgroup of the pod were suppressed or merged because it was over its budget.",
    silent: &["Records that found a ring full by everybody's doing are a gap, and nobody's finding."],
    ends: "",
    causes: &[
        ("flows", "connections and datagram flows"),
        ("processes", "processes"),
        ("metadata", "requests to metadata services"),
        ("dns", "DNS messages"),
    ],
    advice: "See what the pod does in a loop. Where it is meant to, raise kernel.bulk_ring_bytes or kernel.lifecycle_ring_bytes.",
    commands: &[
        ("what it opens and starts", "sekisho observe --pod NAMESPACE/POD --follow"),
        ("where records ended", "sekisho doctor --books"),
    ],
    links: &[],
};

pub(super) const API_TOKEN_UNUSED: Entry = Entry {
    code: Code::ApiTokenUnused,
    severities: &[Severity::Info],
    title: "a pod mounts a Kubernetes token and does not use it",
    about: "Every pod gets a token for the Kubernetes API unless it says otherwise. Most never use it, and whoever breaks into the pod finds it there.",
    holds: "A service account token is mounted, and the pod opened no connection to the API server in a window of at least 24 hours (findings.token_window_hours) that was watched whole.",
    silent: &[
        "Until the window is over: it begins with the agent's watch or the pod's start, and anew with whatever may have hidden a connection (lost records, rows without peers, sockets that could not be followed, a restart of the agent whose probes did not stay).",
        "As long as the API server's service and endpoints are not known, and in pods with a runtime class: no verdict is made.",
        "A pod that calls the API server by another address, as by the public endpoint of an EKS cluster, looks like one that does not. Waive it.",
    ],
    ends: "",
    causes: &[("unused", "no connection to the API server")],
    advice: "Set automountServiceAccountToken: false on the service account or the pod.",
    commands: &[
        ("every token on the node, and its use", "sekisho audit tokens"),
        (
            "switch it off",
            "kubectl patch serviceaccount -n NAMESPACE ACCOUNT -p '{\"automountServiceAccountToken\": false}'",
        ),
    ],
    links: &[(
        "Configure service accounts for pods",
        "https://kubernetes.io/docs/tasks/configure-pod-container/configure-service-account/",
    )],
};
