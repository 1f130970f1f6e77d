//! The VPC CNI's settings, from the environment of its own pod on this node. Only literal values of the settings listed here
//! are kept. <https://github.com/aws/amazon-vpc-cni-k8s#cni-configuration-variables>

use agent_core::capacity::{CniEnvironment, IpamSettings};
use agent_core::facts::WorkloadRef;

use super::container::known;
use super::shapes::{PodSpec, Variable};

/// Where AWS installs the CNI, and what its daemon set and its container are called.
const NAMESPACE: &str = "kube-system";
const NAME: &str = "aws-node";

/// What the CNI is set to; `None`: this is not its pod.
pub(super) fn environment(namespace: &str, owner: &WorkloadRef, spec: &PodSpec) -> Option<Box<CniEnvironment>> {
    let is_cni = namespace == NAMESPACE && &*owner.kind == "DaemonSet" && &*owner.name == NAME;
    let container = spec.containers.iter().find(|container| is_cni && container.name == NAME)?;
    let mut found = CniEnvironment { partial: !container.env_from.is_empty(), ..CniEnvironment::default() };
    for variable in &container.env {
        // Of two with one name the later counts, as for the kubelet.
        found.partial |= !set(&mut found.settings, variable, known(variable));
    }
    Some(Box::new(found))
}

/// Takes over one variable; true when it is no setting of interest, or one whose value is known.
fn set(settings: &mut IpamSettings, variable: &Variable, is_literal: bool) -> bool {
    let number = || variable.value.trim().parse::<u32>().ok().filter(|_| is_literal);
    // To ipamd a target of addresses of 0 is one that is not set.
    let target = || number().filter(|target| *target > 0);
    let flag = || is_literal && flag(&variable.value);
    match variable.name.as_str() {
        "WARM_ENI_TARGET" => settings.warm_eni_target = number(),
        "WARM_IP_TARGET" => settings.warm_ip_target = target(),
        "MINIMUM_IP_TARGET" => settings.minimum_ip_target = target(),
        "WARM_PREFIX_TARGET" => settings.warm_prefix_target = number(),
        "MAX_ENI" => settings.max_eni = target(),
        "ENABLE_PREFIX_DELEGATION" => settings.prefix_delegation = flag(),
        "ENABLE_POD_ENI" => settings.pod_eni = flag(),
        "AWS_VPC_K8S_CNI_CUSTOM_NETWORK_CFG" => settings.custom_networking = flag(),
        "ENABLE_IPv6" => settings.ipv6 = flag(),
        "AWS_VPC_K8S_CNI_EXTERNALSNAT" => settings.external_snat = is_literal.then(flag),
        "POD_SECURITY_GROUP_ENFORCING_MODE" => {
            settings.enforcing_mode = is_literal.then(|| super::cut(&variable.value).into());
        }
        _ => return true,
    }
    is_literal
}

/// What Go's `strconv.ParseBool` takes for true; everything else is off, as to ipamd.
fn flag(text: &str) -> bool {
    matches!(text, "1" | "t" | "T" | "true" | "TRUE" | "True")
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn of(namespace: &str, owner: &str, spec: Value) -> Option<CniEnvironment> {
        let owner = WorkloadRef { kind: "DaemonSet".into(), name: owner.into() };
        let spec: PodSpec = serde_json::from_value(spec).expect("a pod's spec");
        environment(namespace, &owner, &spec).map(|found| *found)
    }

    fn aws_node(env: &Value) -> CniEnvironment {
        let spec = json!({"containers": [
            {"name": "aws-eks-nodeagent", "env": [{"name": "WARM_IP_TARGET", "value": "99"}]},
            {"name": "aws-node", "env": env},
        ]});
        of("kube-system", "aws-node", spec).expect("the CNI's pod")
    }

    #[test]
    fn literal_settings_are_read_and_nothing_else() {
        let found = aws_node(&json!([
            {"name": "MINIMUM_IP_TARGET", "value": "1"}, {"name": "MINIMUM_IP_TARGET", "value": "12"},
            {"name": "WARM_IP_TARGET", "value": "0"}, {"name": "WARM_ENI_TARGET", "value": "many"},
            {"name": "WARM_PREFIX_TARGET", "value": "2"}, {"name": "MAX_ENI", "value": "-1"},
            {"name": "ENABLE_PREFIX_DELEGATION", "value": "true"}, {"name": "ENABLE_POD_ENI", "value": "yes"},
            {"name": "AWS_VPC_K8S_CNI_EXTERNALSNAT", "value": "false"},
            {"name": "MY_NODE_NAME", "valueFrom": {"fieldRef": {"fieldPath": "spec.nodeName"}}},
            {"name": "SOME_PASSWORD", "value": "hunter2"},
        ]));
        let settings = IpamSettings {
            minimum_ip_target: Some(12),
            warm_prefix_target: Some(2),
            prefix_delegation: true,
            external_snat: Some(false),
            ..IpamSettings::default()
        };
        assert_eq!(found, CniEnvironment { settings, partial: false });
    }

    #[test]
    fn what_comes_from_elsewhere_is_not_known() {
        let found = aws_node(&json!([
            {"name": "WARM_IP_TARGET", "valueFrom": {"configMapKeyRef": {"name": "c", "key": "k"}}},
            {"name": "MINIMUM_IP_TARGET", "value": "$(OTHER)"},
        ]));
        assert_eq!(found, CniEnvironment { partial: true, ..CniEnvironment::default() });
        let spec = json!({"containers": [{"name": "aws-node", "envFrom": [{"configMapRef": {"name": "c"}}]}]});
        assert!(of("kube-system", "aws-node", spec).expect("the CNI's pod").partial);
    }

    #[test]
    fn another_pod_is_not_the_cni() {
        let spec = json!({"containers": [{"name": "aws-node", "env": [{"name": "WARM_IP_TARGET", "value": "5"}]}]});
        assert!(of("kube-system", "aws-node", spec.clone()).is_some());
        assert_eq!(of("shop", "aws-node", spec.clone()), None);
        assert_eq!(of("kube-system", "impostor", spec), None);
        assert_eq!(of("kube-system", "aws-node", json!({"containers": [{"name": "other"}]})), None);
    }
}
