//! The agent as the manifests run it: the command line, environment, configuration, mounts, read-only root and capabilities of
//! the rendered `DaemonSet`, in a process, a mount and a cgroup namespace of its own. Without a container runtime, so without its
//! seccomp profile.

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;
use system_tests::agent::{free_port, program};
use system_tests::kube::manifests;
use system_tests::{rows::Rows, scale};

/// Connections that the test makes.
const CONNECTIONS: u64 = 20;
/// Directories of the host that stand for the image: everything that the programs of the test load.
const IMAGE: [&str; 5] = ["bin", "sbin", "lib", "lib64", "usr"];
/// Host paths that the test has mounted as they are. Others it replaces by directories of its own, so that the machine's data
/// stays what it is.
const OF_THE_HOST: [&str; 2] = ["/proc", "/sys/fs/cgroup"];

/// A server and as many clients as it is told, one after another. Prints its port.
const TRAFFIC: &str = "\
import socket, sys
with socket.create_server(('127.0.0.1', 0)) as server:
    for _ in range(int(sys.argv[1])):
        client = socket.create_connection(server.getsockname())
        accepted, _ = server.accept()
        client.sendall(b'x' * 10)
        client.close()
        while accepted.recv(10):
            pass
        accepted.close()
    print(server.getsockname()[1])
";

/// What happens inside. `$PORT` is the agent's.
const INSIDE: &str = r#"
"$@" > /data-of-the-test/agent 2>&1 &
ready() {
    exec 3<> "/dev/tcp/127.0.0.1/$PORT" && printf 'GET /readyz HTTP/1.0\r\nhost: x\r\n\r\n' >&3 && grep -q ' 200 ' <&3
}
until ready 2> /dev/null; do
    kill -0 $! || { cat /data-of-the-test/agent >&2; exit 1; }
    sleep 0.05
done
grep -E '^(CapEff|CapBnd|NoNewPrivs):' /proc/$!/status
for path in / /host/proc/sys/net/ipv4/ip_forward /host/cgroup /etc/sekisho/config.yaml; do
    if [ -w "$path" ] || ! [ -e "$path" ]; then echo "writable: $path"; fi
done
port=$(python3 -c "$TRAFFIC" "$CONNECTIONS")
echo "port: $port"
sekisho doctor -o json || true
sekisho timeline --since 1h > /data-of-the-test/timeline
# Up to ten folds.
for _ in 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20; do
    sekisho observe --kind flow -o json > /data-of-the-test/flows
    if grep -q "\"service_port\":$port,.*\"outcome\":\"established\"" /data-of-the-test/flows; then break; fi
    sleep 0.5
done
kill -TERM %1
wait %1
"#;

/// The `DaemonSet` and the configuration of a rendering.
struct Rendered {
    pod: Value,
    configuration: String,
}

impl Rendered {
    fn of(name: &str) -> Result<Self> {
        let mut charts = manifests::charts()?;
        charts.retain(|(found, _)| found == name);
        let (_, objects) = charts.pop().with_context(|| format!("no rendering {name}"))?;
        let of_kind =
            |kind: &str| objects.iter().find(|object| object["kind"] == kind).with_context(|| format!("no {kind}"));
        let configuration = of_kind("ConfigMap")?["data"]["config.yaml"].as_str().context("no configuration")?;
        Ok(Self {
            pod: of_kind("DaemonSet")?["spec"]["template"]["spec"].clone(),
            configuration: configuration.to_owned(),
        })
    }

    fn agent(&self) -> &Value {
        &self.pod["containers"][0]
    }

    /// Its capabilities as setpriv names them.
    fn capabilities(&self) -> Result<String> {
        let capabilities = &self.agent()["securityContext"]["capabilities"];
        ensure!(capabilities["drop"] == serde_json::json!(["ALL"]), "not all is dropped: {capabilities}");
        let mut text = "-all".to_owned();
        for added in capabilities["add"].as_array().context("no capabilities")? {
            write!(text, ",+{}", added.as_str().context("no name")?.to_lowercase())?;
        }
        Ok(text)
    }

    /// Lines of a shell script that make the container's file system in a directory. What the pod keeps on the node and in
    /// memory comes into `own`.
    fn mounts(&self, root: &Path, own: &Path) -> Result<String> {
        let (root, mut script) = (root.display(), String::new());
        let mut read_only = Vec::new();
        for mount in self.agent()["volumeMounts"].as_array().context("no mounts")? {
            let text =
                |value: &Value| value.as_str().map(ToOwned::to_owned).with_context(|| format!("no text in {mount}"));
            let (name, path) = (text(&mount["name"])?, text(&mount["mountPath"])?);
            let volume =
                self.pod["volumes"].as_array().into_iter().flatten().find(|volume| volume["name"] == name.as_str());
            let volume = volume.with_context(|| format!("no volume {name}"))?;
            let source = match volume["hostPath"]["path"].as_str() {
                Some(path) if OF_THE_HOST.contains(&path) => PathBuf::from(path),
                _ => own.join(&name),
            };
            writeln!(script, "mkdir -p {root}{path} && mount --rbind {} {root}{path}", source.display())?;
            if mount["readOnly"] == true {
                read_only.push(path);
            }
        }
        for path in read_only {
            writeln!(script, "mount -o remount,bind,ro {root}{path}")?;
        }
        Ok(script)
    }
}

fn set_of(status: &str, name: &str) -> Result<u64> {
    let line =
        status.lines().find_map(|line| line.strip_prefix(name)).with_context(|| format!("no {name} in {status}"))?;
    u64::from_str_radix(line.trim(), 16).with_context(|| format!("read {line:?}"))
}

#[test]
fn the_agent_works_with_what_the_daemon_set_gives_it() -> Result<()> {
    let rendered = Rendered::of("defaults")?;
    ensure!(
        rendered.pod["hostNetwork"] == true && rendered.pod["hostPID"] == false,
        "other namespaces: {}",
        rendered.pod
    );
    ensure!(rendered.agent()["securityContext"]["readOnlyRootFilesystem"] == true, "a writable root");
    let home = tempfile::tempdir()?;
    let (root, own) = (home.path().join("root"), home.path().join("own"));
    fs::create_dir(&root)?;
    for volume in rendered.pod["volumes"].as_array().context("no volumes")? {
        fs::create_dir_all(own.join(volume["name"].as_str().context("no name")?))?;
    }
    fs::write(own.join("config/config.yaml"), &rendered.configuration)?;

    let mut script = format!(
        "set -eu\nR={}\nmount -t tmpfs tmpfs $R\ncd $R\nmkdir -p proc sys dev opt data-of-the-test\n",
        root.display()
    );
    for directory in IMAGE.map(|name| Path::new("/").join(name)) {
        match fs::read_link(&directory) {
            Ok(target) => writeln!(script, "ln -s {} .{}", target.display(), directory.display())?,
            Err(_) if directory.is_dir() => writeln!(
                script,
                "mkdir -p .{0} && mount --bind {0} .{0} && mount -o remount,bind,ro $R{0}",
                directory.display()
            )?,
            Err(_) => {}
        }
    }
    writeln!(script, "touch dev/null && mount --bind /dev/null dev/null")?;
    writeln!(script, "touch opt/sekisho && mount --bind {} opt/sekisho", program()?.canonicalize()?.display())?;
    writeln!(script, "mount --bind {} data-of-the-test", home.path().display())?;
    script.push_str(&rendered.mounts(&root, &own)?);
    script.push_str("mount -t proc proc proc\nmount -t sysfs -o ro sysfs sys\ncd /\nmount -o remount,bind,ro $R\n");
    let sets = rendered.capabilities()?;
    writeln!(
        script,
        "exec chroot $R setpriv --bounding-set {sets} --inh-caps {sets} --no-new-privs bash -eu -c \"$INSIDE\" agent \"$@\""
    )?;

    let words = |field: &str| rendered.agent()[field].as_array().cloned().unwrap_or_default();
    let line: Vec<String> =
        [words("command"), words("args")].concat().iter().filter_map(|word| Some(word.as_str()?.to_owned())).collect();
    let port = free_port()?.port();
    let mut command = Command::new("timeout");
    command.args(["--kill-after=1", &scale::deadline().as_secs().to_string(), "unshare"]);
    command
        .args(["--mount", "--pid", "--cgroup", "--fork", "--kill-child", "bash", "-c", &script, "script"])
        .args(&line);
    command.env_clear().env("PATH", "/opt:/usr/sbin:/usr/bin:/sbin:/bin").env("NODE_NAME", "node-1");
    command.env("INSIDE", INSIDE).env("TRAFFIC", TRAFFIC).env("CONNECTIONS", CONNECTIONS.to_string());
    // There is no API server here, and the usual port may be somebody's.
    command.env("SEKISHO_STANDALONE", "true").env("SEKISHO_FOLD_SECONDS", "1").env("PORT", port.to_string());
    command.env("SEKISHO_METRICS_LISTEN", format!("127.0.0.1:{port}"));
    for variable in words("env") {
        if let (Some(name), Some(value)) = (variable["name"].as_str(), variable["value"].as_str()) {
            command.env(name, value);
        }
    }
    let output = command.output().context("run the agent as the manifests do")?;
    let (told, log) = (String::from_utf8_lossy(&output.stdout), fs::read_to_string(home.path().join("agent")));
    let log = log.unwrap_or_default();
    if !output.status.success() {
        bail!("{}: {told}\n{}\n{log}", output.status, String::from_utf8_lossy(&output.stderr));
    }

    // BPF, PERFMON, NET_ADMIN: bits of include/uapi/linux/capability.h.
    let (bpf, perfmon, net_admin) = (1 << 39, 1 << 38, 1 << 12);
    assert_eq!(set_of(&told, "CapBnd:")?, bpf | perfmon | net_admin, "{told}");
    // What it gave up once the probes were attached; before Linux 5.19 every bpf() call needs BPF.
    ensure!([net_admin, net_admin | bpf].contains(&set_of(&told, "CapEff:")?), "{told}");
    ensure!(told.contains("NoNewPrivs:\t1"), "may gain privileges: {told}");
    ensure!(!told.contains("writable:"), "{told}");
    let doctor: Value = told
        .lines()
        .find_map(|line| serde_json::from_str(line).ok().filter(|value: &Value| value["kind"] == "doctor"))
        .with_context(|| format!("doctor says nothing: {told}\n{log}"))?;
    for check in ["checks", "probes", "looks"].iter().filter_map(|part| doctor[part].as_array()).flatten() {
        ensure!(check["state"] == "ok", "{check}\n{log}");
    }
    ensure!(doctor["node"] == "node-1" && doctor["probes"].as_array().is_some_and(|all| all.len() >= 16), "{doctor}");

    let server = told.lines().find_map(|line| line.strip_prefix("port: ")).context("no port")?.parse::<u16>()?;
    let flows: Vec<String> = fs::read_to_string(home.path().join("flows"))?.lines().map(ToOwned::to_owned).collect();
    let rows = Rows::parse(&flows)?;
    let outbound = rows.flows.iter().filter(|row| row.direction == "outbound" && row.service_port == Some(server));
    assert_eq!(outbound.map(|row| row.connections).sum::<u64>(), CONNECTIONS, "{flows:?}");
    Ok(())
}
