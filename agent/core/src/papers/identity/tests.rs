//! Ways to an identity, and what admission makes of a manifest.

use super::*;
use crate::facts::{IdentityEnv, PolicyFacts};
use crate::papers::admission::admitted;
use crate::papers::demand::{Demand, demanded};
use crate::papers::testing::{account, container, labels, pod, policy};

const ROLE: &str = "arn:aws:iam::111122223333:role/cart";

fn literal(text: &str) -> Value {
    Value::Literal(text.into())
}

fn of(identity: IdentityEnv) -> PodFacts {
    PodFacts { containers: vec![ContainerFacts { identity, ..container("web") }], ..pod() }
}

fn kind(pod: &PodFacts) -> Kind {
    of_pod(pod, Account::Unknown).kind
}

#[test]
fn ways_to_an_identity_in_the_order_of_the_sdks() {
    let mut env = IdentityEnv::default();
    assert_eq!(kind(&of(env.clone())), Kind::None);
    env.env_from = true;
    assert_eq!(kind(&of(env.clone())), Kind::Unknown);
    env.container_credentials_uri = Some(literal("http://169.254.170.23/v1/credentials"));
    assert_eq!(kind(&of(env.clone())), Kind::PodIdentity);
    env.role_arn = Some(literal(ROLE));
    assert_eq!(kind(&of(env.clone())), Kind::PodIdentity, "a role without a token is none");
    env.web_identity_token_file = Some(Value::Referenced);
    let irsa = of_pod(&of(env.clone()), Account::Unknown);
    assert_eq!((irsa.kind, irsa.role.as_deref(), irsa.is_own()), (Kind::Irsa, Some(ROLE), Some(true)));
    env.access_key_id = true;
    let keys = of_pod(&of(env), Account::Unknown);
    assert_eq!((keys.kind, keys.role), (Kind::Static, None));
    assert_eq!(keys.evidence[0].field, "spec.containers[web].env");
}

#[test]
fn credentials_from_elsewhere_are_unknown() {
    for uri in ["http://localhost/x", "http://169.254.170.2/v2/credentials", "http://169.254.170.23.example/x"] {
        let pod = of(IdentityEnv { container_credentials_uri: Some(literal(uri)), ..IdentityEnv::default() });
        assert_eq!(of_pod(&pod, Account::Unknown).is_own(), None, "{uri}");
    }
}

#[test]
fn the_host_network_has_the_nodes_role_unless_it_has_its_own() {
    assert_eq!(kind(&PodFacts { host_network: true, ..pod() }), Kind::NodeRole);
    let env = IdentityEnv { access_key_id: true, ..IdentityEnv::default() };
    assert_eq!(kind(&PodFacts { host_network: true, ..of(env) }), Kind::Static);
}

#[test]
fn a_role_that_was_meant_and_missed_is_its_own() {
    let account = account(Some(ROLE));
    let missed = of_pod(&pod(), Account::Known(&account));
    assert_eq!((missed.kind, missed.missed.as_deref(), missed.is_own()), (Kind::None, Some(ROLE), Some(true)));
    // A container that was left out on purpose has none, and none was meant for it.
    let skipped = PodFacts { skip_containers: vec!["web".to_owned()], ..pod() };
    assert_eq!(of_pod(&skipped, Account::Known(&account)).is_own(), Some(false));
}

#[test]
fn containers_with_different_identities_are_all_named() {
    let keys = ContainerFacts {
        identity: IdentityEnv { access_key_id: true, ..IdentityEnv::default() },
        kind: ContainerKind::Sidecar,
        ..container("proxy")
    };
    let init = ContainerFacts { kind: ContainerKind::Init, ..container("setup") };
    let identity = of_pod(&PodFacts { containers: vec![init, keys, container("web")], ..pod() }, Account::Unknown);
    assert_eq!(identity.kind, Kind::Static);
    assert_eq!(identity.why, "container proxy: access key in its environment; container web: no identity of its own");
    assert_eq!(kind(&PodFacts { containers: Vec::new(), ..pod() }), Kind::Unknown);
}

// === admission ===

fn manifest() -> PodFacts {
    let debug = ContainerFacts { kind: ContainerKind::Ephemeral, ..container("debug") };
    let init = ContainerFacts { kind: ContainerKind::Init, ..container("setup") };
    PodFacts { uid: None, containers: vec![init, container("web"), debug], ..pod() }
}

fn has(pod: &PodFacts, mechanism: fn(&ContainerFacts) -> bool) -> Vec<&str> {
    pod.containers.iter().filter(|container| mechanism(container)).map(|container| &*container.name).collect()
}

fn irsa(container: &ContainerFacts) -> bool {
    container.irsa_mount
        && container.identity.role_arn.is_some()
        && container.identity.web_identity_token_file.is_some()
}

fn association() -> Associations {
    Associations::Known([(("shop".into(), "cart".into()), None)].into())
}

fn admit(pod: &PodFacts, role: Option<&str>, associations: &Associations) -> PodFacts {
    admitted(pod, Account::Known(&account(role)), &Demand::default(), associations)
}

#[test]
fn the_webhook_injects_a_role_into_init_and_app_containers() {
    let found = admit(&manifest(), Some(ROLE), &Associations::Unknown);
    assert_eq!(has(&found, irsa), ["setup", "web"]);
    assert!(found.irsa_volume);
    assert_eq!(of_pod(&found, Account::Unknown).role.as_deref(), Some(ROLE));
    assert_eq!(admit(&manifest(), None, &Associations::Unknown), manifest());
}

#[test]
fn the_webhook_leaves_out_what_it_is_told() {
    let skipped = PodFacts { skip_containers: vec!["web".to_owned()], ..manifest() };
    assert_eq!(has(&admit(&skipped, Some(ROLE), &Associations::Unknown), irsa), ["setup"]);
    let off = PodFacts { skip_identity_webhook: true, ..manifest() };
    assert_eq!(admit(&off, Some(ROLE), &association()), off);
    let mut own = manifest();
    own.containers[1].identity.role_arn = Some(literal("arn:aws:iam::111122223333:role/own"));
    let found = admit(&own, Some(ROLE), &Associations::Unknown);
    assert_eq!(found.containers[1].identity, own.containers[1].identity);
}

#[test]
fn an_association_comes_before_a_role() {
    let found = admit(&manifest(), Some(ROLE), &association());
    assert_eq!(has(&found, irsa), [""; 0]);
    assert_eq!(of_pod(&found, Account::Unknown).kind, Kind::PodIdentity);
    assert!(found.pod_identity_label && found.pod_identity_volume && !found.irsa_volume);
    let other = PodFacts { service_account: "pay".into(), ..manifest() };
    assert_eq!(of_pod(&admit(&other, None, &association()), Account::Unknown).kind, Kind::None);
}

#[test]
fn the_webhook_asks_for_a_branch_interface_on_linux() {
    let policies: Vec<Arc<PolicyFacts>> = vec![Arc::new(policy("cart", &["sg-1"]))];
    let limits = |pod: PodFacts| {
        let demand = demanded(&pod, Account::Unknown, Some(&policies));
        let found = admitted(&pod, Account::Unknown, &demand, &Associations::Unknown);
        (found.branch_limit, found.first_container_branch_limit)
    };
    assert_eq!(limits(manifest()), (1, true));
    assert_eq!(limits(PodFacts { labels: labels(&[]), ..manifest() }), (0, false));
    assert_eq!(limits(PodFacts { host_network: true, ..manifest() }), (0, false));
    assert_eq!(limits(PodFacts { fargate: true, ..manifest() }), (0, false));
    assert_eq!(limits(PodFacts { windows: true, ..manifest() }), (0, false));
    let by_hand = PodFacts { branch_limit: 1, first_container_branch_limit: true, ..manifest() };
    assert_eq!(limits(by_hand), (1, true));
}
