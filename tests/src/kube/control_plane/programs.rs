//! The programs of a control plane: their certificates, their arguments, and the order in which they start and end.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;

use super::{ISSUER, KUBECONFIG, Place, Request};
use crate::agent::free_port;
use crate::kube::certificates::{Authority, Identity, token_key};
use crate::kube::client::Client;
use crate::kube::config::{self, Credentials};
use crate::kube::process::Process;

/// For one program to answer after its start. On an idle machine it takes etcd half a second and the API server three; on
/// a busy one ten times that.
const READY: Duration = Duration::from_mins(2);

/// Another process may take a free port between the look at it and its use.
const ATTEMPTS: usize = 3;

/// The controllers that a test expects at work: accounts and their certificates for namespaces, namespaces that go, and
/// pods of workloads. Not the ones that delete pods of nodes or owners that do not exist.
const CONTROLLERS: &str = "namespace,serviceaccount,root-ca-cert-publisher,deployment,replicaset";

/// The running programs. Fields are dropped in this order: each before what it speaks to.
pub(super) struct ControlPlane {
    controllers: Option<Process>,
    api_server: Option<Process>,
    etcd: Etcd,
    settings: Settings,
    pub(super) place: Place,
}

/// What the API server and the controllers are started with.
struct Settings {
    programs: PathBuf,
    directory: PathBuf,
    arguments: Vec<String>,
    controllers: Vec<String>,
    admin: Client,
}

impl ControlPlane {
    /// Starts them one after the other.
    pub(super) fn start(programs: &Path, directory: &Path) -> Result<Self> {
        let etcd = Etcd::start(programs, directory)?;
        let authority = Authority::new(directory, "kubernetes")?;
        let serving = authority.server("kube-apiserver")?;
        let admin = authority.client("admin", "admin", Some("system:masters"))?;
        let manager = authority.client("kube-controller-manager", "system:kube-controller-manager", None)?;
        let tokens = token_key(directory)?;
        let (kubeconfig, manager_config) = (directory.join(KUBECONFIG), directory.join("kube-controller-manager.conf"));
        let admin = Credentials::Certificate(admin);

        let (settings, server, api_server) = with_free_port(|server| {
            config::write(&kubeconfig, server, &authority.certificate, &admin)?;
            let settings = Settings {
                programs: programs.to_owned(),
                directory: directory.to_owned(),
                arguments: api_server(server, &authority.certificate, &serving, &tokens, &etcd),
                controllers: controller_manager(&manager_config, &authority.certificate),
                admin: Client::new(&kubeconfig)?,
            };
            let process = settings.start_api_server()?;
            Ok((settings, server, process))
        })?;

        let manager = Credentials::Certificate(manager);
        config::write(&manager_config, server, &authority.certificate, &manager)?;
        let mut controllers = settings.start_controllers()?;
        let account = "/api/v1/namespaces/default/serviceaccounts/default";
        controllers.wait_for(READY, || settings.admin.try_get(account).is_ok_and(|answer| answer.status == 200))?;
        let place = Place { server, kubeconfig, authority: authority.certificate, token_key: tokens.key };
        Ok(Self { controllers: Some(controllers), api_server: Some(api_server), etcd, settings, place })
    }

    /// Does what is asked.
    pub(super) fn obey(&mut self, request: &Request) -> Result<Value> {
        let running = self.api_server.as_ref().map(Process::pid);
        match request {
            Request::Kill => match self.api_server.take() {
                Some(process) => process.kill()?,
                None => bail!("the API server does not run"),
            },
            Request::Restart => {
                ensure!(running.is_none(), "the API server runs");
                self.api_server = Some(self.settings.start_api_server()?);
                // The old ones try again after up to a minute once the server went away a few times.
                if let Some(old) = self.controllers.take() {
                    old.kill()?;
                }
                self.controllers = Some(self.settings.start_controllers()?);
            }
            Request::Compact => self.etcd.compact()?,
            Request::Pids => {
                let others = [Some(self.etcd.process.pid()), self.controllers.as_ref().map(Process::pid)];
                let pids: Vec<_> = running.into_iter().chain(others.into_iter().flatten()).collect();
                return Ok(pids.into());
            }
            Request::Pid => return Ok(running.context("the API server does not run")?.into()),
        }
        Ok(Value::Null)
    }
}

impl Settings {
    fn start_api_server(&self) -> Result<Process> {
        let log = self.directory.join("kube-apiserver.log");
        let mut process = Process::start(&self.programs.join("kube-apiserver"), &self.arguments, &log)?;
        process.wait_for(READY, || self.admin.try_get("/readyz").is_ok_and(|answer| answer.status == 200))?;
        Ok(process)
    }

    fn start_controllers(&self) -> Result<Process> {
        let log = self.directory.join("kube-controller-manager.log");
        Process::start(&self.programs.join("kube-controller-manager"), &self.controllers, &log)
    }
}

/// etcd, with certificates of an authority of its own: to the API server's users it is closed.
struct Etcd {
    process: Process,
    etcdctl: PathBuf,
    address: SocketAddr,
    authority: PathBuf,
    identity: Identity,
}

impl Etcd {
    fn start(programs: &Path, directory: &Path) -> Result<Self> {
        let authority = Authority::new(directory, "etcd-authority")?;
        let identity = authority.server("etcd")?;
        let etcdctl = programs.join("etcdctl");
        with_free_port(|address| {
            let peers = free_port()?;
            let arguments = etcd(directory, address, peers, &authority.certificate, &identity);
            let mut process = Process::start(&programs.join("etcd"), &arguments, &directory.join("etcd.log"))?;
            let arguments = client_of(address, &authority.certificate, &identity);
            process.wait_for(READY, || etcdctl_with(&etcdctl, &arguments, &["endpoint", "health"]).is_ok())?;
            let (authority, identity) = (authority.certificate.clone(), identity.clone());
            Ok(Self { process, etcdctl: etcdctl.clone(), address, authority, identity })
        })
    }

    fn compact(&self) -> Result<()> {
        let ask = |arguments: &[&str]| {
            etcdctl_with(&self.etcdctl, &client_of(self.address, &self.authority, &self.identity), arguments)
        };
        let status = ask(&["endpoint", "status", "--write-out=json"])?;
        let status: Value = serde_json::from_str(&status).context("decode the status of etcd")?;
        let newest = status[0]["Status"]["header"]["revision"].as_u64().context("etcd tells no revision")?;
        ask(&["compaction", &newest.to_string()]).map(drop)
    }
}

fn client_of(address: SocketAddr, authority: &Path, identity: &Identity) -> Vec<String> {
    vec![
        format!("--endpoints=https://{address}"),
        format!("--cacert={}", authority.display()),
        format!("--cert={}", identity.certificate.display()),
        format!("--key={}", identity.key.display()),
    ]
}

fn etcdctl_with(etcdctl: &Path, access: &[String], arguments: &[&str]) -> Result<String> {
    let mut command = Command::new(etcdctl);
    command.args(access).args(arguments).env("ETCDCTL_API", "3");
    let output = command.output().context("run etcdctl")?;
    ensure!(output.status.success(), "etcdctl {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).context("read from etcdctl")
}

/// Starts something on a free port; on another one when it does not start in time because of the port.
fn with_free_port<T>(mut start: impl FnMut(SocketAddr) -> Result<T>) -> Result<T> {
    let begun = Instant::now();
    let mut attempts = 1;
    loop {
        match start(free_port()?) {
            Err(error) if attempts < ATTEMPTS && format!("{error:#}").contains("address already in use") => {
                attempts += 1;
            }
            result => return result.with_context(|| format!("after {attempts} attempts in {:?}", begun.elapsed())),
        }
    }
}

// === arguments of the programs ===

fn etcd(
    directory: &Path,
    clients: SocketAddr,
    peers: SocketAddr,
    authority: &Path,
    identity: &Identity,
) -> Vec<String> {
    let (authority, certificate, key) = (authority.display(), identity.certificate.display(), identity.key.display());
    vec![
        "--name=etcd".into(),
        format!("--data-dir={}", directory.join("etcd").display()),
        format!("--listen-client-urls=https://{clients}"),
        format!("--advertise-client-urls=https://{clients}"),
        format!("--listen-peer-urls=https://{peers}"),
        format!("--initial-advertise-peer-urls=https://{peers}"),
        format!("--initial-cluster=etcd=https://{peers}"),
        "--client-cert-auth".into(),
        format!("--trusted-ca-file={authority}"),
        format!("--cert-file={certificate}"),
        format!("--key-file={key}"),
        "--peer-client-cert-auth".into(),
        format!("--peer-trusted-ca-file={authority}"),
        format!("--peer-cert-file={certificate}"),
        format!("--peer-key-file={key}"),
        // Nothing of it outlives the run.
        "--unsafe-no-fsync".into(),
    ]
}

fn api_server(server: SocketAddr, authority: &Path, serving: &Identity, tokens: &Identity, etcd: &Etcd) -> Vec<String> {
    vec![
        format!("--bind-address={}", server.ip()),
        format!("--secure-port={}", server.port()),
        format!("--tls-cert-file={}", serving.certificate.display()),
        format!("--tls-private-key-file={}", serving.key.display()),
        format!("--client-ca-file={}", authority.display()),
        format!("--etcd-servers=https://{}", etcd.address),
        format!("--etcd-cafile={}", etcd.authority.display()),
        format!("--etcd-certfile={}", etcd.identity.certificate.display()),
        format!("--etcd-keyfile={}", etcd.identity.key.display()),
        // Tests say when.
        "--etcd-compaction-interval=0".into(),
        "--authorization-mode=Node,RBAC".into(),
        "--enable-admission-plugins=NodeRestriction".into(),
        "--allow-privileged".into(),
        format!("--service-account-issuer={ISSUER}"),
        format!("--service-account-key-file={}", tokens.certificate.display()),
        format!("--service-account-signing-key-file={}", tokens.key.display()),
        "--service-account-extend-token-expiration=false".into(),
        // Pods get projected tokens, as they do from every newer server.
        "--feature-gates=BoundServiceAccountTokenVolume=true".into(),
        "--service-cluster-ip-range=10.96.0.0/16".into(),
        // Its own address is on loopback, where no Endpoints object may point to.
        "--endpoint-reconciler-type=none".into(),
    ]
}

fn controller_manager(kubeconfig: &Path, authority: &Path) -> Vec<String> {
    vec![
        format!("--kubeconfig={}", kubeconfig.display()),
        format!("--controllers={CONTROLLERS}"),
        format!("--root-ca-file={}", authority.display()),
        "--leader-elect=false".into(),
        "--port=0".into(),
        "--secure-port=0".into(),
    ]
}
