//! A test's side of a control plane: one for each test program, used by one test at a time.

use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};

use anyhow::{Context, Result, bail, ensure};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use super::client::Client;
use super::config::{self, Credentials};
use super::control_plane::{Place, Request};
use super::manifests;
use super::token;
use crate::protocol::Answer;

/// Names the directory with Kubernetes' programs, when it is not the one in the user's cache.
const PROGRAMS: &str = "SEKISHO_KUBERNETES";

/// What a directory with Kubernetes' programs holds for certain.
const API_SERVER: &str = "kube-apiserver";

/// A running API server.
pub struct Server {
    child: Child,
    stdin: Option<ChildStdin>,
    stdout: BufReader<ChildStdout>,
    place: Place,
    /// The administrator's access.
    pub admin: Client,
    namespaces: u32,
}

impl Server {
    /// The server of this test program, for one test alone. It runs, and holds what earlier tests left in other namespaces.
    pub fn take() -> Result<MutexGuard<'static, Self>> {
        static SERVER: OnceLock<Mutex<Server>> = OnceLock::new();
        static START: Mutex<()> = Mutex::new(());
        let server = {
            let _start = START.lock().unwrap_or_else(PoisonError::into_inner);
            if let Some(server) = SERVER.get() {
                server
            } else {
                let directory = std::env::temp_dir().join(format!("sekisho-control-plane-{}", std::process::id()));
                let started = Self::start(&directory)?;
                SERVER.get_or_init(|| Mutex::new(started))
            }
        };
        // A test that failed while it held the server may have left it dead.
        let mut server = server.lock().unwrap_or_else(PoisonError::into_inner);
        if server.ask::<u32>(&Request::Pid).is_err() {
            server.restart()?;
        }
        Ok(server)
    }

    /// A server of the test's own, in a directory that it makes and removes.
    pub fn start(directory: &Path) -> Result<Self> {
        let program = program()?;
        let mut child = Command::new(&program)
            .args(["run".as_ref(), programs()?.as_path(), directory])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .with_context(|| format!("start {}", program.display()))?;
        let stdin = child.stdin.take();
        let mut stdout = BufReader::new(child.stdout.take().context("the control plane has no output")?);
        let place: Place = answer(&mut stdout).context("start a control plane")?;
        let admin = Client::new(&place.kubeconfig)?;
        Ok(Self { child, stdin, stdout, place, admin, namespaces: 0 })
    }

    /// Kills the API server with SIGKILL.
    pub fn kill(&mut self) -> Result<()> {
        self.ask(&Request::Kill)
    }

    /// Starts the API server again, at the same address.
    pub fn restart(&mut self) -> Result<()> {
        self.ask(&Request::Restart)
    }

    /// Has etcd forget all versions but the newest.
    pub fn compact(&mut self) -> Result<()> {
        self.ask(&Request::Compact)
    }

    /// The API server's process id.
    pub fn pid(&mut self) -> Result<u32> {
        self.ask(&Request::Pid)
    }

    /// The process ids of all its programs, and of the one that runs them.
    pub fn pids(&mut self) -> Result<Vec<u32>> {
        let mut pids: Vec<u32> = self.ask(&Request::Pids)?;
        pids.push(self.child.id());
        Ok(pids)
    }

    /// Kills the program that runs the others with SIGKILL, as somebody might.
    pub fn kill_runner(mut self) -> Result<()> {
        self.child.kill().context("kill a control plane")
    }

    /// Makes a namespace that no other test knows, and waits until pods can be created in it.
    pub fn namespace(&mut self, what: &str) -> Result<String> {
        self.namespaces += 1;
        let name = format!("{what}-{}", self.namespaces);
        self.make_namespace(&name)?;
        Ok(name)
    }

    /// Makes a namespace, if it is not there, and waits until pods can be created in it.
    pub fn make_namespace(&self, name: &str) -> Result<()> {
        self.admin.apply(&json!({ "apiVersion": "v1", "kind": "Namespace", "metadata": { "name": name } }))?;
        let account = format!("/api/v1/namespaces/{name}/serviceaccounts/default");
        self.admin.wait_for(&account, |answer| answer.status == 200).map(drop)
    }

    /// Installs the definitions of AWS's objects that every EKS cluster has.
    pub fn define_aws_objects(&self) -> Result<()> {
        for manifest in manifests::definitions()? {
            self.admin.apply(&manifest)?;
            let spec = &manifest["spec"];
            let (group, version, plural) = (&spec["group"], &spec["versions"][0]["name"], &spec["names"]["plural"]);
            let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
            let path = format!("/apis/{}/{}/{}", text(group), text(version), text(plural));
            self.admin.wait_for(&path, |answer| answer.status == 200)?;
        }
        Ok(())
    }

    /// Removes the definitions of AWS's objects, and so the objects.
    pub fn forget_aws_objects(&self) -> Result<()> {
        for manifest in manifests::definitions()? {
            let path = super::paths::of_object(&manifest)?;
            let answer = self.admin.try_delete(&path)?;
            ensure!([200, 404].contains(&answer.status), "DELETE {path} answered {}: {}", answer.status, answer.text);
            self.admin.wait_for(&path, |answer| answer.status == 404)?;
        }
        Ok(())
    }

    /// Installs the shipped account and its role.
    pub fn install_role(&self) -> Result<Account> {
        let account = Account { namespace: "sekisho".into(), name: "sekisho".into() };
        self.make_namespace(&account.namespace)?;
        for manifest in manifests::role()? {
            self.admin.apply(&manifest)?;
        }
        Ok(account)
    }

    /// Makes an account without any role.
    pub fn make_account(&self, namespace: &str, name: &str) -> Result<Account> {
        let metadata = json!({ "namespace": namespace, "name": name });
        self.admin.apply(&json!({ "apiVersion": "v1", "kind": "ServiceAccount", "metadata": metadata }))?;
        Ok(Account { namespace: namespace.to_owned(), name: name.to_owned() })
    }

    /// A token of an account, as the kubelet asks for one, for an hour.
    pub fn token(&self, account: &Account) -> Result<String> {
        let request = json!({
            "apiVersion": "authentication.k8s.io/v1",
            "kind": "TokenRequest",
            "spec": { "audiences": [super::control_plane::ISSUER], "expirationSeconds": 3600 },
        });
        let answer = self.admin.post(&format!("{}/token", account.path()), &request)?;
        let token = answer["status"]["token"].as_str().context("the server gave no token")?;
        Ok(token.to_owned())
    }

    /// A token of an account that the server takes for so many seconds more. The API refuses to give one for less than ten
    /// minutes, so this one is signed here, with the server's key.
    pub fn short_token(&self, account: &Account, seconds: u64) -> Result<String> {
        let object = self.admin.get(&account.path())?;
        let uid = object["metadata"]["uid"].as_str().context("an account without uid")?;
        token::sign(&self.place.token_key, &account.namespace, &account.name, uid, seconds)
    }

    /// Writes a kubeconfig for whoever has the token in a file.
    pub fn write_kubeconfig(&self, path: &Path, token: &Path) -> Result<()> {
        config::write(path, self.place.server, &self.place.authority, &Credentials::TokenFile(token.to_owned()))
    }

    /// A client with a token.
    pub fn client(&self, token: &str) -> Result<Client> {
        let directory = tempfile::tempdir().context("make a directory")?;
        let (kubeconfig, file) = (directory.path().join("kubeconfig"), directory.path().join("token"));
        std::fs::write(&file, token).context("write a token")?;
        self.write_kubeconfig(&kubeconfig, &file)?;
        Client::new(&kubeconfig)
    }

    fn ask<T: DeserializeOwned>(&mut self, request: &Request) -> Result<T> {
        let mut line = serde_json::to_string(request).context("encode a request")?;
        line.push('\n');
        let stdin = self.stdin.as_mut().context("the control plane was told to end")?;
        stdin.write_all(line.as_bytes()).context("ask the control plane")?;
        answer(&mut self.stdout).with_context(|| format!("have the control plane do {request:?}"))
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stdin = None;
        // Fails only when it has ended already.
        let _ = self.child.wait();
    }
}

/// A service account.
#[derive(Clone, Debug)]
pub struct Account {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
}

impl Account {
    /// Its path in the API.
    pub fn path(&self) -> String {
        format!("/api/v1/namespaces/{}/serviceaccounts/{}", self.namespace, self.name)
    }

    /// What the API server calls whoever has its token.
    pub fn user(&self) -> String {
        format!("system:serviceaccount:{}:{}", self.namespace, self.name)
    }
}

fn answer<T: DeserializeOwned>(output: &mut BufReader<ChildStdout>) -> Result<T> {
    let mut line = String::new();
    let length = output.read_line(&mut line).context("read from the control plane")?;
    ensure!(length > 0, "the control plane ended");
    match serde_json::from_str(&line).with_context(|| format!("decode the control plane's answer {line:?}"))? {
        Answer::Ok(value) => serde_json::from_value(value).context("decode the control plane's answer"),
        Answer::Error(error) => bail!("{error}"),
    }
}

/// Path of the program that runs a control plane.
fn program() -> Result<PathBuf> {
    let test = std::env::current_exe().context("find the test's own program")?;
    test.ancestors()
        .skip(1)
        .take(2)
        .map(|directory| directory.join("control-plane"))
        .find(|path| path.exists())
        .with_context(|| format!("no control-plane beside {}: build the package whole", test.display()))
}

/// Kubernetes' programs: where the environment says, else the only ones in the user's cache.
fn programs() -> Result<PathBuf> {
    if let Some(path) = std::env::var_os(PROGRAMS) {
        return Ok(path.into());
    }
    let cache = match std::env::var_os("XDG_CACHE_HOME") {
        Some(path) if !path.is_empty() => PathBuf::from(path),
        _ => PathBuf::from(std::env::var_os("HOME").context("HOME is not set")?).join(".cache"),
    };
    let releases = cache.join("sekisho/kubernetes");
    let built: Vec<_> = std::fs::read_dir(&releases)
        .into_iter()
        .flatten()
        .flatten()
        .map(|entry| entry.path().join("bin"))
        .filter(|bin| bin.join(API_SERVER).exists())
        .collect();
    match built.as_slice() {
        [bin] => Ok(bin.clone()),
        [] => bail!("no Kubernetes in {}: run `cargo xtask setup --for cluster`", releases.display()),
        _ => bail!("several releases of Kubernetes in {}: choose one by {PROGRAMS}", releases.display()),
    }
}
