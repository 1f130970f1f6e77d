//! Certificates for one run of a control plane.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose,
};

/// Names under which the servers are reached.
const HOSTS: [&str; 2] = ["localhost", "127.0.0.1"];

/// Signs certificates.
pub(super) struct Authority {
    issuer: Issuer<'static, KeyPair>,
    /// Its own certificate.
    pub(super) certificate: PathBuf,
    directory: PathBuf,
}

/// A certificate and its key, as files.
#[derive(Clone, Debug)]
pub struct Identity {
    /// PEM.
    pub certificate: PathBuf,
    /// PEM.
    pub key: PathBuf,
}

impl Authority {
    /// Makes an authority and writes its certificate into a directory.
    pub(super) fn new(directory: &Path, name: &str) -> Result<Self> {
        let key = KeyPair::generate().context("generate a key")?;
        let mut parameters = parameters(name, None, &[])?;
        parameters.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        parameters.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::DigitalSignature];
        let certificate = parameters.self_signed(&key).with_context(|| format!("sign {name}"))?;
        let path = directory.join(format!("{name}.crt"));
        write(&path, &certificate.pem())?;
        Ok(Self { issuer: Issuer::new(parameters, key), certificate: path, directory: directory.to_owned() })
    }

    /// For a server on loopback that is also a client of its own kind, as etcd is.
    pub(super) fn server(&self, name: &str) -> Result<Identity> {
        self.issue(name, None, &HOSTS)
    }

    /// For a client. Kubernetes takes the name for the user's and the organization for a group's.
    pub(super) fn client(&self, file: &str, name: &str, group: Option<&str>) -> Result<Identity> {
        self.signed(file, parameters(name, group, &[])?)
    }

    fn issue(&self, name: &str, group: Option<&str>, hosts: &[&str]) -> Result<Identity> {
        self.signed(name, parameters(name, group, hosts)?)
    }

    fn signed(&self, file: &str, mut parameters: CertificateParams) -> Result<Identity> {
        let key = KeyPair::generate().context("generate a key")?;
        parameters.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth, ExtendedKeyUsagePurpose::ServerAuth];
        let certificate = parameters.signed_by(&key, &self.issuer).with_context(|| format!("sign {file}"))?;
        let identity = Identity {
            certificate: self.directory.join(format!("{file}.crt")),
            key: self.directory.join(format!("{file}.key")),
        };
        write(&identity.certificate, &certificate.pem())?;
        write(&identity.key, &key.serialize_pem())?;
        Ok(identity)
    }
}

/// A key that signs the tokens of service accounts, with its public half as the certificate.
pub(super) fn token_key(directory: &Path) -> Result<Identity> {
    let key = KeyPair::generate().context("generate a key")?;
    let pair = Identity { certificate: directory.join("tokens.pub"), key: directory.join("tokens.key") };
    write(&pair.certificate, &key.public_key_pem())?;
    write(&pair.key, &key.serialize_pem())?;
    Ok(pair)
}

fn parameters(name: &str, group: Option<&str>, hosts: &[&str]) -> Result<CertificateParams> {
    let hosts: Vec<_> = hosts.iter().map(|&host| host.to_owned()).collect();
    let mut parameters = CertificateParams::new(hosts).with_context(|| format!("make a certificate for {name}"))?;
    parameters.distinguished_name = DistinguishedName::new();
    parameters.distinguished_name.push(DnType::CommonName, name);
    if let Some(group) = group {
        parameters.distinguished_name.push(DnType::OrganizationName, group);
    }
    Ok(parameters)
}

fn write(path: &Path, text: &str) -> Result<()> {
    fs::write(path, text).with_context(|| format!("write {}", path.display()))
}
