//! Kubeconfig files: where an API server is, how to know it, and who one is.

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use serde_json::json;

use super::certificates::Identity;

/// How a client shows who it is.
#[derive(Clone, Debug)]
pub enum Credentials {
    /// By a certificate.
    Certificate(Identity),
    /// By a token that stands in a file and may change there, as in a pod.
    TokenFile(PathBuf),
}

/// Writes a kubeconfig. JSON is YAML.
pub fn write(path: &Path, server: SocketAddr, authority: &Path, credentials: &Credentials) -> Result<()> {
    let user = match credentials {
        Credentials::Certificate(identity) => {
            json!({ "client-certificate": identity.certificate, "client-key": identity.key })
        }
        Credentials::TokenFile(file) => json!({ "tokenFile": file }),
    };
    let config = json!({
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{
            "name": "test",
            "cluster": { "server": format!("https://{server}"), "certificate-authority": authority },
        }],
        "users": [{ "name": "test", "user": user }],
        "contexts": [{ "name": "test", "context": { "cluster": "test", "user": "test" } }],
        "current-context": "test",
    });
    fs::write(path, format!("{config:#}\n")).with_context(|| format!("write {}", path.display()))
}
