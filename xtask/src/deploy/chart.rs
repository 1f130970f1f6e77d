//! The chart: linted, rendered with sets of values, its renderings validated, and wrong values refused by name.

use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, ensure};

use super::{Files, listed};
use crate::setup::charts::Tools;
use crate::{process, workspace};

/// The chart.
pub(super) const CHART: &str = "deploy/chart";
/// What it renders with each set of values.
pub(super) const RENDERINGS: &str = "tests/fixtures/chart";
/// Sets of values, by the names that Helm's chart-testing gives them.
const SETS: &str = "deploy/chart/ci";
const SET_ENDING: &str = "-values.yaml";
/// Release and namespace of what is rendered.
const NAME: &str = "sekisho";
/// The one value that has no default.
pub(super) const IMAGE: &str = "image.repository=registry.example/sekisho";

/// Releases of Kubernetes that EKS supports, standard and extended, and the next: 1.31 goes in November 2026.
const RELEASES: [&str; 7] = ["1.31", "1.32", "1.33", "1.34", "1.35", "1.36", "1.37"];
/// Checks renderings against Kubernetes' schemas. Arguments: what it is to do, and files.
pub(super) const VALIDATE: &str = "xtask/src/deploy/validate.py";

/// Values that must be refused, as `--set` takes them, and what the error must say.
const WRONG: [(&[&str], &[&str]); 24] = [
    (&[], &["image.repository", "registry"]),
    (&[IMAGE, "image.tag=a b"], &["/image/tag"]),
    (&[IMAGE, "image.digest=sha256:1"], &["/image/digest"]),
    (&[IMAGE, "imagee.tag=1"], &["imagee"]),
    (&[IMAGE, "config.fold_second=3"], &["/config", "fold_second"]),
    (&[IMAGE, "config.fold_seconds=301"], &["/config/fold_seconds", "300"]),
    (&[IMAGE, "config.metrics.listen=0.0.0.0:9847"], &["/config/metrics", "listen"]),
    (&[IMAGE, "config.roots.proc=/proc"], &["/config", "roots"]),
    (&[IMAGE, "config.data_dir=/tmp"], &["/config", "data_dir"]),
    (&[IMAGE, "config.kernel.pin=/tmp/x"], &["/config/kernel/pin", "on"]),
    (&[IMAGE, "config.kernel.pin=true"], &["/config/kernel/pin", "on"]),
    (&[IMAGE, "config.kernel.bulk_ring_bytes=5000"], &["/config/kernel/bulk_ring_bytes"]),
    (&[IMAGE, "config.findings.waivers[0].code=no-such-code"], &["/config/findings/waivers/0"]),
    (&[IMAGE, "config.aws.mode=on"], &["/config/aws/mode", "auto"]),
    (&[IMAGE, "serviceAccount.create=false"], &["serviceAccount.name"]),
    (
        &[
            IMAGE,
            "serviceAccount.create=false",
            "serviceAccount.name=x",
            "serviceAccount.roleArn=arn:aws:iam::111122223333:role/x",
        ],
        &["serviceAccount.roleArn"],
    ),
    (&[IMAGE, "serviceAccount.roleArn=my-role"], &["/serviceAccount/roleArn"]),
    (&[IMAGE, "podMonitor.enabled=true"], &["podMonitor.enabled", "metrics.secure.enabled"]),
    (&[IMAGE, "metrics.port=80"], &["/metrics/port"]),
    (&[IMAGE, "extraCapabilities[0]=CAP_SYS_PTRACE"], &["/extraCapabilities/0", "SYS_PTRACE"]),
    (&[IMAGE, "updateStrategy.rollingUpdate.maxSurge=1"], &["/updateStrategy/rollingUpdate", "maxSurge"]),
    (&[IMAGE, "data.hostPath=var"], &["/data/hostPath"]),
    (&[IMAGE, "output=table"], &["/output", "json"]),
    (&[IMAGE, "hostPID=yes"], &["/hostPID", "boolean"]),
];

/// What comes of files in the chart: the value that switches it on, where the files lie, and what is rendered of each.
const OF_FILES: [(&str, &str); 3] = [
    ("prometheusRule.enabled", "deploy/chart/files/rules"),
    ("dashboards.enabled", "deploy/chart/files/dashboards"),
    ("datadog.enabled", "deploy/chart/files/datadog"),
];

/// Both releases of Helm find nothing wrong with the chart, whatever the values.
pub(super) fn lint(tools: &Tools) -> Result<()> {
    for helm in &tools.helm {
        for set in sets()? {
            process::capture(in_root(helm).args(["lint", "--strict", "--quiet", CHART, "--values", &set]))?;
        }
    }
    Ok(())
}

/// What each set of values renders to. All releases of Helm must agree.
pub(super) fn renderings(tools: &Tools) -> Result<Files> {
    let mut files = Files::new();
    for set in sets()? {
        let name = set.rsplit('/').next().and_then(|name| name.strip_suffix(SET_ENDING)).unwrap_or(&set);
        files.insert(format!("{RENDERINGS}/{name}.yaml"), render(tools, &["--values", &set])?);
    }
    ensure!(!files.is_empty(), "no sets of values in {SETS}");
    Ok(files)
}

/// What the chart renders to, without empty lines: in these the releases of Helm differ.
pub(super) fn render(tools: &Tools, arguments: &[&str]) -> Result<String> {
    let mut texts = Vec::new();
    for helm in &tools.helm {
        let text = process::capture(template(helm).args(arguments))?;
        texts.push(
            text.lines().filter(|line| !line.trim().is_empty()).flat_map(|line| [line, "\n"]).collect::<String>(),
        );
    }
    let [old, new] = texts.as_slice() else { anyhow::bail!("two releases of Helm are expected") };
    ensure!(old == new, "Helm 3 and 4 render differently with {arguments:?}: {}", super::difference(old, new));
    Ok(new.clone())
}

fn sets() -> Result<Vec<String>> {
    Ok(listed(SETS)?.into_iter().filter(|path| path.ends_with(SET_ENDING)).collect())
}

fn in_root(program: &Path) -> Command {
    let mut command = Command::new(program);
    command.current_dir(workspace::root());
    // A user's own settings and plug-ins have no place in it.
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("HELM_") {
            command.env_remove(name);
        }
    }
    command
}

fn template(helm: &Path) -> Command {
    let mut command = in_root(helm);
    command.args(["template", NAME, CHART, "--namespace", NAME]);
    command
}

/// Wrong values are refused, and the error says which.
pub(super) fn wrong_values_are_named(tools: &Tools) -> Result<()> {
    for helm in &tools.helm {
        for (values, expected) in WRONG {
            let error = refusal(helm, values)?;
            // Helm 3 separates levels by dots, Helm 4 by slashes.
            let said = format!("{error}\n{}", error.replace('.', "/"));
            for part in expected {
                ensure!(
                    said.contains(part) || said.contains(part.trim_start_matches('/')),
                    "{} with {values:?} does not name {part}: {error}",
                    helm.display()
                );
            }
        }
    }
    Ok(())
}

/// What Helm says of values that it must refuse.
fn refusal(helm: &Path, values: &[&str]) -> Result<String> {
    let mut command = template(helm);
    command.args(values.iter().flat_map(|value| ["--set", value]));
    let output = command.output().with_context(|| format!("run {}", helm.display()))?;
    ensure!(!output.status.success(), "{} takes {values:?}", helm.display());
    Ok(String::from_utf8_lossy(&output.stderr).into_owned())
}

/// Rules, dashboards and Datadog's configuration come out as they lie in the chart; where there is none, the value that asks
/// for it is named.
pub(super) fn files_are_passed_on(tools: &Tools) -> Result<()> {
    for (value, directory) in OF_FILES {
        let (files, on) = (listed(directory)?, format!("{value}=true"));
        if files.is_empty() {
            let error = refusal(&tools.helm[1], &[IMAGE, &on])?;
            ensure!(error.contains(value), "a chart without {directory} does not name {value}: {error}");
            continue;
        }
        let rendered = workspace::target().join("tmp").join(format!("{value}.yaml"));
        std::fs::create_dir_all(workspace::target().join("tmp")).context("create target/tmp")?;
        std::fs::write(&rendered, render(tools, &["--set", IMAGE, "--set", &on])?)
            .with_context(|| format!("write {}", rendered.display()))?;
        let mut command = in_root(&tools.python);
        command.args([VALIDATE, "files", value]).arg(&rendered).args(&files);
        print!("{}", process::capture(&mut command)?);
        validate_file(tools, &rendered)?;
    }
    Ok(())
}

/// Every alert leads to where the values say that the runbooks are kept.
pub(super) fn runbooks_are_found(tools: &Tools) -> Result<()> {
    if listed(OF_FILES[0].1)?.is_empty() {
        return Ok(());
    }
    for (value, place) in [("", "docs/runbooks/"), ("https://wiki.example/books/", "https://wiki.example/books/")] {
        let value = format!("prometheusRule.runbookUrl={value}");
        let rendered = render(tools, &["--set", IMAGE, "--set", "prometheusRule.enabled=true", "--set", &value])?;
        let links = rendered.lines().filter_map(|line| line.trim().strip_prefix("runbook_url: "));
        let (right, wrong): (Vec<_>, Vec<_>) =
            links.partition(|link| link.strip_prefix(place).and_then(|page| page.strip_suffix(".md")).is_some());
        ensure!(!right.is_empty() && wrong.is_empty(), "with {value:?} these runbooks are elsewhere: {wrong:?}");
    }
    Ok(())
}

/// Everything rendered is what Kubernetes' schemas say, of every release.
pub(super) fn validate(tools: &Tools) -> Result<()> {
    let mut command = in_root(&tools.python);
    command.args([VALIDATE, "objects", &RELEASES.join(",")]).args(listed(RENDERINGS)?);
    print!("{}", process::capture(&mut command)?);
    Ok(())
}

fn validate_file(tools: &Tools, path: &Path) -> Result<()> {
    let mut command = in_root(&tools.python);
    command.args([VALIDATE, "objects", &RELEASES.join(",")]).arg(path);
    print!("{}", process::capture(&mut command)?);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::read;
    use super::*;

    #[test]
    fn every_set_of_values_has_its_rendering() {
        let names = |directory: &str, ending: &str| -> Vec<String> {
            let paths = listed(directory).unwrap();
            paths.iter().map(|path| path.rsplit('/').next().unwrap().strip_suffix(ending).unwrap().to_owned()).collect()
        };
        assert_eq!(names(SETS, SET_ENDING), names(RENDERINGS, ".yaml"));
    }

    /// What is more than the least, and the one rendering in which it was asked for.
    const OPTIONAL: [(&str, &str); 5] = [
        ("hostPID: true", "eyes-open.yaml"),
        ("- SYS_PTRACE", "eyes-open.yaml"),
        ("- SYS_ADMIN", "eyes-open.yaml"),
        ("type: Unconfined", "pin.yaml"),
        ("mountPath: /sys/fs/bpf", "pin.yaml"),
    ];

    /// What the manifests promise about privilege, in whatever the chart renders.
    #[test]
    fn renderings_are_as_unprivileged_as_promised() {
        for path in listed(RENDERINGS).unwrap() {
            let text = read(&path).unwrap();
            for never in ["privileged: true", "allowPrivilegeEscalation: true", "/var/lib/kubelet", "containerd.sock"] {
                assert!(!text.contains(never), "{path}: {never}");
            }
            let name = path.rsplit('/').next().unwrap();
            for (optional, only) in OPTIONAL {
                assert_eq!(text.contains(optional), name == only, "{path}: {optional}");
            }
            for always in ["readOnlyRootFilesystem: true", "drop: [ALL]", "path: /healthz", "path: /readyz"] {
                assert!(text.contains(always), "{path}: no {always}");
            }
            assert!(!text.contains("path: /metrics\n              port"), "{path}: a probe asks /metrics");
        }
    }
}
