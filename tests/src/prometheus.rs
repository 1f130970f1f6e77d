//! A real Prometheus on loopback that scrapes what a test names and evaluates the rules that are shipped; and promtool.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use serde::Deserialize;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::agent::{free_port, inside};
use crate::netns::Namespace;
use crate::{metrics, scale};

/// Names the directory that has `prometheus` and `promtool` in it.
const PROGRAMS: &str = "SEKISHO_PROMETHEUS";
/// Between two looks at something that must come.
const LOOK: Duration = Duration::from_millis(200);

/// The server, until dropped.
#[derive(Debug)]
pub struct Prometheus {
    child: Child,
    address: SocketAddr,
    home: TempDir,
    /// Where it was started, if not beside the test.
    namespace: Option<Arc<Namespace>>,
}

/// One series of an answer.
#[derive(Clone, Debug, PartialEq)]
pub struct Point {
    /// Its labels, the name among them.
    pub labels: BTreeMap<String, String>,
    /// Its value.
    pub value: f64,
}

/// How rules are loaded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Waits {
    /// As they are shipped.
    AsShipped,
    /// With every `for` of a second: how long an alert waits is promtool's to test.
    Short,
}

/// A program of Prometheus.
pub fn program(name: &str) -> Result<PathBuf> {
    let directory = std::env::var_os(PROGRAMS).with_context(|| {
        format!("no Prometheus: run `cargo xtask test --only monitoring`, or set {PROGRAMS} to its directory")
    })?;
    Ok(PathBuf::from(directory).join(name))
}

/// The rules that are shipped, by path.
pub fn rules() -> Result<Vec<PathBuf>> {
    files("rules")
}

/// Their tests, by path.
pub fn rule_tests() -> Result<Vec<PathBuf>> {
    files("tests")
}

fn files(directory: &str) -> Result<Vec<PathBuf>> {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy/prometheus").join(directory);
    let entries = fs::read_dir(&directory).with_context(|| format!("list {}", directory.display()))?;
    let mut paths = entries.map(|entry| Ok(entry?.path())).collect::<Result<Vec<_>>>()?;
    paths.retain(|path| path.extension().is_some_and(|extension| extension == "yaml"));
    paths.sort();
    ensure!(!paths.is_empty(), "{} is empty", directory.display());
    Ok(paths)
}

impl Prometheus {
    /// Starts a server that scrapes these targets every second as the job `sekisho`, evaluates the shipped rules as often,
    /// and waits until it answers.
    pub fn start_in(namespace: Option<Arc<Namespace>>, targets: &[SocketAddr], waits: Waits) -> Result<Self> {
        let targets: Vec<String> = targets.iter().map(ToString::to_string).collect();
        let scrape = json!({
            "job_name": "sekisho",
            "honor_labels": true,
            "static_configs": [{"targets": targets, "labels": {"node": "node-1"}}],
        });
        Self::start_with(namespace, &[scrape], waits)
    }

    /// As [`Prometheus::start_in`], with what to scrape as its configuration has it.
    pub fn start_with(namespace: Option<Arc<Namespace>>, scrapes: &[Value], waits: Waits) -> Result<Self> {
        let home = tempfile::tempdir().context("make a directory")?;
        let address = free_port()?;
        for path in rules()? {
            let mut text = fs::read_to_string(&path).with_context(|| format!("read {}", path.display()))?;
            if waits == Waits::Short {
                text = shortened(&text);
            }
            let name = path.file_name().context("a file's name")?;
            fs::write(home.path().join(name), text).context("write rules")?;
        }
        let configuration = json!({
            "global": {"scrape_interval": "1s", "scrape_timeout": "1s", "evaluation_interval": "1s"},
            "rule_files": ["*.yaml"],
            "scrape_configs": scrapes,
        });
        // JSON is YAML.
        let file = home.path().join("prometheus.json");
        fs::write(&file, configuration.to_string()).context("write a configuration")?;
        let log = File::create(home.path().join("log")).context("create a log")?;
        let program = program("prometheus")?;
        let mut command = Command::new(&program);
        command
            .current_dir(home.path())
            .arg(format!("--config.file={}", file.display()))
            .arg(format!("--storage.tsdb.path={}", home.path().join("data").display()))
            .arg(format!("--web.listen-address={address}"))
            .arg("--log.level=warn")
            .stdin(Stdio::null())
            .stdout(log.try_clone().context("create a log")?)
            .stderr(log);
        // A child process belongs to the namespace of the thread that starts it.
        let child = inside(namespace.as_deref(), || Ok(command.spawn()?))
            .with_context(|| format!("start {}", program.display()))?;
        let mut server = Self { child, address, home, namespace };
        let deadline = Instant::now() + scale::deadline();
        while !server.get("/-/ready").is_ok_and(|(status, _)| status == 200) {
            let ended = server.child.try_wait().context("look at Prometheus")?;
            ensure!(ended.is_none() && Instant::now() < deadline, "Prometheus did not start: {}", server.log());
            std::thread::sleep(LOOK);
        }
        Ok(server)
    }

    fn get(&self, path: &str) -> Result<(u16, String)> {
        inside(self.namespace.as_deref(), || metrics::get(self.address, path))
    }

    /// Asks its API; the part `data` of the answer.
    pub fn api(&self, path: &str) -> Result<Value> {
        let (status, text) = self.get(path)?;
        let mut answer: Value = serde_json::from_str(&text).with_context(|| format!("{path}: {text}"))?;
        ensure!(status == 200 && answer["status"] == "success", "{path}: {status} {answer}");
        Ok(answer["data"].take())
    }

    /// What an expression gives now.
    pub fn query(&self, expression: &str) -> Result<Vec<Point>> {
        #[derive(Deserialize)]
        struct Series {
            metric: BTreeMap<String, String>,
            value: (f64, String),
        }
        let mut data = self.api(&format!("/api/v1/query?query={}", encoded(expression)))?;
        ensure!(data["resultType"] == "vector", "{expression} gives no vector: {data}");
        let series: Vec<Series> = serde_json::from_value(data["result"].take()).context("read an answer")?;
        series
            .into_iter()
            .map(|Series { metric, value: (_, value) }| {
                let value = value.parse().with_context(|| format!("{value} is no number"))?;
                Ok(Point { labels: metric, value })
            })
            .collect()
    }

    /// Waits until what an expression gives is as the test wants it.
    pub fn wait_for(&self, expression: &str, mut wanted: impl FnMut(&[Point]) -> bool) -> Result<Vec<Point>> {
        let deadline = Instant::now() + scale::deadline();
        loop {
            let points = self.query(expression)?;
            if wanted(&points) {
                return Ok(points);
            }
            ensure!(
                Instant::now() < deadline,
                "{expression} does not come to what is wanted; it is {points:?}; firing: {:?}; {}",
                self.query("ALERTS{alertstate=\"firing\"}")?,
                self.log()
            );
            std::thread::sleep(LOOK);
        }
    }

    /// Names of the alerts that fire, each as often as it does.
    pub fn firing(&self) -> Result<Vec<String>> {
        let points = self.query("ALERTS{alertstate=\"firing\"}")?;
        let mut names: Vec<_> = points.into_iter().filter_map(|mut point| point.labels.remove("alertname")).collect();
        names.sort();
        Ok(names)
    }

    /// What it logged.
    pub fn log(&self) -> String {
        fs::read_to_string(self.home.path().join("log")).unwrap_or_default()
    }
}

impl Drop for Prometheus {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("Prometheus's log:\n{}", self.log());
        }
        // Both fail only when it has ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn shortened(rules: &str) -> String {
    let line = |line: &str| match line.split_once("for: ") {
        Some((indent, _)) if indent.trim().is_empty() => format!("{indent}for: 1s\n"),
        _ => format!("{line}\n"),
    };
    rules.lines().map(line).collect()
}

/// Percent-encoded (RFC 3986, 2.1).
fn encoded(text: &str) -> String {
    let byte = |byte: u8| {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            char::from(byte).to_string()
        } else {
            format!("%{byte:02X}")
        }
    };
    text.bytes().map(byte).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn queries_are_encoded() {
        assert_eq!(encoded("a{b=\"ü\"} > 1"), "a%7Bb%3D%22%C3%BC%22%7D%20%3E%201");
    }

    #[test]
    fn only_waits_are_shortened() {
        let rules = "  - alert: A\n    expr: for > 1\n    for: 10m\n    summary: 'a for: b'\n";
        assert_eq!(shortened(rules), "  - alert: A\n    expr: for > 1\n    for: 1s\n    summary: 'a for: b'\n");
    }
}
