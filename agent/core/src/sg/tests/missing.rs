//! What nearly fits, and what is missing: as text, as a command, as Terraform.

use super::*;

fn near(groups: &[Group], flow: &Flow, side: Side, own: &[&str], others: Option<&[&str]>) -> Vec<(String, String)> {
    let compiled = Compiled::new(groups, &[list("pl-a", Some(&["10.9.0.0/16"]))]);
    let (own, others) = (ids(own), others.map(ids));
    match compiled.judge(flow, side, Some(&own), others.as_deref()) {
        SideVerdict::NoRule => {
            let near = compiled.nearest(flow, side, &own, others.as_deref());
            near.iter().map(|near| (near.rule.rule.id.to_string(), near.lacks_text(flow))).collect()
        }
        verdict => panic!("{}", said(&verdict)),
    }
}

#[test]
fn the_nearest_rules_say_what_they_lack() {
    let groups = [group(
        "sg-a",
        &[
            "egress udp 53 10.0.0.0/16",
            "egress tcp 3306 10.1.0.0/16",
            "egress tcp 3306 10.0.0.0/24",
            "egress tcp 3307 10.0.0.0/16",
            "egress tcp 443 0.0.0.0/0",
            "egress tcp 3306 sg-db",
            "egress tcp 3306 pl-a",
            "egress tcp 3306 ::/0",
            "ingress tcp 3306 10.0.0.0/16",
        ],
    )];
    let pairs = |pairs: &[(&str, &str)]| -> Vec<(String, String)> {
        pairs.iter().map(|(rule, lacks)| ((*rule).to_owned(), (*lacks).to_owned())).collect()
    };
    // The right service for somebody else comes first: references and lists, then ranges by how far they are.
    let asked = flow("tcp 3306", "10.0.7.1", "10.0.3.9");
    let found = near(&groups, &asked, Side::Egress, &["sg-a"], Some(&["sg-other"]));
    let expected = [
        ("egress tcp 3306 sg-db", "the other end's groups"),
        ("egress tcp 3306 pl-a", "address 10.0.3.9"),
        ("egress tcp 3306 10.1.0.0/16", "address 10.0.3.9"),
    ];
    assert_eq!(found, pairs(&expected));
    let asked = flow("tcp 444", "10.0.7.1", "10.0.3.9");
    assert_eq!(
        near(&groups, &asked, Side::Egress, &["sg-a"], Some(&["sg-other"]))[0],
        pairs(&[("egress tcp 443 0.0.0.0/0", "port 444")])[0]
    );
    // Where nothing is near, the least far is still shown.
    let asked = flow("icmp 8/0", "10.0.7.1", "172.16.0.1");
    let only = [group("sg-a", &["egress tcp 1 ::/0"])];
    let expected = pairs(&[("egress tcp 1 ::/0", "icmp type 8 code 0, IPv4 addresses")]);
    assert_eq!(near(&only, &asked, Side::Egress, &["sg-a"], None), expected);
    let of_the_other_family = [group("sg-a", &["egress icmp pl-a"])];
    let nowhere = flow("icmp 8/0", "2001:db8::1", "");
    let expected = pairs(&[("egress icmp pl-a", "IPv6 addresses")]);
    assert_eq!(near(&of_the_other_family, &nowhere, Side::Egress, &["sg-a"], None), expected);
    let stale = Peer::Group { id: sg("sg-b"), account: None, stale: Some("deleted".into()) };
    let mut gone = [group("sg-a", &["ingress icmp 0 sg-b"])];
    gone[0].rules[0].peer = stale;
    let expected = pairs(&[("ingress icmp 0 sg-b", "type 8 code 0, a VPC peering that is active")]);
    assert_eq!(near(&gone, &asked, Side::Ingress, &["sg-a"], Some(&["sg-b"])), expected);
    assert_eq!(near(&[group("sg-a", &[])], &asked, Side::Egress, &["sg-a"], None), pairs(&[]));
}

#[track_caller]
fn missing(flow: &Flow, side: Side, others: Option<&[&str]>, text: &str, cli: &str, terraform: &str) {
    let mut groups = [group("sg-a", &[]), group("sg-b", &[]), group("sg-far", &[])];
    groups[0].owner = Some("111122223333".into());
    groups[1].owner = Some("111122223333".into());
    groups[2].owner = Some("444455556666".into());
    let compiled = Compiled::new(&groups, &[]);
    let missing = compiled.missing(flow, side, &ids(&["sg-lost", "sg-a"]), others.map(ids).as_deref()).unwrap();
    assert_eq!(missing.text(), text);
    assert_eq!(missing.aws_cli().unwrap(), cli);
    assert_eq!(missing.terraform().unwrap(), terraform);
}

#[test]
fn the_missing_rule_is_ready_to_use() {
    missing(
        &flow("tcp 3306", "10.0.0.5", "10.0.1.9"),
        Side::Egress,
        None,
        "sg-a has no egress rule for tcp 3306 to 10.0.1.9/32",
        "aws ec2 authorize-security-group-egress --group-id sg-a --ip-permissions \
         'IpProtocol=tcp,FromPort=3306,ToPort=3306,IpRanges=[{CidrIp=10.0.1.9/32}]'",
        r#"resource "aws_vpc_security_group_egress_rule" "sg_a_egress_tcp_3306_10_0_1_9_32" {
  security_group_id = "sg-a"
  ip_protocol       = "tcp"
  from_port         = 3306
  to_port           = 3306
  cidr_ipv4         = "10.0.1.9/32"
}
"#,
    );
    missing(
        &flow("udp 53", "10.0.0.5", "10.0.1.9"),
        Side::Ingress,
        Some(&["sg-b", "sg-c"]),
        "sg-a has no ingress rule for udp 53 from sg-b",
        "aws ec2 authorize-security-group-ingress --group-id sg-a --ip-permissions \
         'IpProtocol=udp,FromPort=53,ToPort=53,UserIdGroupPairs=[{GroupId=sg-b}]'",
        r#"resource "aws_vpc_security_group_ingress_rule" "sg_a_ingress_udp_53_sg_b" {
  security_group_id            = "sg-a"
  ip_protocol                  = "udp"
  from_port                    = 53
  to_port                      = 53
  referenced_security_group_id = "sg-b"
}
"#,
    );
    missing(
        &flow("icmpv6 128/0", "2001:db8::1", "2001:db8::2"),
        Side::Ingress,
        Some(&[]),
        "sg-a has no ingress rule for icmpv6 type 128 code 0 from 2001:db8::1/128",
        "aws ec2 authorize-security-group-ingress --group-id sg-a --ip-permissions \
         'IpProtocol=icmpv6,FromPort=128,ToPort=0,Ipv6Ranges=[{CidrIpv6=2001:db8::1/128}]'",
        r#"resource "aws_vpc_security_group_ingress_rule" "sg_a_ingress_icmpv6_128_0_2001_db8__1_128" {
  security_group_id = "sg-a"
  ip_protocol       = "icmpv6"
  from_port         = 128
  to_port           = 0
  cidr_ipv6         = "2001:db8::1/128"
}
"#,
    );
    missing(
        &flow("50", "10.0.0.5", "10.0.1.9"),
        Side::Egress,
        Some(&["sg-far"]),
        "sg-a has no egress rule for protocol 50 to sg-far (account 444455556666)",
        "aws ec2 authorize-security-group-egress --group-id sg-a --ip-permissions \
         'IpProtocol=50,UserIdGroupPairs=[{GroupId=sg-far,UserId=444455556666}]'",
        r#"resource "aws_vpc_security_group_egress_rule" "sg_a_egress_50_sg_far" {
  security_group_id            = "sg-a"
  ip_protocol                  = "50"
  referenced_security_group_id = "444455556666/sg-far"
}
"#,
    );
}

#[test]
fn a_public_address_is_not_cured_by_a_reference() {
    let compiled = Compiled::new(&[group("sg-a", &[])], &[]);
    let missing = |to, others: Option<&[&str]>| {
        let flow = flow("tcp 443", "10.0.0.5", to);
        compiled.missing(&flow, Side::Egress, &ids(&["sg-a"]), others.map(ids).as_deref()).unwrap().text()
    };
    assert_eq!(missing("198.51.100.7", Some(&["sg-b"])), "sg-a has no egress rule for tcp 443 to 198.51.100.7/32");
    assert_eq!(missing("10.0.0.7", Some(&["sg-b"])), "sg-a has no egress rule for tcp 443 to sg-b");
    assert_eq!(missing("", Some(&["sg-b"])), "sg-a has no egress rule for tcp 443 to sg-b");
    assert_eq!(missing("", None), "sg-a has no egress rule for tcp 443 to the other end");
    let flow = flow("tcp 443", "10.0.0.5", "");
    let nobody = compiled.missing(&flow, Side::Egress, &ids(&["sg-a"]), None).unwrap();
    assert_eq!((nobody.aws_cli(), nobody.terraform()), (None, None));
    assert_eq!(compiled.missing(&flow, Side::Egress, &[], None), None);
}
