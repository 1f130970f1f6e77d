//! Waivers for node agents of AWS, and for kube2iam and kiam: what they do is their work.
//!
//! A name alone can be taken by anybody who may create pods in the namespace, so each is known by namespace, service
//! account *and* repository of the image. A copy in a registry of one's own needs a waiver of one's own.

use super::Who;
use crate::finding::Code;

/// AWS accounts that hold the images of EKS add-ons, one or several regions each: those of the page
/// <https://docs.aws.amazon.com/eks/latest/userguide/add-ons-images.html>, and those of the newer regions `ap-east-2`,
/// `ap-southeast-5` to `-7` and `mx-central-1` that EKS's own machine images pull from
/// (`get-ecr-uri.sh` of <https://github.com/awslabs/amazon-eks-ami>).
const EKS_ACCOUNTS: [&str; 22] = [
    "602401143452",
    "013241004608",
    "066635153087",
    "121268973566",
    "151610086707",
    "151742754352",
    "296578399912",
    "333609536671",
    "455263428931",
    "491585149902",
    "533267051163",
    "558608220178",
    "590381155156",
    "730335286997",
    "759879836304",
    "761377655185",
    "800184023465",
    "877085696533",
    "900612956339",
    "900889452093",
    "918309763551",
    "961992271922",
];

/// Where an image lies.
enum Repository {
    /// This path in a registry of [`EKS_ACCOUNTS`].
    Eks(&'static str),
    /// Registry and path.
    Exact(&'static str),
}

use Repository::{Eks, Exact};

/// An agent that is known.
struct Agent {
    namespace: &'static str,
    service_account: &'static str,
    repositories: &'static [Repository],
    codes: &'static [Code],
    reason: &'static str,
}

/// On the node's network with the node's role: neither groups nor a role of its own are meant for it.
const NODE_AGENT: &[Code] = &[Code::NodeCredentialsTaken, Code::SgpNotEnforced];
/// Registers the instance with its own identity.
const INSTANCE_AGENT: &[Code] = &[Code::NodeCredentialsTaken, Code::IdentityCredentialsTaken, Code::SgpNotEnforced];
/// Stands between pods and the metadata service.
const METADATA_PROXY: &[Code] = &[Code::NodeCredentialsTaken, Code::MetadataForwarded, Code::SgpNotEnforced];

const AGENTS: &[Agent] = &[
    Agent {
        namespace: "kube-system",
        service_account: "aws-node",
        repositories: &[Eks("amazon-k8s-cni"), Eks("amazon-k8s-cni-init"), Eks("amazon/aws-network-policy-agent")],
        codes: NODE_AGENT,
        reason: "the VPC CNI manages the node's interfaces with the node's role",
    },
    Agent {
        namespace: "kube-system",
        service_account: "kube-proxy",
        repositories: &[Eks("eks/kube-proxy")],
        codes: NODE_AGENT,
        reason: "kube-proxy works on the node's network",
    },
    Agent {
        namespace: "kube-system",
        service_account: "eks-pod-identity-agent",
        repositories: &[Eks("eks/eks-pod-identity-agent")],
        codes: NODE_AGENT,
        reason: "the Pod Identity agent exchanges tokens with the node's role",
    },
    // Charts of the agent before it had a service account.
    Agent {
        namespace: "kube-system",
        service_account: "default",
        repositories: &[Eks("eks/eks-pod-identity-agent")],
        codes: NODE_AGENT,
        reason: "the Pod Identity agent exchanges tokens with the node's role",
    },
    Agent {
        namespace: "kube-system",
        service_account: "ebs-csi-node-sa",
        repositories: &[
            Eks("eks/aws-ebs-csi-driver"),
            Exact("public.ecr.aws/ebs-csi-driver/aws-ebs-csi-driver"),
            Eks("eks/csi-node-driver-registrar"),
            Eks("eks/livenessprobe"),
            Exact("public.ecr.aws/eks-distro/kubernetes-csi/node-driver-registrar"),
            Exact("public.ecr.aws/eks-distro/kubernetes-csi/livenessprobe"),
        ],
        codes: NODE_AGENT,
        reason: "the EBS CSI driver asks the metadata service about its node",
    },
    Agent {
        namespace: "kube-system",
        service_account: "efs-csi-node-sa",
        repositories: &[
            Eks("eks/aws-efs-csi-driver"),
            Exact("public.ecr.aws/efs-csi-driver/amazon/aws-efs-csi-driver"),
            Exact("docker.io/amazon/aws-efs-csi-driver"),
            Eks("eks/csi-node-driver-registrar"),
            Eks("eks/livenessprobe"),
            Exact("public.ecr.aws/eks-distro/kubernetes-csi/node-driver-registrar"),
            Exact("public.ecr.aws/eks-distro/kubernetes-csi/livenessprobe"),
        ],
        codes: NODE_AGENT,
        reason: "the EFS CSI driver mounts with the node's role",
    },
    Agent {
        namespace: "kube-system",
        service_account: "eks-node-monitoring-agent",
        repositories: &[Eks("eks/eks-node-monitoring-agent")],
        codes: NODE_AGENT,
        reason: "the node monitoring agent looks after its node",
    },
    Agent {
        namespace: "amazon-cloudwatch",
        service_account: "cloudwatch-agent",
        repositories: &[
            Eks("eks/observability/cloudwatch-agent"),
            Exact("public.ecr.aws/cloudwatch-agent/cloudwatch-agent"),
            Exact("docker.io/amazon/cloudwatch-agent"),
        ],
        codes: NODE_AGENT,
        reason: "the CloudWatch agent reports its node with the node's role",
    },
    Agent {
        namespace: "kube-system",
        service_account: "ssm-agent",
        repositories: &[Exact("public.ecr.aws/amazon-ssm-agent/amazon-ssm-agent")],
        codes: INSTANCE_AGENT,
        reason: "the SSM agent registers the instance with its own identity",
    },
    Agent {
        namespace: "kube-system",
        service_account: "kube2iam",
        repositories: &[Exact("docker.io/jtblin/kube2iam")],
        codes: METADATA_PROXY,
        reason: "kube2iam answers the metadata requests of pods",
    },
    Agent {
        namespace: "kube-system",
        service_account: "kiam-agent",
        repositories: &[Exact("quay.io/uswitch/kiam")],
        codes: METADATA_PROXY,
        reason: "kiam answers the metadata requests of pods",
    },
    Agent {
        namespace: "kube-system",
        service_account: "kiam-server",
        repositories: &[Exact("quay.io/uswitch/kiam")],
        codes: METADATA_PROXY,
        reason: "kiam takes roles for pods with the node's role",
    },
];

/// The reason why a finding about a known agent is accepted.
pub(super) fn accepting(code: Code, who: &Who<'_>) -> Option<&'static str> {
    let is = |agent: &&Agent| {
        agent.namespace == who.namespace
            && agent.service_account == who.service_account
            && agent.codes.contains(&code)
            && who.images_are(|image| agent.repositories.iter().any(|repository| repository.is(image)))
    };
    AGENTS.iter().find(is).map(|agent| agent.reason)
}

// === impl Repository ===

impl Repository {
    fn is(&self, image: &str) -> bool {
        match self {
            Self::Exact(repository) => image == *repository,
            Self::Eks(path) => {
                image.split_once('/').is_some_and(|(registry, found)| found == *path && is_eks(registry))
            }
        }
    }
}

/// `602401143452.dkr.ecr.eu-west-1.amazonaws.com`, also `ecr-fips` and `amazonaws.com.cn`.
fn is_eks(registry: &str) -> bool {
    let mut parts = registry.split('.');
    let mut next = || parts.next().unwrap_or_default();
    let (account, dkr, service, region) = (next(), next(), next(), next());
    let domain: Vec<_> = parts.collect();
    EKS_ACCOUNTS.contains(&account)
        && dkr == "dkr"
        && matches!(service, "ecr" | "ecr-fips")
        && !region.is_empty()
        && matches!(domain[..], ["amazonaws", "com"] | ["amazonaws", "com", "cn"])
}
