//! The instance's type: from the firmware's tables, which on Nitro name it, else from the metadata service, once. The
//! node's label, where the API can be asked, comes before both; whoever knows it decides.
//!
//! The question to the metadata service is this agent's own; the probes see it as such, under this program's name.

use std::path::PathBuf;
use std::sync::Arc;

use agent_core::facts::HostFact;
use hyper::Method;

use super::http::{Peer, ask};
use super::{Error, Look, Roots, read};

/// `sys_vendor` of every Nitro instance.
const NITRO_VENDOR: &str = "Amazon EC2";
/// Part of `bios_version` of every Xen instance.
const XEN_BIOS: &str = "amazon";
/// Longest name of a type; the longest today has 21 characters.
const NAME_BYTES_MAX: usize = 64;
/// How long the token is wanted for, seconds.
const TOKEN_SECONDS: &str = "30";

/// Looks for the type.
pub(super) struct InstanceType {
    dmi: PathBuf,
    imds: Peer,
    found: Option<(Arc<str>, Arc<str>)>,
    asked: bool,
}

// === impl InstanceType ===

impl InstanceType {
    /// The metadata service is not asked when it is switched off.
    pub(super) fn new(roots: &Roots, imds: Peer) -> Self {
        Self { dmi: roots.sys.join("devices/virtual/dmi/id"), imds, found: None, asked: false }
    }

    fn find(&mut self) -> Result<(Arc<str>, Arc<str>), Error> {
        let id = |name: &str| read::text(&self.dmi.join(name)).unwrap_or_default().trim().to_owned();
        if id("sys_vendor") == NITRO_VENDOR {
            let path = self.dmi.join("product_name");
            let name =
                type_name(&read::text(&path)?).ok_or_else(|| read::malformed(&path, "names no instance type"))?;
            return Ok((name, "DMI product_name".into()));
        }
        if !id("bios_version").contains(XEN_BIOS) {
            return Err(Error::Absent(format!("no EC2 instance, as {} tells", self.dmi.display())));
        }
        if self.imds.is_off() || self.asked {
            return Err(Error::Absent(
                "the firmware does not tell it, and the metadata service is not asked".to_owned(),
            ));
        }
        self.asked = true;
        self.ask()
    }

    fn ask(&self) -> Result<(Arc<str>, Arc<str>), Error> {
        let lifetime = [("x-aws-ec2-metadata-token-ttl-seconds", TOKEN_SECONDS)];
        let token = ask(&self.imds, Method::PUT, "/latest/api/token", &lifetime)?;
        let refused = |why: String| Error::Malformed { what: self.imds.to_string(), why };
        let token = std::str::from_utf8(&token.body)
            .ok()
            .filter(|_| token.status == 200)
            .ok_or_else(|| refused(format!("gave no token: status {}", token.status)))?;
        let headers = [("x-aws-ec2-metadata-token", token)];
        let answer = ask(&self.imds, Method::GET, "/latest/meta-data/instance-type", &headers)?;
        let name = std::str::from_utf8(&answer.body).ok().filter(|_| answer.status == 200).and_then(type_name);
        let name = name.ok_or_else(|| refused(format!("named no instance type: status {}", answer.status)))?;
        Ok((name, "IMDS".into()))
    }
}

impl Look for InstanceType {
    fn look(&mut self, facts: &mut Vec<HostFact>) -> Result<(), Error> {
        let (name, source) = match &self.found {
            Some(found) => found.clone(),
            None => self.find()?,
        };
        self.found = Some((Arc::clone(&name), Arc::clone(&source)));
        facts.push(HostFact::InstanceType { name, source });
        Ok(())
    }
}

/// A family, a dot and a size: `u-6tb1.metal`, `m7i.48xlarge`.
fn type_name(text: &str) -> Option<Arc<str>> {
    let name = text.trim();
    let (family, size) = name.split_once('.')?;
    let is_word = |word: &str| {
        !word.is_empty() && word.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-')
    };
    (name.len() <= NAME_BYTES_MAX && is_word(family) && is_word(size)).then(|| name.into())
}
