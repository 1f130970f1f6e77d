//! The real binary, run against the machine's own kernel until its guard goes.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{BufRead, BufReader};
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, ExitStatus, Output, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use rustix::process::{Pid, Signal};
use serde::Deserialize;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::metrics::{self, Metrics};
use crate::netns::Namespace;
use crate::rows::Rows;
use crate::scale;

/// Names the agent's program where it does not stand beside the test's.
const PROGRAM: &str = "SEKISHO_BIN";
/// Between two looks at something that must come.
const LOOK: Duration = Duration::from_millis(20);

/// A running agent with a socket, a port and files of its own.
#[derive(Debug)]
pub struct Agent {
    child: Child,
    home: TempDir,
    metrics: SocketAddr,
    /// Where it was started, if not beside the test.
    namespace: Option<Arc<Namespace>>,
    lines: Arc<Mutex<Vec<String>>>,
    reader: Option<JoinHandle<()>>,
}

/// `sekisho doctor --books -o json`.
#[derive(Debug, Deserialize)]
pub struct Books {
    /// Whether the agent itself says that they balance.
    pub balanced: bool,
    /// How often the kernel's counters had been read.
    pub readings: u64,
    #[serde(rename = "books")]
    kinds: Vec<Book>,
}

/// What became of the records of one kind.
#[derive(Clone, Debug, Deserialize)]
pub struct Book {
    /// Kind of records.
    pub kind: String,
    /// Records that the probes had.
    pub seen: u64,
    /// On their way.
    pub pending: u64,
    /// Where they ended.
    pub fates: BTreeMap<String, u64>,
}

/// A running `sekisho observe --follow`, ended with its guard.
#[derive(Debug)]
pub struct Observer {
    child: Child,
    lines: Arc<Mutex<Vec<String>>>,
}

/// What an agent left.
#[derive(Debug)]
pub struct Finished {
    /// Its rows.
    pub rows: Rows,
    /// Its standard output.
    pub stdout: String,
    /// Its standard error.
    pub stderr: String,
    /// Where its configuration, its socket and its standard error were.
    pub home: TempDir,
}

impl Agent {
    /// Starts an agent with defaults and waits until it is ready.
    pub fn start() -> Result<Self> {
        Self::with(json!({}))
    }

    /// Starts an agent with configuration keys of the test's own and waits until it is ready.
    pub fn with(configuration: Value) -> Result<Self> {
        Self::with_in(None, configuration)
    }

    /// As [`Agent::with`], in a network namespace that stands for the node's.
    pub fn with_in(namespace: Option<Arc<Namespace>>, configuration: Value) -> Result<Self> {
        Self::with_environment_in(namespace, configuration, &[])
    }

    /// As [`Agent::with`], with more in its environment.
    pub fn with_environment(configuration: Value, environment: &[(&str, &str)]) -> Result<Self> {
        Self::with_environment_in(None, configuration, environment)
    }

    /// As [`Agent::with_in`], with more in its environment.
    pub fn with_environment_in(
        namespace: Option<Arc<Namespace>>,
        configuration: Value,
        environment: &[(&str, &str)],
    ) -> Result<Self> {
        let mut agent = Self::launch_in(namespace, "json", configuration, environment, &[])?;
        agent.wait_until_ready()?;
        Ok(agent)
    }

    /// As [`Agent::with_in`], with more on its command line.
    pub fn with_arguments_in(
        namespace: Option<Arc<Namespace>>,
        configuration: Value,
        arguments: &[&str],
    ) -> Result<Self> {
        let mut agent = Self::launch_in(namespace, "json", configuration, &[], arguments)?;
        agent.wait_until_ready()?;
        Ok(agent)
    }

    /// As [`Agent::with_in`], without rows on standard output.
    pub fn silent_in(namespace: Option<Arc<Namespace>>, configuration: Value) -> Result<Self> {
        let mut agent = Self::launch_silent_in(namespace, configuration)?;
        agent.wait_until_ready()?;
        Ok(agent)
    }

    /// As [`Agent::with`], started by a shell that runs a script first, which may replace itself by what ends in
    /// `"$@"`.
    pub fn within(script: &str, configuration: Value) -> Result<Self> {
        let mut agent = Self::spawn(None, "json", configuration, &[], &[], Some(script))?;
        agent.wait_until_ready()?;
        Ok(agent)
    }

    /// As [`Agent::silent_in`], and waits for nothing.
    pub fn launch_silent_in(namespace: Option<Arc<Namespace>>, configuration: Value) -> Result<Self> {
        Self::launch_in(namespace, "none", configuration, &[], &[])
    }

    /// Starts an agent with a form of standard output and configuration keys of the test's own, and waits for nothing.
    pub fn launch(output: &str, configuration: Value) -> Result<Self> {
        Self::launch_in(None, output, configuration, &[], &[])
    }

    fn launch_in(
        namespace: Option<Arc<Namespace>>,
        output: &str,
        configuration: Value,
        environment: &[(&str, &str)],
        arguments: &[&str],
    ) -> Result<Self> {
        Self::spawn(namespace, output, configuration, environment, arguments, None)
    }

    fn spawn(
        namespace: Option<Arc<Namespace>>,
        output: &str,
        configuration: Value,
        environment: &[(&str, &str)],
        arguments: &[&str],
        script: Option<&str>,
    ) -> Result<Self> {
        let home = tempfile::tempdir().context("make a directory")?;
        let metrics = free_port()?;
        let path = write_configuration(home.path(), metrics, configuration)?;
        let program = program()?;
        let stderr = File::create(home.path().join("stderr")).context("create a file for standard error")?;
        // A child process belongs to the namespace of the thread that starts it.
        let spawn = || {
            let mut command = match script {
                None => Command::new(&program),
                Some(script) => {
                    let mut shell = Command::new("sh");
                    shell.args(["-ec", &format!("{script}\nexec \"$@\""), "sh"]).arg(&program);
                    shell
                }
            };
            command
                .args(["run", "-o", output, "--config"])
                .arg(path)
                .args(arguments)
                .envs(environment.iter().copied())
                .stdin(Stdio::null())
                .stdout(Stdio::piped())
                .stderr(stderr)
                .spawn()
                .map_err(anyhow::Error::from)
        };
        let mut child = inside(namespace.as_deref(), spawn).with_context(|| format!("start {}", program.display()))?;
        let (lines, reader) = collect(child.stdout.take().context("the agent has no output")?);
        Ok(Self { child, home, metrics, namespace, lines, reader: Some(reader) })
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Path of its socket.
    pub fn socket(&self) -> PathBuf {
        self.home.path().join("agent.sock")
    }

    /// Address of its HTTP endpoint.
    pub fn http(&self) -> SocketAddr {
        self.metrics
    }

    /// Stops it from running, by SIGSTOP: nobody empties its rings until [`Agent::resume`].
    pub fn pause(&self) -> Result<()> {
        self.signal(Signal::STOP)
    }

    /// Lets it run again.
    pub fn resume(&self) -> Result<()> {
        self.signal(Signal::CONT)
    }

    /// Scrapes it.
    pub fn metrics(&self) -> Result<Metrics> {
        inside(self.namespace.as_deref(), || Metrics::scrape(self.metrics))
    }

    /// The rows printed so far.
    pub fn rows(&self) -> Result<Rows> {
        Rows::parse(&self.lines.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Waits until the rows printed so far are as the test wants them.
    pub fn wait_for(&mut self, what: &str, mut wanted: impl FnMut(&Rows) -> bool) -> Result<()> {
        let deadline = Instant::now() + scale::deadline();
        while !wanted(&self.rows()?) {
            if let Some(status) = self.child.try_wait().context("look at the agent")? {
                bail!("the agent ended with {status}: {}", self.stderr());
            }
            anyhow::ensure!(Instant::now() < deadline, "{what} did not come in {:?}", scale::deadline());
            std::thread::sleep(LOOK);
        }
        Ok(())
    }

    /// Runs another command of the program against this agent.
    pub fn command(&self, arguments: &[&str]) -> Result<Output> {
        let program = program()?;
        Command::new(&program)
            .args(arguments)
            .arg("--socket")
            .arg(self.socket())
            .stdin(Stdio::null())
            .output()
            .with_context(|| format!("run {} {arguments:?}", program.display()))
    }

    /// What became of every record so far, by `sekisho doctor --books`.
    pub fn books(&self) -> Result<Books> {
        let output = self.command(&["doctor", "--books", "-o", "json"])?;
        let books: Books = serde_json::from_slice(&output.stdout)
            .with_context(|| format!("books: {}", String::from_utf8_lossy(&output.stderr)))?;
        anyhow::ensure!(books.balanced == output.status.success(), "exit {} with {books:?}", output.status);
        Ok(books)
    }

    /// Where the history and all else lies that the agent keeps.
    pub fn data_directory(&self) -> PathBuf {
        self.home.path().join("data")
    }

    /// As [`Agent::books`], once nothing is pending and at least so many records of
    /// a kind were seen: the agent reads the kernel's counters about once a second.
    pub fn books_with(&self, kind: &str, seen: u64) -> Result<Books> {
        self.books_when(kind, seen, 0)
    }

    /// As [`Agent::books_with`], and read after all that happened until now: what the kernel refused is known by its
    /// counters alone, of which one reading may be under way.
    pub fn settled_books_with(&self, kind: &str, seen: u64) -> Result<Books> {
        self.books_when(kind, seen, self.books()?.readings + 2)
    }

    fn books_when(&self, kind: &str, seen: u64, readings: u64) -> Result<Books> {
        let deadline = Instant::now() + scale::deadline();
        loop {
            let books = self.books()?;
            if books.readings >= readings
                && books.of(kind)?.seen >= seen
                && books.kinds.iter().all(|book| book.pending == 0)
            {
                return Ok(books);
            }
            anyhow::ensure!(Instant::now() < deadline, "not {seen} {kind} records, or some are pending: {books:?}");
            std::thread::sleep(LOOK);
        }
    }

    /// Follows the agent over its socket.
    pub fn observe(&self, arguments: &[&str]) -> Result<Observer> {
        let mut child = Command::new(program()?)
            .args(["observe", "--follow", "-o", "json"])
            .args(arguments)
            .arg("--socket")
            .arg(self.socket())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .context("start an observer")?;
        let (lines, _) = collect(child.stdout.take().context("the observer has no output")?);
        Ok(Observer { child, lines })
    }

    /// Ends it by SIGTERM, and gives what it left.
    pub fn finish(mut self) -> Result<Finished> {
        self.signal(Signal::TERM)?;
        let status = self.wait()?;
        if let Some(reader) = self.reader.take()
            && reader.join().is_err()
        {
            bail!("the reader of the agent's output panicked");
        }
        let stderr = self.stderr();
        anyhow::ensure!(status.success(), "the agent ended with {status}: {stderr}");
        let lines = std::mem::take(&mut *self.lines.lock().unwrap_or_else(PoisonError::into_inner));
        let home = std::mem::replace(&mut self.home, tempfile::tempdir().context("make a directory")?);
        Ok(Finished { rows: Rows::parse(&lines)?, stdout: lines.join("\n"), stderr, home })
    }

    /// Waits for its end by somebody else's doing.
    pub fn wait_for_end(&mut self) -> Result<ExitStatus> {
        self.wait()
    }

    fn signal(&self, signal: Signal) -> Result<()> {
        let pid = Pid::from_raw(self.child.id().cast_signed()).context("a pid of 0")?;
        rustix::process::kill_process(pid, signal).with_context(|| format!("send {signal:?} to the agent"))
    }

    fn wait(&mut self) -> Result<ExitStatus> {
        let deadline = Instant::now() + scale::deadline();
        loop {
            if let Some(status) = self.child.try_wait().context("wait for the agent")? {
                return Ok(status);
            }
            anyhow::ensure!(Instant::now() < deadline, "the agent did not end in {:?}", scale::deadline());
            std::thread::sleep(LOOK);
        }
    }

    /// Waits until it says that it is ready.
    pub fn wait_until_ready(&mut self) -> Result<()> {
        let deadline = Instant::now() + scale::deadline();
        loop {
            if inside(self.namespace.as_deref(), || metrics::get(self.metrics, "/readyz"))
                .is_ok_and(|(status, _)| status == 200)
            {
                return Ok(());
            }
            if let Some(status) = self.child.try_wait().context("look at the agent")? {
                bail!("the agent ended with {status} at its start: {}", self.stderr());
            }
            anyhow::ensure!(
                Instant::now() < deadline,
                "the agent was not ready in {:?}: {}",
                scale::deadline(),
                self.stderr()
            );
            std::thread::sleep(LOOK);
        }
    }

    /// What it said on standard error so far.
    pub fn stderr(&self) -> String {
        fs::read_to_string(self.home.path().join("stderr")).unwrap_or_default()
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("the agent's standard error:\n{}", self.stderr());
        }
        // Both fail only when it has ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Books {
    /// The books of all kinds.
    pub fn all(&self) -> impl Iterator<Item = &Book> {
        self.kinds.iter()
    }

    /// The book of a kind.
    pub fn of(&self, kind: &str) -> Result<&Book> {
        self.kinds.iter().find(|book| book.kind == kind).with_context(|| format!("no book of {kind}: {self:?}"))
    }

    /// Every record seen has one fate, in every book.
    pub fn check(&self) -> Result<()> {
        for book in &self.kinds {
            let fates: u64 = book.fates.values().sum();
            anyhow::ensure!(book.seen == fates + book.pending, "does not add up: {book:?}");
        }
        anyhow::ensure!(self.balanced, "the agent says that its books do not balance: {self:?}");
        Ok(())
    }
}

impl Book {
    /// Records with a fate; 0 for a fate that is not listed would hide a misspelling, so that is an error.
    pub fn fate(&self, fate: &str) -> Result<u64> {
        self.fates.get(fate).copied().with_context(|| format!("no fate {fate} in {self:?}"))
    }

    /// Records lost, at any stage.
    pub fn lost(&self) -> u64 {
        self.fates.iter().filter(|(fate, _)| fate.starts_with("lost")).map(|(_, records)| records).sum()
    }
}

impl Observer {
    /// The lines printed so far.
    pub fn lines(&self) -> Vec<String> {
        self.lines.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Waits until the lines printed so far are as the test wants them.
    pub fn wait_for(&self, what: &str, mut wanted: impl FnMut(&[String]) -> bool) -> Result<()> {
        let deadline = Instant::now() + scale::deadline();
        while !wanted(&self.lines()) {
            anyhow::ensure!(Instant::now() < deadline, "{what} did not come in {:?}", scale::deadline());
            std::thread::sleep(LOOK);
        }
        Ok(())
    }
}

impl Drop for Observer {
    fn drop(&mut self) {
        // Both fail only when it has ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Finished {
    /// The outputs in which a secret stands; must be none.
    pub fn leaks(&self, secret: &str) -> Result<Vec<String>> {
        let mut leaks = Vec::new();
        for (name, text) in [("stdout", &self.stdout), ("stderr", &self.stderr)] {
            if text.contains(secret) {
                leaks.push(name.to_owned());
            }
        }
        for path in files_below(self.home.path())? {
            let bytes = fs::read(&path).with_context(|| format!("read {}", path.display()))?;
            if bytes.windows(secret.len()).any(|window| window == secret.as_bytes()) {
                leaks.push(path.display().to_string());
            }
        }
        Ok(leaks)
    }
}

/// All files of a directory and of those in it.
fn files_below(directory: &Path) -> Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for entry in fs::read_dir(directory).context("list the agent's files")? {
        let path = entry.context("list the agent's files")?.path();
        if path.is_dir() {
            files.extend(files_below(&path)?);
        } else {
            files.push(path);
        }
    }
    Ok(files)
}

pub(crate) fn inside<T: Send>(namespace: Option<&Namespace>, work: impl FnOnce() -> Result<T> + Send) -> Result<T> {
    match namespace {
        Some(namespace) => namespace.run(work),
        None => work(),
    }
}

/// Collects the lines of an output as they come.
fn collect(output: ChildStdout) -> (Arc<Mutex<Vec<String>>>, JoinHandle<()>) {
    let lines = Arc::new(Mutex::new(Vec::new()));
    let collected = Arc::clone(&lines);
    let reader = std::thread::spawn(move || {
        for line in BufReader::new(output).lines().map_while(Result::ok) {
            collected.lock().unwrap_or_else(PoisonError::into_inner).push(line);
        }
    });
    (lines, reader)
}

/// Path of the agent's program.
pub fn program() -> Result<PathBuf> {
    if let Some(path) = std::env::var_os(PROGRAM) {
        return Ok(path.into());
    }
    let test = std::env::current_exe().context("find the test's own program")?;
    let beside = test.ancestors().skip(1).take(2).map(|directory| directory.join("sekisho"));
    // target/debug/deps/TEST -> target/release/sekisho
    let released = test.ancestors().nth(3).map(|target| target.join("release/sekisho"));
    released
        .into_iter()
        .chain(beside)
        .find(|path| path.exists())
        .with_context(|| format!("no agent beside {}: run cargo xtask build, or set {PROGRAM}", test.display()))
}

/// Writes a configuration with a socket and a port of the test's own, and the test's keys over them.
pub fn write_configuration(home: &Path, metrics: SocketAddr, configuration: Value) -> Result<PathBuf> {
    let mut whole = json!({
        "standalone": true,
        "socket": home.join("agent.sock"),
        "data_dir": home.join("data"),
        "fold_seconds": 1,
        "metrics": { "listen": metrics },
        // How fast a machine is decides no test.
        "kernel": { "cpu_percent": 0 },
    });
    merge(&mut whole, configuration);
    let path = home.join("config.yaml");
    // JSON is YAML.
    fs::write(&path, whole.to_string()).with_context(|| format!("write {}", path.display()))?;
    Ok(path)
}

pub(crate) fn merge(into: &mut Value, from: Value) {
    match (into, from) {
        (Value::Object(into), Value::Object(from)) => {
            for (key, value) in from {
                merge(into.entry(key).or_insert(Value::Null), value);
            }
        }
        (into, from) => *into = from,
    }
}

/// A loopback port that nobody uses just now.
pub fn free_port() -> Result<SocketAddr> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).context("find a free port")?;
    listener.local_addr().context("find a free port")
}
