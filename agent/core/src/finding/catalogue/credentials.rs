//! Codes about AWS credentials.

use super::Entry;
use crate::finding::{Code, Severity};

const IMDS_GUIDE: (&str, &str) = (
    "Restrict access to the instance profile of the worker node (EKS best practices)",
    "https://docs.aws.amazon.com/eks/latest/best-practices/identity-and-access-management.html",
);
const IMDS_OPTIONS: (&str, &str) = (
    "Instance metadata options (EC2 user guide)",
    "https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/configuring-instance-metadata-options.html",
);
const POD_IDENTITY: (&str, &str) =
    ("EKS Pod Identities", "https://docs.aws.amazon.com/eks/latest/userguide/pod-identities.html");
const IRSA: (&str, &str) = (
    "IAM roles for service accounts",
    "https://docs.aws.amazon.com/eks/latest/userguide/iam-roles-for-service-accounts.html",
);
const WEBHOOK: (&str, &str) = ("The identity webhook", "https://github.com/aws/amazon-eks-pod-identity-webhook");
const SDK_CHAIN: (&str, &str) = (
    "Order in which SDKs look for credentials",
    "https://docs.aws.amazon.com/sdkref/latest/guide/standardized-credentials.html",
);

pub(super) const NODE_CREDENTIALS_TAKEN: Entry = Entry {
    code: Code::NodeCredentialsTaken,
    severities: &[Severity::High, Severity::Critical],
    title: "a pod took the node role's credentials",
    about: "The instance metadata service gives whoever asks from the node the credentials of the node's IAM role: it may pull every image, change the node's interfaces and often much more. A pod that takes them acts as the node, and CloudTrail shows the node's name. Most often nobody meant it: an AWS SDK finds no identity of its own and asks the metadata service last. A pod that has an identity of its own and takes the node's all the same is either misconfigured or not what it seems, which is why that is critical.",
    holds: "A request for `…/iam/security-credentials/<role>` by a process in a pod was answered with status 200.",
    silent: &[
        "The list of roles, and answers 401, 403 and 404: no credentials were given.",
        "AWS's own node agents, known by namespace, service account and image repository, are accepted by shipped waivers; so are kube2iam and kiam. Being on the host's network is no reason by itself.",
        "Processes outside pods: the node's own services need this role.",
    ],
    ends: "Credentials that were taken stay valid for hours after the finding is gone: the access key id in the evidence finds their use in CloudTrail.",
    causes: &[
        ("no_identity", "the container has no AWS identity of its own"),
        (
            "own_identity",
            "the container has an identity of its own, or should have one, and asked for the node's all the same",
        ),
        ("unknown_identity", "what identity the container has is not known"),
    ],
    advice: "Give the workload an identity of its own (EKS Pod Identity or IRSA), then keep pods away from the node's role: tokens required and a hop limit of 1 on the instance.",
    commands: &[
        (
            "who used the key that was taken",
            "aws cloudtrail lookup-events --lookup-attributes AttributeKey=AccessKeyId,AttributeValue=ACCESS_KEY_ID",
        ),
        (
            "what the pod is meant to be",
            "kubectl get pod -n NAMESPACE POD -o jsonpath='{.spec.serviceAccountName}{\"\\n\"}{.spec.containers[*].env}'",
        ),
        (
            "give it a role",
            "aws eks create-pod-identity-association --cluster-name CLUSTER --namespace NAMESPACE --service-account ACCOUNT --role-arn ROLE",
        ),
        (
            "keep pods out (hostNetwork pods still pass)",
            "aws ec2 modify-instance-metadata-options --instance-id INSTANCE --http-tokens required --http-put-response-hop-limit 1",
        ),
    ],
    links: &[IMDS_GUIDE, IMDS_OPTIONS, POD_IDENTITY],
};

pub(super) const IDENTITY_CREDENTIALS_TAKEN: Entry = Entry {
    code: Code::IdentityCredentialsTaken,
    severities: &[Severity::Medium],
    title: "a pod took the instance's identity credentials",
    about: "Every EC2 instance has credentials that prove which instance it is, with or without a role. AWS's own agents (Systems Manager, EC2 Instance Connect) use them to register the instance. A pod with them can speak to these services as the instance.",
    holds: "A request below `…/identity-credentials/ec2/security-credentials` by a process in a pod was answered with status 200, and the answer held an access key id.",
    silent: &[
        "Answers without credentials: `…/identity-credentials/ec2/info` tells an account number.",
        "The SSM agent's DaemonSet is accepted by a shipped waiver.",
    ],
    ends: "",
    causes: &[("taken", "the credentials were given")],
    advice: "Find out which program asks; where it is no agent of the node, keep the pod away from the metadata service (hop limit 1, or a NetworkPolicy that denies 169.254.169.254).",
    commands: &[
        ("the requests as they come", "sekisho observe --pod NAMESPACE/POD --kind metadata --follow"),
        (
            "keep pods out",
            "aws ec2 modify-instance-metadata-options --instance-id INSTANCE --http-tokens required --http-put-response-hop-limit 1",
        ),
    ],
    links: &[
        (
            "Instance identity roles",
            "https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/iam-roles-for-amazon-ec2.html#ec2-instance-identity-roles",
        ),
        IMDS_GUIDE,
    ],
};

pub(super) const USER_DATA_READ: Entry = Entry {
    code: Code::UserDataRead,
    severities: &[Severity::Medium],
    title: "a pod read the instance's user data",
    about: "User data is the script that starts the node. On EKS it holds the cluster's endpoint and certificate, on many nodes also registry passwords, proxy credentials or tokens that somebody put there. No workload needs it.",
    holds: "A request for `…/user-data` by a process in a pod was answered with status 200.",
    silent: &["Answers 401, 403 and 404.", "Agents that prepare the node: give them a waiver."],
    ends: "",
    causes: &[("read", "the user data was given")],
    advice: "Take secrets out of the user data (and change them), then keep pods away from the metadata service.",
    commands: &[
        (
            "what stands in it",
            "aws ec2 describe-instance-attribute --instance-id INSTANCE --attribute userData --query UserData.Value --output text | base64 -d",
        ),
        (
            "keep pods out",
            "aws ec2 modify-instance-metadata-options --instance-id INSTANCE --http-tokens required --http-put-response-hop-limit 1",
        ),
    ],
    links: &[
        ("Run commands at launch: user data", "https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/user-data.html"),
        IMDS_GUIDE,
    ],
};

pub(super) const METADATA_V1_USED: Entry = Entry {
    code: Code::MetadataV1Used,
    severities: &[Severity::Low],
    title: "a workload uses the metadata service without a token (version 1)",
    about: "Version 1 of the metadata service answers any plain GET, so one forged request (SSRF) suffices to take credentials. Once tokens are required, these requests are answered with 401: whoever still makes them breaks. This finding is the list of who would.",
    holds: "A request without a token for a path of EC2's metadata was answered with status 200.",
    silent: &[
        "Answers 401: tokens are required already, and nothing was given.",
        "Paths of other clouds on the same address (`/computeMetadata`, `/metadata/instance`, `/opc`): libraries find out that way where they are.",
    ],
    ends: "",
    causes: &[("no_token", "the request had no token")],
    advice: "Update the SDK or client (all of AWS's speak version 2 since 2020), then require tokens.",
    commands: &[
        ("which program asks for what", "sekisho observe --workload WORKLOAD --kind metadata --follow"),
        (
            "how often, in CloudWatch",
            "aws cloudwatch get-metric-statistics --namespace AWS/EC2 --metric-name MetadataNoToken --dimensions Name=InstanceId,Value=INSTANCE --start-time START --end-time END --period 3600 --statistics Sum",
        ),
        ("require tokens", "aws ec2 modify-instance-metadata-options --instance-id INSTANCE --http-tokens required"),
    ],
    links: &[
        (
            "Transition to version 2",
            "https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/instance-metadata-transition-to-version-2.html",
        ),
        IMDS_OPTIONS,
    ],
};

pub(super) const METADATA_FORWARDED: Entry = Entry {
    code: Code::MetadataForwarded,
    severities: &[Severity::Medium],
    title: "a request to the metadata service was forwarded for somebody else",
    about: "A request with X-Forwarded-For came through a proxy: an open proxy or a forged request (SSRF) that reaches the metadata service on somebody's behalf. Version 2 refuses a token to such requests; version 1 answers them.",
    holds: "A request to the instance metadata service by a process in a pod had an X-Forwarded-For header.",
    silent: &["kube2iam and kiam, which stand between pods and the service, are accepted by shipped waivers."],
    ends: "",
    causes: &[("forwarded", "the header was there")],
    advice: "Find the proxy, let it refuse link-local destinations, and require tokens on the instance.",
    commands: &[
        ("who forwards for whom", "sekisho observe --pod NAMESPACE/POD --kind metadata -o json --follow"),
        ("require tokens", "aws ec2 modify-instance-metadata-options --instance-id INSTANCE --http-tokens required"),
    ],
    links: &[
        (
            "Defense in depth against open proxies and SSRF (AWS security blog)",
            "https://aws.amazon.com/blogs/security/defense-in-depth-open-firewalls-reverse-proxies-ssrf-vulnerabilities-ec2-instance-metadata-service/",
        ),
        IMDS_OPTIONS,
    ],
};

pub(super) const METADATA_UNANSWERED: Entry = Entry {
    code: Code::MetadataUnanswered,
    severities: &[Severity::Info, Severity::Low],
    title: "a pod asked for a metadata token and no answer reached it",
    about: "The answer to a token request starts with the instance's hop limit as its time to live. A pod is one hop farther than the node: with a hop limit of 1 the answer dies on the node, the client waits, tries again and at last gives up. Calls that need credentials, a region or an instance id then take seconds, or fail.",
    holds: "A connection to the metadata service was established, the request for a token was sent, no byte came back, and meanwhile the node sent ICMP \"time exceeded\" messages, or the hop limit is known to be 1 from answers to processes on the node.",
    silent: &[
        "A SYN without an answer is the outcome `blocked`: a rule drops it, as many want it.",
        "Without readings of the ICMP counter and without a known hop limit it cannot be told why nothing came back.",
        "When the interface dropped link-local packets over its allowance meanwhile, that is named as the cause.",
    ],
    ends: "",
    causes: &[
        ("hop_limit", "the answer's hop limit is too small for a pod"),
        (
            "link_local_throttled",
            "the instance's allowance for link-local packets (1,024 a second and interface) was used up",
        ),
    ],
    advice: "Where pods are not meant to use the metadata service this is as it should be: give the workload its own identity and region (AWS_REGION), or set AWS_EC2_METADATA_DISABLED=true so that it does not wait. Where they are, raise the hop limit to 2.",
    commands: &[
        (
            "the instance's settings",
            "aws ec2 describe-instances --instance-ids INSTANCE --query 'Reservations[].Instances[].MetadataOptions'",
        ),
        (
            "let pods through",
            "aws ec2 modify-instance-metadata-options --instance-id INSTANCE --http-put-response-hop-limit 2",
        ),
    ],
    links: &[IMDS_OPTIONS, IMDS_GUIDE],
};

pub(super) const IRSA_NOT_INJECTED: Entry = Entry {
    code: Code::IrsaNotInjected,
    severities: &[Severity::Medium],
    title: "the service account names a role and no container has it",
    about: "The role in the annotation of a service account gets into pods by a webhook, at their creation and never later. The webhook fails open: when it is slow or does not know the account yet, the pod starts without the role, and AWS SDKs in it fall back to the node's role without a word.",
    holds: "The service account has the role annotation, and no container that the webhook would change has a web identity, a Pod Identity or keys of its own.",
    silent: &[
        "Containers led to EKS Pod Identity: it goes before the annotation.",
        "The skip label on the pod, and containers named in the skip-containers annotation.",
        "Variables that the user set; variables from a ConfigMap or Secret as a whole are not known.",
        "Another annotation prefix of a webhook of one's own is configured by `findings.irsa_annotation_prefix`.",
    ],
    ends: "A pod that was made anew has the role, and its predecessor's finding goes with it.",
    causes: &[
        ("annotated_later", "the account got its annotation after the pod was made"),
        ("webhook_missed", "the webhook did not change the pod although the annotation was there"),
        ("unknown", "one of the two; the objects do not tell which"),
    ],
    advice: "Restart the pods: kubectl rollout restart. When new pods lack the role too, look at the webhook.",
    commands: &[
        ("restart", "kubectl rollout restart -n NAMESPACE deployment/WORKLOAD"),
        (
            "what the pod has",
            "kubectl get pod -n NAMESPACE POD -o jsonpath='{.spec.containers[*].env[?(@.name==\"AWS_ROLE_ARN\")].value}'",
        ),
        ("the webhook", "kubectl get mutatingwebhookconfiguration pod-identity-webhook -o yaml"),
    ],
    links: &[
        IRSA,
        WEBHOOK,
        ("Pods without injected variables", "https://github.com/aws/amazon-eks-pod-identity-webhook/issues/174"),
    ],
};

pub(super) const IDENTITY_CONFLICT: Entry = Entry {
    code: Code::IdentityConflict,
    severities: &[Severity::Medium],
    title: "two identities in one container, and not the associated one is used",
    about: "SDKs take the first credentials they find: access keys in the environment, then a web identity, then Pod Identity. A container with a Pod Identity association and variables of its own uses its own variables, and the association does nothing.",
    holds: "Pod Identity was injected into a container whose environment also holds access keys, or a role and a token file of the user's.",
    silent: &[
        "An annotated account with an association is healthy: the webhook injects one of the two, Pod Identity.",
        "Variables from a ConfigMap or Secret as a whole are not known.",
    ],
    ends: "",
    causes: &[
        ("access_key", "AWS_ACCESS_KEY_ID comes first"),
        ("web_identity", "AWS_ROLE_ARN with AWS_WEB_IDENTITY_TOKEN_FILE comes first"),
    ],
    advice: "Take the variables out of the pod's spec, or delete the association, whichever is not meant.",
    commands: &[
        ("who the container is to AWS", "kubectl exec -n NAMESPACE POD -c CONTAINER -- aws sts get-caller-identity"),
        (
            "associations of the account",
            "aws eks list-pod-identity-associations --cluster-name CLUSTER --namespace NAMESPACE --service-account ACCOUNT",
        ),
    ],
    links: &[SDK_CHAIN, POD_IDENTITY],
};

pub(super) const STATIC_CREDENTIALS: Entry = Entry {
    code: Code::StaticCredentials,
    severities: &[Severity::High],
    title: "a long-term access key stands in a pod's environment",
    about: "A long-term key does not expire, works from anywhere, and is read by everybody who may read the pod or its manifest's repository. It is the most frequent way by which accounts are lost.",
    holds: "A variable in the pod's spec has a literal value of the form of a long-term access key id (`AKIA` and 16 characters).",
    silent: &[
        "Keys from a Secret: their values are not read, so it cannot be told what they are.",
        "Keys of other shapes, as MinIO and LocalStack use them.",
        "The environment of running processes is never read.",
    ],
    ends: "",
    causes: &[("access_key", "the value is a long-term access key id")],
    advice: "Take the key out of service, then give the workload a role by Pod Identity or IRSA.",
    commands: &[
        ("whose key it is, and when it was used", "aws iam get-access-key-last-used --access-key-id ACCESS_KEY_ID"),
        (
            "take it out of service",
            "aws iam update-access-key --access-key-id ACCESS_KEY_ID --status Inactive --user-name USER",
        ),
        (
            "give the workload a role",
            "aws eks create-pod-identity-association --cluster-name CLUSTER --namespace NAMESPACE --service-account ACCOUNT --role-arn ROLE",
        ),
    ],
    links: &[
        ("Access keys best practices", "https://docs.aws.amazon.com/IAM/latest/UserGuide/securing_access-keys.html"),
        POD_IDENTITY,
    ],
};

pub(super) const POD_IDENTITY_UNREACHABLE: Entry = Entry {
    code: Code::PodIdentityUnreachable,
    severities: &[Severity::Medium],
    title: "a pod cannot reach the Pod Identity agent",
    about: "Credentials of Pod Identity come from an agent on the node at 169.254.170.23. A pod that cannot reach it has no identity; SDKs then look further, and may end with the node's role.",
    holds: "At least three connections to the agent failed over at least 60 seconds, and none succeeded meanwhile.",
    silent: &["A roll-out of the agent, which takes less than that."],
    ends: "",
    causes: &[
        (
            "strict_mode",
            "the pod has security groups in strict mode: its link-local traffic leaves by the branch interface and is lost; no group rule cures that",
        ),
        ("refused", "nobody listens: the agent does not run on this node"),
        ("unanswered", "something drops the packets, as a NetworkPolicy or a proxy"),
    ],
    advice: "See that the agent runs on the node. For pods with security groups in strict mode, switch to standard mode and make the pods anew, or use IRSA.",
    commands: &[
        (
            "the agent on the node",
            "kubectl get pods -n kube-system -l app.kubernetes.io/name=eks-pod-identity-agent -o wide --field-selector spec.nodeName=NODE",
        ),
        ("policies that may deny it", "kubectl get networkpolicies -n NAMESPACE"),
        (
            "standard mode",
            "kubectl set env daemonset/aws-node -n kube-system POD_SECURITY_GROUP_ENFORCING_MODE=standard",
        ),
    ],
    links: &[
        POD_IDENTITY,
        ("Agent unreachable from pods with security groups", "https://github.com/aws/amazon-vpc-cni-k8s/issues/2797"),
    ],
};

pub(super) const POD_IDENTITY_REFUSED: Entry = Entry {
    code: Code::PodIdentityRefused,
    severities: &[Severity::Medium],
    title: "the Pod Identity agent refuses a pod",
    about: "The agent asks EKS for the pod's credentials and hands on what it hears. A 4xx means that EKS or STS said no: the association is gone, or the role does not trust Pod Identity. A 5xx means that the agent could not ask.",
    holds: "The agent answered at least three requests of the pod with a status of 400 or above, and none with 200 meanwhile.",
    silent: &[],
    ends: "",
    causes: &[
        ("denied", "status 4xx: the role's trust policy, or an association that was deleted"),
        ("failed", "status 5xx: the agent could not reach EKS, or was throttled"),
    ],
    advice: "Compare the association with the role's trust policy (service principal pods.eks.amazonaws.com, actions sts:AssumeRole and sts:TagSession); for 5xx read the agent's log.",
    commands: &[
        (
            "the association",
            "aws eks list-pod-identity-associations --cluster-name CLUSTER --namespace NAMESPACE --service-account ACCOUNT",
        ),
        ("the role's trust", "aws iam get-role --role-name ROLE --query Role.AssumeRolePolicyDocument"),
        ("the agent's log", "kubectl logs -n kube-system -l app.kubernetes.io/name=eks-pod-identity-agent --tail 100"),
    ],
    links: &[
        POD_IDENTITY,
        ("Trust policy of the role", "https://docs.aws.amazon.com/eks/latest/userguide/pod-id-role.html"),
    ],
};
