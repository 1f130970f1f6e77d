//! The engine against the documentation and against a second implementation; the reader against what the CLI prints.

mod documents;
mod evaluation;
mod missing;
mod property;
mod slow;

use std::net::IpAddr;

use super::*;

fn sg(id: &str) -> GroupId {
    id.parse().unwrap()
}

fn ids(ids: &[&str]) -> Vec<GroupId> {
    ids.iter().map(|id| sg(id)).collect()
}

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

/// `egress tcp 443 10.0.0.0/16`, `ingress -1 sg-b`, `ingress icmp 8 0.0.0.0/0`, `egress 50 pl-a`; the id is the text.
fn rule(text: &str) -> Rule {
    let words: Vec<_> = text.split_whitespace().collect();
    let (side, protocol, range, peer) = match words[..] {
        [side, protocol, peer] => (side, protocol, None, peer),
        [side, protocol, range, peer] => (side, protocol, Some(range), peer),
        _ => panic!("{text}"),
    };
    let ports = |transport| {
        let (first, last) = range.unwrap_or("0-65535").split_once('-').unwrap_or((range.unwrap(), range.unwrap()));
        Service::Ports { transport, first: first.parse().unwrap(), last: last.parse().unwrap() }
    };
    let icmp = |version| {
        let kind = range.map(|range| match range.split_once('/') {
            Some((kind, code)) => (kind.parse().unwrap(), Some(code.parse().unwrap())),
            None => (range.parse().unwrap(), None),
        });
        Service::Icmp { version, kind }
    };
    let service = match protocol {
        "-1" => Service::All,
        "tcp" => ports(Transport::Tcp),
        "udp" => ports(Transport::Udp),
        "icmp" => icmp(IcmpVersion::V4),
        "icmpv6" => icmp(IcmpVersion::V6),
        number => Service::Protocol(number.parse().unwrap()),
    };
    let peer = match peer.get(..3) {
        Some("sg-") => Peer::Group { id: sg(peer), account: None, stale: None },
        Some("pl-") => Peer::PrefixList(peer.parse().unwrap()),
        _ => Peer::Net(peer.parse().unwrap()),
    };
    let side = if side == "egress" { Side::Egress } else { Side::Ingress };
    Rule { id: RuleId::given(text), side, service, peer }
}

fn group(id: &str, rules: &[&str]) -> Group {
    let rules = rules.iter().map(|text| rule(text)).collect();
    Group { id: sg(id), name: None, vpc: None, owner: None, rules }
}

fn list(id: &str, entries: Option<&[&str]>) -> PrefixList {
    let entries = entries.map(|nets| nets.iter().map(|net| net.parse().unwrap()).collect());
    PrefixList { id: id.parse().unwrap(), name: None, entries }
}

/// `tcp 443`, `icmp 8/0`, `50`.
fn traffic(text: &str) -> Traffic {
    let words: Vec<_> = text.split_whitespace().collect();
    let icmp = |version, range: &str| {
        let (kind, code) = range.split_once('/').unwrap();
        Traffic::Icmp { version, kind: kind.parse().unwrap(), code: code.parse().unwrap() }
    };
    match words[..] {
        ["tcp", port] => Traffic::Port(Transport::Tcp, port.parse().unwrap()),
        ["udp", port] => Traffic::Port(Transport::Udp, port.parse().unwrap()),
        ["icmp", range] => icmp(IcmpVersion::V4, range),
        ["icmpv6", range] => icmp(IcmpVersion::V6, range),
        [number] => Traffic::other(number.parse().unwrap()).unwrap(),
        _ => panic!("{text}"),
    }
}

fn flow(what: &str, source: &str, destination: &str) -> Flow {
    let end = |text: &str| (!text.is_empty()).then(|| ip(text));
    let ends = Ends::new(end(source), end(destination)).unwrap().unwrap_or(Ends::unknown(Family::V4));
    Flow { traffic: traffic(what), ends }
}

/// `allowed RULE, RULE`, `unfiltered`, `no rule`, `cannot tell`, `not judged`.
fn said(verdict: &SideVerdict) -> String {
    match verdict {
        SideVerdict::Allowed(rules) => {
            let ids: Vec<_> = rules.iter().map(|rule| rule.rule.id.as_str()).collect();
            format!("allowed {}", ids.join(", "))
        }
        SideVerdict::Unfiltered(_) => "unfiltered".to_owned(),
        SideVerdict::NoRule => "no rule".to_owned(),
        SideVerdict::CannotTell(_) => "cannot tell".to_owned(),
        SideVerdict::NotJudged => "not judged".to_owned(),
    }
}
