//! `sekisho capacity` and `sekisho capacity plan` as the real binary answers them: figures, usage, exit codes.

#![expect(clippy::expect_used, reason = "a test ends where it cannot go on")]

use std::io::{BufRead as _, BufReader, Write as _};
use std::os::unix::net::UnixListener;
use std::process::{Command, Output, Stdio};

use serde_json::Value;

fn run(args: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_sekisho"));
    for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("SEKISHO_")) {
        command.env_remove(name);
    }
    command.arg("capacity").args(args).stdin(Stdio::null()).output().expect("the binary starts")
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).expect("UTF-8")
}

/// The plans printed as JSON.
#[track_caller]
fn plans(args: &[&str]) -> Vec<Value> {
    let output = run(&[&["plan", "-o", "json"], args].concat());
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    text(&output.stdout).lines().map(|line| serde_json::from_str(line).expect("a JSON object a line")).collect()
}

#[track_caller]
fn plan(args: &[&str]) -> Value {
    let mut plans = plans(args);
    assert_eq!(plans.len(), 1);
    plans.remove(0)
}

#[test]
fn the_plan_holds_what_was_seen_in_the_field() {
    for (name, addresses) in [("m5.large", 20), ("m5.xlarge", 30), ("m5.2xlarge", 30), ("m5.4xlarge", 60)] {
        let plan = plan(&["--instance-type", name, "--pods", "3"]);
        assert_eq!(plan["schema"], "sekisho/1");
        assert_eq!(plan["kind"], "plan");
        assert_eq!(plan["instance_type"], name);
        assert_eq!(plan["addresses_held"], addresses, "{plan}");
        assert_eq!(plan["pod_addresses_held"], addresses - 2, "{plan}");
        assert_eq!(plan["interfaces"], 2);
    }
}

#[test]
fn every_setting_is_heard() {
    let m5 = |args: &[&str]| plan(&[&["--instance-type", "m5.large", "--pods", "7"], args].concat());
    let targets = m5(&["--warm-ip-target", "5", "--minimum-ip-target", "10"]);
    assert_eq!(targets["pod_addresses_held"], 12);
    assert_eq!(m5(&["--warm-eni-target", "2"])["pod_addresses_held"], 27);
    let prefixes = m5(&["--prefix-delegation"]);
    assert_eq!((&prefixes["prefixes_held"], &prefixes["max_pods"]), (&2.into(), &110.into()));
    assert_eq!(m5(&["--prefix-delegation", "--warm-prefix-target", "3"])["prefixes_held"], 4);
    assert_eq!(m5(&["--max-eni", "1"])["interfaces"], 1);
    assert_eq!((&m5(&["--pod-eni"])["interfaces"], &m5(&["--pod-eni"])["branch_interfaces"]), (&3.into(), &9.into()));
    assert_eq!(m5(&["--custom-networking"])["max_pods"], 20);
    let ipv6 = m5(&["--ipv6", "--warm-ip-target", "5"]);
    assert_eq!(
        (&ipv6["ip_family"], &ipv6["addresses_held"], &ipv6["prefixes_held"]),
        (&"ipv6".into(), &1.into(), &1.into())
    );
    assert_eq!(m5(&[])["ip_family"], "ipv4");
    assert_eq!(m5(&["--max-pods", "8"])["fits"], false);
    assert_eq!(m5(&["--max-pods", "8", "--host-network-pods", "1"])["fits"], true);
}

#[test]
fn all_types_are_one_object_each() {
    let plans = plans(&["--instance-type", "all", "--pods", "3"]);
    assert_eq!(plans.len(), 1_401);
    let fields = [
        "instance_type",
        "pods",
        "max_pods",
        "interfaces",
        "addresses_held",
        "pod_addresses_held",
        "prefixes_held",
        "branch_interfaces",
        "volume_slots",
        "network_mbps",
    ];
    assert!(plans.iter().all(|plan| fields.iter().all(|field| plan.get(field).is_some())));
}

#[test]
fn a_fleet_is_told_with_both_settings() {
    let args = ["--instance-type", "m5.4xlarge", "--pods", "3", "--nodes", "100", "--subnet-free-ips", "4091"];
    let fleet = plan(&args)["fleet"].clone();
    assert_eq!((&fleet["nodes_fit"], &fleet["nodes_fit_recommended"]), (&68.into(), &681.into()));
    assert_eq!((&fleet["fits"], &fleet["fits_recommended"]), (&false.into(), &true.into()));
    let shown = text(&run(&[&["plan"], &args[..]].concat()).stdout);
    for part in ["WARM_IP_TARGET=2 MINIMUM_IP_TARGET=3", "68 fit at 60 addresses a node: too few", "681 fit at 6"] {
        assert!(shown.contains(part), "{part:?} is not in {shown}");
    }
}

#[test]
fn too_many_pods_are_an_answer_and_no_error() {
    let plan = plan(&["--instance-type", "m5.large", "--pods", "100"]);
    assert_eq!((&plan["fits"], &plan["pods_fit"], &plan["stopped_by"]), (&false.into(), &27.into(), &"pods".into()));
    let shown = text(&run(&["plan", "--instance-type", "m5.large", "--pods", "100"]).stdout);
    assert!(shown.contains("100 pods do not fit: 27 do (max-pods 29"), "{shown}");
}

#[test]
fn an_unknown_type_exits_with_3_and_names_its_neighbours() {
    let output = run(&["plan", "--instance-type", "m5.lareg", "--pods", "1"]);
    assert_eq!(output.status.code(), Some(3));
    assert_eq!(text(&output.stdout), "");
    let error = text(&output.stderr);
    assert!(error.starts_with("sekisho: instance type m5.lareg is not known") && error.contains("m5.large"), "{error}");
}

#[test]
fn numbers_that_make_no_sense_exit_with_2() {
    let m5 = ["--instance-type", "m5.large"];
    for args in [
        &["--pods", "-1"][..],
        &["--pods", "many"],
        &["--pods", "5001"],
        &["--pods", "4294967296"],
        &[],
        &["--pods", "3", "--max-pods", "0"],
        &["--pods", "3", "--max-eni", "0"],
        &["--pods", "3", "--warm-ip-target", "-5"],
        &["--pods", "3", "--nodes", "3"],
        &["--pods", "3", "--subnet-free-ips", "3"],
        &["--pods", "3", "--nodes", "0", "--subnet-free-ips", "3"],
        &["--pods", "3", "-o", "yaml"],
        &["--pods", "3", "--ipv6", "--custom-networking"],
    ] {
        let output = run(&[&["plan"], &m5[..], args].concat());
        assert_eq!(output.status.code(), Some(2), "{args:?}: {}", text(&output.stderr));
    }
    assert_eq!(run(&["plan", "--pods", "3"]).status.code(), Some(2));
}

#[test]
fn without_an_agent_the_node_cannot_be_asked() {
    let output = run(&["--socket", "/nonexistent/agent.sock"]);
    assert_eq!(output.status.code(), Some(3));
    assert!(text(&output.stderr).contains("no agent listens on /nonexistent/agent.sock"), "{}", text(&output.stderr));
}

/// An agent that answers once, as the real one does.
fn play(directory: &tempfile::TempDir) -> (String, std::thread::JoinHandle<String>) {
    let path = directory.path().join("agent.sock");
    let listener = UnixListener::bind(&path).expect("binds");
    let agent = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().expect("a client");
        let mut request = String::new();
        BufReader::new(&stream).read_line(&mut request).expect("a request");
        let row = r#"{"schema":"sekisho/1","kind":"capacity","time":"1970-01-01T00:00:00.000000Z","node":"n","resources":[{
            "resource":"pod_ips","scope":"node","used":20,"limit":27,"unit":"count","source":"ipamd; m5.large carries 27",
            "age_s":3,"headroom":7,"exhaustion_s":{"earliest_s":60,"likely_s":300}},{"resource":"image_bytes","scope":"node",
            "used":1024,"limit":null,"unit":"bytes","source":"node's status.images","age_s":3,"headroom":null,
            "exhaustion_s":"cannot_tell"}],"pods_fit":7,"binding_resource":"pod_ips"}"#
            .replace(['\n'], "");
        let answer = r#"{"schema":"sekisho/1","version":"0.1.0","error":null}"#;
        stream.write_all(format!("{answer}\n{row}\n").as_bytes()).expect("writes");
        request
    });
    (path.to_str().expect("UTF-8").to_owned(), agent)
}

#[test]
fn a_running_agent_is_asked_and_shown() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let (socket, agent) = play(&directory);
    let output = run(&["--socket", &socket]);
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    let shown = text(&output.stdout);
    assert!(shown.starts_with("n: 7 more pods fit; pod_ips stops the next one\n"), "{shown}");
    assert!(shown.contains("#######---  74%      20/27      60s..5m"), "{shown}");
    let request: Value = serde_json::from_str(&agent.join().expect("played")).expect("JSON");
    assert_eq!(request["request"], "capacity");
    let directory = tempfile::tempdir().expect("a temporary directory");
    let (socket, _agent) = play(&directory);
    let output = run(&["-o", "json", "--socket", &socket]);
    let row: Value = serde_json::from_slice(&output.stdout).expect("one object");
    assert_eq!((&row["schema"], &row["node"], &row["pods_fit"]), (&"sekisho/1".into(), &"n".into(), &7.into()));
    assert_eq!(row["resources"][0]["exhaustion_s"]["likely_s"], 300);
    assert_eq!(row["resources"][1]["exhaustion_s"], "cannot_tell");
}
