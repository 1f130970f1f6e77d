//! On trees made for the test, and on the machine's own.

use std::fs;
use std::os::unix::fs::{MetadataExt, symlink};
use std::path::Path;

use agent_core::input::{Input, ProcessFact};
use agent_ebpf::wire::Owner;
use tempfile::TempDir;

use super::*;

/// Nanoseconds of a tick on every supported platform.
const TICK_NS: u64 = 10_000_000;

/// A process in a made-up /proc.
struct Fake {
    pid: u32,
    ppid: u32,
    ticks: u64,
    comm: &'static str,
    exe: Option<&'static str>,
    cmdline: &'static [u8],
    cgroup: &'static str,
}

const PLAIN: Fake = Fake { pid: 0, ppid: 0, ticks: 0, comm: "x", exe: None, cmdline: b"", cgroup: "0::/\n" };

impl Fake {
    fn write(&self, proc_root: &Path) {
        let directory = proc_root.join(self.pid.to_string());
        fs::create_dir_all(&directory).expect("a directory");
        // As the kernel writes it: 52 fields, the start is the 22nd.
        let rest = "0 ".repeat(17);
        let stat = format!("{} ({}) S {} {rest}{} {}\n", self.pid, self.comm, self.ppid, self.ticks, "0 ".repeat(30));
        fs::write(directory.join("stat"), stat.replace("  ", " ")).expect("stat");
        fs::write(directory.join("cmdline"), self.cmdline).expect("cmdline");
        fs::write(directory.join("cgroup"), self.cgroup).expect("cgroup");
        if let Some(exe) = self.exe {
            symlink(exe, directory.join("exe")).expect("exe");
        }
    }
}

fn tree(cgroups: &[(&str, &str)]) -> TempDir {
    let root = TempDir::new().expect("a directory");
    fs::write(root.path().join("cgroup.procs"), "1\n").expect("procs");
    for (path, procs) in cgroups {
        let directory = root.path().join(path);
        fs::create_dir_all(&directory).expect("a directory");
        fs::write(directory.join("cgroup.procs"), procs).expect("procs");
    }
    root
}

fn inode(path: &Path) -> u64 {
    fs::metadata(path).expect("it exists").ino()
}

fn facts(inputs: &[Input]) -> Vec<&ProcessFact> {
    let seen = inputs.iter().filter_map(|input| match input {
        Input::ProcessSeen(fact) => Some(fact),
        _ => None,
    });
    seen.collect()
}

fn owner(tgid: u32, ticks: u64) -> Owner {
    Owner { start_ns: ticks * TICK_NS, tgid, pad: 0 }
}

#[test]
fn cgroups_with_their_ids_and_paths() {
    let root = tree(&[("kubepods.slice/pod1", ""), ("system.slice", "")]);
    symlink(root.path(), root.path().join("system.slice/loop")).expect("a link");
    let mut told: Vec<(u64, String)> = cgroups(root.path())
        .into_iter()
        .map(|input| match input {
            Input::CgroupPresent { id, path } => (id, path),
            other => panic!("{other:?}"),
        })
        .collect();
    assert_eq!(told[0], (inode(root.path()), "/".to_owned()), "parents come first");
    told.sort_by(|a, b| a.1.cmp(&b.1));
    let id = |path: &str| inode(&root.path().join(path));
    assert_eq!(
        told[1..],
        [
            (id("kubepods.slice"), "/kubepods.slice".to_owned()),
            (id("kubepods.slice/pod1"), "/kubepods.slice/pod1".to_owned()),
            (id("system.slice"), "/system.slice".to_owned()),
        ]
    );
    assert_eq!(cgroups(Path::new("/nonexistent")), []);
}

#[test]
fn processes_of_a_tree() {
    let (proc_root, root) =
        (TempDir::new().expect("a directory"), tree(&[("a.slice", "20\n0\n"), ("a.slice/b", "30\n")]));
    let init = Fake { pid: 1, ppid: 0, ticks: 5, comm: "init", exe: Some("/sbin/init"), ..PLAIN };
    let shell = Fake { pid: 20, ppid: 1, ticks: 100, comm: "a) (b", exe: Some("/bin/sh"), ..PLAIN };
    let client = Fake { pid: 30, ppid: 20, ticks: 200, comm: "curl\x1b", exe: Some("/bin/curl (deleted)"), ..PLAIN };
    let client = Fake { cmdline: b"curl\0--token\0hunter2\0", ..client };
    // Its parent's number was taken by a younger process.
    let orphan = Fake { pid: 40, ppid: 30, ticks: 150, ..PLAIN };
    for fake in [&client, &orphan, &init, &shell] {
        fake.write(proc_root.path());
    }
    fs::create_dir(proc_root.path().join("50")).expect("a process that vanished");

    let inputs = processes(proc_root.path(), root.path(), false);
    let told = facts(&inputs);
    assert_eq!(told.len(), inputs.len());
    let owners: Vec<Owner> = told.iter().map(|fact| fact.process.owner).collect();
    assert_eq!(owners, [owner(1, 5), owner(20, 100), owner(40, 150), owner(30, 200)], "older ones first");
    let comms: Vec<&str> = told.iter().map(|fact| fact.process.comm.as_str()).collect();
    assert_eq!(comms, ["init", "a) (b", "x", "curl\u{fffd}"]);
    let parents: Vec<Option<Owner>> = told.iter().map(|fact| fact.parent).collect();
    assert_eq!(parents, [None, Some(owner(1, 5)), None, Some(owner(20, 100))]);
    let exes: Vec<Option<&str>> = told.iter().map(|fact| fact.exe.as_deref()).collect();
    assert_eq!(exes, [Some("/sbin/init"), Some("/bin/sh"), None, Some("/bin/curl (deleted)")]);
    let ids: Vec<Option<u64>> = told.iter().map(|fact| fact.cgroup_id).collect();
    let id = |path: &str| Some(inode(&root.path().join(path)));
    assert_eq!(ids, [id(""), id("a.slice"), None, id("a.slice/b")]);
    assert!(told.iter().all(|fact| fact.args.is_empty()));

    let with_args = processes(proc_root.path(), root.path(), true);
    assert_eq!(facts(&with_args)[3].args, ["curl", "--token", "[redacted]"]);
    assert_eq!(processes(Path::new("/nonexistent"), root.path(), false), []);
}

#[test]
fn version_1_paths_of_processes_at_the_root() {
    let (proc_root, root) = (TempDir::new().expect("a directory"), tree(&[("a.slice", "20\n")]));
    let v1 = "11:memory:/kubepods/pod1/c1\n5:pids:/\n1:name=systemd:/kubepods/pod1/c1x\n0::/\n";
    Fake { pid: 1, ticks: 1, cgroup: v1, ..PLAIN }.write(proc_root.path());
    Fake { pid: 20, ticks: 2, cgroup: v1, ..PLAIN }.write(proc_root.path());
    Fake { pid: 30, ticks: 3, cgroup: "12:rdma:/r\n11:memory:/m\n0::/\n", ..PLAIN }.write(proc_root.path());
    Fake { pid: 40, ticks: 4, cgroup: "1:name=systemd:/\n0::/\n", ..PLAIN }.write(proc_root.path());
    let paths: Vec<(Owner, String)> = processes(proc_root.path(), root.path(), false)
        .into_iter()
        .filter_map(|input| match input {
            Input::ProcessCgroupV1 { process, path } => Some((process, path)),
            _ => None,
        })
        .collect();
    assert_eq!(paths, [(owner(1, 1), "/kubepods/pod1/c1x".to_owned()), (owner(30, 3), "/m".to_owned())]);
}

#[test]
fn paths_count_only_in_the_initial_namespace() {
    let (proc_root, root) = (TempDir::new().expect("a directory"), tree(&[("a.slice", "")]));
    Fake { pid: 20, cgroup: "0::/a.slice\n", ..PLAIN }.write(proc_root.path());
    Fake { pid: 30, cgroup: "0::/../a.slice\n", ..PLAIN }.write(proc_root.path());
    let ids = || -> Vec<Option<u64>> {
        facts(&processes(proc_root.path(), root.path(), false)).iter().map(|fact| fact.cgroup_id).collect()
    };
    assert_eq!(ids(), [None, None], "this /proc does not say in which namespace its reader is");
    // The namespace of the machine that runs the test is whatever it is; the answer must follow it.
    symlink("/proc/self", proc_root.path().join("self")).expect("a link");
    let is_initial = fs::read_link("/proc/self/ns/cgroup").expect("a namespace") == Path::new("cgroup:[4026531835]");
    let expected = is_initial.then(|| inode(&root.path().join("a.slice")));
    assert_eq!(ids(), [expected, None]);
}

#[test]
fn mounts() {
    let mount = |lines: &[&str]| {
        let proc_root = TempDir::new().expect("a directory");
        fs::create_dir(proc_root.path().join("self")).expect("a directory");
        let text = lines.join("\n");
        fs::write(proc_root.path().join("self/mountinfo"), text).expect("mountinfo");
        cgroup2_mount(proc_root.path())
    };
    let unified = "33 24 0:29 / /nonexistent/cgroup rw,nosuid shared:9 - cgroup2 cgroup2 rw,nsdelegate";
    let hybrid = "34 32 0:30 / /nonexistent/cgroup/unified rw,nosuid shared:10 - cgroup2 cgroup2 rw";
    let v1 = "35 32 0:31 / /nonexistent/cgroup/pids rw shared:11 - cgroup cgroup rw,pids";
    assert_eq!(mount(&[v1, unified]).as_deref(), Some(Path::new("/nonexistent/cgroup")));
    assert_eq!(mount(&[v1, hybrid]).as_deref(), Some(Path::new("/nonexistent/cgroup/unified")));
    assert_eq!(mount(&[v1]), None);
    assert_eq!(cgroup2_mount(Path::new("/nonexistent")), None);
}

#[test]
fn this_machine() {
    let proc_root = Path::new("/proc");
    let root = cgroup2_mount(proc_root).expect("the machine has cgroup2");
    let inputs = processes(proc_root, &root, false);
    let told = facts(&inputs);
    let this = told.iter().find(|fact| fact.process.owner.tgid == std::process::id()).expect("this process");
    let exe = std::env::current_exe().expect("a path");
    assert_eq!(this.exe.as_deref(), exe.to_str());
    assert!(this.parent.is_some_and(|parent| parent.start_ns <= this.process.owner.start_ns));
    assert!(this.process.owner.start_ns <= clock().0.0);

    let ids: Vec<u64> = cgroups(&root)
        .into_iter()
        .filter_map(|input| match input {
            Input::CgroupPresent { id, .. } => Some(id),
            _ => None,
        })
        .collect();
    assert!(this.cgroup_id.is_some_and(|id| ids.contains(&id)), "its cgroup is in the tree");
}

#[test]
fn program_of_a_process_and_of_no_other() {
    let proc_root = Path::new("/proc");
    let mut child = std::process::Command::new("sleep").arg("60").spawn().expect("sleep");
    let pid = child.id();
    let inputs = processes(proc_root, Path::new("/nonexistent"), false);
    let told = facts(&inputs).into_iter().find(|fact| fact.process.owner.tgid == pid).expect("the child").clone();
    let started = told.process.owner;
    let within_tick = Owner { start_ns: started.start_ns + TICK_NS - 1, ..started };
    let exe = exe_of(proc_root, started).expect("a path");
    assert!(exe.starts_with('/'));
    assert_eq!(exe_of(proc_root, within_tick), Some(exe), "the kernel's start is exact");
    assert_eq!(exe_of(proc_root, Owner { start_ns: started.start_ns + TICK_NS, ..started }), None);
    assert_eq!(exe_of(proc_root, Owner { start_ns: started.start_ns - 1, ..started }), None);
    child.kill().expect("a signal");
    child.wait().expect("its end");
    assert_eq!(exe_of(proc_root, started), None);
}

#[test]
fn addresses_and_clocks() {
    let addresses = addresses();
    assert!(addresses.contains(&IpAddr::from([127, 0, 0, 1])), "{addresses:?}");
    let (first, second) = (clock(), clock());
    assert!(second.0 >= first.0);
    assert!(first.1.0 > 1_700_000_000_000_000_000, "later than 2023: {}", first.1.0);
}
