//! When each credentials rule holds, and when it keeps silent.

use super::*;
use crate::facts::{ContainerKind, IdentityEnv, Value};
use crate::finding::Violation;
use crate::papers::testing::{account, at, container, pod, violation};

const ROLE: &str = "arn:aws:iam::111122223333:role/cart";

fn irsa(pod: &PodFacts, account: &ServiceAccountFacts) -> Verdict {
    irsa_not_injected(pod, Account::Known(account))
}

fn annotated_at(seconds: i64) -> ServiceAccountFacts {
    ServiceAccountFacts { role_changed: Some(at(seconds)), ..account(Some(ROLE)) }
}

fn literal(text: &str) -> Value {
    Value::Literal(text.into())
}

fn with(name: &str, identity: IdentityEnv) -> ContainerFacts {
    ContainerFacts { identity, ..container(name) }
}

fn irsa_env() -> IdentityEnv {
    IdentityEnv {
        role_arn: Some(literal(ROLE)),
        web_identity_token_file: Some(literal("/token")),
        ..IdentityEnv::default()
    }
}

fn pod_identity_env() -> IdentityEnv {
    IdentityEnv {
        container_credentials_uri: Some(literal("http://169.254.170.23/v1/credentials")),
        container_token_file: Some(literal("/token")),
        ..IdentityEnv::default()
    }
}

// === irsa-not-injected ===

#[test]
fn a_role_that_was_not_injected() {
    let verdict = irsa(&pod(), &annotated_at(100));
    let Violation { severity, cause, text, evidence } = violation(&verdict);
    assert_eq!((*severity, *cause), (Severity::Medium, "webhook_missed"));
    assert!(text.contains(ROLE), "{text}");
    assert_eq!(evidence[0].object, "ServiceAccount shop/cart");
    assert_eq!(evidence[0].value, ROLE);
}

#[test]
fn an_account_that_was_annotated_later_asks_for_a_restart() {
    for seconds in [200, 300] {
        let verdict = irsa(&pod(), &annotated_at(seconds));
        assert_eq!(violation(&verdict).cause, "annotated_later");
        assert!(violation(&verdict).text.contains("restart the pod"));
    }
    let made_later = ServiceAccountFacts { created: Some(at(300)), ..account(Some(ROLE)) };
    assert_eq!(violation(&irsa(&pod(), &made_later)).cause, "annotated_later");
    // Nobody tells when.
    assert_eq!(violation(&irsa(&pod(), &account(Some(ROLE)))).cause, "unknown");
}

#[test]
fn irsa_keeps_silent() {
    let account = annotated_at(100);
    let of = |containers: Vec<ContainerFacts>| PodFacts { containers, ..pod() };
    let silent = [
        // One container that has it is enough; the others may not want it.
        of(vec![container("helper"), with("web", irsa_env())]),
        of(vec![with("web", pod_identity_env())]),
        of(vec![ContainerFacts { pod_identity_mount: true, ..container("web") }]),
        PodFacts { pod_identity_label: true, ..pod() },
        PodFacts { skip_identity_webhook: true, ..pod() },
        PodFacts { skip_containers: vec!["web".to_owned()], ..pod() },
        // Set by the user, whatever it is.
        of(vec![with("web", IdentityEnv { role_arn: Some(Value::Referenced), ..IdentityEnv::default() })]),
        of(vec![with("web", IdentityEnv { access_key_id: true, ..IdentityEnv::default() })]),
        PodFacts { phase: Some(Phase::Succeeded), ..pod() },
        PodFacts { phase: Some(Phase::Failed), ..pod() },
        // Not admitted yet.
        PodFacts { uid: None, ..pod() },
    ];
    for pod in &silent {
        assert_eq!(irsa(pod, &account), Verdict::Holds, "{pod:?}");
    }
    assert_eq!(irsa(&pod(), &super::super::testing::account(None)), Verdict::Holds);
    assert_eq!(irsa(&pod(), &super::super::testing::account(Some(""))), Verdict::Holds);
}

#[test]
fn irsa_cannot_tell() {
    let env_from = with("web", IdentityEnv { env_from: true, ..IdentityEnv::default() });
    let verdict = irsa(&PodFacts { containers: vec![env_from], ..pod() }, &annotated_at(100));
    assert_eq!(verdict, Verdict::CannotTell(why::ENVIRONMENT));
    assert_eq!(irsa_not_injected(&pod(), Account::Unknown), Verdict::CannotTell(why::ACCOUNT));
    assert_eq!(irsa_not_injected(&pod(), Account::Gone), Verdict::CannotTell(why::ACCOUNT_GONE));
    // What a pod has, it has whatever its account says.
    let injected = PodFacts { containers: vec![with("web", irsa_env())], ..pod() };
    assert_eq!(irsa_not_injected(&injected, Account::Unknown), Verdict::Holds);
}

#[test]
fn a_debug_container_is_not_eligible() {
    let debug = ContainerFacts { kind: ContainerKind::Ephemeral, ..with("debug", irsa_env()) };
    let verdict = irsa(&PodFacts { containers: vec![container("web"), debug], ..pod() }, &annotated_at(100));
    violation(&verdict);
}

// === identity-conflict ===

#[test]
fn ones_own_variables_before_pod_identity() {
    let conflict = |identity| conflict(&pod(), &with("web", identity));
    let keys = IdentityEnv { access_key_id: true, ..pod_identity_env() };
    assert_eq!(violation(&conflict(keys)).cause, "access_key");
    let token = IdentityEnv {
        role_arn: Some(literal(ROLE)),
        web_identity_token_file: Some(literal("/t")),
        ..pod_identity_env()
    };
    assert_eq!(violation(&conflict(token.clone())).cause, "web_identity");
    assert_eq!(violation(&conflict(token)).severity, Severity::Medium);
    let v6 = IdentityEnv {
        container_credentials_uri: Some(literal("http://[fd00:ec2::23]/v1/credentials")),
        access_key_id: true,
        ..IdentityEnv::default()
    };
    violation(&conflict(v6));
}

#[test]
fn conflict_keeps_silent() {
    let conflict = |identity| conflict(&pod(), &with("web", identity));
    // An account with a role beside an association is healthy: the webhook injects one of them.
    assert_eq!(conflict(pod_identity_env()), Verdict::Holds);
    assert_eq!(conflict(irsa_env()), Verdict::Holds);
    // A role without a token is passed over by the SDKs.
    assert_eq!(conflict(IdentityEnv { role_arn: Some(literal(ROLE)), ..pod_identity_env() }), Verdict::Holds);
    assert_eq!(conflict(IdentityEnv { access_key_id: true, ..IdentityEnv::default() }), Verdict::Holds);
    // Credentials of ECS, or of a program of one's own.
    let other = IdentityEnv {
        container_credentials_uri: Some(literal("http://localhost:8080/creds")),
        access_key_id: true,
        ..IdentityEnv::default()
    };
    assert_eq!(conflict(other), Verdict::Holds);
    let env_from = IdentityEnv { env_from: true, ..pod_identity_env() };
    assert_eq!(conflict(env_from), Verdict::CannotTell(why::ENVIRONMENT));
}

// === static-credentials ===

#[test]
fn a_long_term_key_in_the_environment() {
    let keys = vec![("AWS_ACCESS_KEY_ID".to_owned(), "AKIAIOSFODNN7EXAMPLE".to_owned())];
    let verdict = static_keys(&pod(), &with("web", IdentityEnv { static_keys: keys, ..IdentityEnv::default() }));
    assert_eq!((violation(&verdict).severity, violation(&verdict).cause), (Severity::High, "access_key"));
    assert_eq!(violation(&verdict).evidence[0].value, "AKIAIOSFODNN7EXAMPLE");
    assert!(violation(&verdict).text.contains("in AWS_ACCESS_KEY_ID:"));
}

#[test]
fn static_credentials_keep_silent() {
    let found = |identity| static_keys(&pod(), &with("web", identity));
    // A key of MinIO or LocalStack is set and is no long-term key of AWS.
    let local = IdentityEnv { access_key_id: true, secret_access_key: true, ..IdentityEnv::default() };
    assert_eq!(found(local), Verdict::Holds);
    let secret = IdentityEnv { access_key_id: true, access_key_id_referenced: true, ..IdentityEnv::default() };
    assert_eq!(found(secret), Verdict::CannotTell(why::KEY));
    assert_eq!(found(IdentityEnv::default()), Verdict::Holds);
    // A pod that is over uses nothing any more.
    let key = IdentityEnv {
        static_keys: vec![("AWS_ACCESS_KEY_ID".into(), "AKIAIOSFODNN7EXAMPLE".into())],
        ..IdentityEnv::default()
    };
    for phase in [Phase::Succeeded, Phase::Failed] {
        let over = PodFacts { phase: Some(phase), ..pod() };
        assert_eq!(static_keys(&over, &with("web", key.clone())), Verdict::Holds);
    }
    assert!(matches!(found(key), Verdict::Violated(_)));
}
