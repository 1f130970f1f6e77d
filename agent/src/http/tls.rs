//! The certificate that the server shows: from files, which are read again when they change, or one that it makes for
//! itself at its start and that nobody can verify. The key of the second is in memory alone and ends with the process.

use std::io::Read as _;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::Duration;

use rcgen::{CertificateParams, DistinguishedName, DnType, KeyPair};
use rustls::ServerConfig;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use rustls::server::{ClientHello, NoServerSessionStorage, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use sha2::{Digest as _, Sha256};
use tokio::time::{Instant, MissedTickBehavior};

/// Files are looked at this often. The kubelet brings a changed secret within a minute or two.
const LOOK: Duration = Duration::from_secs(30);
/// Longest file: a chain of a few certificates takes some KiB.
const FILE_BYTES_MAX: u64 = 1 << 20;

/// Files (PEM) with a certificate, those that lead from it to an authority, and its key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Files {
    /// Certificates, the server's own first.
    pub(crate) certificate: PathBuf,
    /// Its key.
    pub(crate) key: PathBuf,
}

/// What the server shows.
pub(crate) struct Tls {
    config: Arc<ServerConfig>,
    shown: Arc<Shown>,
    files: Option<Files>,
    /// What the files held when they were last looked at.
    seen: Mutex<Digest>,
    /// Why what they hold now is not shown.
    failing: Mutex<Option<String>>,
}

/// Why there is no certificate.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// A file.
    #[error("could not read {}, which metrics.tls_cert_file or metrics.tls_key_file names", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The form of a file.
    #[error("{} holds no {what} in PEM", path.display())]
    Pem {
        /// The file.
        path: PathBuf,
        /// What was looked for.
        what: &'static str,
    },
    /// The two files.
    #[error("{} and {} cannot be used together", .0.certificate.display(), .0.key.display())]
    Pair(Files, #[source] rustls::Error),
    /// One that was made.
    #[error("could not make a certificate")]
    Make(#[source] rcgen::Error),
    /// TLS itself.
    #[error("could not set up TLS")]
    Setup(#[source] rustls::Error),
}

type Digest = [u8; 32];

/// The certificate of the next handshake.
struct Shown(RwLock<Arc<CertifiedKey>>);

// === impl Tls ===

impl Tls {
    /// By files.
    pub(crate) fn of_files(files: Files) -> Result<Self, Error> {
        let (seen, certified) = read(&files)?;
        Self::new(certified, Some(files), seen)
    }

    /// By a certificate of its own, for these names and addresses.
    pub(crate) fn self_signed(names: &[&str], address: IpAddr) -> Result<Self, Error> {
        Self::new(make(names, address)?, None, Digest::default())
    }

    fn new(certified: CertifiedKey, files: Option<Files>, seen: Digest) -> Result<Self, Error> {
        let shown = Arc::new(Shown(RwLock::new(Arc::new(certified))));
        let mut config = ServerConfig::builder_with_provider(Arc::new(provider()))
            .with_safe_default_protocol_versions()
            .map_err(Error::Setup)?
            .with_no_client_auth()
            .with_cert_resolver(Arc::clone(&shown) as Arc<dyn ResolvesServerCert>);
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        // A scrape is a connection: nothing to resume, and nothing to remember.
        config.session_storage = Arc::new(NoServerSessionStorage {});
        config.send_tls13_tickets = 0;
        Ok(Self { config: Arc::new(config), shown, files, seen: Mutex::new(seen), failing: Mutex::default() })
    }

    /// The certificate that is shown now.
    #[cfg(test)]
    pub(super) fn certificate(&self) -> CertificateDer<'static> {
        self.shown.0.read().unwrap_or_else(PoisonError::into_inner).cert[0].clone()
    }

    /// For an acceptor.
    pub(super) fn config(&self) -> Arc<ServerConfig> {
        Arc::clone(&self.config)
    }

    /// Where the certificate is from.
    pub(crate) fn origin(&self) -> String {
        match &self.files {
            Some(files) => format!("certificate of {}", files.certificate.display()),
            None => "a certificate of its own, which nobody can verify".to_owned(),
        }
    }

    /// Why the files' present content is not shown; an earlier one is.
    pub(crate) fn failing(&self) -> Option<String> {
        self.failing.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Looks after the files for ever.
    pub(super) async fn keep(self: &Arc<Self>) {
        if self.files.is_none() {
            return std::future::pending().await;
        }
        // What was just read needs no look at once.
        let mut looks = tokio::time::interval_at(Instant::now() + LOOK, LOOK);
        looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            looks.tick().await;
            let tls = Arc::clone(self);
            // A disk that stands still must not hold the server up; whatever else fails is told at the next look.
            let _ = tokio::task::spawn_blocking(move || tls.look()).await;
        }
    }

    /// Takes what stands in the files now, if that is new and can be used.
    pub(super) fn look(&self) {
        let Some(files) = &self.files else { return };
        let failing = match read(files) {
            Ok((now, certified)) => {
                let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
                if *seen != now {
                    *seen = now;
                    *self.shown.0.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(certified);
                    tracing::info!(path = %files.certificate.display(), "the certificate of /metrics is a new one");
                }
                None
            }
            Err(error) => Some(crate::lines::chain(&error)),
        };
        let mut before = self.failing.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(error) = failing.as_ref().filter(|error| before.as_ref() != Some(*error)) {
            tracing::warn!(%error, "the certificate of /metrics stays as it was");
        }
        *before = failing;
    }
}

impl std::fmt::Debug for Tls {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Tls").field("files", &self.files).finish_non_exhaustive()
    }
}

// === impl Shown ===

impl ResolvesServerCert for Shown {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(Arc::clone(&self.0.read().unwrap_or_else(PoisonError::into_inner)))
    }
}

impl std::fmt::Debug for Shown {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Shown").finish_non_exhaustive()
    }
}

fn provider() -> rustls::crypto::CryptoProvider {
    rustls::crypto::ring::default_provider()
}

/// What stands in the files, and its digest.
fn read(files: &Files) -> Result<(Digest, CertifiedKey), Error> {
    let (certificate, key) = (bytes_of(&files.certificate)?, bytes_of(&files.key)?);
    let no = |path: &Path, what| Error::Pem { path: path.to_owned(), what };
    let chain: Vec<_> = CertificateDer::pem_slice_iter(&certificate)
        .collect::<Result<_, _>>()
        .map_err(|_| no(&files.certificate, "certificate"))?;
    if chain.is_empty() {
        return Err(no(&files.certificate, "certificate"));
    }
    // The parser's own error may quote what it read.
    let private = PrivateKeyDer::from_pem_slice(&key).map_err(|_| no(&files.key, "private key"))?;
    let certified =
        CertifiedKey::from_der(chain, private, &provider()).map_err(|error| Error::Pair(files.clone(), error))?;
    let digest = Sha256::new().chain_update(&certificate).chain_update([0]).chain_update(&key).finalize();
    Ok((digest.into(), certified))
}

fn bytes_of(path: &Path) -> Result<Vec<u8>, Error> {
    let read = || {
        let mut bytes = Vec::new();
        std::fs::File::open(path)?.take(FILE_BYTES_MAX + 1).read_to_end(&mut bytes)?;
        if bytes.len() as u64 > FILE_BYTES_MAX {
            return Err(std::io::Error::other(format!("it is longer than {FILE_BYTES_MAX} bytes")));
        }
        Ok(bytes)
    };
    read().map_err(|source| Error::Read { path: path.to_owned(), source })
}

/// Signed by itself, without an end: it goes with the process.
fn make(names: &[&str], address: IpAddr) -> Result<CertifiedKey, Error> {
    let mut subjects: Vec<String> = names.iter().filter(|name| is_host_name(name)).map(ToString::to_string).collect();
    if !address.is_unspecified() {
        subjects.push(address.to_string());
    }
    let mut parameters = CertificateParams::new(subjects).map_err(Error::Make)?;
    parameters.distinguished_name = DistinguishedName::new();
    parameters.distinguished_name.push(DnType::CommonName, "sekisho");
    let key = KeyPair::generate().map_err(Error::Make)?;
    let certificate = parameters.self_signed(&key).map_err(Error::Make)?;
    let private = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der()));
    CertifiedKey::from_der(vec![certificate.der().clone()], private, &provider()).map_err(Error::Setup)
}

fn is_host_name(name: &str) -> bool {
    !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-.".contains(&byte))
}
