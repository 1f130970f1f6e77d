//! What `sekisho doctor` asks the API server: whether it answers, whether the agent may ask what it asks, and whether the
//! CRD of policies is there.

use std::time::Duration;

use k8s_openapi::api::authorization::v1::SelfSubjectAccessReview;
use kube::api::PostParams;
use kube::{Api, Client};
use serde_json::json;
use tokio::time::timeout;

use super::Options;
use super::access::Access;
use super::kinds::{self, Slim};
use super::trouble::{Kind, Trouble};

/// A person waits.
const WAIT: Duration = Duration::from_secs(5);

/// One line of the examination.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Finding {
    /// What was looked at.
    pub(crate) name: String,
    /// How it is.
    pub(crate) state: State,
    /// What was found, or what is lost.
    pub(crate) text: String,
}

/// How something is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum State {
    /// As it should be.
    Ok,
    /// The agent works with less.
    Degraded,
}

/// Something the agent asks for.
struct Permission {
    group: &'static str,
    resource: &'static str,
    verbs: &'static [&'static str],
    /// What is lost without it.
    gives: &'static str,
}

const READ: &[&str] = &["list", "watch"];
const PERMISSIONS: [Permission; 11] = [
    Permission { group: "", resource: "pods", verbs: READ, gives: "names of pods" },
    Permission { group: "", resource: "serviceaccounts", verbs: &["get"], gives: "expected AWS identities" },
    Permission { group: "", resource: "nodes", verbs: READ, gives: "the node's capacity" },
    Permission { group: "", resource: "services", verbs: READ, gives: "names of services and what stands behind them" },
    Permission {
        group: "discovery.k8s.io",
        resource: "endpointslices",
        verbs: &["list"],
        gives: "telling the API server by its own addresses",
    },
    Permission {
        group: "vpcresources.k8s.aws",
        resource: "securitygrouppolicies",
        verbs: READ,
        gives: "expected security groups",
    },
    Permission {
        group: "networking.k8s.io",
        resource: "networkpolicies",
        verbs: &["list"],
        gives: "telling a network policy's drops from a security group's",
    },
    Permission {
        group: "networking.k8s.aws",
        resource: "policyendpoints",
        verbs: &["list"],
        gives: "the same of policies that the VPC CNI enforces",
    },
    Permission {
        group: "vpcresources.k8s.aws",
        resource: "cninodes",
        verbs: READ,
        gives: "whether security groups for pods are on",
    },
    Permission { group: "storage.k8s.io", resource: "csinodes", verbs: READ, gives: "the limit of EBS volumes" },
    Permission {
        group: "",
        resource: "events",
        verbs: &["list"],
        gives: "the groups that a branch interface was made with",
    },
];
const WRITE_EVENTS: Permission =
    Permission { group: "events.k8s.io", resource: "events", verbs: &["create", "patch"], gives: "events on pods" };
/// What the server beyond loopback asks about whoever scrapes.
const REVIEWS: [Permission; 2] = [
    Permission {
        group: "authentication.k8s.io",
        resource: "tokenreviews",
        verbs: &["create"],
        gives: "telling who scrapes, so nobody is let through",
    },
    Permission {
        group: "authorization.k8s.io",
        resource: "subjectaccessreviews",
        verbs: &["create"],
        gives: "telling who may scrape, so nobody is let through",
    },
];

/// Looks at the API.
pub(crate) async fn examine(options: &Options) -> Vec<Finding> {
    if !options.names_a_cluster() {
        return vec![ok("kubernetes api", "none is configured: the agent runs with --standalone only".to_owned())];
    }
    let access = Access::new(options.kubeconfig.clone());
    let client = match access.client().await {
        Ok(client) => client,
        Err(trouble) => return vec![degraded("kubernetes api", trouble.text)],
    };
    let mut findings = Vec::new();
    match version(&client).await {
        Ok(version) => findings.push(ok("kubernetes api", format!("answers, version {version}"))),
        Err(trouble) => return vec![degraded("kubernetes api", format!("does not answer: {}", trouble.text))],
    }
    let events = options.events.then_some(&WRITE_EVENTS);
    let reviews = REVIEWS.iter().filter(|_| options.reviews);
    for permission in PERMISSIONS.iter().chain(events).chain(reviews) {
        findings.push(permitted(&client, permission).await);
    }
    findings.push(crd(&client).await);
    findings
}

async fn version(client: &Client) -> Result<String, Trouble> {
    let answer = timeout(WAIT, client.apiserver_version()).await;
    let info = answer.map_err(|_| Trouble::passing("no answer within 5 s"))?.map_err(|error| Trouble::of(&error))?;
    Ok(info.git_version)
}

async fn permitted(client: &Client, permission: &Permission) -> Finding {
    let Permission { group, resource, verbs, gives } = permission;
    let name = if group.is_empty() { format!("may read {resource}") } else { format!("may use {resource}.{group}") };
    let mut refused = Vec::new();
    for verb in *verbs {
        match allowed(client, group, resource, verb).await {
            Ok(true) => {}
            Ok(false) => refused.push(*verb),
            Err(trouble) => return degraded(&name, format!("cannot tell: {}", trouble.text)),
        }
    }
    if refused.is_empty() {
        ok(&name, format!("{} allowed", verbs.join(", ")))
    } else {
        degraded(
            &name,
            format!(
                "{} refused, so there is no {gives}; see the role in deploy/kustomize/base/rbac.yaml",
                refused.join(", ")
            ),
        )
    }
}

async fn allowed(client: &Client, group: &str, resource: &str, verb: &str) -> Result<bool, Trouble> {
    let review = json!({
        "apiVersion": "authorization.k8s.io/v1",
        "kind": "SelfSubjectAccessReview",
        "metadata": {},
        "spec": {"resourceAttributes": {"group": group, "resource": resource, "verb": verb}},
    });
    let review: SelfSubjectAccessReview =
        serde_json::from_value(review).map_err(|error| Trouble::local(error.to_string()))?;
    let api: Api<SelfSubjectAccessReview> = Api::all(client.clone());
    let answer = timeout(WAIT, api.create(&PostParams::default(), &review)).await;
    let review = answer.map_err(|_| Trouble::passing("no answer within 5 s"))?.map_err(|error| Trouble::of(&error))?;
    Ok(review.status.is_some_and(|status| status.allowed))
}

/// Absent is an answer: then there are no policies.
async fn crd(client: &Client) -> Finding {
    const NAME: &str = "policies' CRD";
    let api: Api<Slim<kinds::Policies>> = Api::all(client.clone());
    match timeout(WAIT, api.list(&kube::api::ListParams::default().limit(1))).await {
        Ok(Ok(_)) => ok(NAME, "SecurityGroupPolicy is installed".to_owned()),
        Ok(Err(error)) => match Trouble::of(&error) {
            trouble if trouble.kind == Kind::Absent => {
                ok(NAME, "SecurityGroupPolicy is not installed: no pod has groups of its own".to_owned())
            }
            trouble => degraded(NAME, format!("cannot tell: {}", trouble.text)),
        },
        Err(_) => degraded(NAME, "cannot tell: no answer within 5 s".to_owned()),
    }
}

fn ok(name: &str, text: String) -> Finding {
    Finding { name: name.to_owned(), state: State::Ok, text }
}

fn degraded(name: &str, text: String) -> Finding {
    Finding { name: name.to_owned(), state: State::Degraded, text }
}
