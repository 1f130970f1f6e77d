//! Moments as people write them.

use agent_core::time::WallNs;
use anyhow::Context as _;
use jiff::civil::{Date, DateTime, Time};
use jiff::{Span, Timestamp, Zoned};

/// A moment that may depend on now and on the zone.
#[derive(Clone, Debug, PartialEq)]
pub(in crate::command) enum When {
    /// So long ago.
    Ago(String),
    /// With a zone of its own.
    At(Timestamp),
    /// A date and perhaps a time, in this machine's zone.
    Local(DateTime),
    /// A time today.
    Today(Time),
}

impl std::str::FromStr for When {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if let Ok(at) = text.parse() {
            return Ok(Self::At(at));
        }
        if let Ok(local) = text.parse::<DateTime>() {
            return Ok(Self::Local(local));
        }
        if let Ok(day) = text.parse::<Date>() {
            return Ok(Self::Local(day.to_datetime(Time::midnight())));
        }
        // `1h` has no colon, and a time of the day always.
        if text.contains(':')
            && let Ok(time) = text.parse()
        {
            return Ok(Self::Today(time));
        }
        let ago = text.trim_end_matches(" ago");
        match ago.parse::<Span>() {
            Ok(span) if !span.is_negative() => Ok(Self::Ago(ago.to_owned())),
            _ => Err("expected a span like 90m or 2d, a time like 14:30, a date like 2026-11-22 or 2026-11-22T14:30, \
                      or RFC 3339"),
        }
    }
}

impl When {
    /// The moment. A day ago is the same time of yesterday, whatever the clocks did in the night.
    pub(in crate::command) fn at(&self, now: &Zoned) -> anyhow::Result<WallNs> {
        let zone = now.time_zone();
        let at = match self {
            Self::At(at) => *at,
            Self::Local(local) => local.to_zoned(zone.clone())?.timestamp(),
            Self::Today(time) => now.date().to_datetime(*time).to_zoned(zone.clone())?.timestamp(),
            Self::Ago(span) => {
                let span: Span = span.parse()?;
                now.checked_sub(span).context("that is before the first year of the calendar")?.timestamp()
            }
        };
        let nanoseconds = i64::try_from(at.as_nanosecond()).context("clocks here hold the years 1678 to 2262")?;
        Ok(WallNs(nanoseconds))
    }
}

/// A moment in the zone of another.
pub(in crate::command) fn zoned(time: WallNs, like: &Zoned) -> Zoned {
    // Nanoseconds in 64 bits are in the range of any calendar.
    let time = Timestamp::from_nanosecond(i128::from(time.0)).unwrap_or(Timestamp::UNIX_EPOCH);
    time.to_zoned(like.time_zone().clone())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> String {
        // The day after the clocks went back.
        let zone = jiff::tz::TimeZone::posix("CET-1CEST,M3.5.0,M10.5.0/3").expect("a zone");
        let now = "2026-10-25T12:00:00Z".parse::<Timestamp>().expect("a time").to_zoned(zone);
        text.parse::<When>().expect(text).at(&now).expect(text).to_string()
    }

    #[test]
    fn all_forms_are_understood() {
        for (text, wanted) in [
            ("90m", "2026-10-25T10:30:00.000000Z"),
            ("1h30m", "2026-10-25T10:30:00.000000Z"),
            ("1h ago", "2026-10-25T11:00:00.000000Z"),
            // 13:00 in summer is 11:00 UTC, a day and an hour ago.
            ("1d", "2026-10-24T11:00:00.000000Z"),
            ("1w", "2026-10-18T11:00:00.000000Z"),
            ("10:00", "2026-10-25T09:00:00.000000Z"),
            ("2026-10-24", "2026-10-23T22:00:00.000000Z"),
            ("2026-10-24T10:00", "2026-10-24T08:00:00.000000Z"),
            ("2026-10-24 10:00:05", "2026-10-24T08:00:05.000000Z"),
            ("2026-10-24T10:00:00Z", "2026-10-24T10:00:00.000000Z"),
            ("2026-10-24T10:00:00.5-05:00", "2026-10-24T15:00:00.500000Z"),
        ] {
            assert_eq!(at(text), wanted, "{text}");
        }
    }

    #[test]
    fn what_is_no_time_is_refused() {
        for text in ["", "soon", "-1h", "1x", "25:00", "2026-13-01", "2026-02-30"] {
            assert!(text.parse::<When>().is_err(), "{text}");
        }
        let now = Timestamp::UNIX_EPOCH.to_zoned(jiff::tz::TimeZone::UTC);
        assert!("15000y".parse::<When>().and_then(|when| when.at(&now).map_err(|_| "too far")).is_err());
    }
}
