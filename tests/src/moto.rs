//! A stand-in for the EC2 API: moto's server on loopback, which speaks the API's own protocol, and from a point on checks
//! signatures (by botocore) and permissions (by the policies of its users).

use std::fs::File;
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use serde::de::DeserializeOwned;
use serde_json::Value;
use tempfile::TempDir;

use crate::agent::{free_port, inside};
use crate::netns::Namespace;
use crate::scale;

/// Names the Python that has moto in it.
const PYTHON: &str = "SEKISHO_MOTO";
/// Between two looks at a server that starts.
const LOOK: Duration = Duration::from_millis(50);
/// What every script begins with.
const CLIENTS: &str = "\
import boto3, json, sys
argument = json.loads(sys.argv[2])
def client(service):
    return boto3.client(service, region_name='eu-central-1', endpoint_url=sys.argv[1],
                        aws_access_key_id='AKIDSEED', aws_secret_access_key='seed')
ec2, iam = client('ec2'), client('iam')
";

/// The server, until dropped.
#[derive(Debug)]
pub struct Moto {
    child: Child,
    address: SocketAddr,
    python: PathBuf,
    home: TempDir,
    /// Where it was started, if not beside the test.
    namespace: Option<Arc<Namespace>>,
}

impl Moto {
    /// The region in which everything is.
    pub const REGION: &str = "eu-central-1";

    /// Starts a server with nothing in it, and waits until it answers.
    pub fn start() -> Result<Self> {
        Self::start_in(None)
    }

    /// As [`Moto::start`], on loopback of a network namespace.
    pub fn start_in(namespace: Option<Arc<Namespace>>) -> Result<Self> {
        let python = std::env::var_os(PYTHON).with_context(|| {
            format!("no moto: run `cargo xtask test --only aws`, or set {PYTHON} to a Python that has it")
        })?;
        let (python, address) = (PathBuf::from(python), free_port()?);
        let home = tempfile::tempdir().context("make a directory")?;
        let log = File::create(home.path().join("log")).context("create a log")?;
        let mut command = Command::new(&python);
        command
            .args(["-m", "moto.server", "-H", &address.ip().to_string(), "-p", &address.port().to_string()])
            .stdin(Stdio::null())
            .stdout(log.try_clone().context("create a log")?)
            .stderr(log);
        // A child process belongs to the namespace of the thread that starts it.
        let child = inside(namespace.as_deref(), || Ok(command.spawn()?))
            .with_context(|| format!("start {} -m moto.server", python.display()))?;
        let mut moto = Self { child, address, python, home, namespace };
        let deadline = Instant::now() + scale::deadline();
        while moto.connect().is_err() {
            let ended = moto.child.try_wait().context("look at moto")?;
            ensure!(ended.is_none() && Instant::now() < deadline, "moto did not start: {}", moto.log());
            std::thread::sleep(LOOK);
        }
        Ok(moto)
    }

    /// Where it is.
    pub fn endpoint(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Runs a Python script that knows `ec2`, `iam` and `argument`, and reads the JSON that it prints.
    pub fn script<T: DeserializeOwned>(&self, text: &str, argument: &Value) -> Result<T> {
        let script = format!("{CLIENTS}{text}");
        let mut command = Command::new(&self.python);
        command.args(["-c", &script, &self.endpoint(), &argument.to_string()]);
        let output = inside(self.namespace.as_deref(), || command.output().context("run a script"))?;
        let stderr = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "a script failed: {stderr}");
        serde_json::from_slice(&output.stdout)
            .with_context(|| format!("read {:?} {stderr}", String::from_utf8_lossy(&output.stdout)))
    }

    /// From now on requests need a good signature of a user who may make them.
    pub fn require_permission(&self) -> Result<()> {
        let mut stream = self.connect()?;
        let request = "POST /moto-api/reset-auth HTTP/1.1\r\nhost: moto\r\ncontent-type: text/plain\r\n\
                       content-length: 1\r\nconnection: close\r\n\r\n0";
        stream.write_all(request.as_bytes()).context("ask moto for authentication")?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).context("read moto's answer")?;
        ensure!(answer.contains(" 200 "), "moto does not authenticate: {answer}");
        Ok(())
    }

    fn connect(&self) -> Result<TcpStream> {
        inside(self.namespace.as_deref(), || TcpStream::connect(self.address).context("connect to moto"))
    }

    /// What it logged.
    pub fn log(&self) -> String {
        std::fs::read_to_string(self.home.path().join("log")).unwrap_or_default()
    }
}

impl Drop for Moto {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("moto's log:\n{}", self.log());
        }
        // Both fail only when it has ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
