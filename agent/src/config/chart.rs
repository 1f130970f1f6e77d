//! The Helm chart against the agent: its schema of `config` is generated from the keys and refuses what the agent refuses, and
//! the files that it renders are taken. `SEKISHO_UPDATE_DOCS=1` writes the schema anew.

use std::fs;
use std::path::{Path, PathBuf};

use agent_core::finding::Code;
use serde::Deserialize as _;
use serde_json::{Map, Value, json};

use super::key::all;
use super::{Config, Sources};

/// Keys that depend on where the chart mounts things and whom it lets in. Nobody else may set them there.
const OF_THE_CHART: [&str; 11] = [
    "node_name",
    "standalone",
    "socket",
    "data_dir",
    "cluster.kubeconfig",
    "cluster.manifests",
    "metrics.listen",
    "metrics.secure_listen",
    "metrics.tls_cert_file",
    "metrics.tls_key_file",
    "kernel.pin",
];

fn deploy(below: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy/chart").join(below)
}

/// Whether the chart sets a key itself. `kernel.pin` is the user's, in a narrower form.
fn is_the_charts(name: &str) -> bool {
    name != "kernel.pin" && (OF_THE_CHART.contains(&name) || name.starts_with("roots."))
}

/// The schema of `config` in the chart's values.
fn schema() -> Value {
    let defaults = serde_json::to_value(Config::default()).expect("a tree");
    let mut schema = closed(Map::new());
    for key in all().filter(|key| !is_the_charts(key.name)) {
        let default = key.name.split('.').fold(&defaults, |tree, part| &tree[part]);
        let mut leaf = leaf(key.name, key.allowed, default);
        leaf["description"] = format!("{} Allowed: {}.", key.text, key.allowed).into();
        let (mut place, mut rest) = (&mut schema, key.name);
        while let Some((level, below)) = rest.split_once('.') {
            let properties = place["properties"].as_object_mut().expect("an object's schema");
            place = properties.entry(level).or_insert_with(|| closed(Map::new()));
            rest = below;
        }
        place["properties"][rest] = leaf;
    }
    schema
}

/// An object with these members and no other.
fn closed(properties: Map<String, Value>) -> Value {
    let mut schema = json!({ "type": "object", "additionalProperties": false });
    schema["properties"] = properties.into();
    schema
}

fn leaf(name: &str, allowed: &str, default: &Value) -> Value {
    match name {
        // The chart mounts this one file system of the kind.
        "kernel.pin" => json!({ "enum": ["off", "on"] }),
        "aws.mode" => json!({ "enum": ["auto", "off"] }),
        "findings.cluster_security_groups" => {
            json!({ "type": "array", "items": { "type": "string", "pattern": "^sg-[0-9a-fA-F]+$" } })
        }
        "export.kinds" => {
            json!({ "type": "array", "items": { "enum": ["flow", "metadata", "process", "gap", "finding", "capacity"] } })
        }
        "findings.waivers" => json!({ "type": "array", "maxItems": 1000, "items": waiver() }),
        _ => match default {
            Value::Bool(_) => json!({ "type": "boolean" }),
            Value::Number(_) => number(allowed),
            Value::String(_) => json!({ "type": "string" }),
            other => panic!("{name}: no schema for a default like {other}"),
        },
    }
}

fn waiver() -> Value {
    let codes: Vec<&str> = Code::ALL.iter().map(|code| code.name()).collect();
    let mut properties = Map::new();
    properties.insert("code".to_owned(), json!({ "enum": codes }));
    for name in ["namespace", "service_account", "workload", "image", "reason", "until"] {
        properties.insert(name.to_owned(), json!({ "type": "string", "minLength": 1 }));
    }
    let mut schema = closed(properties);
    schema["required"] = json!(["reason"]);
    schema
}

/// `1 to 300`, `67108864 (64 MiB) to …`, `a power of two from 4096 to 67108864`.
fn number(allowed: &str) -> Value {
    let numbers: Vec<u64> = allowed
        .split(|c: char| !c.is_ascii_digit() && c != ' ')
        .flat_map(|part| part.split(' '))
        .filter_map(|word| word.parse().ok())
        .collect();
    let (Some(&least), Some(&most)) = (numbers.first(), numbers.iter().max()) else {
        panic!("no range in {allowed:?}");
    };
    if allowed.starts_with("a power of two") {
        let powers: Vec<u64> =
            (0..u64::BITS).map(|bit| 1 << bit).filter(|power| (least..=most).contains(power)).collect();
        return json!({ "enum": powers });
    }
    json!({ "type": "integer", "minimum": least, "maximum": most })
}

/// Whether the agent takes a value from a file.
fn is_taken(name: &str, value: &Value) -> bool {
    let tree = name.rsplit('.').fold(value.clone(), |below, level| json!({ level: below }));
    load(&tree.to_string()).is_ok()
}

fn load(text: &str) -> Result<Config, String> {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let path = directory.path().join("config.yaml");
    fs::write(&path, text).expect("written");
    Config::load(&Sources { file: Some(path), environment: &|_| None, flags: Vec::new() })
        .map_err(|error| error.to_string())
}

/// Keys of every part are in the values.
#[test]
fn no_key_is_kept_from_the_chart() {
    let schema = schema();
    for path in ["/properties/export/properties/otlp/properties/endpoint", "/properties/aws/properties/region"] {
        assert!(schema.pointer(path).is_some(), "{path}");
    }
    for kind in schema["properties"]["export"]["properties"]["kinds"]["items"]["enum"].as_array().expect("kinds") {
        assert!(is_taken("export.kinds", &json!([kind])), "{kind}");
    }
    assert!(!is_taken("export.kinds", &json!(["x"])));
}

#[test]
fn the_schema_of_the_chart_is_that_of_the_keys() {
    let path = deploy("values.schema.json");
    let text = fs::read_to_string(&path).expect("the chart has a schema");
    let mut whole: Value = serde_json::from_str(&text).expect("JSON");
    if std::env::var_os("SEKISHO_UPDATE_DOCS").is_some() {
        whole["$defs"]["config"] = schema();
        let text = serde_json::to_string_pretty(&whole).expect("JSON");
        fs::write(&path, text + "\n").expect("the schema can be written");
        return;
    }
    assert_eq!(whole["$defs"]["config"], schema(), "out of date: run the tests once with SEKISHO_UPDATE_DOCS=1");
}

/// What the schema allows at the ends of a range the agent takes, and one step beyond neither does.
#[test]
fn the_schema_refuses_what_the_agent_refuses() {
    let mut checked = 0;
    for key in all().filter(|key| !is_the_charts(key.name)) {
        let path = format!("/properties/{}", key.name.replace('.', "/properties/"));
        let leaf = schema().pointer(&path).cloned().unwrap_or_else(|| panic!("{} is missing", key.name));
        for value in leaf["enum"].as_array().into_iter().flatten() {
            assert!(is_taken(key.name, value), "{} = {value}", key.name);
        }
        let (Some(least), Some(most)) = (leaf["minimum"].as_u64(), leaf["maximum"].as_u64()) else { continue };
        assert!(is_taken(key.name, &json!(least)) && is_taken(key.name, &json!(most)), "{}: {leaf}", key.name);
        assert!(!is_taken(key.name, &json!(most + 1)), "{}: {}", key.name, most + 1);
        let below = i64::try_from(least).expect("small") - 1;
        assert!(!is_taken(key.name, &json!(below)), "{}: {below}", key.name);
        checked += 1;
    }
    assert!(checked >= 15, "only {checked} ranges");
}

/// Every configuration that the chart renders in its tests starts an agent.
#[test]
fn the_agent_takes_what_the_chart_renders() {
    let fixtures = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/fixtures/chart");
    let mut taken = 0;
    for entry in fs::read_dir(&fixtures).expect("rendered charts") {
        let path = entry.expect("an entry").path();
        let text = fs::read_to_string(&path).expect("a rendered chart");
        for document in serde_yaml_ng::Deserializer::from_str(&text) {
            let object = Value::deserialize(document).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
            let Some(file) = object["data"]["config.yaml"].as_str() else { continue };
            let config = load(file).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
            assert_eq!(config.roots.proc, Path::new("/host/proc"), "{}", path.display());
            taken += 1;
        }
    }
    assert!(taken >= 5, "only {taken} files");
}
