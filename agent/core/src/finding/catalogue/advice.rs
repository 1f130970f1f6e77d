//! Advice for causes that the advice of their code does not fit.

use crate::finding::Code;

/// Code, cause and what to do about it. Every other cause has its code's advice.
const BY_CAUSE: &[(Code, &str, &str)] = &[
    (
        Code::SgpNotEnforced,
        "host_network",
        "Nothing gives a pod on the host's network groups of its own. Take the pod off the host's network, or leave it out of the policy's selector; where it belongs there, accept the finding by a waiver.",
    ),
    (
        Code::SgpNotEnforced,
        "unsupported_node",
        "Run the pod on a node that can have branch interfaces: a type with a trunk, Linux, and a node group with security groups for pods switched on. On this node a successor will lack its groups too.",
    ),
    (
        Code::SgpOrphaned,
        "limit_by_hand",
        "Take the limit vpc.amazonaws.com/pod-eni out of the pod's manifest, or write a policy that selects the pod. A pod made anew from the same manifest takes a branch interface again, and those are scarce (see `sekisho capacity`).",
    ),
    (
        Code::SgpDnsBlocked,
        "node_local_dns",
        "No group rule opens that way. Let the pod ask CoreDNS instead (dnsPolicy and dnsConfig in its spec), or use standard mode and make the pod anew.",
    ),
    (
        Code::SgpDnsBlocked,
        "groups_or_network_policy",
        "See that the NetworkPolicy lets the pod reach CoreDNS on TCP and UDP 53, and that the pod's group and CoreDNS's group do, on both sides.",
    ),
    (
        Code::MetadataUnanswered,
        "link_local_throttled",
        "Ask the link-local services less often: DNS, NTP and the metadata service share 1,024 packets a second on an interface. Keep credentials until they end, and cache DNS on the node.",
    ),
];

pub(super) fn of_cause(code: Code, cause: &str) -> Option<&'static str> {
    BY_CAUSE.iter().find(|(of, name, _)| (*of, *name) == (code, cause)).map(|(.., advice)| *advice)
}

/// All of a code: cause and advice.
pub(super) fn of_code(code: Code) -> impl Iterator<Item = (&'static str, &'static str)> {
    BY_CAUSE.iter().filter(move |(of, ..)| *of == code).map(|(_, cause, advice)| (*cause, *advice))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_is_for_a_cause_of_its_code_and_says_something_else() {
        for (code, cause, advice) in BY_CAUSE {
            assert!(code.entry().causes.iter().any(|(name, _)| name == cause), "{}: {cause}", code.name());
            assert_eq!(code.advice(cause), *advice);
            assert_ne!(*advice, code.entry().advice, "{}: {cause}", code.name());
        }
        assert_eq!(Code::SgpNotEnforced.advice("webhook_missed"), Code::SgpNotEnforced.entry().advice);
    }

    #[test]
    fn nobody_is_told_to_make_a_pod_anew_that_would_come_back_the_same() {
        for (code, cause) in [(Code::SgpNotEnforced, "host_network"), (Code::SgpNotEnforced, "unsupported_node")] {
            assert!(!code.advice(cause).to_lowercase().contains("make the pod anew"), "{cause}");
        }
    }
}
