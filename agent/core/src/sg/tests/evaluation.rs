//! Tables from the public documentation's rules of evaluation.

use super::*;

/// Groups and lists; then per line: what, from, its groups, to, its groups, egress, ingress. Groups `?`: not known; `-`:
/// none.
#[track_caller]
fn table(groups: &[Group], lists: &[PrefixList], vpc: &[&str], lines: &[(&str, &str, &str, &str, &str, &str, &str)]) {
    let vpc = vpc.iter().map(|net| net.parse().unwrap()).collect();
    let compiled = Compiled::new(groups, lists).with_vpc(vpc);
    let members = |text: &str| match text {
        "?" => None,
        "-" => Some(Vec::new()),
        text => Some(ids(&text.split(',').collect::<Vec<_>>())),
    };
    for (what, from, source, to, destination, egress, ingress) in lines {
        let (source, destination) = (members(source), members(destination));
        let verdict = compiled.verdict(&flow(what, from, to), source.as_deref(), destination.as_deref());
        let said = (said(&verdict.egress), said(&verdict.ingress));
        assert_eq!((said.0.as_str(), said.1.as_str()), (*egress, *ingress), "{what} {from} -> {to}");
    }
}

/// The example of the VPC guide: web servers that take HTTP and HTTPS from all, SSH from the company, and speak to two
/// kinds of databases by their groups.
/// <https://docs.aws.amazon.com/vpc/latest/userguide/security-group-rules.html#security-group-rule-examples>
#[test]
fn the_web_servers_of_the_guide() {
    let groups = [
        group(
            "sg-web",
            &[
                "ingress tcp 80 0.0.0.0/0",
                "ingress tcp 80 ::/0",
                "ingress tcp 443 0.0.0.0/0",
                "ingress tcp 443 ::/0",
                "ingress tcp 22 198.51.100.0/24",
                "egress tcp 1433 sg-mssql",
                "egress tcp 3306 sg-mysql",
            ],
        ),
        group("sg-mysql", &["ingress tcp 3306 sg-web"]),
        group("sg-mssql", &["ingress tcp 1433 sg-web"]),
    ];
    let lines = [
        ("tcp 80", "203.0.113.1", "?", "10.0.0.5", "sg-web", "not judged", "allowed ingress tcp 80 0.0.0.0/0"),
        ("tcp 443", "2001:db8::1", "?", "2600:1f00::5", "sg-web", "not judged", "allowed ingress tcp 443 ::/0"),
        ("tcp 22", "198.51.100.7", "?", "10.0.0.5", "sg-web", "not judged", "allowed ingress tcp 22 198.51.100.0/24"),
        ("tcp 22", "198.51.101.7", "?", "10.0.0.5", "sg-web", "not judged", "no rule"),
        (
            "tcp 3306",
            "10.0.0.5",
            "sg-web",
            "10.0.1.5",
            "sg-mysql",
            "allowed egress tcp 3306 sg-mysql",
            "allowed ingress tcp 3306 sg-web",
        ),
        // A reference adds no rule of the group that it names, and holds in its direction alone.
        ("tcp 80", "10.0.1.5", "sg-mysql", "10.0.1.6", "sg-mysql", "no rule", "no rule"),
        ("tcp 3306", "10.0.1.5", "sg-mysql", "10.0.0.5", "sg-web", "no rule", "no rule"),
        ("tcp 1433", "10.0.0.5", "sg-web", "10.0.1.5", "sg-mysql", "no rule", "no rule"),
        ("udp 3306", "10.0.0.5", "sg-web", "10.0.1.5", "sg-mysql", "no rule", "no rule"),
    ];
    table(&groups, &[], &[], &lines);
}

/// "It has no inbound rules", "no outbound rules: no outbound traffic is allowed", and the default group's own rules.
#[test]
fn groups_without_rules_and_the_default_group() {
    let groups = [
        group("sg-new", &["egress -1 0.0.0.0/0"]),
        group("sg-empty", &[]),
        group("sg-default", &["ingress -1 sg-default", "egress -1 0.0.0.0/0", "egress -1 ::/0"]),
    ];
    let all = "allowed egress -1 0.0.0.0/0";
    let lines = [
        ("tcp 443", "10.0.0.1", "sg-new", "8.8.8.8", "-", all, "not judged"),
        ("tcp 443", "10.0.0.1", "sg-new", "10.0.0.2", "sg-new", all, "no rule"),
        ("tcp 443", "10.0.0.1", "sg-empty", "10.0.0.2", "sg-empty", "no rule", "no rule"),
        ("tcp 443", "10.0.0.1", "sg-default", "10.0.0.2", "sg-default", all, "allowed ingress -1 sg-default"),
        ("50", "10.0.0.1", "sg-default", "10.0.0.2", "sg-default", all, "allowed ingress -1 sg-default"),
        ("icmp 8/0", "10.0.0.1", "sg-default", "10.0.0.2", "sg-default", all, "allowed ingress -1 sg-default"),
        // A rule for all IPv4 says nothing about IPv6.
        ("tcp 443", "2001:db8::1", "sg-new", "2001:db8::2", "-", "no rule", "not judged"),
        ("tcp 443", "2001:db8::1", "sg-default", "2001:db8::2", "-", "allowed egress -1 ::/0", "not judged"),
        // The group of the peer decides, not the address.
        ("tcp 443", "10.0.0.1", "sg-new", "10.0.0.2", "sg-default", all, "no rule"),
    ];
    table(&groups, &[], &[], &lines);
}

/// "The rules from each security group are aggregated to form a single set of rules", and the most permissive wins.
#[test]
fn several_groups_are_one_set() {
    let groups = [
        group("sg-a", &["ingress tcp 22 203.0.113.1/32"]),
        group("sg-b", &["ingress tcp 22 0.0.0.0/0"]),
        group("sg-c", &["egress tcp 1-100 0.0.0.0/0", "egress tcp 50-60 10.0.0.0/8"]),
    ];
    let both = "allowed ingress tcp 22 203.0.113.1/32, ingress tcp 22 0.0.0.0/0";
    let lines = [
        ("tcp 22", "203.0.113.1", "-", "10.0.0.1", "sg-a", "not judged", "allowed ingress tcp 22 203.0.113.1/32"),
        ("tcp 22", "203.0.113.2", "-", "10.0.0.1", "sg-a", "not judged", "no rule"),
        ("tcp 22", "203.0.113.2", "-", "10.0.0.1", "sg-a,sg-b", "not judged", "allowed ingress tcp 22 0.0.0.0/0"),
        ("tcp 22", "203.0.113.1", "-", "10.0.0.1", "sg-a,sg-b", "not judged", both),
        // A group named twice is one.
        ("tcp 22", "203.0.113.1", "-", "10.0.0.1", "sg-a,sg-b,sg-a", "not judged", both),
        (
            "tcp 55",
            "10.0.0.1",
            "sg-a,sg-c",
            "10.0.0.2",
            "sg-a",
            "allowed egress tcp 1-100 0.0.0.0/0, egress tcp 50-60 10.0.0.0/8",
            "no rule",
        ),
    ];
    table(&groups, &[], &[], &lines);
}

/// Ports at the ends of ranges; types and codes; protocols by number, which "allow traffic on all ports".
#[test]
fn services() {
    let groups = [group(
        "sg-a",
        &[
            "egress tcp 8000-8010 0.0.0.0/0",
            "egress udp 0-65535 0.0.0.0/0",
            "egress icmp 8 0.0.0.0/0",
            "egress icmp 3/4 0.0.0.0/0",
            "egress icmpv6 ::/0",
            "egress 50 0.0.0.0/0",
            "egress 6 10.9.0.0/16",
        ],
    )];
    let line = |what, to, egress| (what, "", "sg-a", to, "-", egress, "not judged");
    let lines = [
        line("tcp 7999", "10.0.0.1", "no rule"),
        line("tcp 8000", "10.0.0.1", "allowed egress tcp 8000-8010 0.0.0.0/0"),
        line("tcp 8010", "10.0.0.1", "allowed egress tcp 8000-8010 0.0.0.0/0"),
        line("tcp 8011", "10.0.0.1", "no rule"),
        line("tcp 8011", "10.9.0.1", "allowed egress 6 10.9.0.0/16"),
        line("udp 0", "10.0.0.1", "allowed egress udp 0-65535 0.0.0.0/0"),
        line("udp 65535", "10.0.0.1", "allowed egress udp 0-65535 0.0.0.0/0"),
        line("icmp 8/0", "10.0.0.1", "allowed egress icmp 8 0.0.0.0/0"),
        line("icmp 8/255", "10.0.0.1", "allowed egress icmp 8 0.0.0.0/0"),
        line("icmp 0/0", "10.0.0.1", "no rule"),
        line("icmp 3/4", "10.0.0.1", "allowed egress icmp 3/4 0.0.0.0/0"),
        line("icmp 3/3", "10.0.0.1", "no rule"),
        line("icmpv6 128/0", "2001:db8::1", "allowed egress icmpv6 ::/0"),
        line("50", "10.0.0.1", "allowed egress 50 0.0.0.0/0"),
        line("51", "10.0.0.1", "no rule"),
        line("50", "2001:db8::1", "no rule"),
    ];
    table(&groups, &[], &[], &lines);
    assert_eq!(
        [0, 1, 6, 17, 50, 58].map(|number| Traffic::other(number).is_some()),
        [true, false, false, false, true, false]
    );
}

/// Ranges of addresses at their ends, lists of them, and both families in one list.
#[test]
fn addresses() {
    let groups = [group(
        "sg-a",
        &["egress tcp 1 10.0.4.0/22", "egress tcp 2 pl-a", "egress tcp 3 2001:db8::/33", "egress tcp 4 pl-all"],
    )];
    let lists = [
        list("pl-a", Some(&["10.1.0.0/24", "10.0.0.0/24", "10.0.0.128/25", "192.0.2.1/32", "2001:db8:8000::/33"])),
        list("pl-all", Some(&["0.0.0.0/1", "128.0.0.0/1"])),
    ];
    let line = |what, to, egress| (what, "", "sg-a", to, "-", egress, "not judged");
    let lines = [
        line("tcp 1", "10.0.3.255", "no rule"),
        line("tcp 1", "10.0.4.0", "allowed egress tcp 1 10.0.4.0/22"),
        line("tcp 1", "10.0.7.255", "allowed egress tcp 1 10.0.4.0/22"),
        line("tcp 1", "::ffff:10.0.7.255", "allowed egress tcp 1 10.0.4.0/22"),
        line("tcp 1", "10.0.8.0", "no rule"),
        line("tcp 1", "", "cannot tell"),
        line("tcp 2", "9.255.255.255", "no rule"),
        line("tcp 2", "10.0.0.255", "allowed egress tcp 2 pl-a"),
        line("tcp 2", "10.0.1.0", "no rule"),
        line("tcp 2", "10.1.0.0", "allowed egress tcp 2 pl-a"),
        line("tcp 2", "192.0.2.1", "allowed egress tcp 2 pl-a"),
        line("tcp 2", "192.0.2.2", "no rule"),
        line("tcp 2", "2001:db8:8000::1", "allowed egress tcp 2 pl-a"),
        line("tcp 2", "2001:db8::1", "no rule"),
        line("tcp 2", "", "cannot tell"),
        line("tcp 3", "2001:db8:7fff::", "allowed egress tcp 3 2001:db8::/33"),
        line("tcp 3", "2001:db8:8000::", "no rule"),
        // Every IPv4 address is in the list, so which one it is does not matter.
        line("tcp 4", "", "allowed egress tcp 4 pl-all"),
        line("tcp 4", "255.255.255.255", "allowed egress tcp 4 pl-all"),
    ];
    table(&groups, &lists, &[], &lines);
}

/// What is not known makes no rule and no refusal, unless another rule allows.
#[test]
fn what_is_not_known() {
    let groups = [
        group("sg-a", &["egress tcp 443 pl-gone", "egress tcp 80 sg-peer", "egress tcp 80 10.0.0.0/8"]),
        group("sg-ref", &["egress tcp 80 sg-peer", "ingress tcp 80 sg-peer"]),
        group("sg-none", &[]),
    ];
    let lists = [list("pl-gone", None)];
    let lines = [
        ("tcp 443", "10.0.0.1", "sg-a", "10.0.0.2", "-", "cannot tell", "not judged"),
        ("tcp 444", "10.0.0.1", "sg-a", "10.0.0.2", "-", "no rule", "not judged"),
        ("tcp 80", "10.0.0.1", "sg-a", "10.0.0.2", "?", "allowed egress tcp 80 10.0.0.0/8", "not judged"),
        ("tcp 80", "10.0.0.1", "sg-a", "192.168.0.2", "?", "cannot tell", "not judged"),
        ("tcp 80", "10.0.0.1", "sg-ref", "10.0.0.2", "?", "cannot tell", "not judged"),
        ("tcp 80", "10.0.0.1", "sg-ref", "10.0.0.2", "-", "no rule", "not judged"),
        ("tcp 80", "10.0.0.1", "sg-ref", "10.0.0.2", "sg-none", "no rule", "no rule"),
        // The peer's group need not be defined to be named; its own side is not known then.
        ("tcp 80", "10.0.0.1", "sg-ref", "10.0.0.2", "sg-peer", "allowed egress tcp 80 sg-peer", "cannot tell"),
        // One group of several is not known: it may allow.
        ("tcp 81", "10.0.0.1", "sg-none,sg-lost", "10.0.0.2", "-", "cannot tell", "not judged"),
        ("tcp 80", "10.0.0.1", "sg-lost,sg-a", "10.0.0.2", "-", "allowed egress tcp 80 10.0.0.0/8", "not judged"),
        ("tcp 80", "10.0.0.1", "?", "10.0.0.2", "?", "not judged", "not judged"),
    ];
    table(&groups, &lists, &[], &lines);
}

/// "Using the private IP addresses of the instances", not the public ones.
#[test]
fn references_mean_private_addresses() {
    let groups = [group("sg-a", &["egress tcp 80 sg-b"]), group("sg-b", &["ingress tcp 80 sg-a"])];
    let line = |from, to, egress, ingress| ("tcp 80", from, "sg-a", to, "sg-b", egress, ingress);
    let (out, into) = ("allowed egress tcp 80 sg-b", "allowed ingress tcp 80 sg-a");
    let lines = [
        line("10.0.0.1", "10.0.0.2", out, into),
        line("100.64.0.1", "100.127.255.255", out, into),
        line("10.0.0.1", "100.128.0.1", "cannot tell", into),
        line("10.0.0.1", "198.51.100.2", "cannot tell", into),
        line("198.51.100.2", "10.0.0.1", out, "cannot tell"),
        line("2600:1f00::1", "2600:1f00::2", out, into),
        line("", "", out, into),
    ];
    table(&groups, &[], &[], &lines);
    // A VPC may have any range.
    table(&groups, &[], &["10.0.0.0/16", "198.51.100.0/24"], &[line("198.51.100.1", "198.51.100.2", out, into)]);
    // Through a peering that is gone, no reference holds.
    let mut stale = groups;
    stale[0].rules[0].peer = Peer::Group { id: sg("sg-b"), account: None, stale: Some("deleted".into()) };
    table(&stale, &[], &[], &[line("10.0.0.1", "10.0.0.2", "no rule", into)]);
}

/// "Security groups cannot block DNS requests to or from the Route 53 Resolver", nor the metadata service and time.
#[test]
fn services_that_are_not_filtered() {
    let groups = [group("sg-a", &[])];
    let line = |what, to, egress| (what, "", "sg-a", to, "-", egress, "not judged");
    let always = [
        line("tcp 80", "169.254.169.254", "unfiltered"),
        line("tcp 80", "fd00:ec2::254", "unfiltered"),
        line("udp 53", "169.254.169.253", "unfiltered"),
        line("udp 123", "169.254.169.123", "unfiltered"),
        line("tcp 80", "169.254.170.23", "unfiltered"),
        line("tcp 80", "169.254.169.252", "no rule"),
        line("udp 53", "8.8.8.8", "no rule"),
    ];
    table(&groups, &[], &[], &always);
    table(&groups, &[], &["10.0.0.0/16"], &always);
    let of_the_vpc = [
        line("udp 53", "10.0.0.2", "unfiltered"),
        line("tcp 53", "10.0.0.2", "unfiltered"),
        line("tcp 443", "10.0.0.2", "no rule"),
        line("udp 53", "10.0.1.2", "no rule"),
        line("udp 53", "10.1.0.2", "no rule"),
    ];
    table(&groups, &[], &["fd00::/56", "10.0.0.0/16", "10.1.0.0/16"], &of_the_vpc);
    let without = [
        line("udp 53", "10.0.0.2", "cannot tell"),
        line("udp 53", "10.0.0.18", "cannot tell"),
        line("udp 53", "10.0.0.3", "no rule"),
        line("udp 54", "10.0.0.2", "no rule"),
    ];
    table(&groups, &[], &[], &without);
}

#[test]
fn an_end_that_drops_decides() {
    let groups = [group("sg-open", &["egress -1 0.0.0.0/0", "ingress -1 0.0.0.0/0"]), group("sg-shut", &[])];
    let compiled = Compiled::new(&groups, &[]);
    let overall = |source: Option<&str>, destination: Option<&str>| {
        let members = |id: Option<&str>| id.map(|id| ids(&[id]));
        let (source, destination) = (members(source), members(destination));
        let flow = flow("tcp 443", "10.0.0.1", "10.0.0.2");
        compiled.verdict(&flow, source.as_deref(), destination.as_deref()).overall()
    };
    assert_eq!(overall(Some("sg-open"), Some("sg-open")), Overall::Allowed);
    assert_eq!(overall(Some("sg-open"), Some("sg-shut")), Overall::NoRule);
    assert_eq!(overall(Some("sg-lost"), Some("sg-shut")), Overall::NoRule);
    assert_eq!(overall(Some("sg-open"), Some("sg-lost")), Overall::CannotTell);
    assert_eq!(overall(Some("sg-open"), None), Overall::Allowed);
    assert_eq!(overall(None, Some("sg-shut")), Overall::NoRule);
    assert_eq!(overall(None, None), Overall::CannotTell);
}

/// The example of the guide on tracking: SSH from one address is tracked, HTTP from all is not, ICMP always is.
/// <https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/security-group-connection-tracking.html>
#[test]
fn tracking_as_the_guide_tells_it() {
    let inbound =
        ["ingress tcp 22 203.0.113.1/32", "ingress tcp 80 0.0.0.0/0", "ingress tcp 80 ::/0", "ingress icmp 0.0.0.0/0"];
    let outbound = ["egress -1 0.0.0.0/0", "egress -1 ::/0"];
    let open = Compiled::new(&[group("sg-a", &[&inbound[..], &outbound[..]].concat())], &[]);
    let tracking = |compiled: &Compiled, what: &str, from: &str, to: &str, own: &[&str]| {
        compiled.tracking(&flow(what, from, to), Side::Ingress, &ids(own))
    };
    assert_eq!(tracking(&open, "tcp 22", "203.0.113.1", "10.0.0.1", &["sg-a"]), Tracking::Tracked);
    assert_eq!(tracking(&open, "tcp 80", "203.0.113.1", "10.0.0.1", &["sg-a"]), Tracking::Untracked);
    assert_eq!(tracking(&open, "tcp 80", "2001:db8::1", "2001:db8::2", &["sg-a"]), Tracking::Untracked);
    assert_eq!(tracking(&open, "icmp 8/0", "203.0.113.1", "10.0.0.1", &["sg-a"]), Tracking::Tracked);
    // "If you remove the outbound rule, all traffic is tracked", unless a group that is not known has one.
    let closed = Compiled::new(&[group("sg-a", &inbound)], &[]);
    assert_eq!(tracking(&closed, "tcp 80", "203.0.113.1", "10.0.0.1", &["sg-a"]), Tracking::Tracked);
    assert_eq!(tracking(&closed, "tcp 80", "203.0.113.1", "10.0.0.1", &["sg-a", "sg-lost"]), Tracking::CannotTell);
    let narrow = Compiled::new(&[group("sg-a", &[&inbound[..], &["egress tcp 1-65535 0.0.0.0/0"]].concat())], &[]);
    assert_eq!(tracking(&narrow, "tcp 80", "203.0.113.1", "10.0.0.1", &["sg-a"]), Tracking::Tracked);
}

#[test]
fn families_do_not_mix() {
    let error = Ends::new(Some(ip("10.0.0.1")), Some(ip("2001:db8::1"))).unwrap_err();
    assert_eq!(error.to_string(), "10.0.0.1 is IPv4 and 2001:db8::1 is IPv6: give both ends in one family");
    assert_eq!(error, Ends::new(Some(ip("2001:db8::1")), Some(ip("10.0.0.1"))).unwrap_err());
    let ends = Ends::new(Some(ip("::ffff:10.0.0.1")), Some(ip("10.0.0.2"))).unwrap().unwrap();
    assert_eq!((ends.family(), ends.source()), (Family::V4, Some(ip("10.0.0.1"))));
    assert_eq!(Ends::new(None, None), Ok(None));
}
