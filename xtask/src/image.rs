//! `cargo xtask image`: the program as an OCI image, made of Debian's packages and the build alone. No registry, no container
//! engine and no privilege is asked, and the same sources give the same digest.

mod elf;
mod layer;
mod layout;
mod packages;
mod root;
mod sbom;
mod source;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};

use crate::setup::{self, Need};
use crate::vm::Arch;
use crate::{build, process, remap, workspace};

use layout::Image;
use source::Source;

/// What `cargo xtask image` takes.
#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// Architecture of the nodes; this machine's by default. Both in one image: give it twice
    #[arg(long, value_enum)]
    arch: Vec<Arch>,
    /// Where the image goes; by default target/image/sekisho-VERSION.oci.tar, with a bill of materials for each architecture
    /// beside it
    #[arg(long, value_name = "FILE")]
    output: Option<PathBuf>,
    /// Write the root file system into this new directory and make no image
    #[arg(long, value_name = "DIRECTORY", conflicts_with = "output")]
    root: Option<PathBuf>,
    /// Put the image together twice and fail when the digests differ, or when a program names a path of this machine
    #[arg(long)]
    check: bool,
    /// A program of the one architecture that was built already, instead of one built now
    #[arg(long, value_name = "FILE")]
    program: Option<PathBuf>,
}

/// The command.
pub(crate) fn run(arguments: &Arguments) -> Result<()> {
    let host = Arch::host()?;
    let mut chosen = if arguments.arch.is_empty() { vec![host] } else { arguments.arch.clone() };
    chosen.sort_by_key(|arch| arch.debian());
    chosen.dedup();
    ensure!(arguments.program.is_none() || chosen.len() == 1, "--program is of one architecture: give one --arch");
    ensure!(
        arguments.root.is_none() || chosen.len() == 1,
        "--root is a file system of one architecture: give one --arch"
    );

    let source = Source::here()?;
    let mut nodes = Vec::new();
    for &arch in &chosen {
        let program = match &arguments.program {
            Some(program) => program.clone(),
            None => built(arch, host)?,
        };
        nodes.push(Node { arch, program: stripped(arch, host, &program)? });
    }
    if arguments.check {
        nodes.iter().try_for_each(|node| names_nothing_of_this_machine(&node.program))?;
    }
    if let (Some(directory), [node]) = (&arguments.root, nodes.as_slice()) {
        let packages = packages::fetch(node.arch)?;
        return root::write(&root::of(&packages, &node.program)?, directory);
    }

    let image = assemble(&nodes, &source)?;
    if arguments.check {
        let again = assemble(&nodes, &source)?;
        ensure!(
            image.digest() == again.digest() && image.archive()? == again.archive()?,
            "put together twice, the image differs: {} and {}",
            image.digest(),
            again.digest()
        );
        eprintln!("put together twice, the image is the same");
    }
    let output = arguments.output.clone().unwrap_or_else(|| usual_output(&source));
    write(&output, &image.archive()?)?;
    for (arch, bill) in image.bills() {
        write(&beside(&output, &format!(".{arch}.cdx.json")), bill)?;
    }
    eprintln!("{}: {}", output.display(), image.summary());
    println!("{}", image.digest());
    Ok(())
}

/// The image of this machine's architecture with a program that was built before, put together twice and the same; its path.
pub(crate) fn tested(program: &Path) -> Result<PathBuf> {
    let output = workspace::target().join("image").join("tested.oci.tar");
    run(&Arguments {
        arch: Vec::new(),
        output: Some(output.clone()),
        root: None,
        check: true,
        program: Some(program.to_owned()),
    })?;
    Ok(output)
}

/// Where the image of this version goes.
fn usual_output(source: &Source) -> PathBuf {
    workspace::target().join("image").join(format!("sekisho-{}.oci.tar", source.version))
}

/// A program and what it is for.
struct Node {
    arch: Arch,
    program: Vec<u8>,
}

fn assemble(nodes: &[Node], source: &Source) -> Result<Image> {
    let mut image = Image::new(source);
    for node in nodes {
        let packages = packages::fetch(node.arch)?;
        let root = root::of(&packages, &node.program)?;
        let bill = sbom::of(node.arch, &packages, source)?;
        image.add(node.arch, &root, bill)?;
    }
    Ok(image)
}

/// The optimised program for an architecture.
fn built(arch: Arch, host: Arch) -> Result<PathBuf> {
    let needs: &[Need] = if arch == host { &[Need::Build] } else { &[Need::Build, Need::VmArm64] };
    ensure!(
        arch == host || arch == Arch::Arm64,
        "programs for amd64 are built on amd64 machines: leave out --arch amd64, or give one by --program"
    );
    setup::ensure(needs)?;
    build::probes(arch.rust(), false)?;
    build::agent(build::Options { release: true, probe_log: false, cross: (arch != host).then_some(build::ARM64) })
}

/// A program without debug information, which is two thirds of it. Names of functions stay, for stack traces.
fn stripped(arch: Arch, host: Arch, program: &Path) -> Result<Vec<u8>> {
    let tool = if arch == host { "strip".to_owned() } else { format!("{}-linux-gnu-strip", arch.rust()) };
    let tool = process::find(&tool)
        .with_context(|| format!("{tool} is not installed: it comes with the compiler that links for the nodes"))?;
    let directory = workspace::target().join("image").join("tmp");
    fs::create_dir_all(&directory).with_context(|| format!("create {}", directory.display()))?;
    let stripped = directory.join(format!("sekisho-{}-{}", arch.debian(), std::process::id()));
    process::capture(Command::new(tool).args(["--strip-debug", "-o"]).arg(&stripped).arg(program))?;
    let bytes = fs::read(&stripped).with_context(|| format!("read {}", stripped.display()));
    fs::remove_file(&stripped).with_context(|| format!("remove {}", stripped.display()))?;
    bytes
}

/// Whoever names a directory of the machine that it was built on is not the same when it is built elsewhere.
fn names_nothing_of_this_machine(program: &[u8]) -> Result<()> {
    for path in remap::of_this_machine() {
        let path = path.to_string_lossy().into_owned();
        ensure!(!contains(program, path.as_bytes()), "the program names {path}, a path of this machine");
    }
    Ok(())
}

fn contains(text: &[u8], part: &[u8]) -> bool {
    let Some(&first) = part.first() else { return true };
    let mut rest = text;
    while let Some(at) = rest.iter().position(|&byte| byte == first) {
        rest = &rest[at..];
        if rest.starts_with(part) {
            return true;
        }
        rest = &rest[1..];
    }
    false
}

fn write(path: &Path, bytes: &[u8]) -> Result<()> {
    if let Some(directory) = path.parent() {
        fs::create_dir_all(directory).with_context(|| format!("create {}", directory.display()))?;
    }
    fs::write(path, bytes).with_context(|| format!("write {}", path.display()))
}

/// A path with another end than `.oci.tar`.
fn beside(output: &Path, end: &str) -> PathBuf {
    let name = output.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let stem = name.strip_suffix(".oci.tar").or_else(|| name.strip_suffix(".tar")).unwrap_or(&name);
    output.with_file_name(format!("{stem}{end}"))
}

#[cfg(test)]
mod tests;
