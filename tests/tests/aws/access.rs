//! Who may ask: signatures that botocore checks, the policy that is shipped, keys that are wrong, and secrets that stay.

use anyhow::{Context, Result};
use serde_json::{Value, json};
use system_tests::moto::Moto;

use super::vpc::{Asker, Key, Vpc};

/// Makes a user with a policy.
const USER: &str = "
iam.create_user(UserName=argument['name'])
policy = iam.create_policy(PolicyName=argument['name'], PolicyDocument=json.dumps(argument['policy']))
iam.attach_user_policy(UserName=argument['name'], PolicyArn=policy['Policy']['Arn'])
key = iam.create_access_key(UserName=argument['name'])['AccessKey']
print(json.dumps({'id': key['AccessKeyId'], 'secret': key['SecretAccessKey']}))
";

fn shipped() -> Result<Value> {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../deploy/iam/ec2-read.json");
    let text = std::fs::read_to_string(path).with_context(|| format!("read {path}"))?;
    serde_json::from_str(&text).with_context(|| format!("read {path}"))
}

/// Without some of its actions.
fn without(actions: &[&str]) -> Result<Value> {
    let mut policy = shipped()?;
    let list = policy["Statement"][0]["Action"].as_array_mut().context("a list of actions")?;
    let before = list.len();
    list.retain(|action| !actions.iter().any(|one| action == one));
    assert_eq!(list.len() + actions.len(), before, "they were there");
    Ok(policy)
}

fn user(moto: &Moto, name: &str, policy: &Value) -> Result<Key> {
    moto.script(USER, &json!({ "name": name, "policy": policy }))
}

#[test]
fn signatures_are_good_and_the_shipped_policy_allows_every_call_and_is_needed_for_each() -> Result<()> {
    let moto = Moto::start()?;
    let vpc = Vpc::make(&moto)?;
    let asker = Asker::new(moto.endpoint())?;
    let full = user(&moto, "full", &shipped()?)?;
    let none = user(&moto, "none", &without(&["ec2:DescribeVpcs", "ec2:DescribeSecurityGroupRules"])?)?;
    moto.require_permission()?;

    let interfaces = [vpc.branch.id.as_str(), vpc.own.id.as_str()].join(",");
    let wishes = ["--interfaces", &interfaces, "--groups", &vpc.db, "--instance-type", "m5.large"];
    let facts = asker.ask(&full, &wishes, "instance_types")?;
    for call in [
        "network_interfaces",
        "security_groups",
        "security_group_rules",
        "prefix_lists",
        "subnets",
        "vpcs",
        "instance_types",
    ] {
        assert_eq!(facts.source(call)?["error"], Value::Null, "{call}");
    }
    assert!(
        facts.last("Groups")?["groups"][0]["group"]["rules"][0]["id"].as_str().is_some_and(|id| id.starts_with("sgr-"))
    );

    let less = Asker::new(moto.endpoint())?;
    let facts = less.ask(&none, &wishes, "instance_types")?;
    for (call, action) in [("vpcs", "DescribeVpcs"), ("security_group_rules", "DescribeSecurityGroupRules")] {
        let source = facts.source(call)?;
        assert_eq!(source["denied"], true, "{source}");
        assert!(source["error"].as_str().is_some_and(|error| error.contains(action)), "{source}");
    }
    assert_eq!(facts.source("subnets")?["error"], Value::Null, "the others go on");
    // The rules are told all the same, by names of their own.
    let rules = &facts.last("Groups")?["groups"][0]["group"]["rules"];
    assert!(rules.as_array().is_some_and(|rules| rules.len() == 5), "{rules}");
    assert!(rules[0]["id"].as_str().is_some_and(|id| id.starts_with(&vpc.db)), "{rules}");
    let doctor = less.run(&none, &["doctor"])?;
    let text = String::from_utf8_lossy(&doctor.stdout);
    for wanted in ["allow ec2:DescribeVpcs in", "allow ec2:DescribeSecurityGroupRules in", "ok        ec2 subnets"] {
        assert!(text.contains(wanted), "{wanted:?} is not in {text}");
    }

    // A signature by another secret.
    let wrong = Asker::new(moto.endpoint())?;
    let facts = wrong.ask(&Key { secret: "wrong".to_owned(), ..full.clone() }, &wishes, "network_interfaces")?;
    let source = facts.source("network_interfaces")?;
    assert_eq!((source["denied"].as_bool(), source["fresh_at"].is_null()), (Some(false), true));
    assert!(facts.all("Interfaces").is_empty() && facts.all("Groups").is_empty());
    let doctor = wrong.run(&Key { secret: "wrong".to_owned(), ..full }, &["doctor"])?;
    let text = String::from_utf8_lossy(&doctor.stdout);
    assert!(text.contains("degraded  ec2 api"), "{text}");
    Ok(())
}

#[test]
fn no_secret_is_in_anything_that_comes_out() -> Result<()> {
    let moto = Moto::start()?;
    let vpc = Vpc::make(&moto)?;
    let key = Key::any();
    let asker = Asker::new(moto.endpoint())?;
    let facts = asker.ask(&key, &["--interfaces", &vpc.branch.id, "--groups", &vpc.db], "subnets")?;
    let doctor = asker.run(&key, &["doctor", "-o", "json"])?;
    let file = std::fs::read_to_string(asker.file()).context("read the file of answers")?;
    let all = [
        facts.stdout.as_str(),
        facts.log.as_str(),
        &String::from_utf8_lossy(&doctor.stdout),
        &String::from_utf8_lossy(&doctor.stderr),
        &file,
    ];
    assert!(file.contains(&vpc.db), "it is the file");
    for text in all {
        assert!(!text.contains(&key.secret) && !text.contains("Signature="), "{text}");
    }
    Ok(())
}

#[test]
fn without_credentials_everything_else_works_and_it_is_said() -> Result<()> {
    let asker = Asker::new("http://127.0.0.1:9".to_owned())?;
    // The chain is led to nobody: no file, no metadata service.
    let configuration = json!({ "aws": Asker::configuration("http://127.0.0.1:9") });
    let path =
        system_tests::agent::write_configuration(asker.home.path(), system_tests::agent::free_port()?, configuration)?;
    let output = std::process::Command::new(system_tests::agent::program()?)
        .args(["internal", "ec2", "--seconds", "120", "--until", "instance_types", "--groups", "sg-1", "--config"])
        .arg(path)
        .env_clear()
        .env("HOME", asker.home.path())
        .env("AWS_EC2_METADATA_DISABLED", "true")
        .output()?;
    let text = String::from_utf8_lossy(&output.stdout);
    let told: Vec<&str> = text.lines().collect();
    assert_eq!(told.len(), 7, "each call says how it stands: {text}");
    assert!(told.iter().all(|line| line.contains("no credentials are configured")), "{text}");
    Ok(())
}
