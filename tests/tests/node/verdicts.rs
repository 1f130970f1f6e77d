//! What the rules of security groups say of flows that a packet filter, standing for the groups, really drops or lets
//! pass; and what is said when nobody tells the rules.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::path::Path;
use std::process::Command;
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use system_tests::findings::Finding;
use system_tests::node::{NODE, VPC_IP, account, policy};
use system_tests::protocol::{Connected, Op};
use system_tests::{Actor, Agent, Node, NodePod, Pod, Rows, Sg, Wiring, scale};
use tempfile::TempDir;

/// The group of `cart`, in standard mode: lets DNS out, and two of the three ports.
const CART: &str = "sg-0000000000000ca47";
/// The group of `till`, in strict mode: the same without DNS.
const TILL: &str = "sg-00000000000000711";
/// The group of the host in the VPC.
const DB: &str = "sg-000000000000000db";

/// No rule lets it out.
const NOT_OUT: u16 = 5_432;
/// Both ends have a rule.
const OPEN: u16 = 5_433;
/// No rule lets it in.
const NOT_IN: u16 = 5_434;

/// A client's patience: longer than the first SYN's, for one that gives up at once proves nothing.
const PATIENCE_MS: u32 = 2_500;

/// Two pods with groups of their own, and a host in the VPC that serves all three ports.
struct Scene {
    node: Node,
    pods: [NodePod; 2],
    _outside: Pod,
    _servers: Vec<Actor>,
}

impl Scene {
    fn new() -> Result<Self> {
        let mut node = Node::new()?;
        node.put(&account("shop", "default", None))?;
        for (name, group) in [("cart", CART), ("till", TILL)] {
            node.put(&policy("shop", name, name, &[group]))?;
        }
        let pods = [
            node.pod("shop", "cart", Wiring::Standard { vlan: 1 })?,
            node.pod("shop", "till", Wiring::Strict { vlan: 2 })?,
        ];
        let outside = Pod::new()?;
        let mut servers = Vec::new();
        for port in [NOT_OUT, OPEN, NOT_IN] {
            let mut server = node.vpc_actor(&outside)?;
            server.serve_http(Node::vpc_address(port))?;
            servers.push(server);
        }
        for pod in &pods {
            node.admit(pod)?;
            refuse(&node, pod)?;
        }
        Ok(Self { node, pods, _outside: outside, _servers: servers })
    }

    /// Each pod tries all three ports again and again, until these are what is open: cause, workload and peer of each.
    fn try_until(&self, agent: &Agent, wanted: &[[&str; 3]]) -> Result<Vec<Finding>> {
        let (mut refused, mut admitted) = (Vec::new(), Vec::new());
        for pod in &self.pods {
            refused.extend([(pod.actor()?, NOT_OUT), (pod.actor()?, NOT_IN)]);
            admitted.push(pod.actor()?);
        }
        let wanted: BTreeSet<String> = wanted.iter().map(|of| format!("sgp-blocked-flow {}", of.join(" "))).collect();
        // Attempts are counted over half a minute and more.
        let deadline = Instant::now() + 2 * scale::deadline();
        let mut round = 0;
        loop {
            let socket = format!("attempt {round}");
            round += 1;
            for (actor, port) in &mut refused {
                let (address, socket) = (Node::vpc_address(*port), socket.clone());
                actor.tell(&Op::Connect { socket, address, bind: None, give_up_ms: Some(PATIENCE_MS) })?;
            }
            for actor in &mut admitted {
                actor.load_http(Node::vpc_address(OPEN), 1, 1)?;
            }
            for (actor, port) in &mut refused {
                let ended: Connected = actor.answer()?;
                ensure!(ended.errno == Some(libc::EINPROGRESS), "port {port} answers: {ended:?}");
            }
            let mut found = agent.findings()?;
            found.retain(|finding| finding.state == "open");
            if found.iter().map(described).collect::<BTreeSet<_>>() == wanted {
                return Ok(found);
            }
            ensure!(Instant::now() < deadline, "open are {found:#?}\ninstead of {wanted:#?}");
        }
    }
}

/// Code, cause, workload and peer of a finding.
fn described(finding: &Finding) -> String {
    [&*finding.code, &finding.cause, &finding.subject.workload, &finding.subject.peer].join(" ")
}

/// Drops the SYNs of a pod to two of the ports, where it leaves the node.
fn refuse(node: &Node, pod: &NodePod) -> Result<()> {
    let rules = format!(
        "add table inet groups; \
         add chain inet groups forward {{ type filter hook forward priority filter; }}; \
         add rule inet groups forward ip saddr {} tcp dport {{ {NOT_OUT}, {NOT_IN} }} tcp flags & (syn | ack) == syn drop",
        pod.ip
    );
    node.network.run(|| {
        let output = Command::new("nft").arg(rules).output().context("run nft: is nftables installed?")?;
        ensure!(output.status.success(), "nft: {}", String::from_utf8_lossy(&output.stderr));
        Ok(())
    })
}

/// What an agent that ran before has left of EC2's answers.
fn leave_answers(directory: &Path, pods: &[NodePod]) -> Result<()> {
    let at = jiff::Timestamp::now().to_string();
    let told = |what: Value| json!({ "what": what, "at": at });
    let interface = |id: &str, group: &str, ip: IpAddr| {
        json!({ "id": id, "groups": [group], "addresses": [ip], "prefixes": [], "subnet": "subnet-1", "vpc": "vpc-1",
                "mac": null, "kind": "branch", "instance": null, "requester": null })
    };
    let rule = |id: &str, side: &str, transport: &str, port: u16, peer: Value| {
        json!({ "id": id, "side": side, "peer": peer,
                "service": { "Ports": { "transport": transport, "first": port, "last": port } } })
    };
    let group = |id: &str, name: &str, rules: &[Value]| {
        told(json!({ "group": { "id": id, "name": name, "vpc": "vpc-1", "owner": "111122223333", "rules": rules },
                     "clusters": [] }))
    };
    let net = |net: &str| json!({ "Net": net });
    let of = |id: &str| json!({ "Group": { "id": id, "account": null, "stale": null } });
    let out = |of_whom: &str| {
        [
            rule(&format!("sgr-{of_whom}-open"), "egress", "tcp", OPEN, net("10.79.0.0/24")),
            rule(&format!("sgr-{of_whom}-not-in"), "egress", "tcp", NOT_IN, of(DB)),
        ]
    };
    let dns = ["udp", "tcp"]
        .map(|transport| rule(&format!("sgr-cart-dns-{transport}"), "egress", transport, 53, net("10.78.0.0/15")));
    let into = [
        rule("sgr-db-not-out", "ingress", "tcp", NOT_OUT, net("10.78.0.0/15")),
        rule("sgr-db-cart", "ingress", "tcp", OPEN, of(CART)),
        rule("sgr-db-till", "ingress", "tcp", OPEN, of(TILL)),
    ];
    let [cart, till] = pods else { anyhow::bail!("two pods") };
    let branches = [("eni-00000000000000001", CART, cart), ("eni-00000000000000002", TILL, till)];
    let interfaces: BTreeMap<&str, Value> =
        branches.iter().map(|(id, group, pod)| (*id, told(interface(id, group, pod.ip.into())))).collect();
    let known = json!({
        "interfaces": interfaces,
        "groups": {
            CART: group(CART, "cart", &[&out("cart")[..], &dns[..]].concat()),
            TILL: group(TILL, "till", &out("till")),
            DB: group(DB, "db", &into),
        },
        "vpcs": { "vpc-1": told(json!(["10.78.0.0/15"])) },
        "peers": { VPC_IP.to_string(): told(interface("eni-0000000000000000d", DB, VPC_IP.into())) },
    });
    let content = json!({ "version": 1, "node": NODE, "known": known });
    std::fs::write(directory.join("ec2.json"), content.to_string()).context("write the answers")
}

/// An agent that gets no answer from EC2: nobody gives it credentials, and nobody listens.
fn agent(node: &Node, data: &TempDir) -> Result<Agent> {
    node.agent(json!({
        "data_dir": data.path(),
        "aws": { "region": "eu-central-1", "endpoint": "http://127.0.0.1:9", "fleet_nodes": 1 },
    }))
}

/// What a finding's evidence has of a field, and of which object.
fn evidence<'a>(finding: &'a Finding, field: &str) -> Vec<(&'a str, &'a str)> {
    let of = |one: &'a Value, key: &str| one[key].as_str().unwrap_or_default();
    let found = finding.evidence.iter().filter(|one| one["field"] == field);
    found.map(|one| (of(one, "object"), of(one, "value"))).collect()
}

/// What rows say of a pod's connections to a port; every row has to say something.
fn verdicts<'a>(rows: &'a Rows, pod: &'a NodePod, port: u16) -> Result<Vec<&'a Sg>> {
    let flows: Vec<_> = rows.flows_of(&pod.container).filter(|flow| flow.service_port == Some(port)).collect();
    ensure!(!flows.is_empty(), "no row of port {port}: {}", rows.show(&pod.container));
    flows.into_iter().map(|flow| flow.sg.as_ref().with_context(|| format!("no verdict in {flow}"))).collect()
}

/// The lines of `sekisho sg audit -o json` by their kind.
type Lines = BTreeMap<String, Vec<Value>>;

/// What it says, and its exit code.
fn audit(agent: &Agent) -> Result<(Lines, Option<i32>)> {
    let output = agent.command(&["sg", "audit", "-o", "json"])?;
    let mut lines = Lines::new();
    for line in String::from_utf8(output.stdout).context("it is text")?.lines() {
        let value: Value = serde_json::from_str(line).with_context(|| format!("line {line}"))?;
        lines.entry(value["kind"].as_str().unwrap_or_default().to_owned()).or_default().push(value);
    }
    Ok((lines, output.status.code()))
}

#[test]
fn a_flow_that_is_dropped_names_the_missing_rule_and_one_that_passes_its_rules() -> Result<()> {
    let scene = Scene::new()?;
    let data = tempfile::tempdir().context("make a directory")?;
    leave_answers(data.path(), &scene.pods)?;
    let agent = agent(&scene.node, &data)?;
    let peer = |port: u16| format!("{VPC_IP}:{port}/tcp");
    let (not_out, not_in) = (peer(NOT_OUT), peer(NOT_IN));
    let found = scene.try_until(
        &agent,
        &[
            ["egress_rule_missing", "cart", &not_out],
            ["egress_rule_missing", "till", &not_out],
            ["ingress_rule_missing", "cart", &not_in],
            ["ingress_rule_missing", "till", &not_in],
        ],
    )?;
    for finding in &found {
        let own = if finding.subject.workload == "cart" { CART } else { TILL };
        let (side, group, other, port) = match finding.cause.as_str() {
            "egress_rule_missing" => ("egress", own, DB, NOT_OUT),
            _ => ("ingress", DB, own, NOT_IN),
        };
        let towards = if side == "egress" { "to" } else { "from" };
        let missing = format!("{group} has no {side} rule for tcp {port} {towards} {other}");
        assert!(finding.text.contains(&missing), "{missing} is not in {}", finding.text);
        let object = format!("security group {group}");
        let command = format!(
            "aws ec2 authorize-security-group-{side} --group-id {group} --ip-permissions \
             'IpProtocol=tcp,FromPort={port},ToPort={port},UserIdGroupPairs=[{{GroupId={other}}}]'"
        );
        assert_eq!(evidence(finding, "add by AWS CLI"), [(&*object, &*command)], "{finding:#?}");
        let blocks = evidence(finding, "add by Terraform");
        let [(of, block)] = blocks[..] else { panic!("one block: {finding:#?}") };
        assert_eq!(of, object);
        assert!(block.starts_with(&format!("resource \"aws_vpc_security_group_{side}_rule\"")), "{block}");
        for (argument, value) in [
            ("security_group_id", format!("\"{group}\"")),
            ("referenced_security_group_id", format!("\"{other}\"")),
            ("ip_protocol", "\"tcp\"".to_owned()),
            ("from_port", port.to_string()),
            ("to_port", port.to_string()),
        ] {
            let is_it =
                |line: &str| line.split_once(" = ").is_some_and(|(name, is)| name.trim() == argument && is == value);
            assert_eq!(block.lines().filter(|line| is_it(line)).count(), 1, "{argument} = {value}: {block}");
        }
    }
    audit_of_the_scene(&agent)?;

    let rows = agent.finish()?.rows;
    for (pod, name) in scene.pods.iter().zip(["cart", "till"]) {
        for port in [NOT_OUT, NOT_IN] {
            for sg in verdicts(&rows, pod, port)? {
                assert_eq!(
                    (&*sg.verdict, sg.by.as_deref(), &sg.rules[..]),
                    ("no_rule", Some("pod"), &[][..]),
                    "{sg:?}"
                );
            }
        }
        let rules = vec![format!("sgr-{name}-open"), format!("sgr-db-{name}")];
        let allowed = Sg { verdict: "allowed".to_owned(), by: Some("pod".to_owned()), rules, why: None, told: None };
        for sg in verdicts(&rows, pod, OPEN)? {
            assert!(sg.told.is_some(), "EC2 told it at some time: {sg:?}");
            assert_eq!(Sg { told: None, ..sg.clone() }, allowed);
        }
    }
    Ok(())
}

fn audit_of_the_scene(agent: &Agent) -> Result<()> {
    let (lines, code) = audit(agent)?;
    let of = |kind: &str, key: &str, name: &str| {
        let found = lines.get(kind).into_iter().flatten().find(|line| line[key] == name);
        found.with_context(|| format!("no {kind} {name} in {lines:#?}"))
    };
    for (name, group) in [("cart", CART), ("till", TILL)] {
        let told = of("sg_policy", "policy", name)?;
        assert_eq!((&told["groups"], &told["pods"]), (&json!([group]), &json!([name])));
        let told = of("sg_group", "group", group)?;
        assert_eq!((&told["name"], &told["absent"]), (&json!(name), &json!(false)));
        ensure!(told["told"].is_string() && told["watched_since"].is_string(), "{told:#}");
        for rule in told["rules"].as_array().context("rules")? {
            // What is dropped at the other end has used the rule that let it out.
            let is_used = ["open", "not-in"].iter().any(|of| rule["rule"] == format!("sgr-{name}-{of}"));
            assert_eq!(rule["connections"].as_u64().is_some_and(|times| times > 0), is_used, "{rule}");
            assert_eq!(rule["last_used"].is_string(), is_used, "{rule}");
        }
        let told = of("sg_pod", "pod", name)?;
        let mode = if name == "cart" { "standard" } else { "strict" };
        assert_eq!((&told["enforced"], &told["mode"]), (&json!(true), &json!(mode)));
        assert_eq!(told["groups"], json!([group]));
        let uses = told["uses"].as_array().context("uses")?;
        let verdicts: BTreeMap<u64, &str> = uses
            .iter()
            .map(|used| (used["port"].as_u64().unwrap_or(0), used["verdict"].as_str().unwrap_or("")))
            .collect();
        let wanted = [(NOT_OUT, "no_rule"), (OPEN, "allowed"), (NOT_IN, "no_rule")];
        assert_eq!(verdicts, wanted.map(|(port, verdict)| (u64::from(port), verdict)).into(), "{uses:#?}");
        ensure!(uses.iter().all(|used| used["unexplained"] == false && used["side"] == "egress"), "{uses:#?}");
        let problems: BTreeSet<&str> =
            told["problems"].as_array().into_iter().flatten().filter_map(|one| one["problem"].as_str()).collect();
        assert_eq!(problems, if name == "cart" { [].into() } else { ["no_dns"].into() }, "{told:#}");
    }
    let [basis] = lines.get("sg_basis").map_or(&[][..], Vec::as_slice) else { anyhow::bail!("one basis: {lines:#?}") };
    assert_eq!(basis["policies_known"], true);
    // A pod that cannot resolve names.
    assert_eq!(code, Some(1));
    Ok(())
}

#[test]
fn without_rules_the_same_flow_is_unanswered_and_no_verdict_is_claimed() -> Result<()> {
    let scene = Scene::new()?;
    let data = tempfile::tempdir().context("make a directory")?;
    let agent = agent(&scene.node, &data)?;
    // Made while the agent watches, and so all that they did is known.
    let second = jiff::Timestamp::from_second(jiff::Timestamp::now().as_second() + 1)?.to_string();
    for pod in &scene.pods {
        let mut object = pod.object.clone();
        object["metadata"]["creationTimestamp"] = json!(second);
        scene.node.put(&object)?;
    }
    let peers = [NOT_OUT, NOT_IN].map(|port| format!("{VPC_IP}:{port}/tcp"));
    let wanted: Vec<_> =
        peers.iter().flat_map(|peer| ["cart", "till"].map(|pod| ["unanswered", pod, peer.as_str()])).collect();
    for finding in scene.try_until(&agent, &wanted)? {
        let fields: BTreeSet<&str> = finding.evidence.iter().filter_map(|one| one["field"].as_str()).collect();
        assert_eq!(fields, ["others on this node", "port", "unanswered"].into(), "{finding:#?}");
        for word in ["sg-", "sgr-", "What its rules say", "let it out"] {
            assert!(!finding.text.contains(word), "{word:?} is in {}", finding.text);
        }
    }
    let (lines, code) = audit(&agent)?;
    // Nothing is known to be wrong.
    assert_eq!(code, Some(0), "{lines:#?}");
    for group in lines.get("sg_group").into_iter().flatten() {
        assert_eq!((&group["told"], &group["absent"], &group["rules"]), (&Value::Null, &json!(false), &json!([])));
    }
    for call in lines["sg_basis"][0]["calls"].as_array().context("calls")? {
        ensure!(call["error"].as_str().is_some_and(|error| error.contains("credentials")), "{call}");
    }

    let rows = agent.finish()?.rows;
    for pod in &scene.pods {
        for port in [NOT_OUT, OPEN, NOT_IN] {
            for sg in verdicts(&rows, pod, port)? {
                assert_eq!((&*sg.verdict, &sg.rules[..]), ("cannot_tell", &[][..]), "{sg:?}");
                ensure!(sg.why.is_some(), "it says why");
            }
        }
        // Everything else is told as ever.
        let answered = rows.flows_of(&pod.container).filter(|flow| flow.service_port == Some(OPEN));
        ensure!(answered.map(|flow| flow.connections).sum::<u64>() > 0, "{}", rows.show(&pod.container));
    }
    Ok(())
}
