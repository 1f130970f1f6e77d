//! Processes and their ancestors, over forks, execs, deaths and reused numbers.

use proptest::prelude::*;

use super::*;
use crate::output::By;

const SECOND: u64 = 1_000_000_000;

fn owner(tgid: u32, start_ns: u64) -> Owner {
    Owner { start_ns, tgid, pad: 0 }
}

fn named(tgid: u32, start_ns: u64, comm: &str) -> NamedProcess {
    NamedProcess { owner: owner(tgid, start_ns), comm: comm.to_owned() }
}

fn seen(process: NamedProcess, parent: Option<Owner>, exe: &str) -> ProcessFact {
    ProcessFact { process, parent, cgroup_id: None, exe: Some(exe.to_owned()), args: Vec::new() }
}

fn exec(process: NamedProcess, path: &str, args: &[&str]) -> ExecFact {
    ExecFact {
        time: BootNs(process.owner.start_ns),
        cgroup_id: 5,
        process,
        parent: None,
        path: path.to_owned(),
        path_cut: false,
        args: args.iter().map(|&arg| arg.to_owned()).collect(),
        uid: 0,
    }
}

fn fork(parent: Owner, child: NamedProcess) -> ForkFact {
    ForkFact { time: BootNs(child.owner.start_ns), cgroup_id: 5, child, parent }
}

#[test]
fn a_child_runs_its_parents_program_until_exec() {
    let mut table = ProcessTable::default();
    table.exec(&exec(named(10, 11, "sh"), "/bin/sh", &["sh", "-c"]));
    table.exe_resolved(owner(10, 11), "/usr/bin/dash");
    table.fork(&fork(owner(10, 11), named(11, 22, "sh")));
    let view = table.view(owner(11, 22), By::Connect);
    assert_eq!((view.exe.as_deref(), view.exe_resolved.as_deref()), (Some("/bin/sh"), Some("/usr/bin/dash")));
    assert_eq!(view.args, ["sh", "-c"]);
    table.exec(&exec(named(11, 22, "curl"), "curl", &[]));
    let view = table.view(owner(11, 22), By::Connect);
    assert_eq!((view.exe.as_deref(), view.exe_resolved, view.comm.as_str()), (Some("curl"), None, "curl"));
    assert!(view.args.is_empty());
    assert_eq!(view.ancestors.len(), 1);
    assert_eq!((view.ancestors[0].pid, view.ancestors[0].comm.as_str()), (10, "sh"));
}

#[test]
fn ticks_from_proc_meet_exact_starts() {
    let mut table = ProcessTable::default();
    table.seen(&seen(named(7, 50_000_000, "nginx"), None, "/usr/sbin/nginx"), BootNs(SECOND));
    assert_eq!(table.view(owner(7, 51_234_567), By::Close).comm, "nginx");
    table.touch(owner(7, 51_234_567), BootNs(SECOND));
    // Now that the exact start is known, another one in the same tick is somebody else.
    assert!(table.get(owner(7, 51_234_568)).is_none());
    assert!(table.get(owner(7, 50_000_000)).is_some(), "a later reading of /proc still finds it");
    assert!(table.get(owner(7, 60_000_001)).is_none());
    assert_eq!(table.len(), 1);
}

#[test]
fn what_records_told_stays_when_proc_is_read_later() {
    let mut table = ProcessTable::default();
    table.exec(&exec(named(7, 51_234_567, "app"), "./app.py", &[]));
    table.seen(&seen(named(7, 50_000_000, "old"), Some(owner(1, 10_000_000)), "/usr/bin/python3"), BootNs(SECOND));
    let view = table.view(owner(7, 51_234_567), By::Exec);
    assert_eq!(view.exe.as_deref(), Some("./app.py"));
    assert_eq!(view.exe_resolved.as_deref(), Some("/usr/bin/python3"));
    assert_eq!(view.comm, "app");
}

#[test]
fn a_reused_number_is_another_process() {
    let mut table = ProcessTable::default();
    table.exec(&exec(named(7, SECOND + 1, "first"), "/first", &[]));
    table.exec(&exec(named(7, 2 * SECOND + 1, "second"), "/second", &[]));
    assert_eq!(table.view(owner(7, SECOND + 1), By::Connect).exe.as_deref(), Some("/first"));
    assert_eq!(table.view(owner(7, 2 * SECOND + 1), By::Connect).exe.as_deref(), Some("/second"));
    // The first must be dead, although its exit was missed: it is forgotten in time.
    table.expire(BootNs(2 * SECOND + REMEMBER_DEAD_NS + SWEEP_NS));
    assert!(table.get(owner(7, SECOND + 1)).is_none());
    assert!(table.get(owner(7, 2 * SECOND + 1)).is_some());
}

#[test]
fn ancestry_outlives_the_ancestors() {
    let mut table = ProcessTable::default();
    table.exec(&exec(named(1, 1, "p1"), "/p1", &[]));
    for pid in 2..=12_u32 {
        table.fork(&fork(owner(pid - 1, u64::from(pid) - 1), named(pid, u64::from(pid), &format!("p{pid}"))));
    }
    for pid in 1..12_u32 {
        table.exit(owner(pid, u64::from(pid)), BootNs(SECOND));
    }
    let pids = |table: &ProcessTable| {
        table.view(owner(12, 12), By::Connect).ancestors.iter().map(|ancestor| ancestor.pid).collect::<Vec<_>>()
    };
    let expected: Vec<_> = (4..12).rev().collect();
    assert_eq!(pids(&table), expected);
    // An hour later the ancestors shown are still there, for their descendant lives; the others are gone.
    table.expire(BootNs(3600 * SECOND));
    assert_eq!(pids(&table), expected);
    assert_eq!(table.len(), ANCESTORS + 1);
    table.exit(owner(12, 12), BootNs(3600 * SECOND));
    table.expire(BootNs(3600 * SECOND + REMEMBER_DEAD_NS + SWEEP_NS));
    assert!(table.is_empty());
}

#[test]
fn the_dead_are_remembered_for_minutes() {
    let mut table = ProcessTable::default();
    table.exec(&exec(named(7, 3, "short"), "/short", &[]));
    table.exit(owner(7, 3), BootNs(SECOND));
    table.expire(BootNs(SECOND + REMEMBER_DEAD_NS));
    assert_eq!(table.view(owner(7, 3), By::Connect).comm, "short");
    table.expire(BootNs(2 * SECOND + REMEMBER_DEAD_NS + SWEEP_NS));
    assert!(table.get(owner(7, 3)).is_none());
}

#[test]
fn the_table_is_bounded() {
    let mut table = ProcessTable::default();
    let most_dead = u32::try_from(MAX_DEAD).unwrap();
    for pid in 1..=most_dead + 10 {
        table.exec(&exec(named(pid, u64::from(pid), "x"), "/x", &[]));
        table.exit(owner(pid, u64::from(pid)), BootNs(u64::from(pid)));
    }
    assert_eq!((table.len(), table.evicted()), (MAX_DEAD, Evicted { dead: 10, live: 0 }));
    assert!(table.get(owner(10, 10)).is_none() && table.get(owner(11, 11)).is_some(), "the longest dead went first");

    let mut table = ProcessTable::default();
    let most_live = u32::try_from(MAX_LIVE).unwrap();
    for pid in 1..=most_live + 1 {
        table.exec(&exec(named(pid, u64::from(pid), "x"), "/x", &[]));
    }
    assert_eq!(table.evicted().live, (MAX_LIVE / EVICT_SHARE) as u64);
    assert!(table.get(owner(1, 1)).is_none(), "the silent go first");
    assert!(table.get(owner(most_live, u64::from(most_live))).is_some());
}

#[test]
fn containers_are_inherited_and_units_are_not() {
    let mut table = ProcessTable::default();
    for (pid, path, inherited) in
        [(1, format!("/docker/{}", "a".repeat(64)), true), (3, "/system.slice/containerd.service".to_owned(), false)]
    {
        table.exec(&exec(named(pid, 1, "x"), "/x", &[]));
        table.cgroup_v1(owner(pid, 1), Arc::new(crate::cgroup::parse(&path)));
        table.fork(&fork(owner(pid, 1), named(pid + 1, 2, "x")));
        assert_eq!(table.get(owner(pid + 1, 2)).is_some_and(|child| child.v1().is_some()), inherited, "{path}");
    }
}

#[test]
fn a_records_own_names_come_first() {
    let mut table = ProcessTable::default();
    table.seen(&seen(named(1, 0, "systemd"), None, "/sbin/init"), BootNs(0));
    table.seen(&seen(named(5, 30_000_000, "stale"), Some(owner(1, 0)), "/bin/sh"), BootNs(0));
    let view = table.named_view(&named(9, 40, "aws"), &[named(5, 30_000_007, "sh")], By::Send);
    assert_eq!((view.pid, view.comm.as_str(), view.exe, view.by), (9, "aws", None, By::Send));
    let ancestors: Vec<_> = view.ancestors.iter().map(|a| (a.pid, a.comm.as_str(), a.exe.as_deref())).collect();
    assert_eq!(ancestors, [(5, "sh", Some("/bin/sh")), (1, "systemd", Some("/sbin/init"))]);
}

#[derive(Clone, Debug)]
enum Step {
    Exec(u32, u64),
    Fork(u32, u64, u32, u64),
    Exit(u32, u64),
    Seen(u32, u64),
    Expire(u64),
}

fn step() -> impl Strategy<Value = Step> {
    let tgid = 1_u32..6;
    let start = prop_oneof![0_u64..40_000_000, (0_u64..4).prop_map(|tick| tick * TICK_NS)];
    prop_oneof![
        (tgid.clone(), start.clone()).prop_map(|(t, s)| Step::Exec(t, s)),
        (tgid.clone(), start.clone(), tgid.clone(), start.clone()).prop_map(|(t, s, u, v)| Step::Fork(t, s, u, v)),
        (tgid.clone(), start.clone()).prop_map(|(t, s)| Step::Exit(t, s)),
        (tgid, start).prop_map(|(t, s)| Step::Seen(t, s)),
        (0..2000 * SECOND).prop_map(Step::Expire),
    ]
}

proptest! {
    /// Any sequence, cycles of parents included: views end, counts agree.
    #[test]
    fn any_sequence_keeps_the_table_consistent(steps in proptest::collection::vec(step(), 0..60)) {
        let mut table = ProcessTable::default();
        for step in steps {
            match step {
                Step::Exec(t, s) => table.exec(&exec(named(t, s, "x"), "/x", &[])),
                Step::Fork(t, s, u, v) => table.fork(&fork(owner(t, s), named(u, v, "y"))),
                Step::Exit(t, s) => table.exit(owner(t, s), BootNs(s)),
                Step::Seen(t, s) => table.seen(&seen(named(t, s, "z"), Some(owner(t, s)), "/z"), BootNs(s)),
                Step::Expire(now) => table.expire(BootNs(now)),
            }
            prop_assert_eq!(table.dead_count, table.processes.values().filter(|process| process.exited).count());
            for (tgid, tick) in &table.current {
                let key = Key { tgid: *tgid, tick: *tick };
                prop_assert!(table.processes.contains_key(&key));
            }
            for key in table.processes.keys().copied().collect::<Vec<_>>() {
                let view = table.view(owner(key.tgid, key.tick * TICK_NS), By::Connect);
                prop_assert!(view.ancestors.len() <= ANCESTORS);
            }
        }
    }
}
