//! The text form of metrics that Prometheus reads, as far as sums of a family need it.
//! <https://prometheus.io/docs/instrumenting/exposition_formats/>

/// Samples of all label sets of a metric, added up; `None` when it has none, or one that is no number.
pub(super) fn sum(text: &str, name: &str) -> Option<f64> {
    let mut sum = None;
    for line in text.lines() {
        let Some(rest) = line.trim_start().strip_prefix(name) else { continue };
        let value = match rest.chars().next() {
            // Label values may hold anything but a plain quote; a brace in one is not the last.
            Some('{') => rest.rsplit_once('}')?.1,
            Some(' ' | '\t') => rest,
            // Another metric whose name begins alike.
            _ => continue,
        };
        // A time may stand behind the value.
        let value: f64 = value.split_whitespace().next()?.parse().ok()?;
        sum = Some(sum.unwrap_or(0.0) + value);
    }
    sum.filter(|sum: &f64| sum.is_finite())
}

/// The same as a whole number that is not negative, rounded down; beyond 2^53, which nothing here reaches, not exact.
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "checked before")]
pub(super) fn whole(text: &str, name: &str) -> Option<u64> {
    const EXACT_MAX: f64 = 9_007_199_254_740_992.0;
    sum(text, name).filter(|sum| (0.0..=EXACT_MAX).contains(sum)).map(|sum| sum as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn families_are_added_up() {
        let text = "# HELP a_total Words } 7\n# TYPE a_total counter\na_total{fn=\"x\",why=\"}{ 9\"} 3\n\
                    a_total{fn=\"y\"} 4 1700000000000\na_totals 100\nb 1.5e+01\nc NaN\nd text\ne -1\n";
        assert_eq!(whole(text, "a_total"), Some(7));
        assert_eq!(whole(text, "b"), Some(15));
        for absent in ["a", "c", "d", "e", "f"] {
            assert_eq!(whole(text, absent), None, "{absent}");
        }
    }
}
