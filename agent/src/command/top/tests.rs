//! Keys and answers go in, screens come out: of three sizes, drawn by ratatui's own test backend.

use std::time::Duration;

use ratatui::Terminal;
use ratatui::backend::TestBackend;
use ratatui::crossterm::event::{KeyCode, KeyEvent, KeyModifiers};
use serde_json::{Value, json};

use super::columns::{Column, fitting};
use super::picture::Picture;
use super::state::{App, Event, Next, Overlay, View};
use super::{lists, page};

const GIB: u64 = 1 << 30;

struct Pod {
    name: &'static str,
    workload: &'static str,
    /// Bytes sent and received and connections in the last fold; `None`: no fold is over.
    last: Option<(u64, u64, u64)>,
    total: (u64, u64),
    failed: u64,
    requests: (u64, u64),
}

impl Pod {
    const QUIET: Self =
        Self { name: "", workload: "", last: Some((0, 0, 0)), total: (0, 0), failed: 0, requests: (0, 0) };

    fn line(&self) -> Value {
        let Self { name, workload, last, total, failed, requests } = self;
        let amounts = |(sent, received, connections)| json!({"bytes_sent": sent, "bytes_received": received, "connections": connections});
        let mut sums = amounts((total.0, total.1, 40));
        for (field, value) in [("failed", failed), ("metadata_requests", &requests.0), ("metadata_v1", &requests.1)] {
            sums[field] = json!(value);
        }
        let is_pod = !name.is_empty();
        json!({
            "schema": "sekisho/1", "kind": "traffic", "time": "2026-01-02T03:04:05.000000Z", "node": "ip-10-0-1-7",
            "attribution": if is_pod { "pod" } else { "host" }, "namespace": if is_pod { "shop" } else { "" },
            "pod": name, "uid": if is_pod { format!("uid-{name}") } else { String::new() }, "workload": workload,
            "alive": true, "total": sums, "last_fold": last.map(amounts)
        })
    }
}

fn basis(has_fold: bool) -> Value {
    let window = json!({"start": "2026-01-02T03:03:55.000000Z", "end": "2026-01-02T03:04:05.000000Z"});
    json!({
        "schema": "sekisho/1", "kind": "traffic_basis", "time": "2026-01-02T03:04:05.000000Z", "node": "ip-10-0-1-7",
        "since": "2026-01-02T03:00:00.000000Z", "window": if has_fold { window } else { Value::Null }, "left_out": 0
    })
}

fn finding(code: &str, severity: &str, state: &str, pods: &[&str]) -> Value {
    json!({
        "schema": "sekisho/1", "kind": "finding", "time": "2026-01-02T03:04:05.000000Z", "node": "ip-10-0-1-7",
        "id": format!("id-{code}-{state}"), "code": code, "severity": severity, "state": state,
        "subject": {"namespace": "shop", "workload": "cart"}, "pods": pods, "pods_count": pods.len(),
        "cause": "read", "first_seen": "2026-01-02T03:01:05.000000Z", "last_seen": "2026-01-02T03:02:05.000000Z",
        "resolved_at": null, "count": 3, "watched_since": "2026-01-02T03:00:00.000000Z",
        "text": "it took the \u{1b}[31mnode's credentials", "advice": "give it a role of its own", "evidence": []
    })
}

fn capacity() -> Value {
    let resource = |resource, scope, used: Option<u64>, limit: Option<u64>, unit, exhaustion: Value| {
        json!({"resource": resource, "scope": scope, "used": used, "limit": limit, "unit": unit, "source": "test",
               "age_s": 3, "headroom": limit.zip(used).map(|(limit, used)| limit - used), "exhaustion_s": exhaustion})
    };
    json!({
        "schema": "sekisho/1", "kind": "capacity", "time": "2026-01-02T03:04:05.000000Z", "node": "ip-10-0-1-7",
        "pods_fit": 8, "binding_resource": "pod_ips", "resources": [
            resource("pod_ips", "node", Some(50), Some(58), "count", json!({"earliest_s": 300, "likely_s": 5400})),
            resource("ena_conntrack_allowance", "interface eth0", None, Some(136_812), "count", json!("cannot_tell")),
            resource("threads", "pod shop/cart-7d9f6b5c8d-x2k4q", Some(900), Some(1_024), "count", json!("not_growing")),
            resource("memory_requests", "node", Some(5 * GIB), Some(15 * GIB), "bytes", json!("not_growing")),
            resource("pods", "node", Some(12), Some(58), "count", json!("not_growing")),
            resource("conntrack_entries", "node", Some(0), Some(262_144), "count", json!("not_growing")),
        ]
    })
}

fn picture() -> Picture {
    let pods = [
        Pod {
            name: "cart-7d9f6b5c8d-x2k4q",
            workload: "cart",
            last: Some((15_360, 10_485_760, 123)),
            total: (GIB, 3 * GIB),
            failed: 2,
            requests: (12, 3),
        },
        Pod { name: "till-0", workload: "till", last: Some((40_000, 1_000, 5)), total: (7, 9), ..Pod::QUIET },
        Pod { workload: "sshd.service\u{1b}[2J", total: (100, 100), ..Pod::QUIET },
    ];
    let traffic: Vec<_> = pods.iter().map(Pod::line).chain([basis(true)]).collect();
    let findings = [
        finding("metadata-v1-used", "low", "open", &["cart-7d9f6b5c8d-x2k4q"]),
        finding("node-credentials-taken", "critical", "open", &["cart-7d9f6b5c8d-x2k4q"]),
        finding("user-data-read", "medium", "accepted", &["till-0"]),
    ];
    Picture::read(&traffic, &[capacity()], &findings)
}

/// An App that looks at a picture since a second.
fn app() -> App {
    let mut app = App::new(80, Duration::from_secs(2));
    app.handle(told(picture()), Duration::from_secs(1));
    app
}

fn told(picture: Picture) -> Event {
    Event::Asked(Ok(Box::new(picture)))
}

fn press(app: &mut App, keys: &[KeyCode]) {
    for key in keys {
        let event = Event::Key(KeyEvent::new(*key, KeyModifiers::NONE));
        assert_eq!(app.handle(event, app.now), Next::Draw, "{key:?}");
    }
}

fn letters(text: &str) -> Vec<KeyCode> {
    text.chars().map(KeyCode::Char).collect()
}

/// What is on a screen of this size, without blanks at the ends of lines.
fn screen(app: &mut App, width: u16, height: u16) -> Vec<String> {
    let mut terminal = Terminal::new(TestBackend::new(width, height)).expect("a terminal");
    terminal.draw(|frame| page::draw(app, frame.area(), frame.buffer_mut())).expect("draws");
    let buffer = terminal.backend().buffer();
    let row = |y| (0..width).map(|x| buffer[(x, y)].symbol()).collect::<String>();
    (0..height).map(|y| row(y).trim_end().to_owned()).collect()
}

/// The names in the list, from the first line on the screen.
fn names(app: &App) -> Vec<String> {
    app.pods().into_iter().map(|row| row.name.clone()).collect()
}

#[test]
fn a_screen_of_80_by_24() {
    let shown = screen(&mut app(), 80, 24);
    let mut expected = vec![
        " sekisho top  ip-10-0-1-7                                                  live",
        "findings: 1 crit, 1 low; 8 more pods fit, then pod_ips ends; 2 pods",
        "pod_ips            node               ########--  86%      50/58         5m..90m",
        "threads            pod shop…c8d-x2k4q ########--  87%     900/1024",
        "memory_requests    node               ###-------  33%   5.0Gi/15.0Gi",
        "pods               node               ##--------  20%      12/58",
        "1 pods  2 findings  3 capacity  1-3 of 3",
        "POD OR UNIT            SENT/s RECV/s▼   BYTES  CONN/s  FAIL  META   V1  FINDINGS",
        "shop/cart…5c8d-x2k4q    1.5Ki   1.0Mi   4.0Gi    12.3     2    12    3  1 crit+1",
        "shop/till-0             3.9Ki     100      16     0.5     0     0    0",
        "sshd.service\u{fffd}[2J            0       0     200     0.0     0     0    0",
    ];
    expected.resize(23, "");
    expected.push(" q quit  ? help  / filter  s sort  r reverse  tab view  ↑↓ pick  enter details");
    assert_eq!(shown, expected, "{shown:#?}");
}

#[test]
fn a_small_screen_shows_what_matters_most() {
    let shown = screen(&mut app(), 40, 12);
    assert_eq!(
        shown,
        [
            " sekisho top  ip-10-0-1-7          live",
            "findings: 1 crit, 1 low; 8 more pods fit",
            "pod_ips                  ########--  86%",
            "threads                  ########--  87%",
            "1 pods  2 findings  3 capacity  1-3 of 3",
            "POD OR UNIT               SENT/s RECV/s▼",
            "shop/cart-7…b5c8d-x2k4q    1.5Ki   1.0Mi",
            "shop/till-0                3.9Ki     100",
            "sshd.service\u{fffd}[2J               0       0",
            "",
            "",
            " q quit  ? help  / filter  s sort",
        ],
        "{shown:#?}"
    );
    assert_eq!(screen(&mut app(), 10, 3)[0], "too small:");
}

#[test]
fn a_large_screen_tells_names_and_workloads_whole() {
    let shown = screen(&mut app(), 200, 60);
    let cart = shown.iter().find(|line| line.starts_with("shop/cart")).expect("is listed");
    assert!(cart.starts_with("shop/cart-7d9f6b5c8d-x2k4q ") && cart.contains(" cart "), "{cart}");
    assert!(shown.iter().any(|line| line.contains("pod shop/cart-7d9f6b5c8d-x2k4q") && line.contains(&"#".repeat(17))));
    assert!(shown[59].contains("enter details"));
}

/// Whatever the size and the view, every line that matters has its place and nothing panics.
#[test]
fn every_size_can_be_drawn() {
    for width in (0..130).chain([300, 1_000]) {
        for height in [0, 1, 5, 6, 7, 11, 12, 18, 24, 36, 70] {
            let mut app = app();
            for view in [View::Pods, View::Findings, View::Capacity] {
                app.view = view;
                for overlay in [Overlay::None, Overlay::Details, Overlay::Help] {
                    app.overlay = overlay;
                    screen(&mut app, width, height);
                }
            }
            assert!(fitting(width).iter().map(|(_, width)| width).sum::<u16>() <= width.max(16), "{width}");
        }
    }
}

#[test]
fn before_the_first_fold_rates_are_absent_and_not_zero() {
    let traffic = [Pod { name: "till-0", workload: "till", last: None, ..Pod::QUIET }.line(), basis(false)];
    let mut app = App::new(80, Duration::from_secs(2));
    app.handle(told(Picture::read(&traffic, &[], &[])), Duration::ZERO);
    let shown = screen(&mut app, 80, 24);
    assert_eq!(shown[1], "no open findings; cannot tell how many more pods fit; 1 pod");
    assert_eq!(shown[4], "shop/till-0                 -       -       0       -     0     0    0");
}

#[test]
fn lines_of_another_version_are_told() {
    let pod = json!({"kind": "traffic", "attribution": "of a newer agent"});
    let picture = Picture::read(&[pod, basis(true)], &[json!({"resources": 7})], &[]);
    assert_eq!((picture.unread, picture.pods.len()), (2, 0));
    let mut app = App::new(80, Duration::from_secs(2));
    app.handle(told(picture), Duration::ZERO);
    assert!(screen(&mut app, 120, 24)[1].contains("2 lines of another version are not shown"));
}

#[test]
fn an_agent_that_goes_leaves_its_picture_marked_until_it_is_back() {
    let mut app = App::new(80, Duration::from_secs(2));
    assert_eq!(screen(&mut app, 80, 24)[2], "asking the agent");
    app.handle(Event::Asked(Err("no agent listens on /x".to_owned())), Duration::from_secs(1));
    assert_eq!(screen(&mut app, 80, 24)[2], "no agent listens on /x; asking again every 2 s");

    app.handle(told(picture()), Duration::from_secs(3));
    assert_eq!(app.stale(), None);
    app.handle(Event::Asked(Err("no agent listens on /x".to_owned())), Duration::from_secs(43));
    let shown = screen(&mut app, 80, 24);
    assert!(shown[0].ends_with("STALE, 40s old"), "{}", shown[0]);
    assert_eq!(shown[1], "no agent listens on /x; asking again");
    assert!(shown[8].starts_with("shop/cart"), "the last picture stays: {shown:#?}");

    app.handle(told(picture()), Duration::from_secs(45));
    let shown = screen(&mut app, 80, 24);
    assert!(shown[0].ends_with("live") && shown[1].starts_with("findings:"), "{shown:#?}");
    // One that hangs says nothing at all.
    app.now = Duration::from_mins(1);
    let shown = screen(&mut app, 80, 24);
    assert!(shown[0].ends_with("STALE, 15s old") && shown[1].starts_with("the agent does not answer"), "{shown:#?}");
}

#[test]
fn pods_are_ordered_by_any_column() {
    let (cart, till, sshd) = ("shop/cart-7d9f6b5c8d-x2k4q", "shop/till-0", "sshd.service\u{fffd}[2J");
    let mut app = app();
    assert_eq!(names(&app), [cart, till, sshd]);
    press(&mut app, &letters("r"));
    assert_eq!(names(&app), [sshd, till, cart]);
    let mut seen = Vec::new();
    for _ in 0..fitting(80).len() {
        press(&mut app, &letters("s"));
        seen.push((app.sort, names(&app)[0].clone()));
    }
    let by = |column| seen.iter().find(|(sort, _)| *sort == column).map(|(_, first)| first.as_str());
    assert_eq!(by(Column::Sent), Some(till));
    assert_eq!(by(Column::Total), Some(cart));
    assert_eq!(by(Column::Name), Some(cart));
    assert_eq!(by(Column::Findings), Some(cart));
    assert_eq!(app.sort, Column::Received, "once round");
    // A column that a smaller screen has no room for.
    (app.sort, app.width) = (Column::Findings, 40);
    press(&mut app, &letters("s"));
    assert_eq!(app.sort, Column::Name);
}

#[test]
fn what_is_absent_comes_last_both_ways() {
    let unknown = Pod { name: "a", last: None, ..Pod::QUIET };
    let traffic = [unknown.line(), Pod { name: "b", ..Pod::QUIET }.line(), basis(true)];
    let mut app = App::new(80, Duration::from_secs(2));
    app.handle(told(Picture::read(&traffic, &[], &[])), Duration::ZERO);
    assert_eq!(names(&app), ["shop/b", "shop/a"]);
    press(&mut app, &letters("r"));
    assert_eq!(names(&app), ["shop/b", "shop/a"]);
}

#[test]
fn a_filter_is_typed_kept_and_cleared() {
    let mut app = app();
    press(&mut app, &letters("/TILL"));
    assert!(app.is_typing);
    assert_eq!(names(&app), ["shop/till-0"]);
    // Letters that are keys elsewhere are letters here.
    press(&mut app, &letters("q"));
    assert_eq!(names(&app), Vec::<String>::new());
    assert!(screen(&mut app, 80, 24)[6].ends_with("none  with \"TILLq\""));
    press(&mut app, &[KeyCode::Backspace, KeyCode::Enter]);
    assert!(!app.is_typing);
    assert_eq!(names(&app), ["shop/till-0"]);
    press(&mut app, &[KeyCode::Esc]);
    assert_eq!(names(&app).len(), 3);
    press(&mut app, &letters("2/user-data"));
    assert_eq!(app.findings().len(), 1);
}

#[test]
fn a_picked_line_is_followed_and_the_first_line_is_not() {
    let mut app = app();
    press(&mut app, &letters("r"));
    assert_eq!(app.cursor, 0, "nothing was picked: the eye stays at the top");
    press(&mut app, &letters("r"));
    press(&mut app, &[KeyCode::Down]);
    assert_eq!(names(&app)[app.cursor], "shop/till-0");
    press(&mut app, &letters("ssssss"));
    assert_eq!(names(&app)[app.cursor], "shop/till-0");
    press(&mut app, &[KeyCode::Enter]);
    assert_eq!(app.overlay, Overlay::Details);
    // The pod is gone, and its details must not become another's.
    let traffic = [Pod { name: "other-0", ..Pod::QUIET }.line(), basis(true)];
    app.handle(told(Picture::read(&traffic, &[], &[])), app.now);
    assert_eq!((app.overlay, app.cursor), (Overlay::None, 0));
}

#[test]
fn long_lists_scroll() {
    let pods: Vec<_> = (0..100)
        .map(|n| {
            let mut line = Pod { name: "x", ..Pod::QUIET }.line();
            (line["pod"], line["uid"]) = (json!(format!("pod-{n:03}")), json!(format!("uid-{n}")));
            line
        })
        .chain([basis(true)])
        .collect();
    let mut app = App::new(80, Duration::from_secs(2));
    app.handle(told(Picture::read(&pods, &[], &[])), Duration::ZERO);
    let listed = |app: &mut App| {
        let shown = screen(app, 80, 24);
        let lines = shown.iter().filter(|line| line.starts_with("shop/pod-"));
        (lines.clone().next().map(|line| line[5..12].to_owned()), lines.count(), shown[2].clone())
    };
    let first =
        |name: &str, tabs: &str| (Some(name.to_owned()), 19, format!("1 pods  2 findings  3 capacity  {tabs} of 100"));
    assert_eq!(listed(&mut app), first("pod-000", "1-19"));
    press(&mut app, &[KeyCode::PageDown]);
    assert_eq!(listed(&mut app), first("pod-001", "2-20"));
    press(&mut app, &[KeyCode::End]);
    assert_eq!(listed(&mut app), first("pod-081", "82-100"));
    press(&mut app, &[KeyCode::Up]);
    assert_eq!(listed(&mut app), first("pod-081", "82-100"));
    press(&mut app, &[KeyCode::Home]);
    assert_eq!(listed(&mut app), first("pod-000", "1-19"));
}

#[test]
fn findings_and_ceilings_have_views_and_details() {
    let mut app = app();
    press(&mut app, &[KeyCode::Tab]);
    let shown = screen(&mut app, 80, 24);
    assert_eq!(
        &shown[7..11],
        [
            "FINDINGS, THE WORST FIRST",
            "critical node-credentials-taken     shop/cart                             2m ago",
            "low      metadata-v1-used           shop/cart                             2m ago",
            "medium   user-data-read             shop/cart                           accepted",
        ],
        "{shown:#?}"
    );
    press(&mut app, &[KeyCode::Enter]);
    let shown = screen(&mut app, 80, 24).join("\n");
    assert!(shown.contains("give it a role of its own") && shown.contains("sekisho explain node-credentials-taken"));
    assert!(shown.contains("it took the \u{fffd}[31mnode's credentials"), "{shown}");
    press(&mut app, &[KeyCode::Esc, KeyCode::Char('3'), KeyCode::Down]);
    let shown = screen(&mut app, 80, 24);
    assert_eq!(shown[9], "ena_conn…allowance interface eth0                           ?/136k", "{shown:#?}");
    press(&mut app, &[KeyCode::Enter]);
    let shown = screen(&mut app, 80, 24).join("\n");
    assert!(shown.contains("used not known, limit 136812, left not known (count)"), "{shown}");
    press(&mut app, &[KeyCode::Esc, KeyCode::Char('1'), KeyCode::Enter]);
    let shown = screen(&mut app, 80, 24).join("\n");
    assert!(shown.contains("12, 3 of them without a token") && shown.contains("critical node-credentials-taken:"));
}

#[test]
fn every_key_on_the_screen_is_in_the_help() {
    let mut app = app();
    press(&mut app, &letters("?"));
    let shown = screen(&mut app, 80, 30).join("\n");
    for word in ["q, ctrl-c", "tab", "enter", "/  ", "s  ", "payload bytes a second", "SENT/s", "META"] {
        assert!(shown.contains(word), "{word}: {shown}");
    }
    press(&mut app, &[KeyCode::Esc]);
    assert_eq!(app.overlay, Overlay::None);
}

#[test]
fn ends_are_asked_for_in_three_ways() {
    let quits = |event| app().handle(event, Duration::ZERO) == Next::Quit;
    assert!(quits(Event::Key(KeyEvent::new(KeyCode::Char('q'), KeyModifiers::NONE))));
    assert!(quits(Event::Key(KeyEvent::new(KeyCode::Char('c'), KeyModifiers::CONTROL))));
    assert!(quits(Event::Stop));
    assert!(!quits(Event::Key(KeyEvent::new(KeyCode::Char('x'), KeyModifiers::NONE))));
}

#[test]
fn one_picture_as_text_has_everything() {
    let text = page::text(&picture(), 80);
    assert!(text.starts_with(
        "ip-10-0-1-7 at 2026-01-02T03:04:05.000000Z\n\
         findings: 1 crit, 1 low; 8 more pods fit, then pod_ips ends; 2 pods\n\n\
         pod_ips            node               ########--  86%      50/58         5m..90m\n"
    ));
    assert!(text.contains("\nPOD OR UNIT            SENT/s  RECV/s   BYTES"), "{text}");
    for line in ["shop/cart…5c8d-x2k4q    1.5Ki", "shop/till-0", "critical node-credentials-taken"] {
        assert!(text.contains(&format!("\n{line}")), "{line}: {text}");
    }
    assert!(!text.contains('\u{1b}') && text.lines().all(|line| line.chars().count() <= 80), "{text}");
}

#[test]
fn long_text_is_broken_at_blanks() {
    let lines = |text: &str, width| lists::wrap(&[text.to_owned()], width);
    assert_eq!(lines("one two three", 7), ["one two", "three"]);
    assert_eq!(lines("abcdefgh", 3), ["abc", "def", "gh"]);
    assert_eq!(lines("", 3), [""]);
    assert_eq!(lines(" leading", 4), [" lea", "ding"]);
}
