//! What EC2 has is what is told: interfaces, groups, lists, subnets, and what is not there.

use anyhow::Result;
use serde_json::{Value, json};
use system_tests::moto::Moto;

use super::vpc::{Asker, Key, Vpc};

fn names<'a>(list: &'a Value, key: &str) -> Vec<&'a str> {
    list.as_array().into_iter().flatten().filter_map(|one| one[key].as_str()).collect()
}

#[test]
fn everything_that_is_wished_is_told_and_what_is_not_there_is_said_to_be_absent() -> Result<()> {
    let moto = Moto::start()?;
    let vpc = Vpc::make(&moto)?;
    let asker = Asker::new(moto.endpoint())?;
    let interfaces = format!("{},eni-0000000000000000f", vpc.branch.id);
    let groups = format!("{},{},sg-0000000000000000f", vpc.db, vpc.app);
    let peers = format!("{},10.9.1.99", vpc.peer.ip);
    let wishes = [
        ["--interfaces", &interfaces],
        ["--macs", &vpc.own.mac],
        ["--groups", &groups],
        ["--peers", &peers],
        ["--instance-type", "m5.large"],
    ];
    let facts = asker.ask(&Key::any(), &wishes.concat(), "Subnets,InstanceType,instance_types")?;

    let all = facts.all("Interfaces");
    let found: Vec<&str> = all.iter().flat_map(|fact| names(&fact["interfaces"], "id")).collect();
    assert!(found.contains(&vpc.own.id.as_str()) && found.contains(&vpc.branch.id.as_str()), "{found:?}");
    assert!(all.iter().any(|fact| fact["missing"] == json!(["eni-0000000000000000f"])), "{}", facts.stdout);
    let branch = all.iter().flat_map(|fact| fact["interfaces"].as_array().into_iter().flatten());
    let branch = branch.into_iter().find(|one| one["id"] == vpc.branch.id.as_str()).expect("it was found");
    assert_eq!(branch["groups"], json!([vpc.app]));
    assert_eq!(branch["addresses"], json!([vpc.branch.ip]));
    assert_eq!((&branch["subnet"], &branch["vpc"]), (&json!(vpc.subnet), &json!(vpc.id)));

    let told = facts.last("Groups")?;
    assert_eq!(told["missing"], json!(["sg-0000000000000000f"]));
    let db = told["groups"].as_array().into_iter().flatten().find(|one| one["group"]["id"] == vpc.db.as_str());
    let rules = db.expect("it was found")["group"]["rules"].as_array().cloned().unwrap_or_default();
    assert!(rules.iter().all(|rule| rule["id"].as_str().is_some_and(|id| id.starts_with("sgr-"))), "{rules:?}");
    let has = |service: Value, peer: Value| {
        rules.iter().any(|rule| rule["side"] == "ingress" && rule["service"] == service && rule["peer"] == peer)
    };
    let tcp = |port: u16| json!({"Ports": {"transport": "tcp", "first": port, "last": port}});
    assert!(has(tcp(3306), json!({"Group": {"id": vpc.app, "account": null, "stale": null}})), "{rules:?}");
    assert!(has(tcp(22), json!({"PrefixList": vpc.list})), "{rules:?}");
    assert!(has(json!({"Icmp": {"version": "v4", "kind": null}}), json!({"Net": "10.0.0.0/8"})), "{rules:?}");
    assert!(has(json!("All"), json!({"Net": "2001:db8::/32"})), "{rules:?}");
    let app = told["groups"].as_array().into_iter().flatten().find(|one| one["group"]["id"] == vpc.app.as_str());
    let clusters = &app.expect("it was found")["clusters"];
    assert_eq!(clusters, &json!([{"cluster": "prod", "by_eks": false, "value": "owned"}]));

    // Three pages of entries.
    let list = &facts.last("PrefixLists")?["lists"][0];
    assert_eq!(list["name"], "offices");
    assert_eq!(list["entries"].as_array().map(Vec::len), Some(250));

    let told = facts.last("Vpc")?;
    assert_eq!((&told["id"], &told["ranges"]), (&json!(vpc.id), &json!(["10.9.0.0/16", "100.64.0.0/16"])));
    let subnet = &facts.last("Subnets")?["subnets"][0];
    assert_eq!((&subnet["id"], &subnet["range"]), (&json!(vpc.subnet), &json!("10.9.1.0/24")));
    // 256 addresses, of which AWS keeps five.
    assert!(subnet["free"].as_u64().is_some_and(|free| (200..=251).contains(&free)), "{subnet}");
    let figures = &facts.last("InstanceType")?["figures"];
    assert_eq!(
        (&figures["vcpus"], &figures["interfaces"], &figures["ipv4_per_interface"]),
        (&json!(2), &json!(3), &json!(10))
    );
    for call in ["network_interfaces", "security_groups", "security_group_rules", "prefix_lists", "subnets", "vpcs"] {
        assert_eq!(facts.source(call)?["error"], Value::Null, "{call}");
    }
    Ok(())
}

#[test]
fn an_address_that_two_vpcs_have_is_the_one_of_the_node_s_vpc() -> Result<()> {
    let moto = Moto::start()?;
    let vpc = Vpc::make(&moto)?;
    let asker = Asker::new(moto.endpoint())?;
    assert_eq!(vpc.peer.ip, vpc.double.ip);
    let wishes = ["--macs", &vpc.own.mac, "--peers", &vpc.peer.ip];
    let facts = asker.ask(&Key::any(), &wishes, "Peers")?;
    assert_eq!(facts.last("Peers")?["peers"][0]["interface"]["id"], vpc.peer.id.as_str());
    // Without a VPC of its own the node cannot know which of them it is.
    let stranger = Asker::new(moto.endpoint())?;
    let facts = stranger.ask(&Key::any(), &["--peers", &vpc.peer.ip], "Peers")?;
    assert_eq!(facts.last("Peers")?["peers"][0]["interface"], Value::Null);
    Ok(())
}

#[test]
fn answers_outlive_the_program() -> Result<()> {
    let moto = Moto::start()?;
    let vpc = Vpc::make(&moto)?;
    let asker = Asker::new(moto.endpoint())?;
    let wishes = ["--interfaces", &vpc.branch.id, "--groups", &vpc.app];
    let first = asker.ask(&Key::any(), &wishes, "subnets")?;
    assert_eq!(first.source("security_groups")?["error"], Value::Null);
    assert!(asker.file().exists());
    let before = requests(&moto);
    let second = asker.ask_for_a_while(&Key::any(), &wishes)?;
    assert_eq!(second.last("Groups")?, first.last("Groups")?, "told with the same age");
    assert_eq!(requests(&moto), before, "nothing was asked");
    Ok(())
}

fn requests(moto: &Moto) -> usize {
    moto.log().matches("\"POST / HTTP").count()
}
