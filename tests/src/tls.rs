//! A scraper that speaks TLS and verifies what it is shown.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::{CertificateDer, ServerName};
use tokio_rustls::rustls::{ClientConfig, RootCertStore};

/// For one answer.
const TIMEOUT: Duration = Duration::from_secs(20);

/// A certificate for loopback that nobody signed, in files.
#[derive(Debug)]
pub struct Certificate {
    der: CertificateDer<'static>,
}

impl Certificate {
    /// Writes one and its key (PEM).
    pub fn write(certificate: &Path, key: &Path) -> Result<Self> {
        let made = rcgen::generate_simple_self_signed(vec!["127.0.0.1".to_owned()]).context("make a certificate")?;
        std::fs::write(certificate, made.cert.pem()).context("write a certificate")?;
        std::fs::write(key, made.signing_key.serialize_pem()).context("write a key")?;
        Ok(Self { der: made.cert.der().clone() })
    }

    /// GETs a path of whoever shows this certificate on loopback; status and body.
    pub fn get(&self, address: SocketAddr, path: &str, token: Option<&str>) -> Result<(u16, String)> {
        let mut roots = RootCertStore::empty();
        roots.add(self.der.clone()).context("trust a certificate")?;
        let config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .context("choose versions of TLS")?
            .with_root_certificates(roots)
            .with_no_client_auth();
        let authorization = token.map(|token| format!("Authorization: Bearer {token}\r\n")).unwrap_or_default();
        let request = format!("GET {path} HTTP/1.1\r\nHost: {address}\r\n{authorization}Connection: close\r\n\r\n");
        let exchange = async {
            let stream =
                tokio::net::TcpStream::connect(address).await.with_context(|| format!("connect to {address}"))?;
            let name = ServerName::try_from("127.0.0.1").context("name the server")?;
            let mut stream = TlsConnector::from(Arc::new(config)).connect(name, stream).await.context("shake hands")?;
            stream.write_all(request.as_bytes()).await.context("send a request")?;
            let mut answer = String::new();
            stream.read_to_string(&mut answer).await.context("read an answer")?;
            Ok::<_, anyhow::Error>(answer)
        };
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().context("build a runtime")?;
        let answer = runtime.block_on(async { tokio::time::timeout(TIMEOUT, exchange).await });
        let answer = answer.with_context(|| format!("no answer to {path}"))??;
        let (head, body) = answer.split_once("\r\n\r\n").with_context(|| format!("no head in the answer to {path}"))?;
        let status = head.split(' ').nth(1).and_then(|status| status.parse().ok()).context("no status")?;
        Ok((status, body.to_owned()))
    }
}
