//! Two clocks that must not be mixed up, and the mapping between them.

use serde::{Deserialize, Serialize};

/// Nanoseconds of `CLOCK_BOOTTIME`: since boot, suspension included, never jumps.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct BootNs(pub u64);

/// Nanoseconds since the Unix epoch; may jump when somebody sets the clock.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct WallNs(pub i64);

impl std::fmt::Display for WallNs {
    /// RFC 3339 in UTC, to the microsecond.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match jiff::Timestamp::from_nanosecond(i128::from(self.0)) {
            Ok(timestamp) => write!(f, "{timestamp:.6}"),
            // Nanoseconds in 64 bits reach the year 2262, inside jiff's range: this arm is for the type's sake.
            Err(_) => write!(f, "{}ns", self.0),
        }
    }
}

impl Serialize for WallNs {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        // For programs that are no readers of text every nanosecond counts: a recording must be exact.
        if serializer.is_human_readable() { serializer.collect_str(self) } else { serializer.serialize_i64(self.0) }
    }
}

impl<'de> Deserialize<'de> for WallNs {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        if !deserializer.is_human_readable() {
            return i64::deserialize(deserializer).map(Self);
        }
        let text = String::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

impl std::str::FromStr for WallNs {
    type Err = jiff::Error;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let nanoseconds = text.parse::<jiff::Timestamp>()?.as_nanosecond();
        Ok(Self(i64::try_from(nanoseconds).unwrap_or(if nanoseconds < 0 { i64::MIN } else { i64::MAX })))
    }
}

impl BootNs {
    /// Nanoseconds from `earlier` to this; 0 when `earlier` is later.
    pub fn since(self, earlier: Self) -> u64 {
        self.0.saturating_sub(earlier.0)
    }
}

/// One moment by both clocks: intervals go by boot time, what people read by wall time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Moment {
    /// Boot time.
    pub boot: BootNs,
    /// Wall time.
    pub wall: WallNs,
}

/// The wall time of boot-time moments, as of the last reading of both clocks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Clock {
    offset_ns: i64,
}

impl Clock {
    /// A mapping from one reading of both clocks.
    pub fn new(boot: BootNs, wall: WallNs) -> Self {
        Self { offset_ns: wall.0.saturating_sub(i64::try_from(boot.0).unwrap_or(i64::MAX)) }
    }

    /// The wall time of a boot-time moment.
    pub fn wall(self, boot: BootNs) -> WallNs {
        WallNs(self.offset_ns.saturating_add(i64::try_from(boot.0).unwrap_or(i64::MAX)))
    }
}
