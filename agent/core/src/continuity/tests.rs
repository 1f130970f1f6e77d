//! Which gap each kind of interruption leaves.

use super::*;

const S: i64 = 1_000_000_000;

fn moment(boot: i64, wall: i64) -> Moment {
    Moment { boot: BootNs((boot * S).unsigned_abs()), wall: WallNs(wall * S) }
}

fn before(is_ended: bool, mark: Option<Moment>) -> Before {
    let mark = mark.map(|at| Mark { at, kernel: None });
    Before { boot_id: Some("this".to_owned()), alive: WallNs(1_100 * S), is_ended, mark }
}

fn gap(start: i64, end: i64, cause: GapCause, lost: Option<Losses>) -> Input {
    Input::Gap { start: WallNs(start * S), end: WallNs(end * S), cause, lost }
}

#[test]
fn a_stop_and_a_crash_leave_a_gap_of_unknown_loss() {
    let now = moment(130, 1_130);
    let stopped = before(true, Some(moment(100, 1_100))).gaps(now, Some("this"), None);
    assert_eq!(stopped, [gap(1_100, 1_130, GapCause::Stopped, None)]);
    let crashed = before(false, None).gaps(now, Some("this"), None);
    assert_eq!(crashed, [gap(1_100, 1_130, GapCause::Crashed, None)]);
}

#[test]
fn a_known_loss_is_told_and_a_known_absence_of_loss_is_no_gap() {
    let now = moment(130, 1_130);
    let run = before(true, Some(moment(100, 1_100)));
    assert_eq!(run.gaps(now, Some("this"), Some([0; LEDGERS])), []);
    let mut lost = [0; LEDGERS];
    lost[1] = 7;
    assert_eq!(run.gaps(now, Some("this"), Some(lost)), [gap(1_100, 1_130, GapCause::Stopped, Some(lost))]);
}

#[test]
fn a_clock_set_while_nobody_watched_does_not_bend_the_gap() {
    // 30 seconds by the boot clock, while the wall clock went back by an hour.
    let now = moment(130, 1_130 - 3_600);
    let gaps = before(true, Some(moment(100, 1_100))).gaps(now, Some("this"), None);
    let jump = gap(-2_470, 1_130, GapCause::ClockJump, Some([0; LEDGERS]));
    assert_eq!(gaps, [gap(-2_500, -2_470, GapCause::Stopped, None), jump]);
    // In another boot only the wall clock can tell.
    let gaps = before(false, Some(moment(100, 1_100))).gaps(moment(5, 1_160), Some("another"), None);
    assert_eq!(gaps, [gap(1_100, 1_160, GapCause::Crashed, None)]);
    // An earlier end than now would be no span.
    let gaps = before(false, None).gaps(moment(5, 900), Some("another"), None);
    assert_eq!(gaps, [gap(900, 900, GapCause::Crashed, None)]);
}

#[test]
fn jumps_are_told_once_and_slewing_is_none() {
    let mut jumps = Jumps::default();
    assert_eq!(jumps.look(moment(10, 1_000)), None);
    assert_eq!(jumps.look(moment(11, 1_001)), None);
    let slewed = Moment { wall: WallNs(1_002 * S + S / 2), ..moment(12, 0) };
    assert_eq!(jumps.look(slewed), None);
    let forward = Moment { wall: WallNs(1_103 * S + S / 2), ..moment(13, 0) };
    let expected = Input::Gap {
        start: WallNs(1_003 * S + S / 2),
        end: forward.wall,
        cause: GapCause::ClockJump,
        lost: Some([0; LEDGERS]),
    };
    assert_eq!(jumps.look(forward), Some(expected));
    assert!(
        matches!(jumps.look(moment(14, 1_000)), Some(Input::Gap { start: WallNs(start), .. }) if start == 1_000 * S)
    );
    assert_eq!(jumps.look(moment(15, 1_001)), None);
}

#[test]
fn sleep_is_told_with_its_length() {
    let clock = Clock::new(BootNs(0), WallNs(1_000 * S));
    let mut sleep = Sleep::default();
    let at = |seconds: i64| moment(seconds, 0).boot;
    assert_eq!(sleep.look(at(10), clock, 5_000), None, "what was slept before the start is nobody's gap");
    assert_eq!(sleep.look(at(11), clock, 6_000), None);
    let slept = sleep.look(at(71), clock, 60_000_006_000);
    assert!(
        matches!(slept, Some(Input::Gap { start, end, cause: GapCause::Suspended, .. })
            if end == WallNs(1_071 * S) && start == WallNs(1_011 * S)),
        "{slept:?}"
    );
    assert_eq!(sleep.look(at(72), clock, 60_000_006_000), None);
}
