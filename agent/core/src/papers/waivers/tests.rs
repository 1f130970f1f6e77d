//! What a waiver accepts and what it does not.

use super::*;
use crate::facts::ContainerFacts;
use crate::papers::testing::{at, container, pod};

const NODE_CREDENTIALS: Code = Code::NodeCredentialsTaken;
const CNI: &str = "602401143452.dkr.ecr.eu-west-1.amazonaws.com/amazon-k8s-cni:v1.23.1-eksbuild.1";

fn waiver(change: impl FnOnce(&mut Waiver)) -> Waiver {
    let mut waiver = Waiver { reason: "known".to_owned(), ..Waiver::default() };
    change(&mut waiver);
    waiver
}

fn accepted(waiver: &Waiver, code: Code) -> bool {
    let pod = pod();
    accepting(std::slice::from_ref(waiver), code, &Who::of(&pod, None), at(1_000)).is_some()
}

#[test]
fn all_that_a_waiver_names_must_match() {
    let full = waiver(|waiver| {
        waiver.code = Some(NODE_CREDENTIALS);
        waiver.namespace = Some("shop".to_owned());
        waiver.service_account = Some("cart".to_owned());
        waiver.workload = Some("StatefulSet/cart".to_owned());
        waiver.image = Some("example.com/cart".to_owned());
    });
    assert!(accepted(&full, NODE_CREDENTIALS));
    assert!(!accepted(&full, Code::UserDataRead));
    let spoils: [fn(&mut Waiver); 6] = [
        |waiver| waiver.namespace = Some("shop*".to_owned()),
        |waiver| waiver.service_account = Some("default".to_owned()),
        |waiver| waiver.workload = Some("Deployment/cart".to_owned()),
        |waiver| waiver.workload = Some("cart-0".to_owned()),
        |waiver| waiver.image = Some("cart".to_owned()),
        |waiver| waiver.image = Some("example.com/ca".to_owned()),
    ];
    for spoil in spoils {
        let mut spoiled = full.clone();
        spoil(&mut spoiled);
        assert!(!accepted(&spoiled, NODE_CREDENTIALS), "{spoiled:?}");
    }
}

#[test]
fn one_scope_is_enough_and_none_is_an_error() {
    assert!(accepted(&waiver(|waiver| waiver.code = Some(NODE_CREDENTIALS)), NODE_CREDENTIALS));
    assert!(accepted(&waiver(|waiver| waiver.workload = Some("cart".to_owned())), NODE_CREDENTIALS));
    let nothing = waiver(|_| ());
    assert_eq!(nothing.check(), Err(WaiverError::NoScope));
    assert!(!accepted(&nothing, NODE_CREDENTIALS), "one that was not checked accepts nothing");
    assert_eq!(waiver(|waiver| waiver.namespace = Some(String::new())).check(), Err(WaiverError::NoScope));
    let unreasoned = Waiver { reason: " ".to_owned(), ..waiver(|waiver| waiver.namespace = Some("shop".to_owned())) };
    assert_eq!(unreasoned.check(), Err(WaiverError::NoReason));
    for image in ["nginx:1", "nginx@sha256:00", "example.com:5000/a:b"] {
        assert_eq!(waiver(|waiver| waiver.image = Some(image.to_owned())).check(), Err(WaiverError::Tag), "{image}");
    }
    assert_eq!(waiver(|waiver| waiver.image = Some("example.com:5000/a".to_owned())).check(), Ok(()));
}

#[test]
fn a_waiver_ends() {
    let until = |time| waiver(|waiver| (waiver.namespace, waiver.until) = (Some("shop".to_owned()), Some(time)));
    assert!(accepted(&until(at(1_001)), NODE_CREDENTIALS));
    assert!(!accepted(&until(at(1_000)), NODE_CREDENTIALS));
}

#[test]
fn a_day_holds_until_its_end() {
    let parse = |until: &str| {
        serde_json::from_value::<Waiver>(serde_json::json!({"namespace": "shop", "reason": "x", "until": until}))
            .map(|waiver| waiver.until)
    };
    assert_eq!(parse("1970-01-01").unwrap(), Some(at(86_400)));
    assert_eq!(parse("1970-01-02T00:00:01Z").unwrap(), Some(at(86_401)));
    for wrong in ["soon", "1970-02-30", "", "1970-01-01T00:00:00", "19700101"] {
        assert!(parse(wrong).is_err(), "{wrong}");
    }
    let misspelt = serde_json::json!({"namespaces": "shop", "reason": "x"});
    assert!(serde_json::from_value::<Waiver>(misspelt).is_err());
}

#[test]
fn repositories_are_compared_in_full() {
    for (image, repository) in [
        ("nginx", "docker.io/library/nginx"),
        ("nginx:1.27", "docker.io/library/nginx"),
        ("jtblin/kube2iam:0.10", "docker.io/jtblin/kube2iam"),
        ("example.com/a/b@sha256:12", "example.com/a/b"),
        ("example.com:5000/a:1@sha256:12", "example.com:5000/a"),
        ("localhost/a", "localhost/a"),
        ("", "docker.io/library/"),
    ] {
        assert_eq!(repository_of(image), repository, "{image}");
    }
}

#[test]
fn of_a_pod_all_images_must_match() {
    let mut pod = pod();
    pod.containers.push(ContainerFacts { image: "example.com/other:1".into(), ..container("helper") });
    let waiver = waiver(|waiver| waiver.image = Some("example.com/cart".to_owned()));
    let accepted =
        |container| accepting(std::slice::from_ref(&waiver), NODE_CREDENTIALS, &Who::of(&pod, container), at(0));
    assert_eq!(accepted(Some("web")), Some("known"));
    assert_eq!(accepted(Some("helper")), None);
    assert_eq!(accepted(None), None);
    assert_eq!(accepted(Some("no-such-container")), None);
}

#[test]
fn agents_of_aws_are_known_by_name_and_image() {
    let ask = |namespace, service_account, image, code| {
        let who = Who { namespace, service_account, workload: None, images: vec![image] };
        accepting(&[], code, &who, at(0)).is_some()
    };
    assert!(ask("kube-system", "aws-node", CNI, NODE_CREDENTIALS));
    assert!(ask("kube-system", "aws-node", CNI, Code::SgpNotEnforced));
    let china = "961992271922.dkr.ecr.cn-northwest-1.amazonaws.com.cn/amazon-k8s-cni:v1";
    assert!(ask("kube-system", "aws-node", china, NODE_CREDENTIALS));
    assert!(ask("kube-system", "kube2iam", "jtblin/kube2iam:0.10.9", Code::MetadataForwarded));
    // Names can be taken: by another account, in another namespace, with another image, in another registry.
    assert!(!ask("kube-system", "default", CNI, NODE_CREDENTIALS));
    assert!(!ask("shop", "aws-node", CNI, NODE_CREDENTIALS));
    for image in [
        "amazon-k8s-cni:v1",
        "999999999999.dkr.ecr.eu-west-1.amazonaws.com/amazon-k8s-cni:v1",
        "602401143452.dkr.ecr.eu-west-1.amazonaws.com.evil.example/amazon-k8s-cni:v1",
        "602401143452.dkr.ecr.eu-west-1.amazonaws.com/evil/amazon-k8s-cni:v1",
        "evil.example/602401143452.dkr.ecr.eu-west-1.amazonaws.com/amazon-k8s-cni:v1",
        "602401143452.dkr.ecr..amazonaws.com/amazon-k8s-cni:v1",
    ] {
        assert!(!ask("kube-system", "aws-node", image, NODE_CREDENTIALS), "{image}");
    }
    // Only what is its work.
    assert!(!ask("kube-system", "aws-node", CNI, Code::UserDataRead));
    assert!(!ask("kube-system", "aws-node", CNI, Code::StaticCredentials));
    // A foreign container beside it takes the pod's finding out of the waiver, and its own was never in it.
    let pod = PodFacts {
        namespace: "kube-system".into(),
        service_account: "aws-node".into(),
        containers: vec![ContainerFacts { image: CNI.into(), ..container("aws-node") }, container("helper")],
        ..pod()
    };
    let accepted = |container| accepting(&[], NODE_CREDENTIALS, &Who::of(&pod, container), at(0)).is_some();
    assert!(accepted(Some("aws-node")));
    assert!(!accepted(Some("helper")));
    assert!(!accepted(None));
}
