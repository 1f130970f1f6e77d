//! Tokens of service accounts with any end, signed as the API server signs them.

use std::path::Path;
use std::time::{Duration, SystemTime};

use anyhow::{Context, Result};
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use serde_json::json;

use super::control_plane::ISSUER;

/// The API server takes a token for so long after its end, for clocks that differ
/// (<https://github.com/square/go-jose/blob/v2.2.2/jwt/validation.go>, `DefaultLeeway`).
const LEEWAY: Duration = Duration::from_mins(1);

/// How long a token was good before; longer than any clock is wrong.
const AGE: Duration = Duration::from_hours(1);

/// A token that the server takes for so many seconds more.
pub(super) fn sign(key: &Path, namespace: &str, name: &str, uid: &str, seconds: u64) -> Result<String> {
    let pem = std::fs::read(key).with_context(|| format!("read {}", key.display()))?;
    let key = EncodingKey::from_ec_pem(&pem).context("read the key that signs tokens")?;
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).context("a clock before 1970")?;
    let end = now.as_secs() + seconds - LEEWAY.as_secs();
    let begin = now.as_secs() - AGE.as_secs();
    let claims = json!({
        "iss": ISSUER,
        "aud": [ISSUER],
        "sub": format!("system:serviceaccount:{namespace}:{name}"),
        "iat": begin,
        "nbf": begin,
        "exp": end,
        "kubernetes.io": { "namespace": namespace, "serviceaccount": { "name": name, "uid": uid } },
    });
    jsonwebtoken::encode(&Header::new(Algorithm::ES256), &claims, &key).context("sign a token")
}
