//! The calls that are made: what each gives, and the actions that the role's policy must allow for them.

use agent_core::facts::Ec2Call;

/// The actions of a call, without `ec2:`.
pub(crate) const fn actions(call: Ec2Call) -> &'static [&'static str] {
    match call {
        Ec2Call::NetworkInterfaces => &["DescribeNetworkInterfaces"],
        Ec2Call::SecurityGroups => &["DescribeSecurityGroups"],
        Ec2Call::SecurityGroupRules => &["DescribeSecurityGroupRules"],
        Ec2Call::PrefixLists => &["DescribeManagedPrefixLists", "GetManagedPrefixListEntries"],
        Ec2Call::Subnets => &["DescribeSubnets"],
        Ec2Call::Vpcs => &["DescribeVpcs"],
        Ec2Call::InstanceTypes => &["DescribeInstanceTypes"],
    }
}

/// What is lost without a call.
pub(crate) const fn gives(call: Ec2Call) -> &'static str {
    match call {
        Ec2Call::NetworkInterfaces => "groups of interfaces and owners of peers' addresses",
        Ec2Call::SecurityGroups => "security groups and their rules",
        Ec2Call::SecurityGroupRules => "ids of rules",
        Ec2Call::PrefixLists => "addresses of the prefix lists that rules name",
        Ec2Call::Subnets => "free addresses of subnets",
        Ec2Call::Vpcs => "address ranges of the VPC",
        Ec2Call::InstanceTypes => "figures of instance types that this version does not know",
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    /// The policy that is shipped allows what is called and nothing more.
    #[test]
    fn the_shipped_policy_is_what_is_called() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../deploy/iam/ec2-read.json");
        let policy: serde_json::Value = serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap();
        let [statement] = policy["Statement"].as_array().unwrap().as_slice() else { panic!("one statement") };
        assert_eq!((statement["Effect"].as_str(), statement["Resource"].as_str()), (Some("Allow"), Some("*")));
        let allowed: Vec<&str> =
            statement["Action"].as_array().unwrap().iter().map(|one| one.as_str().unwrap()).collect();
        assert!(allowed.is_sorted(), "{allowed:?}");
        let called: BTreeSet<String> =
            Ec2Call::ALL.into_iter().flat_map(actions).map(|action| format!("ec2:{action}")).collect();
        assert_eq!(allowed.into_iter().map(str::to_owned).collect::<BTreeSet<_>>(), called);
    }
}
