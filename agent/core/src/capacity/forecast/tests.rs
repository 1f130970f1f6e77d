//! Growth, steps, falls, noise.

use proptest::prelude::*;

use super::*;

/// A series of readings that many seconds apart.
fn series(seconds: u64, readings: impl IntoIterator<Item = u64>) -> Series {
    let mut series = Series::default();
    for (index, used) in readings.into_iter().enumerate() {
        series.push(BootNs(1_000_000_000 * seconds * index as u64), used);
    }
    series
}

#[track_caller]
fn range(exhaustion: Exhaustion) -> (u64, u64) {
    match exhaustion {
        Exhaustion::Range { earliest_s, likely_s } => (earliest_s, likely_s),
        other => panic!("{other:?}"),
    }
}

#[test]
fn steady_growth_is_told_exactly() {
    // Ten a reading, a reading every ten seconds: 800 more take 800 s.
    let steady = series(10, (0..21).map(|index| 10 * index));
    assert_eq!(steady.forecast(1_000), Exhaustion::Range { earliest_s: 800, likely_s: 800 });
    assert_eq!(steady.span_s(), 200);
    assert_eq!(steady.forecast(200), Exhaustion::Range { earliest_s: 0, likely_s: 0 });
    assert_eq!(steady.forecast(100), Exhaustion::Range { earliest_s: 0, likely_s: 0 });
}

#[test]
fn few_readings_say_nothing_but_that_nothing_is_left() {
    assert_eq!(Series::default().forecast(10), Exhaustion::CannotTell);
    let few = series(10, [1, 2, 3, 4, 5]);
    assert_eq!(few.forecast(10), Exhaustion::CannotTell);
    assert_eq!(few.forecast(5), Exhaustion::Range { earliest_s: 0, likely_s: 0 });
    assert!(matches!(series(10, [1, 2, 3, 4, 5, 6]).forecast(10), Exhaustion::Range { .. }));
}

#[test]
fn what_stands_or_falls_does_not_grow() {
    assert_eq!(series(10, [50; 40]).forecast(100), Exhaustion::NotGrowing);
    assert_eq!(series(10, (0..40).map(|index| 1_000 - index)).forecast(2_000), Exhaustion::NotGrowing);
    // Up and down around the same value.
    assert_eq!(series(10, (0..40).map(|index| 50 + index * 7 % 5)).forecast(100), Exhaustion::NotGrowing);
}

#[test]
fn a_step_is_no_growth_wherever_it_lies() {
    for at in 1..40 {
        let step = series(10, (0..40).map(|index| if index < at { 100 } else { 180 }));
        assert_eq!(step.forecast(1_000), Exhaustion::NotGrowing, "step at {at}");
    }
}

#[test]
fn odd_readings_do_not_move_it() {
    let odd = series(10, (0..30).map(|index| if index % 7 == 3 { 400 } else { 300 + 2 * index }));
    let (earliest, likely) = range(odd.forecast(600));
    assert!((900..1_600).contains(&likely) && earliest <= likely, "{earliest} {likely}");
}

#[test]
fn a_fall_begins_anew() {
    let mut fallen = series(10, (0..30).map(|index| 10 * index));
    fallen.push(BootNs(1_000_000_000_000), 5);
    assert_eq!(fallen.forecast(1_000), Exhaustion::CannotTell);
    assert_eq!(fallen.span_s(), 0);
    // A small one does not.
    let mut dented = series(10, (0..30).map(|index| 10 * index));
    dented.push(BootNs(1_000_000_000_000), 270);
    assert!(matches!(dented.forecast(1_000), Exhaustion::Range { .. }));
}

#[test]
fn the_fastest_pace_comes_first() {
    // Quiet, then quick.
    let quickening = series(10, (0..40).map(|index| index * index));
    let (earliest, likely) = range(quickening.forecast(10_000));
    assert!(earliest < likely, "{earliest} {likely}");
}

#[test]
fn slow_growth_is_seen_over_a_long_time_and_the_far_future_is_not() {
    // One an hour for a day: no end within a month.
    let slow = series(30, (0..2_880).map(|index| 1_000_000 + index / 120));
    assert_eq!(slow.forecast(2_000_000), Exhaustion::NotGrowing);
    // Six a minute for two hours.
    let (_, likely) = range(series(10, (0..720).map(|index| 1_000 + index)).forecast(5_320));
    assert!((34_000..38_000).contains(&likely), "{likely}");
}

#[test]
fn points_move_apart_until_they_span_the_last_hour() {
    let spans: Vec<_> = [30, 100, 720, 20_000].map(|count| series(10, 0..count).span_s()).into();
    // All of the first readings; then every second one, and so on; in the end 48 of 70 s.
    assert_eq!(spans.first(), Some(&290));
    assert!(spans[1] >= 900 && spans[1] <= 1_000, "{spans:?}");
    assert!(spans[2..].iter().all(|span| (1_500..=3_400).contains(span)), "{spans:?}");
}

proptest! {
    #[test]
    fn room_is_bounded_and_the_range_in_order(
        readings in prop::collection::vec((0..200_u64, any::<u64>()), 0..300),
        limit in any::<u64>(),
    ) {
        let mut series = Series::default();
        let mut now = 0_u64;
        for (seconds, used) in readings {
            now += seconds * 1_000_000_000;
            series.push(BootNs(now), used);
            prop_assert!(series.points.len() <= POINTS);
            if let Exhaustion::Range { earliest_s, likely_s } = series.forecast(limit) {
                prop_assert!(earliest_s <= likely_s && likely_s <= 30 * 86_400);
            }
        }
    }
}
