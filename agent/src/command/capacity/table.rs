//! The node's ceilings as a table for people: the one that binds first comes first.

use std::fmt::Write as _;

use agent_core::capacity::Unit;
use agent_core::output::{CapacityRow, Exhaustion, PoolRow, ResourceRow};

use crate::lines::clean_into;

/// Characters of a bar.
const BAR: u64 = 10;

/// The table, at most 80 columns wide.
pub(super) fn table(node: &str, row: &CapacityRow) -> String {
    let mut text = String::new();
    // Writing to a string does not fail.
    let _ = match (row.pods_fit, row.binding_resource) {
        (Some(fit), Some(resource)) => {
            writeln!(text, "{node}: {fit} more pods fit; {} stops the next one", resource.name())
        }
        (Some(fit), None) => writeln!(text, "{node}: {fit} more pods fit"),
        (None, _) => writeln!(text, "{node}: cannot tell how many more pods fit"),
    };
    match row.pods_waiting {
        None | Some(0) => {}
        Some(1) => text.push_str("1 pod has waited for its sandbox, so for an address, for more than a minute\n"),
        Some(waiting) => {
            let _ = writeln!(
                text,
                "{waiting} pods have waited for their sandbox, so for an address, for more than a minute"
            );
        }
    }
    if row.resources.is_empty() {
        text.push_str("nothing was looked at yet: `sekisho doctor` says what can be\n");
        return text;
    }
    let _ = writeln!(
        text,
        "\n{:<18} {:<20} {:>10} {:>4} {:>7}/{:<7} left for",
        "resource", "scope", "", "", "used", "limit"
    );
    for resource in &row.resources {
        line(&mut text, resource);
    }
    if let Some(pool) = &row.pool {
        pool_lines(&mut text, pool);
    }
    text
}

/// What the CNI holds ready, and how it would hold less.
fn pool_lines(text: &mut String, pool: &PoolRow) {
    let PoolRow { addresses_held, assigned, free, why, recommended, .. } = pool;
    let _ = match (addresses_held, free) {
        (Some(held), Some(free)) => {
            writeln!(text, "\naddresses for pods: {held} held, {assigned} in use, {free} free")
        }
        _ => writeln!(text, "\naddresses for pods: {assigned} in use of an IPv6 prefix that does not run out"),
    };
    if let Some(why) = why {
        let _ = writeln!(text, "  {why}");
    }
    if let Some(advice) = recommended {
        let _ = writeln!(
            text,
            "  WARM_IP_TARGET={} MINIMUM_IP_TARGET={} would hold {}: {} fewer",
            advice.warm_ip_target, advice.minimum_ip_target, advice.addresses_held, advice.addresses_saved
        );
        let _ =
            writeln!(text, "  and {} more pods would start at once; see `sekisho capacity plan`", advice.burst_pods);
    }
}

fn line(text: &mut String, row: &ResourceRow) {
    let shown =
        |figure: Option<u64>| figure.map_or_else(|| "?".to_owned(), |figure| Amount(figure, row.unit).to_string());
    let limit = if row.limit.is_none() { "-".to_owned() } else { shown(row.limit) };
    let (bar, percent) = match (row.used, row.limit) {
        (Some(used), Some(limit)) if limit > 0 => {
            let filled = filled(used, limit, BAR);
            let (full, rest) = ("#".repeat(filled), "-".repeat(usize::try_from(BAR).unwrap_or(0) - filled));
            (format!("{full}{rest}"), format!("{}%", used.saturating_mul(100) / limit))
        }
        _ => (String::new(), String::new()),
    };
    let mut scope = String::new();
    clean_into(&row.scope, &mut scope);
    let _ = writeln!(
        text,
        "{}",
        format!(
            "{:<18} {:<20} {bar:>10} {percent:>4} {:>7}/{limit:<7} {}",
            shorten(row.resource.name(), 18),
            shorten(&scope, 20),
            shown(row.used),
            left(row)
        )
        .trim_end()
    );
}

/// How many characters of a bar of so many are filled: none only for nothing, all only for everything.
pub(in crate::command) fn filled(used: u64, limit: u64, bar: u64) -> usize {
    let filled = match used.min(limit) {
        0 => 0,
        used if used == limit => bar,
        used => (u128::from(used) * u128::from(bar) / u128::from(limit)).try_into().unwrap_or(bar).clamp(1, bar - 1),
    };
    usize::try_from(filled).unwrap_or(0)
}

/// When it is used up, in a few characters; empty when it is not, or nobody can tell.
pub(in crate::command) fn left(row: &ResourceRow) -> String {
    match row.exhaustion_s {
        Exhaustion::NotGrowing | Exhaustion::CannotTell => String::new(),
        Exhaustion::Range { earliest_s, likely_s } => {
            let (earliest, likely) = (duration(earliest_s), duration(likely_s));
            if earliest == likely { likely } else { format!("{earliest}..{likely}") }
        }
    }
}

/// A span in at most five characters.
pub(in crate::command) fn duration(seconds: u64) -> String {
    match seconds {
        0..120 => format!("{seconds}s"),
        120..7_200 => format!("{}m", seconds / 60),
        7_200..172_800 => format!("{}h", seconds / 3_600),
        _ => format!("{}d", (seconds / 86_400).min(9_999)),
    }
}

/// The end of a long name tells more than its middle.
pub(in crate::command) fn shorten(name: &str, most: usize) -> String {
    let count = name.chars().count();
    if count <= most {
        return name.to_owned();
    }
    let Some(room) = most.checked_sub(1) else { return String::new() };
    let half = room / 2;
    let (head, tail): (String, String) =
        (name.chars().take(half).collect(), name.chars().skip(count - (room - half)).collect());
    format!("{head}…{tail}")
}

/// An amount in at most seven characters.
pub(in crate::command) struct Amount(pub(in crate::command) u64, pub(in crate::command) Unit);

impl std::fmt::Display for Amount {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self(amount, unit) = *self;
        let (step, units): (u64, [&str; 6]) = match unit {
            Unit::Bytes | Unit::BytesPerSecond => (1_024, ["", "Ki", "Mi", "Gi", "Ti", "Pi"]),
            Unit::Count | Unit::PerSecond | Unit::BitsPerSecond => (1_000, ["", "k", "M", "G", "T", "P"]),
            Unit::MilliCores => {
                return f.pad(&format!("{}.{:02}", amount / 1_000, amount % 1_000 / 10));
            }
        };
        let (mut whole, mut rest, mut index) = (amount, 0, 0);
        // Numbers of things up to five digits are read at a glance.
        let least = if step == 1_000 { 100_000 } else { step };
        if amount >= least {
            while whole >= step && index + 1 < units.len() {
                rest = whole % step * 10 / step;
                whole /= step;
                index += 1;
            }
        }
        let unit = units.get(index).copied().unwrap_or_default();
        if index == 0 || whole >= 100 {
            f.pad(&format!("{whole}{unit}"))
        } else {
            f.pad(&format!("{whole}.{rest}{unit}"))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use agent_core::capacity::Resource;
    use agent_core::output::PoolAdvice;
    use agent_core::time::WallNs;

    fn resource(resource: Resource, scope: &str, used: Option<u64>, limit: Option<u64>) -> ResourceRow {
        ResourceRow {
            resource,
            scope: scope.to_owned(),
            used,
            limit,
            unit: resource.unit(),
            source: "test".to_owned(),
            age_s: 3,
            headroom: limit.zip(used).map(|(limit, used)| limit.saturating_sub(used)),
            exhaustion_s: Exhaustion::NotGrowing,
        }
    }

    #[test]
    fn a_table_is_read_at_a_glance_and_80_columns_wide() {
        let row = CapacityRow {
            time: WallNs(0),
            resources: vec![
                ResourceRow {
                    exhaustion_s: Exhaustion::Range { earliest_s: 300, likely_s: 5_400 },
                    ..resource(Resource::PodIps, "node", Some(50), Some(58))
                },
                resource(Resource::Pods, "node", Some(12), Some(58)),
                resource(Resource::CpuRequests, "node", Some(1_250), Some(3_920)),
                resource(Resource::MemoryRequests, "node", Some(5 << 30), Some(15 << 30)),
                resource(Resource::EnaConntrackAllowance, "interface eth0", None, Some(136_812)),
                resource(Resource::Threads, "pod shop/cart-7d9f6b5c8d-x2k4q\u{1b}[2J", Some(0), Some(1_024)),
                resource(Resource::ImageBytes, "node", Some(7 << 30), None),
            ],
            pods_fit: Some(8),
            binding_resource: Some(Resource::PodIps),
            pool: Some(PoolRow {
                ipv6: false,
                addresses_held: Some(58),
                assigned: 3,
                free: Some(55),
                why: Some("WARM_ENI_TARGET=1: that many interfaces of addresses stay free".to_owned()),
                expected_least: Some(58),
                expected_most: Some(116),
                recommended: Some(PoolAdvice {
                    warm_ip_target: 2,
                    minimum_ip_target: 3,
                    addresses_held: 5,
                    addresses_saved: 53,
                    burst_pods: 2,
                }),
            }),
            pods_waiting: Some(2),
            left_out: 0,
        };
        let text = table("ip-10-0-1-7", &row);
        assert_eq!(
            text,
            "ip-10-0-1-7: 8 more pods fit; pod_ips stops the next one\n\
             2 pods have waited for their sandbox, so for an address, for more than a minute\n\
             \n\
             resource           scope                                   used/limit   left for\n\
             pod_ips            node                 ########--  86%      50/58      5m..90m\n\
             pods               node                 ##--------  20%      12/58\n\
             cpu_requests       node                 ###-------  31%    1.25/3.92\n\
             memory_requests    node                 ###-------  33%   5.0Gi/15.0Gi\n\
             ena_conn…allowance interface eth0                             ?/136k\n\
             threads            pod shop/…-x2k4q\u{fffd}[2J ----------   0%       0/1024\n\
             image_bytes        node                                   7.0Gi/-\n\
             \n\
             addresses for pods: 58 held, 3 in use, 55 free\n\
             \x20 WARM_ENI_TARGET=1: that many interfaces of addresses stay free\n\
             \x20 WARM_IP_TARGET=2 MINIMUM_IP_TARGET=3 would hold 5: 53 fewer\n\
             \x20 and 2 more pods would start at once; see `sekisho capacity plan`\n"
        );
        assert!(text.lines().all(|line| line.chars().count() <= 80));
    }

    #[test]
    fn nothing_known_says_so() {
        let row = CapacityRow::default();
        let text = table("n", &row);
        assert!(text.contains("cannot tell") && text.contains("sekisho doctor"), "{text}");
    }

    #[test]
    fn amounts_and_bars_take_little_room() {
        for (amount, unit, shown) in [
            (0, Unit::Count, "0"),
            (99_999, Unit::Count, "99999"),
            (100_000, Unit::Count, "100k"),
            (u64::MAX, Unit::Count, "18446P"),
            (1_023, Unit::Bytes, "1023"),
            (1_536, Unit::Bytes, "1.5Ki"),
            (u64::MAX, Unit::Bytes, "16383Pi"),
            (128_000, Unit::MilliCores, "128.00"),
            (10_000_000_000, Unit::BitsPerSecond, "10.0G"),
        ] {
            assert_eq!(Amount(amount, unit).to_string(), shown);
            assert!(shown.len() <= 7);
        }
        let tenths = |used, limit| filled(used, limit, 10);
        assert_eq!((tenths(0, 10), tenths(1, 1_000), tenths(999, 1_000), tenths(20, 10)), (0, 1, 9, 10));
        assert_eq!(tenths(u64::MAX - 1, u64::MAX), 9);
    }
}
