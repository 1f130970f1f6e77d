//! A pod's groups edited at EC2: the agent on its node says so after its next questions, and takes it back.

use std::sync::Arc;
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use serde::Deserialize;
use serde_json::{Value, json};
use system_tests::moto::Moto;
use system_tests::node::{account, policy};
use system_tests::{Agent, Node, Wiring, scale};

use super::vpc::{Asker, Key};

/// The pod's subnet, two groups, and the pod's branch interface with the first of them.
const MADE: &str = "
vpc = ec2.create_vpc(CidrBlock='10.78.0.0/16')['Vpc']['VpcId']
subnet = ec2.create_subnet(VpcId=vpc, CidrBlock='10.78.1.0/24')['Subnet']['SubnetId']
def group(name):
    return ec2.create_security_group(GroupName=name, Description='d', VpcId=vpc)['GroupId']
wanted, other = group('cart'), group('other')
made = ec2.create_network_interface(SubnetId=subnet, PrivateIpAddress=argument['ip'], Groups=[wanted])
print(json.dumps({'wanted': wanted, 'other': other, 'interface': made['NetworkInterface']['NetworkInterfaceId']}))
";

/// Gives an interface other groups.
const EDIT: &str = "
ec2.modify_network_interface_attribute(NetworkInterfaceId=argument['interface'], Groups=argument['groups'])
print('null')
";

/// Few enough for the budget of one node.
const REFRESH_SECONDS: u32 = 10;

#[derive(Deserialize)]
struct Made {
    wanted: String,
    other: String,
    interface: String,
}

impl Made {
    fn edit(&self, moto: &Moto, groups: &[&str]) -> Result<()> {
        moto.script(EDIT, &json!({ "interface": self.interface, "groups": groups }))
    }
}

/// What the agent knows of the pod's groups, and when EC2 was last asked for interfaces.
fn told(agent: &Agent) -> Result<(Value, Option<jiff::Timestamp>)> {
    let output = agent.command(&["sg", "audit", "-o", "json"])?;
    let text = String::from_utf8(output.stdout).context("it is text")?;
    let lines: Vec<Value> = text.lines().map(serde_json::from_str).collect::<Result<_, _>>()?;
    let of = |kind: &str| lines.iter().find(|line| line["kind"] == kind).unwrap_or(&Value::Null);
    let calls = of("sg_basis")["calls"].as_array().into_iter().flatten();
    let asked = calls.into_iter().find(|call| call["call"] == "network_interfaces");
    let at = asked.and_then(|call| call["fresh_at"].as_str()).map(str::parse).transpose()?;
    Ok((of("sg_pod")["groups"].clone(), at))
}

/// Waits for the first answer to a question that was asked after this, and gives the groups in it.
fn first_told_after(agent: &Agent, moment: jiff::Timestamp) -> Result<Value> {
    let deadline = Instant::now() + scale::deadline();
    loop {
        let (groups, asked) = told(agent)?;
        if asked.is_some_and(|asked| asked > moment) {
            return Ok(groups);
        }
        ensure!(Instant::now() < deadline, "nothing was asked after {moment}, last {asked:?}");
        std::thread::sleep(scale::LOOK);
    }
}

#[test]
fn groups_edited_at_ec2_make_the_pod_stale_within_one_refresh_and_put_back_they_do_not() -> Result<()> {
    let mut node = Node::new()?;
    node.put(&account("shop", "default", None))?;
    let mut pod = node.pod("shop", "cart", Wiring::Standard { vlan: 1 })?;
    let moto = Moto::start_in(Some(Arc::clone(&node.network)))?;
    let made: Made = moto.script(MADE, &json!({ "ip": pod.ip })).context("make an interface")?;
    let branch = pod.object["metadata"]["annotations"]["vpc.amazonaws.com/pod-eni"].as_str().context("annotated")?;
    let mut branch: Value = serde_json::from_str(branch)?;
    branch[0]["eniId"] = json!(made.interface);
    pod.object["metadata"]["annotations"]["vpc.amazonaws.com/pod-eni"] = json!(branch.to_string());
    node.put(&pod.object)?;
    node.put(&policy("shop", "cart", "cart", &[&made.wanted]))?;

    let mut aws = Asker::configuration(&moto.endpoint());
    aws["refresh_seconds"] = json!(REFRESH_SECONDS);
    let agent = node.agent_with_environment(json!({ "aws": aws }), &Key::any().environment())?;
    // Once EC2 has told the interface's groups there is something to judge.
    assert_eq!(first_told_after(&agent, jiff::Timestamp::UNIX_EPOCH)?, json!([made.wanted]));
    assert_eq!(agent.named_findings("open")?, [].into(), "its groups are the policy's");

    made.edit(&moto, &[&made.other])?;
    assert_eq!(first_told_after(&agent, jiff::Timestamp::now())?, json!([made.other]));
    agent.wait_for_findings("open", &["sgp-stale cart"])?;
    let found = agent.findings()?;
    let stale = found.iter().find(|finding| finding.code == "sgp-stale").context("it is open")?;
    assert!(stale.text.contains(&made.wanted) && stale.text.contains(&made.other), "{}", stale.text);
    let object = format!("network interface {}", made.interface);
    let rests = |one: &&Value| one["object"] == object && one["field"] == "Groups" && one["value"] == made.other;
    assert_eq!(stale.evidence.iter().filter(rests).count(), 1, "{stale:#?}");

    made.edit(&moto, &[&made.wanted])?;
    assert_eq!(first_told_after(&agent, jiff::Timestamp::now())?, json!([made.wanted]));
    agent.wait_for_findings("open", &[])?;
    let resolved = agent.named_findings("resolved")?;
    assert!(resolved.contains("sgp-stale cart"), "{resolved:?}");
    agent.finish()?;
    Ok(())
}
