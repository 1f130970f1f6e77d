//! What pods take from the metadata services.

use std::net::SocketAddr;

use anyhow::{Context, Result, ensure};
use serde_json::json;
use system_tests::lab::{IMDS_V4, POD_IDENTITY_V4};
use system_tests::metadata_server::Behaviour;
use system_tests::node::account;
use system_tests::{Actor, MetadataServer, Node, NodePod, Wiring};

pub(super) const ROLE: &str = "arn:aws:iam::111122223333:role/web";
pub(super) const CREDENTIALS: &str = "/latest/meta-data/iam/security-credentials/eks-node-role";

fn imds() -> SocketAddr {
    SocketAddr::from((IMDS_V4, 80))
}

/// A request with a session token; answers the status line.
pub(super) fn ask(client: &mut Actor, path: &str, headers: &str) -> Result<String> {
    let put = "PUT /latest/api/token HTTP/1.1\r\nHost: imds\r\nX-aws-ec2-metadata-token-ttl-seconds: 600\r\n\
               Connection: close\r\n\r\n";
    let answer = client.exchange(imds(), &[put])?.answer;
    let token = answer.split_once("\r\n\r\n").context("an answer without a body")?.1.to_owned();
    ask_without_token(client, path, &format!("X-aws-ec2-metadata-token: {token}\r\n{headers}"))
}

pub(super) fn ask_without_token(client: &mut Actor, path: &str, headers: &str) -> Result<String> {
    let get = format!("GET {path} HTTP/1.1\r\nHost: imds\r\n{headers}Connection: close\r\n\r\n");
    let answer = client.exchange(imds(), &[&get])?.answer;
    Ok(answer.lines().next().unwrap_or_default().to_owned())
}

/// Adds to a pod's only container what the webhook for IRSA injects.
pub(super) fn inject_irsa(pod: &mut NodePod) {
    let path = "/var/run/secrets/eks.amazonaws.com/serviceaccount/token";
    let container = &mut pod.object["spec"]["containers"][0];
    container["env"] = json!([
        {"name": "AWS_ROLE_ARN", "value": ROLE},
        {"name": "AWS_WEB_IDENTITY_TOKEN_FILE", "value": path},
    ]);
    container["volumeMounts"] = json!([{"name": "aws-iam-token", "readOnly": true,
                                        "mountPath": "/var/run/secrets/eks.amazonaws.com/serviceaccount"}]);
    let token = json!({"audience": "sts.amazonaws.com", "expirationSeconds": 86400, "path": "token"});
    pod.object["spec"]["volumes"] =
        json!([{"name": "aws-iam-token", "projected": {"sources": [{"serviceAccountToken": token}]}}]);
}

pub(super) fn use_account(pod: &mut NodePod, account: &str) {
    pod.object["spec"]["serviceAccountName"] = json!(account);
}

#[test]
fn what_pods_take_becomes_findings_and_innocent_requests_do_not() -> Result<()> {
    let mut node = Node::new()?;
    node.put(&account("shop", "web", Some(ROLE)))?;
    node.put(&account("shop", "default", None))?;
    let mut falls_back = node.pod("shop", "falls-back", Wiring::Plain)?;
    use_account(&mut falls_back, "web");
    inject_irsa(&mut falls_back);
    node.put(&falls_back.object)?;
    let plain = node.pod("shop", "plain", Wiring::Plain)?;
    let bootstrap = node.pod("shop", "bootstrap", Wiring::Plain)?;
    let identity = node.pod("shop", "identity", Wiring::Plain)?;
    let old = node.pod("shop", "old", Wiring::Plain)?;
    let proxy = node.pod("shop", "proxy", Wiring::Plain)?;
    let innocent = node.pod("shop", "innocent", Wiring::Plain)?;
    let on_the_host = node.pod("shop", "on-the-host", Wiring::HostNetwork)?;
    // One of AWS's own node agents, and one that only has its name.
    let mut cni = node.pod("kube-system", "aws-node", Wiring::HostNetwork)?;
    use_account(&mut cni, "aws-node");
    cni.object["spec"]["containers"][0]["image"] =
        json!("602401143452.dkr.ecr.eu-central-1.amazonaws.com/amazon-k8s-cni:v1.20.0");
    node.put(&cni.object)?;
    let mut spoofed = node.pod("kube-system", "spoofed", Wiring::HostNetwork)?;
    use_account(&mut spoofed, "aws-node");
    node.put(&spoofed.object)?;

    let services = MetadataServer::start(&node.network, Behaviour::default())?;
    let agent = node.agent(json!({}))?;

    let taken = |pod: &NodePod| -> Result<()> {
        let status = ask(&mut pod.actor()?, CREDENTIALS, "")?;
        ensure!(status.contains("200"), "{status}");
        Ok(())
    };
    for pod in [&falls_back, &plain, &on_the_host, &cni, &spoofed] {
        taken(pod)?;
    }
    ask(&mut bootstrap.actor()?, "/latest/user-data", "")?;
    ask(&mut identity.actor()?, "/latest/meta-data/identity-credentials/ec2/security-credentials/ec2-instance", "")?;
    ask_without_token(&mut old.actor()?, "/latest/meta-data/instance-id", "")?;
    ask(&mut proxy.actor()?, "/latest/meta-data/instance-id", "X-Forwarded-For: 10.78.1.77\r\n")?;
    let mut client = innocent.actor()?;
    ask(&mut client, "/latest/meta-data/iam/security-credentials/", "")?;
    ask(&mut client, "/latest/meta-data/iam/security-credentials/no-such-role", "")?;
    ask(&mut client, "/latest/meta-data/placement/region", "")?;
    ask_without_token(&mut client, CREDENTIALS, "X-aws-ec2-metadata-token: expired\r\n")?;
    ask_without_token(&mut client, "/computeMetadata/v1/instance/id", "Metadata-Flavor: Google\r\n")?;
    client.end()?;

    let found = agent.wait_for_findings(
        "open",
        &[
            "node-credentials-taken falls-back",
            "node-credentials-taken plain",
            "node-credentials-taken on-the-host",
            "node-credentials-taken spoofed",
            "user-data-read bootstrap",
            "identity-credentials-taken identity",
            "metadata-v1-used old",
            "metadata-forwarded proxy",
        ],
    )?;
    let severity = |name: &str| found.iter().find(|finding| finding.name() == name).map(|f| f.severity.clone());
    assert_eq!(severity("node-credentials-taken falls-back").as_deref(), Some("critical"), "it has its own identity");
    assert_eq!(severity("node-credentials-taken plain").as_deref(), Some("high"));
    assert!(found.iter().all(|finding| !finding.text.is_empty() && !finding.advice.is_empty()), "{found:?}");
    assert_eq!(agent.named_findings("accepted")?, ["node-credentials-taken aws-node".to_owned()].into());

    // What happened stays until the pod is gone.
    for pod in [plain, bootstrap] {
        node.end(pod)?;
    }
    agent.wait_for_findings("resolved", &["node-credentials-taken plain", "user-data-read bootstrap"])?;
    let secret = services.canary().to_owned();
    services.stop()?;
    let leaks = agent.finish()?.leaks(&secret)?;
    ensure!(leaks.is_empty(), "the planted secret stands in {leaks:?}");
    Ok(())
}

#[test]
fn an_agent_of_pod_identity_that_refuses_is_told() -> Result<()> {
    let mut node = Node::new()?;
    let mut pod = node.pod("shop", "refused", Wiring::Plain)?;
    pod.object["metadata"]["labels"]["eks.amazonaws.com/pod-identity"] = json!("enabled");
    pod.object["spec"]["containers"][0]["env"] = json!([
        {"name": "AWS_CONTAINER_CREDENTIALS_FULL_URI", "value": "http://169.254.170.23/v1/credentials"},
        {"name": "AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE",
         "value": "/var/run/secrets/pods.eks.amazonaws.com/serviceaccount/eks-pod-identity-token"},
    ]);
    node.put(&pod.object)?;
    let services = MetadataServer::start(&node.network, Behaviour::default())?;
    let agent = node.agent(json!({}))?;
    let mut client = pod.actor()?;
    let request = "GET /v1/credentials HTTP/1.1\r\nHost: 169.254.170.23\r\nAuthorization: wrong\r\n\
                   Connection: close\r\n\r\n";
    let service = SocketAddr::from((POD_IDENTITY_V4, 80));
    for _ in 0..2 {
        client.exchange(service, &[request])?;
    }
    std::thread::sleep(std::time::Duration::from_secs(3));
    assert!(agent.named_findings("open")?.is_empty(), "two refusals may be a race: {:?}", agent.findings()?);
    client.exchange(service, &[request])?;
    agent.wait_for_findings("open", &["pod-identity-refused refused"])?;
    services.stop()?;
    agent.finish()?;
    Ok(())
}
