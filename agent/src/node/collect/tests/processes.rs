//! Threads and open files: of the node, of slices, of pods.

use super::*;
use crate::node::collect::{open_files, threads};

fn with_limits() -> Fixture {
    let node = Fixture::new();
    node.put("proc/loadavg", "0.10 0.20 0.30 3/1234 4711\n");
    node.put("proc/sys/kernel/pid_max", "4194304\n");
    node.put("proc/sys/kernel/threads-max", "62000\n");
    node.put("cgroup/cgroup.controllers", "cpu memory pids\n");
    node
}

fn threads_of(node: &Fixture) -> Seen {
    Seen::by(Collector::Threads, threads::Threads::new(&node.roots, node.pods(), 0))
}

#[test]
fn threads_of_the_node_its_slices_and_its_pods() {
    let node = with_limits();
    node.pod(1, &[10]).pod(2, &[20]);
    node.pids("kubepods.slice", "300", "50000", 0).pids("kubepods.slice/kubepods-burstable.slice", "300", "max", 0);
    node.pids(&slice(1), "48", "50", 2).pids(&format!("{}/{}", slice(1), scope(1)), "47", "max", 7);
    node.pids(&slice(2), "20", "max", 0).pids(&format!("{}/{}", slice(2), scope(2)), "19", "64", 1);
    node.pids("system.slice", "99", "max", 0).pids("system.slice/sshd.service", "3", "10", 0);
    let seen = threads_of(&node);
    assert_eq!(seen.error, None);
    let threads = |scope: &Scope| seen.figures(Resource::Threads, scope);
    assert_eq!(threads(&Scope::Node), Some((Some(1_234), Limit::Of(62_000))), "the lower of both sysctls");
    assert_eq!(threads(&Scope::Slice("kubepods.slice".into())), Some((Some(300), Limit::Of(50_000))));
    assert_eq!(
        threads(&Scope::Slice("kubepods.slice/kubepods-burstable.slice".into())),
        Some((Some(300), Limit::Unlimited))
    );
    assert_eq!(threads(&Scope::Slice("system.slice".into())), Some((Some(99), Limit::Unlimited)));
    assert_eq!(threads(&pod(1)), Some((Some(48), Limit::Of(50))));
    assert_eq!(threads(&pod(2)), Some((Some(19), Limit::Of(64))), "its container binds first");
    assert_eq!(seen.samples.len(), 7);
    let refused = |scope: &Scope| seen.counter(CounterName::ForksRefused, scope);
    assert_eq!(refused(&pod(1)), Some(7), "up to 6.10 the refusals stand at the container");
    assert_eq!(refused(&pod(2)), Some(1));
    let source = &seen.samples.iter().find(|sample| sample.scope == pod(2)).expect("told").source;
    assert!(source.contains("cri-containerd-"), "{source}");
}

#[test]
fn a_broken_cgroup_hides_no_other() {
    let node = with_limits();
    node.pod(1, &[10]).pod(2, &[20]).pod(3, &[30]);
    for (number, current) in [(1, "5"), (2, "five"), (3, "7")] {
        node.pids(&slice(number), current, "100", 0);
        node.pids(&format!("{}/{}", slice(number), scope(number)), "4", "max", 0);
    }
    let seen = threads_of(&node);
    let error = seen.error.as_deref().expect("an error");
    assert!(error.contains(&uid(2).replace('-', "_")) && error.contains("\"five\""), "{error}");
    assert_eq!(seen.figures(Resource::Threads, &pod(1)), Some((Some(5), Limit::Of(100))));
    assert_eq!(seen.figures(Resource::Threads, &pod(2)), None);
    assert_eq!(seen.figures(Resource::Threads, &pod(3)), Some((Some(7), Limit::Of(100))));

    node.remove("proc/loadavg");
    node.remove(&format!("cgroup/{}/pids.current", slice(2)));
    let seen = threads_of(&node);
    let error = seen.error.as_deref().expect("an error");
    assert!(error.contains("loadavg"), "a cgroup that is gone is no error: {error}");
    assert_eq!(seen.figures(Resource::Threads, &Scope::Node), None, "absent is not zero");
    assert!(seen.figures(Resource::Threads, &pod(3)).is_some());
}

#[test]
fn a_node_without_pods_and_without_cgroups() {
    let node = with_limits();
    let seen = threads_of(&node);
    assert_eq!((seen.error, seen.samples.len()), (None, 2));
    node.remove("cgroup");
    let seen = threads_of(&node);
    assert!(seen.error.is_some_and(|error| error.contains("cgroup")));
    assert_eq!(seen.samples.len(), 1, "the node's own figure needs no cgroup");
}

#[test]
fn the_worst_process_of_each_pod() {
    let node = Fixture::new();
    node.pod(1, &[10, 11, 12]).pod(2, &[20]);
    node.process(10, "nginx", 5, "1024").process(11, "worker", 4, "6").process(12, "busy", 9, "unlimited");
    node.process(20, "java", 2, "65536").process(30, "kubelet", 3, "1000");
    // Gone while it was read.
    node.put("proc/40/comm", "gone\n");
    let seen = Seen::by(Collector::OpenFiles, open_files::OpenFiles::new(&node.roots, node.pods()));
    assert_eq!(seen.error, None);
    let files = |scope: &Scope| seen.figures(Resource::OpenFiles, scope);
    assert_eq!(files(&pod(1)), Some((Some(4), Limit::Of(6))), "by what is left of its own limit");
    assert_eq!(files(&pod(2)), Some((Some(2), Limit::Of(65_536))));
    assert_eq!(files(&Scope::Node), Some((Some(3), Limit::Of(1_000))), "processes of no pod");
    let source =
        |scope: &Scope| seen.samples.iter().find(|sample| sample.scope == *scope).expect("told").source.clone();
    assert_eq!(&*source(&pod(1)), "/proc/11/fd (worker)");
}

/// An agent with process numbers of its own reads zeros in the tree; the host's /proc tells all the same.
#[test]
fn processes_are_found_from_a_namespace_of_process_numbers() {
    let node = Fixture::new();
    node.pod(1, &[0, 0]).pod(2, &[0]);
    node.process(10, "a", 1, "100").process(20, "b", 2, "100").process(30, "host", 3, "100");
    node.put("proc/10/cgroup", &format!("0::/{}/{}\n", slice(1), scope(1)));
    // As a namespace of cgroups shows it.
    node.put("proc/20/cgroup", &format!("0::/../../../{}/{}\n", slice(2), scope(2)));
    node.put("proc/30/cgroup", "0::/system.slice/kubelet.service\n");
    let seen = Seen::by(Collector::OpenFiles, open_files::OpenFiles::new(&node.roots, node.pods()));
    let used: Vec<_> = [pod(1), pod(2), Scope::Node]
        .map(|scope| seen.figures(Resource::OpenFiles, &scope).and_then(|(used, _)| used))
        .into();
    assert_eq!(used, [Some(1), Some(2), Some(3)]);
}

/// Limits are remembered, and yet a process that comes near its limit is judged by the limit of now.
#[test]
fn a_limit_that_changed_is_read_before_it_matters() {
    let node = Fixture::new();
    node.pod(1, &[10]).process(10, "a", 4, "100");
    let mut look = open_files::OpenFiles::new(&node.roots, node.pods());
    let mut limit = || Seen::again(Collector::OpenFiles, &mut look).figures(Resource::OpenFiles, &pod(1));
    assert_eq!(limit(), Some((Some(4), Limit::Of(100))));
    node.process(10, "a", 60, "200");
    assert_eq!(limit(), Some((Some(60), Limit::Of(200))), "more than half of what was remembered");
    node.process(10, "a", 60, "90");
    let seen: Vec<_> = (0..10).map(|_| limit()).collect();
    assert!(seen.contains(&Some((Some(60), Limit::Of(90)))), "in its turn: {seen:?}");
}
