//! The older Prometheus text format (0.0.4), made of OpenMetrics text that this agent wrote. They differ in what stands
//! before the samples: a counter's family has the name of its samples there, infos are gauges, units are not told, and
//! there is no end mark.

/// What OpenMetrics is served as.
pub(crate) const OPEN_METRICS_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";
/// What Prometheus text is served as.
pub(crate) const PROMETHEUS_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// Prometheus text of OpenMetrics text. A family's `HELP` stands directly before its `TYPE`, as the registry writes it.
pub(super) fn prometheus(open_metrics: &str) -> String {
    let mut text = String::with_capacity(open_metrics.len());
    let mut lines = open_metrics.lines().peekable();
    while let Some(line) = lines.next() {
        if let Some((family, help)) = descriptor(line, "HELP") {
            let kind = lines.peek().and_then(|next| descriptor(next, "TYPE")).map_or("", |(_, kind)| kind);
            push(&mut text, &["# HELP ", family, suffix(kind), " ", help]);
        } else if let Some((family, kind)) = descriptor(line, "TYPE") {
            let known = if matches!(kind, "counter" | "gauge" | "histogram" | "summary") { kind } else { "gauge" };
            push(&mut text, &["# TYPE ", family, suffix(kind), " ", known]);
        } else if !line.starts_with('#') {
            push(&mut text, &[line]);
        }
    }
    text
}

/// Family and the rest of a line as `# HELP family rest`.
fn descriptor<'a>(line: &'a str, word: &str) -> Option<(&'a str, &'a str)> {
    line.strip_prefix("# ")?.strip_prefix(word)?.strip_prefix(' ')?.split_once(' ')
}

/// What the samples of a kind have behind the family's name.
fn suffix(kind: &str) -> &'static str {
    match kind {
        "counter" => "_total",
        "info" => "_info",
        _ => "",
    }
}

fn push(text: &mut String, parts: &[&str]) {
    text.extend(parts.iter().copied());
    text.push('\n');
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn families_are_renamed_and_samples_stay() {
        let open_metrics = "\
# HELP a_bytes What it says.
# TYPE a_bytes counter
# UNIT a_bytes bytes
a_bytes_total{x=\"# TYPE b counter\"} 1
# HELP b Another.
# TYPE b gauge
b +Inf
# HELP c_build The version.
# TYPE c_build info
c_build_info{version=\"1\"} 1
# HELP d_seconds Times.
# TYPE d_seconds histogram
d_seconds_sum 1.5
d_seconds_count 1
d_seconds_bucket{le=\"+Inf\"} 1
# EOF
";
        let expected = "\
# HELP a_bytes_total What it says.
# TYPE a_bytes_total counter
a_bytes_total{x=\"# TYPE b counter\"} 1
# HELP b Another.
# TYPE b gauge
b +Inf
# HELP c_build_info The version.
# TYPE c_build_info gauge
c_build_info{version=\"1\"} 1
# HELP d_seconds Times.
# TYPE d_seconds histogram
d_seconds_sum 1.5
d_seconds_count 1
d_seconds_bucket{le=\"+Inf\"} 1
";
        assert_eq!(prometheus(open_metrics), expected);
    }
}
