//! The kustomize base: what the chart renders with no value but the image's name, without what Helm says of itself. The
//! configuration is a file, of which kustomize makes the object: a change of it gives the object a new name, and so restarts
//! the pods.

use std::process::Command;

use anyhow::{Context, Result, ensure};

use super::Files;
use super::chart::{VALIDATE, render};
use crate::setup::charts::Tools;
use crate::{process, workspace};

/// Where it lies.
pub(super) const BASE: &str = "deploy/kustomize/base";
/// A name that an overlay replaces by the image's own (`images` in `kustomization.yaml`).
const IMAGE: &str = "image.repository=sekisho";

/// What Helm writes above each document.
const SOURCE: &str = "# Source: sekisho/templates/";
/// Lines that speak of Helm, and the sum over the configuration, whose place kustomize's names take.
const OF_HELM: [&str; 3] = ["helm.sh/chart:", "app.kubernetes.io/managed-by: Helm", "checksum/config:"];

/// Where the documents of a template go.
const PLACES: [(&str, &str); 4] = [
    ("serviceaccount.yaml", "rbac.yaml"),
    ("rbac.yaml", "rbac.yaml"),
    ("configmap.yaml", "config.yaml"),
    ("daemonset.yaml", "daemonset.yaml"),
];
/// Stands on top of each file.
const GENERATED: &str = "# Written by `cargo xtask deploy` from deploy/chart. A change here is lost: change the chart, or patch in an overlay.\n";

/// The base's generated files.
pub(super) fn base(tools: &Tools) -> Result<Files> {
    split(&render(tools, &["--set", IMAGE])?)
}

fn split(rendered: &str) -> Result<Files> {
    let mut files = Files::new();
    for document in rendered.split("---\n").filter(|document| !document.is_empty()) {
        let (source, body) = document.split_once('\n').context("a document of one line")?;
        let template = source.strip_prefix(SOURCE).with_context(|| format!("no template is named in {source:?}"))?;
        let place = PLACES.iter().find(|(name, _)| *name == template);
        let (_, file) = place.with_context(|| format!("no file of the base is for the template {template}"))?;
        let text = files.entry(format!("{BASE}/{file}")).or_insert_with(|| GENERATED.to_owned());
        if *file == "config.yaml" {
            text.push_str(&configuration(body)?);
            continue;
        }
        if text.len() > GENERATED.len() {
            text.push_str("---\n");
        }
        let kept = body.lines().filter(|line| !OF_HELM.iter().any(|of_helm| line.trim_start().starts_with(of_helm)));
        text.extend(kept.flat_map(|line| [line, "\n"]));
    }
    Ok(files)
}

/// The file in a `ConfigMap`.
fn configuration(body: &str) -> Result<String> {
    let (_, file) = body.split_once("  config.yaml: |\n").context("the ConfigMap has no config.yaml")?;
    file.lines()
        .map(|line| line.strip_prefix("    ").map(|line| format!("{line}\n")))
        .collect::<Option<String>>()
        .context("something follows config.yaml in the ConfigMap")
}

/// An overlay to start from.
const EXAMPLE: &str = "deploy/kustomize/example";
/// The image that it names, and the one that stands in the base.
const NAMED: &str = "image: registry.example/sekisho:";
const UNNAMED: &str = "image: sekisho:";

/// The example is an overlay of the base that gives the image its name.
pub(super) fn the_example_works(tools: &Tools) -> Result<()> {
    let built = process::capture(Command::new(&tools.kubectl).arg("kustomize").arg(workspace::root().join(EXAMPLE)))?;
    ensure!(
        built.contains(NAMED) && !built.contains(UNNAMED),
        "{EXAMPLE} does not give the image its name: no {NAMED:?} in what it builds, or still {UNNAMED:?}"
    );
    Ok(())
}

/// kustomize makes of the base what Helm makes of the chart.
pub(super) fn is_the_chart(tools: &Tools) -> Result<()> {
    let target = workspace::target().join("tmp");
    std::fs::create_dir_all(&target).context("create target/tmp")?;
    let built = process::capture(Command::new(&tools.kubectl).arg("kustomize").arg(workspace::root().join(BASE)))?;
    ensure!(!built.is_empty(), "kubectl kustomize says nothing");
    let (kustomized, rendered) = (target.join("kustomized.yaml"), target.join("rendered.yaml"));
    for (path, text) in [(&kustomized, built), (&rendered, render(tools, &["--set", IMAGE])?)] {
        std::fs::write(path, text).with_context(|| format!("write {}", path.display()))?;
    }
    let mut command = Command::new(&tools.python);
    command.current_dir(workspace::root()).args([VALIDATE, "same"]).arg(&rendered).arg(&kustomized);
    print!("{}", process::capture(&mut command)?);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn documents_go_to_their_files() {
        let rendered = "---\n# Source: sekisho/templates/serviceaccount.yaml\n# Who.\nkind: ServiceAccount\n  helm.sh/chart: x\n\
                        ---\n# Source: sekisho/templates/configmap.yaml\nkind: ConfigMap\ndata:\n  config.yaml: |\n    a:\n      b: 1\n\
                        ---\n# Source: sekisho/templates/rbac.yaml\nkind: ClusterRole\n";
        let files = split(rendered).unwrap();
        assert_eq!(
            files[&format!("{BASE}/rbac.yaml")],
            format!("{GENERATED}# Who.\nkind: ServiceAccount\n---\nkind: ClusterRole\n")
        );
        assert_eq!(files[&format!("{BASE}/config.yaml")], format!("{GENERATED}a:\n  b: 1\n"));
        let unknown = "---\n# Source: sekisho/templates/other.yaml\nkind: Job\n";
        assert!(split(unknown).unwrap_err().to_string().contains("other.yaml"));
    }
}
