//! What the AWS CLI prints, and what it would never print.

use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;

fn groups(groups: &Value) -> Result<Document, ReadError> {
    read(&json!({ "SecurityGroups": groups }).to_string())
}

fn permission(permission: &Value) -> Result<Document, ReadError> {
    groups(&json!([{"GroupId": "sg-a", "IpPermissions": [permission], "IpPermissionsEgress": []}]))
}

/// The shape of the CLI's own reference.
/// <https://docs.aws.amazon.com/cli/latest/reference/ec2/describe-security-groups.html>
#[test]
fn describe_security_groups() {
    let document = groups(&json!([{
        "GroupId": "sg-903004f8", "GroupName": "web", "OwnerId": "123456789012", "VpcId": "vpc-1a2b3c4d",
        "Description": "x", "Tags": [{"Key": "a", "Value": "b"}], "SecurityGroupArn": "arn:aws:ec2:…",
        "IpPermissionsEgress": [{
            "IpProtocol": "-1", "IpRanges": [{"CidrIp": "0.0.0.0/0"}], "Ipv6Ranges": [], "PrefixListIds": [],
            "UserIdGroupPairs": []
        }],
        "IpPermissions": [
            {
                "IpProtocol": "tcp", "FromPort": 22, "ToPort": 25,
                "IpRanges": [{"CidrIp": "203.0.113.7/24", "Description": "host bits are cut"}],
                "Ipv6Ranges": [{"CidrIpv6": "2001:db8:1234:1a00::/64"}],
                "PrefixListIds": [{"PrefixListId": "pl-1234abc1234abc123"}],
                "UserIdGroupPairs": [
                    {"GroupId": "sg-b", "UserId": "444455556666", "VpcId": "vpc-2", "VpcPeeringConnectionId": "pcx-1", "PeeringStatus": "active"},
                    {"GroupId": "sg-c", "UserId": "444455556666", "PeeringStatus": "deleted"},
                    {"GroupId": "sg-d", "UserId": "123456789012"}
                ]
            },
            {"IpProtocol": "icmp", "FromPort": 8, "ToPort": -1, "IpRanges": [{"CidrIp": "10.0.0.0/8"}]},
            {"IpProtocol": "icmpv6", "FromPort": -1, "ToPort": -1, "Ipv6Ranges": [{"CidrIpv6": "::/0"}]},
            {"IpProtocol": "58", "Ipv6Ranges": [{"CidrIpv6": "::/1"}]},
            {"IpProtocol": "47", "FromPort": -1, "ToPort": -1, "IpRanges": [{"CidrIp": "10.0.0.0/8"}]}
        ]
    }]));
    let document = document.unwrap();
    let [group] = &document.groups[..] else { panic!() };
    assert_eq!(
        (group.id.as_str(), group.name.as_deref(), group.vpc.as_deref(), group.owner.as_deref()),
        ("sg-903004f8", Some("web"), Some("vpc-1a2b3c4d"), Some("123456789012"))
    );
    let rules: Vec<_> = group.rules.iter().map(|rule| rule.id.as_str()).collect();
    let expected = [
        "sg-903004f8:ingress:tcp:22-25:203.0.113.0/24",
        "sg-903004f8:ingress:tcp:22-25:2001:db8:1234:1a00::/64",
        "sg-903004f8:ingress:tcp:22-25:pl-1234abc1234abc123",
        "sg-903004f8:ingress:tcp:22-25:sg-b",
        "sg-903004f8:ingress:tcp:22-25:sg-c",
        "sg-903004f8:ingress:tcp:22-25:sg-d",
        "sg-903004f8:ingress:icmp:8:10.0.0.0/8",
        "sg-903004f8:ingress:icmpv6:all:::/0",
        "sg-903004f8:ingress:icmpv6:all:::/1",
        "sg-903004f8:ingress:47:10.0.0.0/8",
        "sg-903004f8:egress:-1:0.0.0.0/0",
    ];
    assert_eq!(rules, expected);
    let peers: Vec<_> = group.rules.iter().map(|rule| rule.peer.clone()).collect();
    let account: Option<std::sync::Arc<str>> = Some("444455556666".into());
    assert_eq!(peers[3], Peer::Group { id: sg("sg-b"), account: account.clone(), stale: None });
    assert_eq!(peers[4], Peer::Group { id: sg("sg-c"), account, stale: Some("deleted".into()) });
    // One's own account goes without saying.
    assert_eq!(peers[5], Peer::Group { id: sg("sg-d"), account: None, stale: None });
}

/// <https://docs.aws.amazon.com/cli/latest/reference/ec2/describe-security-group-rules.html>
#[test]
fn describe_security_group_rules() {
    let rule = |id: &str, more: Value| {
        let mut rule = json!({
            "SecurityGroupRuleId": id, "GroupId": "sg-a", "GroupOwnerId": "123456789012", "IsEgress": false,
            "IpProtocol": "tcp", "FromPort": 80, "ToPort": 80, "Tags": []
        });
        rule.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        rule
    };
    let rules = json!({"SecurityGroupRules": [
        rule("sgr-1", json!({"CidrIpv4": "10.0.0.0/8"})),
        rule("sgr-2", json!({"CidrIpv6": "::/0", "IsEgress": true, "IpProtocol": "-1", "FromPort": -1, "ToPort": -1})),
        rule("sgr-3", json!({"PrefixListId": "pl-1"})),
        rule("sgr-4", json!({"ReferencedGroupInfo": {"GroupId": "sg-b", "UserId": "444455556666"}})),
    ]});
    let document = read(&rules.to_string()).unwrap();
    let shown: Vec<_> = document
        .rules
        .iter()
        .map(|(rule, _)| format!("{} {} {}", rule.rule.id, rule.rule.side.name(), rule.text()))
        .collect();
    let expected = [
        "sgr-1 ingress tcp 80 from 10.0.0.0/8",
        "sgr-2 egress all traffic to ::/0",
        "sgr-3 ingress tcp 80 from pl-1",
        "sgr-4 ingress tcp 80 from sg-b (account 444455556666)",
    ];
    assert_eq!(shown, expected);
    let error =
        |more: Value| read(&json!({"SecurityGroupRules": [rule("sgr-1", more)]}).to_string()).unwrap_err().to_string();
    assert!(error(json!({})).starts_with("SecurityGroupRules[0]: line 1"), "{}", error(json!({})));
    assert!(
        error(json!({})).contains("expected exactly one of CidrIpv4, CidrIpv6, PrefixListId and ReferencedGroupInfo")
    );
    assert!(error(json!({"CidrIpv4": "10.0.0.0/8", "PrefixListId": "pl-1"})).contains("exactly one of"));
    assert!(error(json!({"SecurityGroupRuleId": "a\u{1b}[2J"})).contains("expected 1 to 64 letters"));
}

#[test]
fn prefix_lists() {
    let lists = read(
        r#"{"PrefixLists":[{"PrefixListId":"pl-1","PrefixListName":"com.amazonaws.eu-west-1.s3","Cidrs":["52.218.0.0/17"]},
        {"PrefixListId":"pl-2","AddressFamily":"IPv4","MaxEntries":10,"State":"create-complete"}]}"#,
    );
    let lists = lists.unwrap().lists;
    assert_eq!(lists[0].entries.as_deref(), Some(&["52.218.0.0/17".parse().unwrap()][..]));
    assert_eq!(lists[1].entries, None);
    let entries =
        read(r#"{"Entries":[{"Cidr":"10.0.0.0/16","Description":"vpc-a"},{"Cidr":"2001:db8::/56"}]}"#).unwrap().entries;
    assert_eq!(entries.unwrap().len(), 2);
}

#[test]
fn both_forms_of_a_group_are_one() {
    let document =
        permission(&json!({"IpProtocol": "tcp", "FromPort": 80, "ToPort": 80, "IpRanges": [{"CidrIp": "10.0.0.0/8"}],
        "UserIdGroupPairs": [{"GroupId": "sg-b", "UserId": "444455556666"}]}))
        .unwrap();
    let rules = read(r#"{"SecurityGroupRules":[
        {"SecurityGroupRuleId":"sgr-1","GroupId":"sg-a","GroupOwnerId":"123456789012","IsEgress":false,"IpProtocol":"tcp","FromPort":80,"ToPort":80,"CidrIpv4":"10.0.0.0/8"},
        {"SecurityGroupRuleId":"sgr-2","GroupId":"sg-a","IsEgress":false,"IpProtocol":"tcp","FromPort":80,"ToPort":80,"ReferencedGroupInfo":{"GroupId":"sg-b"}},
        {"SecurityGroupRuleId":"sgr-3","GroupId":"sg-a","IsEgress":false,"IpProtocol":"tcp","FromPort":81,"ToPort":81,"CidrIpv4":"10.0.0.0/8"}]}"#).unwrap();
    for order in [[&document, &rules], [&rules, &document]] {
        let mut gathered = Gathered::default();
        for document in order {
            gathered.add(document.clone()).unwrap();
        }
        let (groups, _) = gathered.finish();
        let [group] = &groups[..] else { panic!() };
        let mut rules: Vec<_> = group.rules.iter().map(|rule| rule.id.as_str()).collect();
        rules.sort_unstable();
        assert_eq!((rules, group.owner.as_deref()), (vec!["sgr-1", "sgr-2", "sgr-3"], Some("123456789012")));
    }
}

#[test]
fn what_is_gathered_is_bounded() {
    let mut gathered = Gathered::default();
    let id = "pl-1".parse().unwrap();
    let net = "10.0.0.0/8".parse().unwrap();
    gathered.add_entries(&id, vec![net; MAX_NETS]).unwrap();
    let error = gathered.add_entries(&id, vec![net]).unwrap_err();
    assert_eq!(
        error.to_string(),
        "more than 100000 entries of prefix lists: leave out the groups that the question is not about"
    );
    let rules = |count: u32| {
        let rule = |at: u32| {
            let peer = Peer::Net(ipnet::Ipv4Net::new(at.into(), 32).unwrap().into());
            Rule { id: RuleId::given("sgr-1"), side: Side::Egress, service: Service::All, peer }
        };
        let rules = (0..count).map(rule).collect();
        Document { groups: vec![Group { rules, ..group("sg-a", &[]) }], ..Document::default() }
    };
    let most = u32::try_from(MAX_RULES).unwrap();
    Gathered::default().add(rules(most)).unwrap();
    assert!(Gathered::default().add(rules(most + 1)).is_err());
}

#[test]
fn wrong_documents_are_explained() {
    let said = |text: &str| read(text).unwrap_err().to_string();
    assert!(said("").starts_with("is empty"));
    assert!(said(" \n\t").starts_with("is empty"));
    assert!(said("\u{feff}").starts_with("is empty"));
    assert!(
        said("{\"SecurityGroups\": [").starts_with("SecurityGroups[?]: line 1, column 20: EOF")
            || said("{\"SecurityGroups\": [").contains("line 1, column 20: EOF"),
        "{}",
        said("{\"SecurityGroups\": [")
    );
    assert!(said("SECURITYGROUPS\tx").contains("line 1, column 1: expected value"));
    assert!(said("{\"SecurityGroups\": []} x").contains("trailing characters"));
    assert!(said("[]").contains("line 1"), "{}", said("[]"));
    assert!(said("{}").contains("none of the keys"));
    assert!(said("{\"a\\u001b[2J\": tru}").starts_with("a[2J: line 1"), "{:?}", said("{\"a\\u001b[2J\": tru}"));
    assert!(said("{\"Reservations\": []}").contains("describe-security-groups"));
    assert!(said("{\"SecurityGroups\": [], \"NextToken\": \"abc\"}").contains("one page of several"));
    assert!(read("{\"SecurityGroups\": [], \"NextToken\": null}").is_ok());
    assert!(read("\u{feff}{\"SecurityGroups\": []}").is_ok());
}

#[test]
fn wrong_fields_are_named() {
    let net = json!([{"CidrIp": "10.0.0.0/8"}]);
    for (rule, parts) in [
        (
            json!({"IpProtocol": "tcp", "FromPort": 80, "ToPort": 80, "IpRanges": [{"CidrIp": "10.0.0.0"}]}),
            &["SecurityGroups[0].IpPermissions[0].IpRanges[0].CidrIp: line 1", "\"10.0.0.0\"", "10.0.0.0/16"][..],
        ),
        (
            json!({"IpProtocol": "tcp", "FromPort": 80, "ToPort": 80, "IpRanges": [{"CidrIp": "10.0.0.0/33"}]}),
            &["10.0.0.0/33"],
        ),
        (
            json!({"IpProtocol": "tcp", "IpRanges": net}),
            &["SecurityGroups[0].IpPermissions[0]", "lacks FromPort or ToPort"],
        ),
        (
            json!({"IpProtocol": "udp", "FromPort": 80, "ToPort": 70_000, "IpRanges": net}),
            &["udp from FromPort 80 to ToPort 70000"],
        ),
        (json!({"IpProtocol": "tcp", "FromPort": 80, "ToPort": 79, "IpRanges": net}), &["no range of ports"]),
        (json!({"IpProtocol": "tcp", "FromPort": -1, "ToPort": -1, "IpRanges": net}), &["no range of ports"]),
        (json!({"IpProtocol": "icmp", "FromPort": 256, "ToPort": 0, "IpRanges": net}), &["no type and code"]),
        (json!({"IpProtocol": "icmp", "FromPort": -1, "ToPort": 0, "IpRanges": net}), &["no type and code"]),
        (json!({"IpProtocol": "gre", "IpRanges": net}), &["IpProtocol \"gre\"", "expected tcp, udp"]),
        (json!({"IpProtocol": "256", "IpRanges": net}), &["IpProtocol \"256\""]),
        (json!({"IpProtocol": 6, "IpRanges": net}), &["IpProtocol", "invalid type"]),
        (
            json!({"IpProtocol": "-1", "UserIdGroupPairs": [{"GroupId": "sg-$(reboot)"}]}),
            &["UserIdGroupPairs[0].GroupId", "no id of a security group"],
        ),
        (
            json!({"IpProtocol": "-1", "UserIdGroupPairs": [{"GroupId": "sg-b", "UserId": "1,Cidr=x"}]}),
            &["UserId", "letters, digits"],
        ),
        (
            json!({"IpProtocol": "-1", "PrefixListIds": [{"PrefixListId": "sg-b"}]}),
            &["PrefixListId", "no id of a prefix list"],
        ),
        (json!({"IpRanges": net}), &["missing field `IpProtocol`"]),
    ] {
        let error = permission(&rule).unwrap_err().to_string();
        for part in parts {
            assert!(error.contains(part), "{part:?} is not in {error:?}");
        }
    }
    let error = groups(&json!([{"GroupId": "sg-a", "IpPermissions": []}])).unwrap_err().to_string();
    assert!(error.starts_with("SecurityGroups[0]: line 1") && error.contains("IpPermissionsEgress"), "{error}");
}

/// A document that has everything, for breaking it.
const WHOLE: &str = r#"{"SecurityGroups":[{"GroupId":"sg-a","OwnerId":"1","IpPermissionsEgress":[],"IpPermissions":[
    {"IpProtocol":"tcp","FromPort":22,"ToPort":25,"IpRanges":[{"CidrIp":"10.0.0.0/8"}],"Ipv6Ranges":[{"CidrIpv6":"::/0"}]},
    {"IpProtocol":"icmp","FromPort":8,"ToPort":-1,"UserIdGroupPairs":[{"GroupId":"sg-b","UserId":"2"}]}]}],
    "SecurityGroupRules":[{"SecurityGroupRuleId":"sgr-1","GroupId":"sg-a","IsEgress":true,"IpProtocol":"-1","PrefixListId":"pl-1"}],
    "PrefixLists":[{"PrefixListId":"pl-1","Cidrs":["10.0.0.0/8"]}],"Entries":[{"Cidr":"10.0.0.0/8"}],"NextToken":null}"#;

proptest! {
    /// Whatever a file holds, it is read or refused in words that stand in one line.
    #[test]
    fn broken_documents_are_refused(changes in proptest::collection::vec((0..WHOLE.len(), any::<u8>()), 0..4), cut in any::<usize>()) {
        let mut bytes = WHOLE.as_bytes().to_vec();
        for (at, byte) in changes {
            bytes[at] = byte;
        }
        bytes.truncate(if cut % 4 == 0 { cut / 4 % bytes.len() } else { bytes.len() });
        let text = String::from_utf8_lossy(&bytes);
        match read(&text) {
            Ok(document) => Gathered::default().add(document).unwrap(),
            Err(error) => prop_assert!(!error.to_string().contains(['\n', '\u{1b}']), "{}", error),
        }
    }
}

#[test]
fn the_whole_document_is_read() {
    let document = read(WHOLE).unwrap();
    assert_eq!((document.groups[0].rules.len(), document.rules.len(), document.lists.len()), (3, 1, 1));
    assert_eq!(document.entries.map(|entries| entries.len()), Some(1));
}
