//! Stand-ins for agents whose `/metrics` has every metric of the catalogue, every resource and every finding, with counters
//! that grow by each scrape: what dashboards are tried on, for no one node shows all of it.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, ensure};

/// A metric of the catalogue.
#[derive(Clone, Debug)]
pub struct Metric {
    /// Name of its samples.
    pub name: String,
    /// OpenMetrics type.
    pub kind: String,
    /// Names of its labels.
    pub labels: Vec<String>,
}

/// An agent's stand-in, until dropped.
#[derive(Debug)]
pub struct Exposition {
    address: SocketAddr,
    ends: Arc<AtomicBool>,
    server: Option<JoinHandle<()>>,
}

/// A path of the repository.
fn repository(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(path)
}

/// The catalogue as `docs/metrics.md` shows it, which a test of the agent compares with the program.
pub fn catalogue() -> Result<Vec<Metric>> {
    let path = repository("docs/metrics.md");
    let page = fs::read_to_string(&path).with_context(|| format!("read {}", path.display()))?;
    let row = |line: &str| -> Option<Metric> {
        let cells: Vec<&str> = line.strip_prefix("| `sekisho_")?.split(" | ").collect();
        let [name, kind, _, labels, ..] = cells[..] else { return None };
        let labels = labels.split(", ").map(|label| label.trim().trim_matches('`').to_owned());
        Some(Metric {
            name: format!("sekisho_{}", name.trim_end_matches('`')),
            kind: kind.trim().trim_end_matches(" |").to_owned(),
            labels: labels.filter(|label| !label.is_empty()).collect(),
        })
    };
    let metrics: Vec<Metric> = page.lines().filter_map(row).collect();
    ensure!(metrics.len() > 30, "{} shows {} metrics", path.display(), metrics.len());
    Ok(metrics)
}

/// The codes of findings, by their pages.
fn codes() -> Result<Vec<String>> {
    let entries = fs::read_dir(repository("docs/findings")).context("list the pages of findings")?;
    let names = entries.map(|entry| Ok(entry?.file_name().to_string_lossy().trim_end_matches(".md").to_owned()));
    let mut names = names.collect::<Result<Vec<_>>>()?;
    names.retain(|name| name != "README");
    names.sort();
    Ok(names)
}

/// What a label of a metric may say; several values make several series.
fn values(metric: &str, label: &str, codes: &[String]) -> Result<Vec<String>> {
    let values: &[&str] = match (metric, label) {
        (_, "code") => return Ok(codes.to_vec()),
        (_, "namespace") => &["shop", "kube-system"],
        (_, "workload") => &["web", "cart"],
        (_, "pod") => &["web-7d4b9-abcde", "cart-0"],
        ("sekisho_connections_total", "direction") => &["outbound", "inbound"],
        (_, "direction") => &["egress", "ingress"],
        (_, "peer_class") => &["vpc", "internet", "cluster_pod"],
        ("sekisho_connections_total", "outcome") => &["established", "timed_out", "refused"],
        ("sekisho_metadata_requests_total", "outcome") => &["ok", "unauthorized"],
        ("sekisho_dns_queries_total", "outcome") => &["answered", "nxdomain", "unanswered"],
        ("sekisho_kubernetes_events_total", "outcome") => &["written", "repeated", "failed"],
        (_, "service") => &["imds", "pod_identity"],
        (_, "version") => &["v1", "v2"],
        (_, "category") => &["role_credentials", "user_data", "token"],
        (_, "severity") => &["high"],
        (_, "verdict") => &["holds", "violated", "cannot_tell"],
        (_, "source") => &["pods", "policies"],
        ("sekisho_cluster_left_out_total", "reason") => &["other_node", "malformed"],
        (_, "call") => &["network_interfaces", "subnets"],
        (_, "kind") => &["tcp", "metadata"],
        ("sekisho_history_rows_total", "fate") => &["stored", "lost"],
        ("sekisho_export_rows_total", "fate") => &["shipped", "refused", "lost"],
        (_, "fate") => &["stored", "aggregated", "lost_ring"],
        (_, "sink") => &["file", "otlp"],
        (_, "probe") => &["tcp", "egress"],
        (_, "cause") => &["crashed", "stopped"],
        (_, "what") => &["sockets", "peers"],
        (_, "metric") => &["sekisho_connections_total"],
        (_, "interface") => &["eth0"],
        (_, "allowance") => &["bw_in", "conntrack", "linklocal"],
        (_, "event") => &["conntrack_drop", "subnet_full"],
        (_, "collector") => &["threads", "links", "ena"],
        (_, "resource") => &["pods", "threads", "memory", "pod_ips", "disk_bytes", "subnet_ips"],
        (_, "scope") => &["node"],
        (_, "unit") => &["count"],
        _ => anyhow::bail!("{metric} has a label {label} that nothing is known of: say here what it may be"),
    };
    Ok(values.iter().map(|value| (*value).to_owned()).collect())
}

/// All label sets of a metric.
fn label_sets(metric: &Metric, codes: &[String]) -> Result<Vec<BTreeMap<String, String>>> {
    let mut sets = vec![BTreeMap::new()];
    for label in &metric.labels {
        let values = values(&metric.name, label, codes)?;
        let with = |set: &BTreeMap<String, String>, value: &String| {
            let mut set = set.clone();
            set.insert(label.clone(), value.clone());
            set
        };
        sets = sets.iter().flat_map(|set| values.iter().map(|value| with(set, value)).collect::<Vec<_>>()).collect();
    }
    // A node has one resource that binds.
    if metric.name == "sekisho_node_binding_resource" {
        sets.truncate(1);
    }
    Ok(sets)
}

/// What a gauge shows.
fn level(name: &str, now: f64) -> f64 {
    match name {
        "sekisho_node_capacity_used" => 70.0,
        "sekisho_node_capacity_limit" | "sekisho_pod_threads_limit" => 100.0,
        "sekisho_pod_threads" => 40.0,
        "sekisho_pod_open_files_ratio" => 0.4,
        "sekisho_capacity_exhaustion_seconds" => 7_200.0,
        "sekisho_last_gap_end_timestamp_seconds" => now - 60.0,
        "sekisho_cluster_age_seconds" | "sekisho_ec2_age_seconds" => 5.0,
        "sekisho_history_size_bytes" => 1e6,
        "sekisho_collector_duration_seconds" => 0.01,
        _ => 1.0,
    }
}

/// Prometheus text of everything at the n-th scrape, at a time in seconds since 1970.
pub fn text(scrape: u64, now: f64) -> Result<String> {
    let codes = codes()?;
    let grown = scrape * 7;
    let mut text = String::new();
    for metric in catalogue()? {
        let Metric { name, kind, .. } = &metric;
        let shown = if kind == "info" { "gauge" } else { kind.as_str() };
        writeln!(text, "# HELP {name} A stand-in.\n# TYPE {name} {shown}")?;
        for (place, set) in label_sets(&metric, &codes)?.into_iter().enumerate() {
            let labels: Vec<String> = set.iter().map(|(key, value)| format!("{key}=\"{value}\"")).collect();
            let labels = labels.join(",");
            match kind.as_str() {
                // Not all alike, so that an order shows.
                "counter" => writeln!(text, "{name}{{{labels}}} {}", grown * (1 + place as u64 % 5))?,
                "histogram" => {
                    for (bound, part) in [("0.001", 1), ("0.01", 2), ("+Inf", 3)] {
                        writeln!(text, "{name}_bucket{{{labels},le=\"{bound}\"}} {}", grown * part)?;
                    }
                    writeln!(text, "{name}_sum{{{labels}}} {grown}\n{name}_count{{{labels}}} {}", grown * 3)?;
                }
                _ => writeln!(text, "{name}{{{labels}}} {}", level(name, now))?,
            }
        }
    }
    Ok(text)
}

impl Exposition {
    /// Serves on a free port of loopback.
    pub fn start() -> Result<Self> {
        // What cannot be made is said here and not in the server.
        text(0, 0.0)?;
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).context("listen")?;
        let address = listener.local_addr().context("an address")?;
        let ends = Arc::new(AtomicBool::new(false));
        let (ended, scrapes) = (Arc::clone(&ends), AtomicU64::new(0));
        let server = std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                if ended.load(Ordering::Relaxed) {
                    return;
                }
                let scrape = scrapes.fetch_add(1, Ordering::Relaxed);
                if let Err(error) = answer(stream, scrape) {
                    eprintln!("a scrape of a stand-in: {error:#}");
                }
            }
        });
        Ok(Self { address, ends, server: Some(server) })
    }

    /// Where it is.
    pub fn address(&self) -> SocketAddr {
        self.address
    }
}

impl Drop for Exposition {
    fn drop(&mut self) {
        self.ends.store(true, Ordering::Relaxed);
        // Wakes it; when that fails it has ended.
        let _ = TcpStream::connect(self.address);
        if let Some(server) = self.server.take() {
            let _ = server.join();
        }
    }
}

fn answer(mut stream: TcpStream, scrape: u64) -> Result<()> {
    stream.set_read_timeout(Some(Duration::from_secs(5))).context("set a timeout")?;
    let mut head = Vec::new();
    let mut buffer = [0; 4_096];
    while !head.windows(4).any(|window| window == b"\r\n\r\n") {
        let read = stream.read(&mut buffer).context("read a request")?;
        ensure!(read > 0 && head.len() < 64 << 10, "no whole request");
        head.extend_from_slice(buffer.get(..read).unwrap_or_default());
    }
    let now = SystemTime::now().duration_since(UNIX_EPOCH).context("tell the time")?.as_secs_f64();
    let body = text(scrape, now)?;
    write!(
        stream,
        "HTTP/1.1 200 OK\r\ncontent-type: text/plain; version=0.0.4\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{body}",
        body.len()
    )
    .context("answer a scrape")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::Metrics;

    #[test]
    fn everything_of_the_catalogue_is_there_and_counters_grow() {
        let (first, second) = (text(1, 1e9).unwrap(), text(2, 1e9).unwrap());
        let (first, second) = (Metrics::parse(first).unwrap(), Metrics::parse(second).unwrap());
        for metric in catalogue().unwrap() {
            let name = if metric.kind == "histogram" { format!("{}_count", metric.name) } else { metric.name.clone() };
            let (before, after) = (first.sum(&name, &[]), second.sum(&name, &[]));
            assert!(before > 0.0, "{name}");
            assert_eq!(after > before, ["counter", "histogram"].contains(&metric.kind.as_str()), "{name}");
        }
    }
}
