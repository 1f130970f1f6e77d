//! How findings open, repeat, are accepted, end, survive a restart, and stay within their bounds.

use super::*;
use crate::finding::Evidence;
use crate::sg::{GroupId, Missing, Peer, Service, Side, Transport};
use crate::time::BootNs;

const SECOND: u64 = 1_000_000_000;
const STATE: Code = Code::IrsaNotInjected;
const REQUEST: Code = Code::UserDataRead;
const FLOW: Code = Code::SgpBlockedFlow;

fn at(second: u64) -> Moment {
    Moment {
        boot: BootNs(second * SECOND),
        wall: WallNs(1_767_323_045_000_000_000 + i64::try_from(second * SECOND).unwrap()),
    }
}

fn subject(n: u32) -> Subject {
    Subject {
        namespace: "shop".into(),
        workload: "cart".into(),
        pod: format!("cart-{n}").into(),
        uid: format!("uid-{n}").into(),
        ..Subject::default()
    }
}

fn fault(severity: Severity, cause: &'static str) -> Violation {
    Violation { severity, cause, text: format!("because of {cause}"), evidence: Vec::new() }
}

fn bad(n: u32) -> Judgement {
    judged(n, Verdict::Violated(Box::new(fault(Severity::Medium, "webhook_missed"))))
}

fn judged(n: u32, verdict: Verdict) -> Judgement {
    Judgement { code: STATE, subject: subject(n), verdict }
}

/// A ledger with a clock of its own.
#[derive(Default)]
struct Bench {
    ledger: Ledger,
    waived: Vec<(Code, &'static str)>,
    gone: Vec<String>,
}

impl Bench {
    fn with<T>(&mut self, second: u64, act: impl FnOnce(&mut Ledger, &Context<'_>) -> T) -> T {
        let waived = self.waived.clone();
        let accept = |code: Code, subject: &Subject| -> Option<Arc<str>> {
            waived.iter().any(|(of, pod)| *of == code && *subject.pod == **pod).then(|| "as it should be".into())
        };
        let context = Context { now: at(second), watched_since: &|_| at(0).wall, accept: &accept };
        act(&mut self.ledger, &context)
    }

    fn judge(&mut self, second: u64, judgements: Vec<Judgement>) -> Vec<FindingRow> {
        self.with(second, |ledger, context| ledger.judge(&[STATE], judgements, context));
        self.tick(second)
    }

    fn happens(&mut self, second: u64, code: Code, n: u32) -> Vec<FindingRow> {
        self.with(second, |ledger, context| {
            ledger.happened(code, &subject(n), fault(Severity::Medium, "read"), 1, context);
        });
        self.tick(second)
    }

    fn tick(&mut self, second: u64) -> Vec<FindingRow> {
        let gone = self.gone.clone();
        self.with(second, |ledger, context| ledger.tick(&|uid| !gone.iter().any(|known| known == uid), context));
        // What is counted is what is shown.
        let shown = self.ledger.rows().map(|row| {
            let subject = &row.subject;
            (row.code, row.severity, row.state, subject.namespace.to_string(), subject.workload.to_string())
        });
        let counted = self.ledger.counted().map(|finding| {
            let Counted { code, severity, state, namespace, workload } = finding;
            (code, severity, state, namespace.to_owned(), workload.to_owned())
        });
        assert_eq!(counted.collect::<Vec<_>>(), shown.collect::<Vec<_>>());
        let mut outputs = Vec::new();
        self.ledger.put_out(&mut outputs);
        let rows = outputs.into_iter().map(|output| match output {
            Output::Finding(row) => *row,
            other => panic!("{other:?}"),
        });
        rows.collect()
    }

    fn only(&self) -> FindingRow {
        let rows: Vec<_> = self.ledger.rows().collect();
        let [row] = &rows[..] else { panic!("{rows:?}") };
        row.clone()
    }
}

#[test]
fn a_state_opens_after_two_evaluations_that_agree_and_ends_after_two_clean_ones() {
    let mut bench = Bench::default();
    assert_eq!(bench.judge(0, vec![bad(1)]), []);
    assert_eq!(bench.ledger.rows().count(), 0, "suspected, not found");
    let opened = bench.judge(10, vec![bad(1)]);
    assert_eq!((opened.len(), opened[0].state, opened[0].first_seen), (1, State::Open, at(0).wall));
    assert_eq!((&*opened[0].subject.pod, opened[0].pods_count, opened[0].count), ("cart-1", 1, 1));
    assert_eq!(bench.judge(20, vec![bad(1)]), [], "no change, no row");
    assert_eq!(bench.only().last_seen, at(20).wall);
    assert_eq!(bench.judge(30, vec![judged(1, Verdict::Holds)]), []);
    assert_eq!(bench.judge(40, vec![bad(1)]), [], "one clean evaluation is none");
    assert_eq!(bench.judge(50, vec![judged(1, Verdict::Holds)]), []);
    let resolved = bench.judge(60, vec![]);
    assert_eq!((resolved[0].state, resolved[0].resolved_at), (State::Resolved, Some(at(60).wall)));
    assert_eq!(resolved[0].id, opened[0].id);
    // The same again is the same finding again.
    bench.judge(70, vec![bad(1)]);
    let again = bench.judge(80, vec![bad(1)]);
    assert_eq!((&again[0].id, again[0].state, again[0].count), (&opened[0].id, State::Open, 2));
    assert_eq!(again[0].resolved_at, None);
}

#[test]
fn evaluations_that_do_not_agree_open_nothing() {
    let mut bench = Bench::default();
    let because = |cause| judged(1, Verdict::Violated(Box::new(fault(Severity::Medium, cause))));
    for (second, verdict) in [
        (0, bad(1)),
        (10, judged(1, Verdict::Holds)),
        (20, bad(1)),
        (30, judged(1, Verdict::CannotTell("policies_unknown"))),
        (40, bad(1)),
        (50, because("annotated_later")),
        (60, because("unknown")),
    ] {
        assert_eq!(bench.judge(second, vec![verdict]), [], "{second}");
    }
    assert_eq!(bench.ledger.rows().count(), 0);
}

#[test]
fn what_cannot_be_told_neither_opens_nor_ends_and_is_listed() {
    let mut bench = Bench::default();
    let doubt = |n| judged(n, Verdict::CannotTell("policies_unknown"));
    bench.judge(0, vec![bad(1)]);
    bench.judge(10, vec![bad(1)]);
    for second in 2..10 {
        assert_eq!(bench.judge(second * 10, vec![doubt(1), doubt(2)]), []);
    }
    assert_eq!(bench.only().state, State::Open);
    let doubts: Vec<_> = bench.ledger.doubts().collect();
    assert_eq!((doubts.len(), doubts[0].count, &*doubts[0].why), (1, 2, "policies_unknown"));
    assert_eq!(doubts[0].subjects, [subject(1), subject(2)]);
    // A clean evaluation before a doubt does not count with one after it.
    bench.judge(100, vec![judged(1, Verdict::Holds)]);
    bench.judge(110, vec![doubt(1)]);
    assert_eq!(bench.judge(120, vec![judged(1, Verdict::Holds)]), []);
    assert_eq!(bench.ledger.doubts().count(), 0, "answered");
    let counts = bench.ledger.verdicts().find(|(code, _)| *code == STATE).unwrap().1;
    assert_eq!(counts, [2, 2, 17]);
}

#[test]
fn one_workload_is_one_finding_with_its_pods() {
    let mut bench = Bench::default();
    let all: Vec<_> = (0..20).map(bad).collect();
    bench.judge(0, all.clone());
    let rows = bench.judge(10, all);
    let [row] = &rows[..] else { panic!("{rows:?}") };
    assert_eq!((row.pods_count, row.pods.len(), &*row.subject.pod), (20, FindingRow::MAX_PODS, ""));
    assert!(row.text.ends_with("(one of 20 pods)"), "{}", row.text);
    // Another workload is another finding.
    let other = Subject { workload: "till".into(), uid: "uid-x".into(), ..subject(99) };
    let other = || Judgement { subject: other.clone(), ..bad(99) };
    bench.judge(20, vec![bad(1), bad(2), other()]);
    let rows = bench.judge(30, vec![bad(1), bad(2), other()]);
    assert_eq!(rows.iter().map(|row| row.pods_count).collect::<Vec<_>>(), [2, 1]);
    assert_ne!(rows[0].id, rows[1].id);
    // Containers of one pod are one pod.
    let container = |name: &str| Judgement { subject: Subject { container: name.into(), ..subject(1) }, ..bad(1) };
    let mut bench = Bench::default();
    bench.judge(0, vec![container("a"), container("b")]);
    let rows = bench.judge(10, vec![container("a"), container("b")]);
    assert_eq!((rows.len(), rows[0].pods_count, &*rows[0].subject.container), (1, 1, ""));
    bench.judge(20, vec![container("b")]);
    bench.judge(30, vec![container("b")]);
    assert_eq!(&*bench.only().subject.container, "b");
}

#[test]
fn the_worst_member_tells_how_bad_it_is_and_why() {
    let mut bench = Bench::default();
    let worse = || judged(2, Verdict::Violated(Box::new(fault(Severity::High, "unknown"))));
    bench.judge(0, vec![bad(1), worse()]);
    bench.judge(10, vec![bad(1), worse()]);
    let row = bench.only();
    assert_eq!((row.severity, &*row.cause, row.pods_count), (Severity::High, "unknown", 2));
    bench.judge(20, vec![bad(1)]);
    let rows = bench.judge(30, vec![bad(1)]);
    assert_eq!((rows[0].severity, &*rows[0].cause, rows[0].pods_count), (Severity::Medium, "webhook_missed", 1));
}

#[test]
fn a_request_opens_at_once_counts_repeats_and_ends_with_its_pod() {
    let mut bench = Bench::default();
    let rows = bench.happens(0, REQUEST, 1);
    assert_eq!((rows.len(), rows[0].state, rows[0].count), (1, State::Open, 1));
    assert_eq!(bench.happens(1, REQUEST, 1), [], "a repeat is counted, not told");
    assert_eq!(bench.only().count, 2);
    assert_eq!(bench.happens(2, REQUEST, 2)[0].pods_count, 2);
    // Evaluations of state rules do not touch it.
    bench.judge(10, vec![]);
    bench.judge(20, vec![]);
    bench.gone.push("uid-1".into());
    assert_eq!(bench.tick(30)[0].pods_count, 1);
    bench.gone.push("uid-2".into());
    assert_eq!(bench.tick(40)[0].state, State::Resolved);
}

#[test]
fn a_request_without_a_repeat_ends_after_a_day_and_is_shown_for_another() {
    let day = DAY_NS / SECOND;
    let mut bench = Bench::default();
    bench.happens(0, REQUEST, 1);
    bench.happens(100, REQUEST, 1);
    assert_eq!(bench.tick(100 + day), []);
    assert_eq!(bench.tick(101 + day)[0].state, State::Resolved);
    bench.tick(101 + 2 * day);
    assert_eq!(bench.ledger.rows().count(), 1);
    bench.tick(102 + 2 * day);
    assert_eq!(bench.ledger.rows().count(), 0);
}

#[test]
fn a_flow_ends_by_a_success() {
    let mut bench = Bench::default();
    bench.happens(0, FLOW, 1);
    assert!(bench.ledger.is_open(FLOW, &subject(1)) && !bench.ledger.is_open(FLOW, &subject(2)));
    bench.with(10, |ledger, context| ledger.cleared(FLOW, &subject(2), context));
    assert_eq!(bench.tick(10), []);
    bench.with(20, |ledger, context| ledger.cleared(FLOW, &subject(1), context));
    assert_eq!(bench.tick(20)[0].state, State::Resolved);
}

#[test]
fn a_waiver_accepts_and_gives_back() {
    let mut bench = Bench { waived: vec![(REQUEST, "cart-1")], ..Bench::default() };
    let rows = bench.happens(0, REQUEST, 1);
    assert_eq!((rows.len(), rows[0].state), (1, State::Accepted), "never open in between");
    assert_eq!(rows[0].accepted_reason.as_deref(), Some("as it should be"));
    // Another pod of the workload that no waiver names.
    assert_eq!(bench.happens(10, REQUEST, 2)[0].state, State::Open);
    bench.gone.push("uid-2".into());
    assert_eq!(bench.tick(20)[0].state, State::Accepted);
    bench.waived.clear();
    let rows = bench.tick(30);
    assert_eq!((rows[0].state, &rows[0].accepted_reason), (State::Open, &None));
}

#[test]
fn clocks_that_are_set_open_and_end_nothing() {
    let mut bench = Bench::default();
    bench.happens(100, REQUEST, 1);
    bench.judge(100, vec![bad(1)]);
    bench.judge(110, vec![bad(1)]);
    for jump in [-400 * 86_400, 400 * 86_400] {
        let now = Moment { boot: BootNs(120 * SECOND), wall: WallNs(at(120).wall.0 + jump * 1_000_000_000) };
        let context = Context { now, watched_since: &|_| now.wall, accept: &|_, _| None };
        bench.ledger.tick(&|_| true, &context);
        let mut outputs = Vec::new();
        bench.ledger.put_out(&mut outputs);
        assert_eq!(outputs, []);
    }
    assert_eq!(bench.ledger.rows().filter(|row| row.state == State::Open).count(), 2);
}

#[test]
fn a_restart_keeps_what_stands_and_forgets_what_was_suspected() {
    let mut bench = Bench::default();
    bench.happens(0, REQUEST, 1);
    bench.judge(10, vec![bad(1)]);
    bench.judge(20, vec![bad(1), bad(2)]);
    let before: Vec<_> = bench.ledger.rows().collect();
    let text = serde_json::to_string(&bench.ledger.snapshot()).unwrap();
    let restore = |same_boot, second| {
        let mut after = Bench::default();
        let snapshot = serde_json::from_str(&text).unwrap();
        assert_eq!(after.ledger.restore(snapshot, same_boot, at(second)), Ok(2));
        after
    };
    let mut after = restore(true, 30);
    assert_eq!(after.ledger.rows().collect::<Vec<_>>(), before);
    assert_eq!(after.tick(30), [], "nothing changed");
    assert_eq!(after.judge(40, vec![bad(1), bad(2)]), [], "the second pod is suspected anew");
    assert_eq!(after.judge(50, vec![bad(1), bad(2)])[0].pods_count, 2);
    // Gone while nobody looked: two clean evaluations.
    let mut after = restore(true, 30);
    after.judge(40, vec![]);
    assert_eq!(after.judge(50, vec![])[0].state, State::Resolved);
    // Another boot: its clock began anew, so ages go by wall time and end nothing too early.
    let mut after = restore(false, 86_000);
    assert_eq!(after.tick(86_000), []);
    assert_eq!(after.tick(86_401).iter().map(|row| row.code).collect::<Vec<_>>(), [REQUEST]);
}

#[test]
fn a_snapshot_of_another_version_is_refused() {
    let mut bench = Bench::default();
    bench.happens(0, REQUEST, 1);
    let mut value = serde_json::to_value(bench.ledger.snapshot()).unwrap();
    value["version"] = 2.into();
    let restored = Ledger::default().restore(serde_json::from_value(value).unwrap(), true, at(0));
    assert_eq!(restored, Err(RestoreError::Version(2)));
}

#[test]
fn of_a_snapshot_with_more_than_there_is_room_for_what_stands_is_kept_and_the_rest_counted() {
    let mut bench = Bench::default();
    bench.happens(0, REQUEST, 1);
    let mut value = serde_json::to_value(bench.ledger.snapshot()).unwrap();
    let template = value["findings"][0].clone();
    let named = |workload: String, state: &str, members: usize| {
        let mut one = template.clone();
        one["subject"]["workload"] = workload.into();
        one["state"] = state.into();
        one["members"] = serde_json::Value::Array(vec![one["members"][0].clone(); members]);
        one
    };
    let resolved = (0..3).map(|n| named(format!("old-{n}"), "resolved", 0));
    let standing = (0..MAX_FINDINGS - 1).map(|n| named(format!("new-{n}"), "open", 1));
    value["findings"] = resolved.chain(standing).collect();
    let mut ledger = Ledger::default();
    assert_eq!(ledger.restore(serde_json::from_value(value.clone()).unwrap(), true, at(0)), Ok(MAX_FINDINGS));
    let states = |state| ledger.rows().filter(|row| row.state == state).count();
    assert_eq!((states(State::Open), states(State::Resolved), ledger.refused()), (MAX_FINDINGS - 1, 1, 2));
    // More pods than there is room for.
    value["findings"] =
        [named("all".into(), "open", MAX_MEMBERS), named("more".into(), "open", 2)].into_iter().collect();
    let mut ledger = Ledger::default();
    assert_eq!(ledger.restore(serde_json::from_value(value).unwrap(), true, at(0)), Ok(1));
    assert_eq!(ledger.refused(), 2);
}

#[test]
fn names_for_more_findings_than_there_is_room_for_are_not_given() {
    let mut bench = Bench::default();
    // Under one uid each, nameless, and nearly as many findings as fit.
    for n in 0..MAX_FINDINGS {
        let subject =
            Subject { workload: format!("pod-{n}").into(), uid: format!("uid-{n}").into(), ..Subject::default() };
        bench.with(0, |ledger, context| {
            ledger.happened(REQUEST, &subject, fault(Severity::Medium, "read"), 1, context);
        });
    }
    let name = |uid: &str| Some(Subject { uid: uid.into(), workload: format!("of-{uid}").into(), ..subject(0) });
    bench.with(1, |ledger, context| ledger.rename(&name, context));
    let count = bench.ledger.snapshot();
    let mut after = Ledger::default();
    after.restore(count, true, at(1)).unwrap();
    assert_eq!(after.refused(), 0, "what is written down fits");
    let standing = bench.ledger.rows().filter(|row| row.state == State::Open).count();
    assert_eq!(standing, MAX_FINDINGS, "nothing is lost, with a name or without");
}

#[test]
fn a_pod_that_gets_its_name_goes_on_under_it() {
    let mut bench = Bench::default();
    let unnamed = Subject { workload: "pod-uid-1".into(), uid: "uid-1".into(), ..Subject::default() };
    bench.with(0, |ledger, context| {
        ledger.happened(REQUEST, &unnamed, fault(Severity::Medium, "read"), 1, context);
    });
    bench.tick(0);
    bench.with(10, |ledger, context| ledger.rename(&|uid| (uid == "uid-1").then(|| subject(1)), context));
    let rows = bench.tick(10);
    let shown: Vec<_> = rows.iter().map(|row| (row.state, &*row.subject.workload, row.count, &*row.cause)).collect();
    assert_eq!(shown, [(State::Resolved, "pod-uid-1", 1, "read"), (State::Open, "cart", 1, "read")]);
    assert!(rows[0].text.contains(&rows[1].id), "{}", rows[0].text);
    assert_eq!(rows[1].first_seen, at(0).wall);
}

#[test]
fn openings_are_counted_by_code_severity_and_namespace() {
    let mut bench = Bench::default();
    bench.happens(0, REQUEST, 1);
    bench.happens(1, REQUEST, 1);
    bench.happens(1, REQUEST, 2);
    bench.gone = vec!["uid-1".into(), "uid-2".into()];
    bench.tick(2);
    bench.gone.clear();
    bench.happens(3, REQUEST, 3);
    let counts: Vec<_> = bench.ledger.opened().collect();
    assert_eq!(counts, [(REQUEST, Severity::Medium, "shop", 2)]);
}

#[test]
fn the_ledger_is_bounded_and_says_so() {
    let mut bench = Bench::default();
    let many = u32::try_from(MAX_FINDINGS).unwrap() + 5;
    let subject = |n: u32| Subject { workload: format!("w{n}").into(), ..subject(n) };
    let happens = |bench: &mut Bench, n| {
        bench.with(0, |ledger, context| {
            ledger.happened(REQUEST, &subject(n), fault(Severity::Medium, "read"), 1, context);
        });
    };
    (0..many).for_each(|n| happens(&mut bench, n));
    assert_eq!((bench.ledger.rows().count(), bench.ledger.refused()), (MAX_FINDINGS, 5));
    // What is resolved makes room.
    bench.gone.push("uid-7".into());
    bench.tick(0);
    happens(&mut bench, many);
    assert_eq!((bench.ledger.rows().count(), bench.ledger.refused()), (MAX_FINDINGS, 5));
    // Members too.
    let mut bench = Bench::default();
    let many = u32::try_from(MAX_MEMBERS).unwrap() + 7;
    bench.judge(0, (0..many).map(bad).collect());
    assert_eq!(bench.ledger.refused(), 7);
    // And doubts.
    let mut bench = Bench::default();
    let many = u32::try_from(MAX_DOUBTS).unwrap() + 3;
    bench.judge(0, (0..many).map(|n| judged(n, Verdict::CannotTell("x"))).collect());
    assert_eq!(bench.ledger.doubts().next().unwrap().count, MAX_DOUBTS as u64);
    assert_eq!(bench.ledger.refused(), 3);
}

#[test]
fn long_texts_are_cut() {
    let mut bench = Bench::default();
    let long = "ü".repeat(5_000);
    let says = Evidence { object: long.clone(), field: long.clone(), generation: None, value: long.clone() };
    let violation = Violation { severity: Severity::Low, cause: "read", text: long, evidence: vec![says; 100] };
    bench.with(0, |ledger, context| ledger.happened(REQUEST, &subject(1), violation, 1, context));
    let row = bench.only();
    assert!(row.text.len() < 1_030 && row.evidence.len() == 8 && row.evidence[0].value.len() < 774);
}

/// What is to be pasted is of no use in part.
#[test]
fn the_longest_rule_that_can_be_missing_is_told_whole() {
    let id = |digit: &str| format!("sg-{}", digit.repeat(61)).parse::<GroupId>().unwrap();
    let missing = Missing {
        side: Side::Ingress,
        group: id("a"),
        service: Service::Ports { transport: Transport::Tcp, first: 65_534, last: 65_535 },
        peer: Some(Peer::Group { id: id("b"), account: Some("111122223333".into()), stale: None }),
    };
    let whole = [missing.aws_cli().unwrap(), missing.terraform().unwrap()];
    assert!(whole.iter().any(|value| value.len() > 512), "it is long");
    let evidence = whole.clone().map(|value| Evidence {
        object: "security group".to_owned(),
        field: "add".to_owned(),
        generation: None,
        value,
    });
    let mut bench = Bench::default();
    bench.with(0, |ledger, context| {
        let violation = Violation { evidence: evidence.into(), ..fault(Severity::Medium, "ingress_rule_missing") };
        ledger.happened(FLOW, &subject(1), violation, 1, context);
    });
    let told: Vec<_> = bench.only().evidence.into_iter().map(|one| one.value).collect();
    assert_eq!(told, whole);
}
