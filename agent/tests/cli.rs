//! The real binary's command line: usage, errors, exit codes. Nothing here needs root, and no probe is loaded: every
//! run ends before that, or speaks to an agent that the test plays.

#![expect(clippy::expect_used, reason = "a test ends where it cannot go on")]

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpListener;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::thread::JoinHandle;

fn sekisho(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_sekisho"));
    for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("SEKISHO_")) {
        command.env_remove(name);
    }
    command.args(args).stdin(Stdio::null()).env("RUST_BACKTRACE", "1");
    command
}

fn run(args: &[&str]) -> Output {
    sekisho(args).output().expect("the binary starts")
}

fn stderr(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).expect("UTF-8")
}

fn stdout(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).expect("UTF-8")
}

/// One plain sentence on standard error, nothing on standard output, exit 3.
#[track_caller]
fn cannot_run(output: &Output, parts: &[&str]) {
    let text = stderr(output);
    assert_eq!(output.status.code(), Some(3), "{text}");
    assert_eq!(stdout(output), "");
    let line = text.lines().last().unwrap_or_default();
    assert!(line.starts_with("sekisho: "), "{text}");
    for part in parts {
        assert!(line.contains(part), "{part:?} is not in {text:?}");
    }
    for part in ["panicked", "backtrace", "src/"] {
        assert!(!text.contains(part), "{text}");
    }
}

struct Directory(tempfile::TempDir);

impl Directory {
    fn new() -> Self {
        Self(tempfile::tempdir().expect("a temporary directory"))
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn text(&self, name: &str) -> String {
        self.path(name).to_str().expect("UTF-8").to_owned()
    }
}

#[test]
fn errors_of_usage_exit_with_2() {
    for args in [
        &[][..],
        &["fly"],
        &["run", "--fast"],
        &["run", "--duration", "0"],
        &["run", "--duration", "soon"],
        &["run", "-o", "xml"],
        &["observe", "--pod", "no-namespace"],
        &["observe", "--kind", "no-such-kind"],
        &["observe", "-o", "table"],
        &["doctor", "extra"],
        &["replay"],
        &["run", "--record-bytes", "1048576"],
        &["run", "--record", "x", "--record-bytes", "7"],
    ] {
        let output = run(args);
        assert_eq!(output.status.code(), Some(2), "{args:?}: {}", stderr(&output));
        assert_eq!(stdout(&output), "", "{args:?}");
        assert!(stderr(&output).contains("--help") || stderr(&output).contains("Usage: sekisho"), "{args:?}");
    }
}

#[test]
fn what_is_no_recording_cannot_be_replayed() {
    let directory = Directory::new();
    cannot_run(&run(&["replay", &directory.text("nothing")]), &["nothing", "could not open"]);
    std::fs::write(directory.path("text"), "text").expect("writes");
    cannot_run(&run(&["replay", &directory.text("text")]), &["text is no recording"]);
}

#[test]
fn help_lists_what_exists_and_nothing_else() {
    let output = run(&["--help"]);
    assert_eq!(output.status.code(), Some(0));
    let text = stdout(&output);
    let (_, commands) = text.split_once("Commands:\n").expect("a list of commands");
    let (commands, _) = commands.split_once("\n\n").expect("an end of the list");
    let names: Vec<_> = commands.lines().filter_map(|line| line.split_whitespace().next()).collect();
    assert_eq!(
        names,
        [
            "run",
            "observe",
            "capacity",
            "check",
            "findings",
            "top",
            "explain",
            "timeline",
            "readiness",
            "replay",
            "evidence",
            "doctor",
            "sg",
            "audit",
            "help"
        ]
    );
    assert_eq!(run(&["--version"]).status.code(), Some(0));
}

#[test]
fn without_a_cluster_it_says_what_is_missing() {
    let output =
        sekisho(&["run"]).env_remove("KUBECONFIG").env_remove("KUBERNETES_SERVICE_HOST").output().expect("starts");
    cannot_run(&output, &["no cluster", "cluster.kubeconfig", "KUBECONFIG", "--standalone"]);
    cannot_run(&run(&["run", "--manifests", "/tmp"]), &["cluster.manifests = /tmp", "standalone"]);
}

#[test]
fn a_wrong_configuration_is_explained() {
    let directory = Directory::new();
    let file = directory.text("config.yaml");
    std::fs::write(&file, "metrics:\n  max_series: lots\n").expect("writes");
    let output = run(&["run", "--standalone", "--config", &file]);
    cannot_run(&output, &["config.yaml", "metrics.max_series", "lots", "line 2"]);

    std::fs::write(&file, "metrics:\n  max_series: 1\n").expect("writes");
    let output = sekisho(&["run", "--standalone"]).env("SEKISHO_CONFIG", &file).output().expect("starts");
    cannot_run(&output, &["metrics.max_series = 1", "config.yaml", "100 to 100000"]);

    cannot_run(&run(&["run", "--config", "/nonexistent.yaml"]), &["/nonexistent.yaml", "No such file"]);
    cannot_run(&run(&["run", "--metrics-listen", "0.0.0.0:1"]), &["0.0.0.0:1", "--metrics-listen", "loopback"]);
    let output = sekisho(&["run"]).env("SEKISHO_FOLD_SECONDS", "x").output().expect("starts");
    cannot_run(&output, &["fold_seconds = x", "SEKISHO_FOLD_SECONDS", "1 to 300"]);
    let output = sekisho(&["run"]).env("SEKISHO_LOG", "sekisho=loud").output().expect("starts");
    cannot_run(&output, &["SEKISHO_LOG", "sekisho=loud"]);
}

#[test]
fn a_port_in_use_is_named() {
    let directory = Directory::new();
    let taken = TcpListener::bind("127.0.0.1:0").expect("binds");
    let address = taken.local_addr().expect("an address");
    let socket = directory.text("agent.sock");
    let args = ["run", "--standalone", "--socket", &socket, "--metrics-listen", &address.to_string()];
    let output = sekisho(&args).env("SEKISHO_ROOTS_CGROUP", directory.path("")).output().expect("starts");
    cannot_run(&output, &[&address.port().to_string(), "in use", "--metrics-listen"]);
    assert!(!Path::new(&socket).exists(), "nothing is left");
}

#[test]
fn a_second_agent_is_refused() {
    let directory = Directory::new();
    let socket = directory.text("agent.sock");
    let _first = UnixListener::bind(&socket).expect("binds");
    let args = ["run", "--standalone", "--socket", &socket, "--metrics-listen", "off"];
    let output = sekisho(&args).env("SEKISHO_ROOTS_CGROUP", directory.path("")).output().expect("starts");
    cannot_run(&output, &["another agent listens", "agent.sock", "--socket"]);
    assert!(Path::new(&socket).exists(), "the other's socket stays");
}

#[test]
fn a_missing_agent_is_named() {
    cannot_run(&run(&["observe", "--socket", "/nonexistent/agent.sock"]), &["/nonexistent/agent.sock", "sekisho run"]);
    cannot_run(&run(&["doctor", "--books", "--socket", "/nonexistent/agent.sock"]), &["/nonexistent/agent.sock"]);
}

/// Plays an agent for one client; gives back what was asked.
fn agent(socket: &Path, answer: String) -> JoinHandle<serde_json::Value> {
    let listener = UnixListener::bind(socket).expect("binds");
    std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().expect("a client");
        let mut request = String::new();
        BufReader::new(&stream).read_line(&mut request).expect("a request");
        // A client that has enough goes away.
        let _ = stream.write_all(answer.as_bytes());
        serde_json::from_str(&request).expect("JSON")
    })
}

const HELLO: &str = "{\"schema\":\"sekisho/1\",\"version\":\"0.1.0\",\"error\":null}\n";

#[test]
fn observe_asks_for_what_was_said_and_shows_the_answer() {
    let directory = Directory::new();
    let agent = agent(&directory.path("agent.sock"), format!("{HELLO}one\ntwo\n"));
    let socket = directory.text("agent.sock");
    let args = ["observe", "--socket", &socket, "--pod", "shop/web", "--kind", "flow,gap", "--workload", "w", "-f"];
    let output = run(&args);
    assert_eq!((output.status.code(), stdout(&output).as_str()), (Some(0), "one\ntwo\n"), "{}", stderr(&output));
    let expected = serde_json::json!({
        "schema": "sekisho/1", "request": "observe", "form": "text", "follow": true,
        "filter": {"kinds": ["flow", "gap"], "pods": [{"namespace": "shop", "name": "web"}], "workloads": ["w"]},
    });
    assert_eq!(agent.join().expect("the agent ends"), expected);
}

#[test]
fn observe_shows_a_refusal() {
    let directory = Directory::new();
    let refusal = "{\"schema\":\"sekisho/1\",\"version\":\"0.1.0\",\"error\":\"8 clients are connected\"}\n";
    let agent = agent(&directory.path("agent.sock"), refusal.to_owned());
    cannot_run(&run(&["observe", "--socket", &directory.text("agent.sock")]), &["8 clients are connected"]);
    agent.join().expect("the agent ends");
}

/// `sekisho observe | head -1`.
#[test]
fn a_reader_that_goes_away_is_no_error() {
    let directory = Directory::new();
    let agent = agent(&directory.path("agent.sock"), format!("{HELLO}{}", "line\n".repeat(200_000)));
    let mut child = sekisho(&["observe", "--socket", &directory.text("agent.sock")])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("starts");
    let mut head = [0; 5];
    child.stdout.take().expect("a pipe").read_exact(&mut head).expect("reads");
    let output = child.wait_with_output().expect("ends");
    assert_eq!((&head, output.status.code(), stderr(&output).as_str()), (b"line\n", Some(0), ""));
    agent.join().expect("the agent ends");
}

fn status(refused: &str, seen: u64) -> String {
    format!(
        "{HELLO}{{\"node\":\"n\",\"pid\":1,\"probes\":[{{\"name\":\"tcp\",\"gives\":\"connections\",\"required\":true,\
         \"refused\":null}},{{\"name\":\"owners\",\"gives\":\"owners of connections\",\"required\":false,\
         \"refused\":{refused}}}],\"books\":[{{\"kind\":\"tcp\",\"seen\":{seen},\"pending\":1,\
         \"fates\":{{\"stored\":2,\"lost_ring\":3}}}}]}}\n"
    )
}

fn doctor(answer: String, args: &[&str]) -> Output {
    let directory = Directory::new();
    let agent = agent(&directory.path("agent.sock"), answer);
    let output = run(&[&["doctor", "--socket", &directory.text("agent.sock")], args].concat());
    let request = agent.join().expect("the agent ends");
    assert_eq!(request["request"], "status");
    output
}

#[test]
fn doctor_shows_what_the_agent_lacks() {
    let output = doctor(status("\"EPERM\"", 6), &[]);
    assert_eq!(output.status.code(), Some(1), "{}", stderr(&output));
    let text = stdout(&output);
    assert!(text.contains("agent running, pid 1, node n"), "{text}");
    assert!(text.lines().any(|line| line.starts_with("ok        probe tcp")), "{text}");
    let refused = "degraded  probe owners            refused, so there is no owners of connections: EPERM";
    assert!(text.lines().any(|line| line == refused), "{text}");

    let output = doctor(status("\"EPERM\"", 6), &["-o", "json"]);
    let report: serde_json::Value = serde_json::from_slice(&output.stdout).expect("JSON");
    assert_eq!((&report["schema"], &report["kind"]), (&"sekisho/1".into(), &"doctor".into()));
    assert_eq!((&report["verdict"], &report["agent"]), (&"degraded".into(), &1.into()));
    assert_eq!(report["probes"][1]["state"], "degraded");
}

#[test]
fn doctor_checks_the_books() {
    let output = doctor(status("null", 6), &["--books"]);
    assert_eq!(output.status.code(), Some(0), "{}", stdout(&output));
    let rows: Vec<Vec<_>> =
        stdout(&output).lines().map(|line| line.split_whitespace().map(str::to_owned).collect()).collect();
    assert_eq!(rows[0], ["kind", "seen", "pending", "lost_ring", "stored"]);
    assert_eq!(rows[1], ["tcp", "6", "1", "3", "2"]);

    let output = doctor(status("null", 7), &["--books"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(stdout(&output).contains("does not add up"), "{}", stdout(&output));

    let output = doctor(status("null", 7), &["--books", "-o", "json"]);
    let report: serde_json::Value = serde_json::from_slice(&output.stdout).expect("JSON");
    assert_eq!((&report["balanced"], &report["books"][0]["seen"]), (&false.into(), &7.into()));
}

/// What `cargo xtask tidy` compares with the documentation.
#[test]
fn generated_documentation_can_be_asked_for() {
    for (page, part) in
        [("metrics-catalogue", "| `sekisho_connections_total` |"), ("configuration-keys", "| `socket` |")]
    {
        let output = run(&["internal", page]);
        assert_eq!(output.status.code(), Some(0));
        assert!(stdout(&output).contains(part));
    }
}
