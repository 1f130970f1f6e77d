//! Sources, ranges, errors, and the table of the documentation.

use std::collections::BTreeMap;
use std::path::Path;

use super::key::all;
use super::{Config, Listen, Sources};

fn load(file: Option<&str>, environment: &[(&str, &str)], flags: &[(&'static str, &str)]) -> Result<Config, String> {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let path = directory.path().join("config.yaml");
    if let Some(text) = file {
        std::fs::write(&path, text).expect("write");
    }
    let environment: BTreeMap<_, _> = environment.iter().copied().collect();
    Config::load(&Sources {
        file: file.map(|_| path),
        environment: &|name| environment.get(name).map(|value| (*value).to_owned()),
        flags: flags.iter().map(|(key, value)| (*key, (*value).to_owned())).collect(),
    })
    .map_err(|error| error.to_string())
}

#[test]
fn defaults_hold_without_any_source() {
    assert_eq!(load(None, &[], &[]), Ok(Config::default()));
    for empty in ["", "\n", "# nothing\n", "---\n", "~\n"] {
        assert_eq!(load(Some(empty), &[], &[]), Ok(Config::default()), "file {empty:?}");
    }
}

#[test]
fn later_sources_win() {
    let file = "fold_seconds: 2\nmetrics:\n  max_series: 200\n  listen: \"off\"\nprocesses: {arguments: true}\n";
    let config = load(
        Some(file),
        &[("SEKISHO_METRICS_MAX_SERIES", "300"), ("SEKISHO_NODE_NAME", "from-environment"), ("SEKISHO_OTHER", "x")],
        &[("node_name", "from-flag")],
    )
    .expect("loads");
    assert_eq!(config.fold_seconds, 2, "file over default");
    assert_eq!(config.metrics.listen, Listen::Off, "file over default");
    assert!(config.processes.arguments, "file over default");
    assert_eq!(config.metrics.max_series, 300, "environment over file");
    assert_eq!(config.node(), "from-flag", "flag over environment");
    assert_eq!(config.kernel, Config::default().kernel, "untouched");
}

#[test]
fn brackets_suit_both_families() {
    for (text, address) in [
        ("10.0.0.1:9847", Some("10.0.0.1:9847")),
        ("[10.0.0.1]:9847", Some("10.0.0.1:9847")),
        ("[fd00::1]:9847", Some("[fd00::1]:9847")),
        ("[10.0.0.1]9847", None),
        ("[10.0.0.1]:", None),
        ("[]:9847", None),
        ("fd00::1:9847", None),
    ] {
        let parsed = text.parse::<Listen>().ok().map(String::from);
        assert_eq!(parsed.as_deref(), address, "{text}");
    }
}

#[test]
fn what_is_served_to_others_needs_a_cluster_and_both_files() {
    for (file, key) in [
        ("standalone: true\nmetrics: {secure_listen: \"10.0.0.1:9847\"}\n", "metrics.secure_listen"),
        ("metrics: {tls_cert_file: /tls.crt}\n", "metrics.tls_key_file"),
        ("metrics: {tls_key_file: /tls.key}\n", "metrics.tls_key_file"),
        ("metrics: {tls_cert_file: tls.crt, tls_key_file: /tls.key}\n", "metrics.tls_cert_file"),
    ] {
        let error = load(Some(file), &[], &[]).expect_err(file);
        assert!(error.contains(key), "{file}: {error}");
    }
    let file = "metrics: {secure_listen: \"[10.0.0.1]:9847\", tls_cert_file: /tls.crt, tls_key_file: /tls.key}\n";
    load(Some(file), &[], &[]).expect(file);
}

#[test]
fn an_empty_node_name_is_the_host_name() {
    assert!(!Config::default().node().is_empty());
}

#[test]
fn errors_of_the_file_name_key_and_line() {
    let table = [
        ("metrics:\n  max_series: many\n", vec!["metrics.max_series", "many", "line 2 column 15"]),
        ("metrics:\n  lissten: off\n", vec!["metrics", "lissten", "listen", "line 2 column 3"]),
        ("fold_second: 3\n", vec!["fold_second", "fold_seconds", "line 1 column 1"]),
        ("kernel:\n  max_sockets: -1\n", vec!["kernel.max_sockets", "line 2"]),
        ("metrics:\n  listen: 9847\n", vec!["metrics.listen", "line 2"]),
        ("metrics: {listen: localhost}\n", vec!["metrics.listen", "127.0.0.1:9847, or off", "line 1"]),
        ("standalone: [\n", vec!["line 2"]),
        ("- 1\n", vec!["line 1"]),
        ("fold_seconds: 1\nfold_seconds: 2\n", vec!["fold_seconds"]),
    ];
    for (file, expected) in table {
        let error = load(Some(file), &[], &[]).expect_err(file);
        for part in std::iter::once("config.yaml").chain(expected) {
            assert!(error.contains(part), "{file:?}: {part:?} is not in {error:?}");
        }
    }
}

#[test]
fn values_out_of_range_name_key_value_origin_and_range() {
    let table = [
        ("fold_seconds", "0"),
        ("fold_seconds", "301"),
        ("fold_seconds", "1.5"),
        ("metrics.max_series", "99"),
        ("metrics.max_series", "100001"),
        ("metrics.listen", "0.0.0.0:9847"),
        ("metrics.listen", "[::]:9847"),
        ("metrics.listen", "10.1.2.3:9847"),
        ("metrics.listen", "9847"),
        ("socket", "agent.sock"),
        ("socket", &format!("/{}", "x".repeat(107))),
        ("data_dir", "data"),
        ("findings.waivers", r#"[{"reason":"everything"}]"#),
        ("findings.waivers", r#"[{"code":"user-data-read","reason":" "}]"#),
        ("findings.waivers", "[{code: user-data-read}]"),
        ("findings.waivers", r#"[{"image":"a:1","reason":"x"}]"#),
        ("findings.waivers", "[{code: no-such-code, reason: x}]"),
        ("findings.waivers", "[{namespace: a, reason: x, until: soon}]"),
        ("findings.cluster_security_groups", r#"["sg-"]"#),
        ("findings.cluster_security_groups", "sg-1"),
        ("findings.irsa_annotation_prefix", "a/b"),
        ("findings.max_groups", "4"),
        ("findings.max_groups", "17"),
        ("findings.token_window_hours", "23"),
        ("findings.veth_prefix", "vlan"),
        ("findings.veth_prefix", "tools"),
        ("roots.proc", "proc"),
        ("roots.proc", ""),
        ("roots.sys", "sys"),
        ("roots.cgroup", "cgroup"),
        ("kernel.bulk_ring_bytes", "5000"),
        ("kernel.lifecycle_ring_bytes", "2048"),
        ("kernel.metadata_ring_bytes", "134217728"),
        ("kernel.max_sockets", "15"),
        ("kernel.cpu_percent", "6401"),
        ("aws.mode", "on"),
        ("aws.region", "eu central"),
        ("aws.endpoint", "ec2.example"),
        ("aws.endpoint", "http://192.0.2.1"),
        ("aws.endpoint", "https://ec2.example/path"),
        ("aws.endpoint", "https://user@ec2.example"),
        ("aws.fleet_nodes", "100001"),
        ("aws.refresh_seconds", "86401"),
        ("node_name", "two words"),
        ("standalone", "yes"),
        ("processes.arguments", "on"),
        ("export.kinds", "[flows]"),
        ("export.file.path", "rows.json"),
        ("export.file.max_bytes", "1000"),
        ("export.file.files", "0"),
        ("export.otlp.endpoint", "collector:4318"),
        ("export.otlp.endpoint", "ftp://collector:4318"),
        ("export.otlp.headers_env", "TWO WORDS"),
        ("export.otlp.ca_file", "ca.pem"),
        ("export.otlp.interval_seconds", "0"),
    ];
    for (name, value) in table {
        let key = all().find(|key| key.name == name).expect(name);
        let error = load(None, &[(&key.variable(), value)], &[]).expect_err(&format!("{name}={value}"));
        for part in [name, value, key.allowed, &key.variable()] {
            assert!(error.contains(part), "{part:?} is not in {error:?}");
        }
        let error = load(None, &[], &[(name, value)]).expect_err(&format!("{name}={value}"));
        assert!(error.contains("flag "), "{error:?}");
    }
}

#[test]
fn a_range_error_from_the_file_names_the_file() {
    let error = load(Some("fold_seconds: 0\n"), &[], &[]).expect_err("out of range");
    assert!(error.contains("config.yaml") && error.contains("1 to 300"), "{error}");
}

#[test]
fn ends_of_the_ranges_are_allowed() {
    for (name, value) in [
        ("fold_seconds", "1"),
        ("fold_seconds", "300"),
        ("metrics.max_series", "100"),
        ("metrics.max_series", "100000"),
        ("metrics.listen", "[::1]:0"),
        ("metrics.listen", "off"),
        ("kernel.bulk_ring_bytes", "4096"),
        ("kernel.bulk_ring_bytes", "67108864"),
        ("kernel.max_sockets", "16"),
        ("kernel.max_sockets", "1048576"),
        ("kernel.cpu_percent", "0"),
        ("kernel.cpu_percent", "6400"),
        ("aws.mode", "off"),
        ("aws.endpoint", "http://127.0.0.1:5000"),
        ("aws.endpoint", "http://[::1]:5000"),
        ("aws.endpoint", "https://vpce-1.ec2.eu-central-1.vpce.amazonaws.com"),
        ("aws.fleet_nodes", "0"),
        ("aws.fleet_nodes", "1"),
        ("roots.cgroup", ""),
        ("export.kinds", "[\"finding\",\"metadata\"]"),
        ("export.file.path", "/var/log/sekisho/rows.json"),
        ("export.otlp.endpoint", "http://collector.monitoring:4318"),
        ("export.otlp.endpoint", "https://[::1]:4318/v1/logs?tenant=1"),
        ("export.otlp.headers_env", ""),
    ] {
        let config = load(None, &[], &[(name, value)]).unwrap_or_else(|error| panic!("{name}={value}: {error}"));
        let key = all().find(|key| key.name == name).expect(name);
        assert_eq!((key.get)(&config), value);
    }
}

#[test]
fn an_unreadable_file_is_named() {
    let error = Config::load(&Sources {
        file: Some("/nonexistent/config.yaml".into()),
        environment: &|_| None,
        flags: Vec::new(),
    })
    .expect_err("there is no such file");
    assert!(error.to_string().contains("/nonexistent/config.yaml"), "{error}");
    assert!(std::error::Error::source(&error).is_some());
}

/// A long file is refused rather than read into memory.
#[test]
fn an_endless_file_is_refused() {
    let error = Config::load(&Sources { file: Some("/dev/zero".into()), environment: &|_| None, flags: Vec::new() })
        .expect_err("endless");
    assert!(std::error::Error::source(&error).is_some_and(|source| source.to_string().contains("longer than")));
}

/// The table and the struct agree: same keys, same defaults, and what `get` shows `set` takes.
#[test]
fn table_and_struct_agree() {
    let defaults = Config::default();
    let tree = serde_json::to_value(&defaults).expect("a tree");
    let mut leaves = BTreeMap::new();
    collect("", &tree, &mut leaves);
    let table: BTreeMap<String, String> = all().map(|key| (key.name.to_owned(), (key.get)(&defaults))).collect();
    assert_eq!(table, leaves);

    for key in all() {
        let mut config = Config::default();
        assert!((key.set)(&mut config, &(key.get)(&defaults)), "{}", key.name);
        assert_eq!(config, defaults, "{}", key.name);
    }
}

fn collect(prefix: &str, tree: &serde_json::Value, leaves: &mut BTreeMap<String, String>) {
    match tree {
        serde_json::Value::Object(map) => {
            for (name, value) in map {
                let dot = if prefix.is_empty() { "" } else { "." };
                collect(&format!("{prefix}{dot}{name}"), value, leaves);
            }
        }
        serde_json::Value::String(text) => {
            leaves.insert(prefix.to_owned(), text.clone());
        }
        other => {
            leaves.insert(prefix.to_owned(), other.to_string());
        }
    }
}

#[test]
fn a_password_in_an_endpoint_is_refused_and_not_shown() {
    let error = load(None, &[], &[("export.otlp.endpoint", "https://me:hunter2@collector:4318")]).expect_err("a user");
    assert!(error.contains("https://...@collector:4318") && !error.contains("hunter2"), "{error}");
}

/// Rows are shipped out of the history.
#[test]
fn a_collector_needs_the_history() {
    let file = "history: {enabled: false}\nexport: {otlp: {endpoint: \"http://collector:4318\"}}\n";
    let error = load(Some(file), &[], &[]).expect_err("no history");
    assert!(error.contains("export.otlp.endpoint") && error.contains("with history.enabled"), "{error}");
}

#[test]
fn documentation_shows_the_table() {
    crate::golden::compare_section(Path::new("../docs/configuration.md"), &super::markdown());
}

#[test]
fn waivers_and_groups_come_from_the_file() {
    let file = "findings:\n  max_groups: 16\n  cluster_security_groups: [sg-0a1b]\n  waivers:\n  - code: user-data-read\n    namespace: ops\n    reason: prepares nodes\n    until: 2026-12-31\n";
    let config = load(Some(file), &[], &[]).expect("loads");
    let settings = config.findings.settings();
    assert_eq!((settings.waivers.len(), settings.papers.max_groups), (1, 16));
    assert!(settings.papers.cluster_groups.contains("sg-0a1b"));
    assert!(settings.waivers[0].until.is_some_and(|until| until.to_string().starts_with("2027-01-01T00:00")));
    let error = load(Some("findings:\n  waivers:\n  - namespaces: ops\n"), &[], &[]).expect_err("no such field");
    assert!(error.contains("findings.waivers") && error.contains("namespaces"), "{error}");
}
