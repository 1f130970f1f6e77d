//! Kubernetes' API server for the tests, built from Debian's source package.
//!
//! No package holds the program itself, but Debian 12's source package `kubernetes` is the whole release with everything
//! that it is made of, and Debian 12 has a compiler for it. So one archive, signed by Debian, gives all of it. Packages are
//! unpacked beside each other and not installed. The result stays in the user's cache; what it was made from does not.

use std::fmt::Write as _;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};

use crate::apt::{self, Apt};
use crate::{process, workspace};

/// Release of Kubernetes in Debian's source package.
pub(crate) const VERSION: &str = "1.20.2";

/// What is built and unpacked.
pub(crate) const PROGRAMS: [&str; 4] = ["etcd", "etcdctl", "kube-apiserver", "kube-controller-manager"];

/// Debian's release that has that source package, a compiler that suits it, and etcd as old as Kubernetes wants it.
const DEBIAN: &str = "bookworm";

/// The keys that Debian's archive is signed with, by Debian 12's name and by newer releases'.
const KEYRINGS: [&str; 2] =
    ["/usr/share/keyrings/debian-archive-keyring.gpg", "/usr/share/keyrings/debian-archive-keyring.pgp"];

/// The compiler with its library's source, etcd, and a library whose older version in Kubernetes' tree panics when it is
/// built by Go 1.18 or later (<https://github.com/modern-go/reflect2/pull/23>).
const PACKAGES: [&str; 5] =
    ["golang-1.19-go", "golang-1.19-src", "etcd-server", "etcd-client", "golang-github-modern-go-reflect2-dev"];

/// Path of the repository in Go's terms.
const KUBERNETES: &str = "k8s.io/kubernetes";

/// The definitions of all API types. Releases leave it out, since Kubernetes' own makefiles generate it.
const OPENAPI: &str = "pkg/generated/openapi/zz_generated.openapi.go";

/// Packages with this in a comment have types for [`OPENAPI`].
const OPENAPI_TAG: &str = "+k8s:openapi-gen=";

/// Parts of Kubernetes' repository that are no parts of its API server.
const NOT_KUBERNETES: [&str; 2] = ["code-generator", "sample-apiserver"];

/// Where [`PROGRAMS`] lie.
pub(crate) fn programs() -> Result<PathBuf> {
    Ok(directory()?.join("bin"))
}

/// Whether there is nothing to build.
pub(crate) fn is_built() -> bool {
    programs().is_ok_and(|bin| PROGRAMS.iter().all(|program| process::is_executable(&bin.join(program))))
}

/// Builds what is missing. A run that was interrupted is taken up where it was.
pub(crate) fn build() -> Result<()> {
    let directory = directory()?;
    fs::create_dir_all(&directory).with_context(|| format!("create {}", directory.display()))?;
    let _lock = lock(&directory.join("lock"))?;
    if is_built() {
        // By another run, while this one waited.
        return Ok(());
    }
    let arch = debian_architecture(std::env::consts::ARCH)?;
    let workshop = Workshop::new(arch, directory.join("work"))?;
    workshop.generate_openapi()?;
    let _ = fs::remove_dir_all(directory.join("bin"));
    apt::once(&directory.join("bin"), |bin| workshop.build(bin))?;
    fs::remove_dir_all(&workshop.directory).with_context(|| format!("remove {}", workshop.directory.display()))
}

fn directory() -> Result<PathBuf> {
    Ok(workspace::cache()?.join("kubernetes").join(VERSION))
}

/// Lets one run at a time work in the cache. The kernel takes the lock back when the process ends, however it ends.
fn lock(path: &Path) -> Result<File> {
    let file = File::create(path).with_context(|| format!("create {}", path.display()))?;
    if file.try_lock().is_err() {
        eprintln!("waiting for another run that builds Kubernetes ({})", path.display());
        file.lock().with_context(|| format!("lock {}", path.display()))?;
    }
    Ok(file)
}

fn debian_architecture(arch: &str) -> Result<&'static str> {
    match arch {
        "x86_64" => Ok("amd64"),
        "aarch64" => Ok("arm64"),
        other => bail!("Kubernetes is built on amd64 and arm64 machines, and this is {other}"),
    }
}

/// apt's line for what is needed, from the mirror that this machine uses, of a release that need not be the machine's.
fn sources() -> Result<String> {
    let elsewhere = "Kubernetes is built from Debian's packages: use a machine with Debian 12 or later";
    let keyring = KEYRINGS.into_iter().find(|path| Path::new(path).is_file());
    let keyring = keyring.with_context(|| format!("the keys of Debian's archive are missing. {elsewhere}"))?;
    let apt_get = process::find("apt-get").with_context(|| format!("apt-get is not installed. {elsewhere}"))?;
    let mut command = Command::new(apt_get);
    command.args(["indextargets", "--no-release-info", "--format", "$(REPO_URI)", "Created-By: Packages"]);
    let listed = process::capture(&mut command)?;
    let mirror = mirror(&listed)
        .with_context(|| format!("apt's sources name no mirror of Debian, that is no address …/debian. {elsewhere}"))?;
    Ok(["deb", "deb-src"].map(|kind| format!("{kind} [signed-by={keyring}] {mirror} {DEBIAN} main\n")).concat())
}

/// The first address that is one of Debian's main archive, by the name that all its mirrors give it.
fn mirror(addresses: &str) -> Option<&str> {
    addresses.lines().map(|address| address.trim_end_matches('/')).find(|address| address.ends_with("/debian"))
}

/// Compiler, sources, and what comes of them.
struct Workshop {
    directory: PathBuf,
    /// [`PACKAGES`], unpacked.
    packages: PathBuf,
    /// Go's workspace with Kubernetes in it.
    gopath: PathBuf,
}

impl Workshop {
    /// Fetches what is missing.
    fn new(arch: &'static str, directory: PathBuf) -> Result<Self> {
        let apt = Apt::new(arch, directory.clone()).with_sources(&sources()?)?;
        let packages = apt.cached("packages", |into| apt.unpack(&PACKAGES, into))?;
        let gopath = apt.cached("gopath", |into| {
            let tree = into.join("src").join(KUBERNETES);
            let parent = tree.parent().context("a path without a parent")?;
            fs::create_dir_all(parent).with_context(|| format!("create {}", parent.display()))?;
            let unpacked = apt.unpack_source("kubernetes", parent)?;
            ensure!(
                unpacked.ends_with(format!("kubernetes-{VERSION}")),
                "Debian's source package unpacks to {}, not to release {VERSION}",
                unpacked.display()
            );
            fs::rename(&unpacked, &tree).with_context(|| format!("rename {}", unpacked.display()))?;
            let library = "github.com/modern-go/reflect2";
            replace(&tree.join("vendor").join(library), &packages.join("usr/share/gocode/src").join(library))
        })?;
        Ok(Self { directory, packages, gopath })
    }

    /// Kubernetes' repository.
    fn tree(&self) -> PathBuf {
        self.gopath.join("src").join(KUBERNETES)
    }

    /// `go`, in the repository, without any setting or module of the user's.
    fn go(&self) -> Command {
        let root = self.packages.join("usr/lib/go-1.19");
        let mut command = Command::new(root.join("bin/go"));
        command.current_dir(self.tree()).env("GOROOT", root).env("GOPATH", &self.gopath);
        // Packages that were compiled stay, so that an interrupted build goes on.
        command.env("GOCACHE", self.directory.join("compiled"));
        command.env("GO111MODULE", "off").env("GOPROXY", "off").env("GOENV", "off").env("GOFLAGS", "");
        command.env("CGO_ENABLED", "0");
        command
    }

    /// Generates [`OPENAPI`] with Kubernetes' own generator.
    fn generate_openapi(&self) -> Result<()> {
        let tree = self.tree();
        let result = tree.join(OPENAPI);
        if result.is_file() {
            return Ok(());
        }
        let packages = tagged_packages(&tree)?;
        eprintln!("generating the definitions of the API types of {} packages", packages.len());
        let generator = self.directory.join("openapi-gen");
        let source = "./vendor/k8s.io/kube-openapi/cmd/openapi-gen";
        process::run(self.go().args(["build", "-o"]).arg(&generator).arg(source))?;
        let package = Path::new(KUBERNETES).join(OPENAPI);
        let package = package.parent().context("a path without a parent")?;
        let generated = self.directory.join("generated");
        // It looks packages up as `go` does.
        let environment: Vec<_> =
            self.go().get_envs().map(|(name, value)| (name.to_owned(), value.map(ToOwned::to_owned))).collect();
        let mut command = Command::new(generator);
        command.current_dir(&tree).envs(environment.into_iter().filter_map(|(name, value)| Some((name, value?))));
        command.arg("--input-dirs").arg(packages.join(","));
        command.arg("--output-package").arg(package).arg("--output-base").arg(&generated);
        command.args(["--output-file-base", "zz_generated.openapi"]);
        command.args(["--go-header-file", "vendor/k8s.io/code-generator/hack/boilerplate.go.txt"]);
        // Violations of naming rules, which are known to Kubernetes' authors.
        command.arg("--report-filename").arg(self.directory.join("violations"));
        process::capture(&mut command)?;
        let written = generated.join(KUBERNETES).join(OPENAPI);
        fs::rename(&written, &result).with_context(|| format!("move {} into the sources", written.display()))
    }

    /// Builds and copies [`PROGRAMS`] into a directory.
    fn build(&self, bin: &Path) -> Result<()> {
        for program in ["etcd", "etcdctl"] {
            let (from, to) = (self.packages.join("usr/bin").join(program), bin.join(program));
            fs::copy(&from, &to).with_context(|| format!("copy {}", from.display()))?;
        }
        let version = version_flags()?;
        eprintln!("building Kubernetes {VERSION}: four minutes on two cores, and only once");
        let mut command = self.go();
        command.args(["build", "-ldflags", &format!("-s -w{version}"), "-o"]).arg(bin);
        command.args(["./cmd/kube-apiserver", "./cmd/kube-controller-manager"]);
        process::run(&mut command)
    }
}

/// Makes the programs say [`VERSION`], wherever they keep it.
fn version_flags() -> Result<String> {
    let mut numbers = VERSION.split('.');
    let mut number = || numbers.next().context("a version has three numbers");
    let values =
        [("gitVersion", format!("v{VERSION}")), ("gitMajor", number()?.into()), ("gitMinor", number()?.into())];
    let mut flags = String::new();
    for package in ["client-go/pkg/version", "component-base/version"] {
        for (name, value) in &values {
            let _ = write!(flags, " -X {KUBERNETES}/vendor/k8s.io/{package}.{name}={value}");
        }
    }
    Ok(flags)
}

/// Import paths of the packages with types for [`OPENAPI`].
fn tagged_packages(tree: &Path) -> Result<Vec<String>> {
    let mut found = Vec::new();
    for part in ["pkg", "staging/src/k8s.io"] {
        find_tagged(tree, Path::new(part), &mut found)?;
    }
    found.sort();
    ensure!(!found.is_empty(), "no package below {} has {OPENAPI_TAG}", tree.display());
    Ok(found)
}

fn find_tagged(tree: &Path, below: &Path, found: &mut Vec<String>) -> Result<()> {
    let directory = tree.join(below);
    let mut is_tagged = false;
    for entry in fs::read_dir(&directory).with_context(|| format!("list {}", directory.display()))? {
        let entry = entry.with_context(|| format!("list {}", directory.display()))?;
        let (kind, name) = (entry.file_type()?, entry.file_name());
        if kind.is_dir() && !NOT_KUBERNETES.iter().any(|part| name == *part) {
            find_tagged(tree, &below.join(name), found)?;
        } else if kind.is_file() && entry.path().extension().is_some_and(|extension| extension == "go") {
            let text = fs::read(entry.path()).with_context(|| format!("read {}", entry.path().display()))?;
            is_tagged |= String::from_utf8_lossy(&text).contains(OPENAPI_TAG);
        }
    }
    if is_tagged {
        found.push(import_path(&below.to_string_lossy()));
    }
    Ok(())
}

/// What Go calls a directory of the repository. Repositories that live in it are linked into its vendor directory.
fn import_path(directory: &str) -> String {
    match directory.strip_prefix("staging/src/") {
        Some(staged) => format!("{KUBERNETES}/vendor/{staged}"),
        None => format!("{KUBERNETES}/{directory}"),
    }
}

/// Puts the files of one directory in the place of another's.
fn replace(old: &Path, new: &Path) -> Result<()> {
    fs::remove_dir_all(old).with_context(|| format!("remove {}", old.display()))?;
    process::capture(Command::new("cp").args(["-r", "--"]).args([new, old])).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mirror_is_known_by_the_name_of_the_archive() {
        let listed =
            "http://mirror.example/debian-security/\nhttps://packages.example/apt/\nhttp://mirror.example/debian/\n";
        assert_eq!(mirror(listed), Some("http://mirror.example/debian"));
        assert_eq!(mirror("http://mirror.example/ubuntu/\n"), None);
    }

    #[test]
    fn packages_are_called_as_go_calls_them() {
        assert_eq!(import_path("pkg/apis/abac/v0"), "k8s.io/kubernetes/pkg/apis/abac/v0");
        assert_eq!(import_path("staging/src/k8s.io/api/core/v1"), "k8s.io/kubernetes/vendor/k8s.io/api/core/v1");
    }

    #[test]
    fn tagged_packages_are_found_and_foreign_ones_left_out() {
        let tree = workspace::target().join("tmp").join(format!("tagged-{}", std::process::id()));
        let write = |path: &str, text: &str| {
            let path = tree.join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        };
        write("pkg/a/doc.go", "// +k8s:openapi-gen=true\npackage a\n");
        write("pkg/b/types.go", "package b\n");
        write("staging/src/k8s.io/api/v1/types.go", "// +k8s:openapi-gen=true\npackage v1\n");
        write("staging/src/k8s.io/sample-apiserver/v1/types.go", "// +k8s:openapi-gen=true\npackage v1\n");
        let found = tagged_packages(&tree).unwrap();
        assert_eq!(found, ["k8s.io/kubernetes/pkg/a", "k8s.io/kubernetes/vendor/k8s.io/api/v1"]);
        fs::remove_dir_all(tree).unwrap();
    }

    #[test]
    fn the_version_is_told_to_both_places() {
        let flags = version_flags().unwrap();
        assert!(flags.contains("client-go/pkg/version.gitVersion=v1.20.2"), "{flags}");
        assert!(flags.contains("component-base/version.gitMinor=20"), "{flags}");
    }

    #[test]
    fn other_architectures_are_refused() {
        let error = debian_architecture("riscv64").unwrap_err().to_string();
        assert!(error.contains("amd64 and arm64") && error.contains("riscv64"), "{error}");
    }
}
