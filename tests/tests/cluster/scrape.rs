//! Who gets what of the agent beyond loopback: the real server says whose token is whose and what he may.

use std::net::SocketAddr;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use system_tests::agent::free_port;
use system_tests::kube::{Account, Server, manifests};
use system_tests::prometheus::Waits;
use system_tests::tls::Certificate;
use system_tests::{Agent, Prometheus};
use tempfile::TempDir;

/// The set of values with which the chart makes an account for scraping.
const CHART: &str = "prometheus-operator";

/// An agent with a certificate, and the agent's own access.
struct Site {
    home: TempDir,
    certificate: Certificate,
    address: SocketAddr,
}

impl Site {
    fn new(server: &Server, agent: &Account) -> Result<Self> {
        server.admin.apply(&manifests::node("scraped"))?;
        let home = tempfile::tempdir().context("make a directory")?;
        let at = |name: &str| home.path().join(name);
        let certificate = Certificate::write(&at("tls.crt"), &at("tls.key"))?;
        std::fs::write(at("token"), server.token(agent)?).context("write a token")?;
        server.write_kubeconfig(&at("kubeconfig"), &at("token"))?;
        Ok(Self { certificate, address: free_port()?, home })
    }

    fn agent(&self) -> Result<Agent> {
        let at = |name: &str| self.home.path().join(name);
        let configuration = json!({
            "standalone": false,
            "node_name": "scraped",
            "cluster": { "kubeconfig": at("kubeconfig"), "start_jitter_seconds": 0 },
            "metrics": {
                "secure_listen": self.address,
                "tls_cert_file": at("tls.crt"),
                "tls_key_file": at("tls.key"),
            },
        });
        // What it would tell whoever looks for the last cause of trouble.
        Agent::with_environment(configuration, &[("SEKISHO_LOG", "trace")])
    }

    fn get(&self, path: &str, token: Option<&str>) -> Result<(u16, String)> {
        self.certificate.get(self.address, path, token)
    }
}

/// What the chart ships for scraping, made.
fn install_scraper(server: &Server) -> Result<Account> {
    let charts = manifests::charts()?;
    let (_, objects) = charts.into_iter().find(|(name, _)| name == CHART).context("no such rendering")?;
    let is_scrapers = |object: &&Value| {
        let name = object["metadata"]["name"].as_str().unwrap_or_default();
        let kinds = ["ServiceAccount", "ClusterRole", "ClusterRoleBinding"];
        ["sekisho-scraper", "sekisho-metrics-reader"].contains(&name)
            && kinds.iter().any(|kind| object["kind"] == *kind)
    };
    let made =
        objects.iter().filter(is_scrapers).map(|object| server.admin.apply(object)).collect::<Result<Vec<_>>>()?;
    ensure!(made.len() == 3, "the chart makes {} objects for scraping", made.len());
    Ok(Account { namespace: "sekisho".to_owned(), name: "sekisho-scraper".to_owned() })
}

/// Every file below a directory that holds a text.
fn files_with(directory: &Path, text: &str) -> Result<Vec<String>> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(directory).with_context(|| format!("list {}", directory.display()))? {
        let path = entry?.path();
        if path.is_dir() {
            found.extend(files_with(&path, text)?);
        } else if path.is_file() {
            let bytes = std::fs::read(&path).with_context(|| format!("read {}", path.display()))?;
            if bytes.windows(text.len()).any(|window| window == text.as_bytes()) {
                found.push(path.display().to_string());
            }
        }
    }
    Ok(found)
}

/// A real Prometheus that verifies the certificate, with the chart's account and with another.
fn prometheus_scrapes(site: &Site, good: &str, other: &str) -> Result<()> {
    let job = |name: &str, token: &str| -> Result<Value> {
        let file = site.home.path().join(name);
        std::fs::write(&file, token).context("write a token")?;
        Ok(json!({
            "job_name": name,
            "scheme": "https",
            "honor_labels": true,
            "authorization": { "credentials_file": file },
            "tls_config": { "ca_file": site.home.path().join("tls.crt") },
            "scrape_interval": "3s",
            "scrape_timeout": "3s",
            "static_configs": [{ "targets": [site.address.to_string()] }],
        }))
    };
    let jobs = [job("sekisho", good)?, job("stranger", other)?];
    let server = Prometheus::start_with(None, &jobs, Waits::AsShipped)?;
    server.wait_for("up{job=\"sekisho\"} == 1", |points| points.len() == 1)?;
    server.wait_for("sekisho_build_info{job=\"sekisho\"}", |points| points.len() == 1)?;
    server.wait_for("up{job=\"stranger\"} == 0", |points| points.len() == 1)?;
    let targets = server.api("/api/v1/targets")?;
    let targets = targets["activeTargets"].as_array().context("no targets")?;
    let errors = targets.iter().filter_map(|target| target["lastError"].as_str()).filter(|error| !error.is_empty());
    let errors: Vec<_> = errors.collect();
    ensure!(matches!(errors[..], [error] if error.contains("403")), "{errors:?}");
    Ok(())
}

#[test]
fn who_may_gets_metrics_and_a_neighbour_gets_health_alone() -> Result<()> {
    let mut server = Server::take()?;
    server.define_aws_objects()?;
    let own = server.install_role()?;
    let scraper = install_scraper(&server)?;
    let namespace = server.namespace("scraped")?;
    let bare = server.make_account(&namespace, "bare")?;
    let (good, other, second) = (server.token(&scraper)?, server.token(&bare)?, server.short_token(&scraper, 600)?);
    let late = server.short_token(&scraper, 601)?;
    let site = Site::new(&server, &own)?;
    let agent = site.agent()?;

    // Nobody in particular.
    for path in ["/healthz", "/readyz"] {
        assert_eq!(site.get(path, None)?, (200, "ok\n".to_owned()));
    }
    let (status, body) = site.get("/metrics", None)?;
    ensure!(status == 401 && !body.contains("sekisho_"), "{status} {body}");
    // A token of nobody's, and one whose signature is another's.
    let (head, _) = good.rsplit_once('.').context("a token of three parts")?;
    for wrong in ["nonsense", &format!("{head}.{}", other.rsplit('.').next().unwrap_or_default())] {
        let (status, body) = site.get("/metrics", Some(wrong))?;
        ensure!(status == 401 && !body.contains("sekisho_"), "{status} {body}");
    }
    let (status, body) = site.get("/metrics", Some(&other))?;
    ensure!(status == 403 && body.contains(&bare.user()) && !body.contains("sekisho_"), "{status} {body}");
    // Whom the chart makes for it.
    let (status, body) = site.get("/metrics", Some(&good))?;
    ensure!(status == 200 && body.contains("sekisho_build_info"), "{status} {body}");
    assert_eq!(site.get("/metrics", Some(&second))?.0, 200, "another token of the same account");
    let doctor = agent.command(&["doctor", "-o", "json"])?;
    let doctor: Value = serde_json::from_slice(&doctor.stdout).with_context(|| format!("{doctor:?}"))?;
    let check = doctor["checks"].as_array().into_iter().flatten().find(|check| check["name"] == "metrics");
    let text = check.with_context(|| format!("doctor does not tell: {doctor}"))?["text"].as_str().unwrap_or_default();
    ensure!(text.contains("1 forbidden; 2 served; 3 unauthenticated"), "{text}");

    prometheus_scrapes(&site, &good, &other)?;

    // Without the server those it knows go on for a while, and nobody else.
    server.kill()?;
    assert_eq!(site.get("/metrics", Some(&good))?.0, 200);
    let (status, body) = site.get("/metrics", Some(&late))?;
    ensure!(status == 503 && body.contains("could not be asked"), "{status} {body}");
    assert_eq!(site.get("/healthz", None)?.0, 200);
    server.restart()?;
    let end = std::time::Instant::now() + system_tests::scale::deadline();
    while site.get("/metrics", Some(&late))?.0 != 200 {
        ensure!(std::time::Instant::now() < end, "it does not ask again");
        std::thread::sleep(std::time::Duration::from_secs(1));
    }

    // No token stands anywhere, even in a log of everything.
    let finished = agent.finish()?;
    ensure!(finished.stderr.contains("TRACE"), "nothing was traced");
    for token in [&good, &other, &second, &late] {
        let part = token.rsplit('.').next().unwrap_or_default();
        ensure!(!finished.stdout.contains(part) && !finished.stderr.contains(part), "a token is in the output");
        let found = files_with(finished.home.path(), part)?;
        ensure!(found.is_empty(), "a token is in {found:?}");
    }
    Ok(())
}
