//! Which form of metrics a scraper would rather have, by its `Accept` header (RFC 9110, 12.5.1): OpenMetrics when it asks
//! for that by name, else the older Prometheus text, which everything reads that ever scraped.

use hyper::header::{ACCEPT, HeaderMap};

/// A form of `/metrics`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Format {
    /// OpenMetrics text 1.0.0.
    OpenMetrics,
    /// Prometheus text 0.0.4.
    Prometheus,
}

/// Media ranges that are looked at. Scrapers send up to six.
const RANGES_MAX: usize = 32;
/// A weight of 1. Weights have three decimals.
const WHOLE: u32 = 1_000;

/// The better one; of two that are as welcome, OpenMetrics.
pub(super) fn preferred(headers: &HeaderMap) -> Format {
    let ranges = headers.get_all(ACCEPT).iter().filter_map(|value| value.to_str().ok());
    let ranges = ranges.flat_map(|value| value.split(',')).take(RANGES_MAX).filter_map(range);
    // The most specific range that matches a type gives its weight.
    let (mut open_metrics, mut plain, mut text, mut any) = (None, None, None, None);
    for (kind, weight) in ranges {
        let place = match kind {
            Kind::OpenMetrics => &mut open_metrics,
            Kind::Plain => &mut plain,
            Kind::AnyText => &mut text,
            Kind::Any => &mut any,
        };
        *place = (*place).max(Some(weight));
    }
    // A scraper that does not name it may not know it.
    let open_metrics = open_metrics.unwrap_or(0);
    let plain = plain.or(text).or(any).unwrap_or(0);
    if open_metrics > 0 && open_metrics >= plain { Format::OpenMetrics } else { Format::Prometheus }
}

enum Kind {
    OpenMetrics,
    Plain,
    AnyText,
    Any,
}

/// A media range with its weight in thousandths; `None` for one that neither form fits.
fn range(text: &str) -> Option<(Kind, u32)> {
    let mut parts = text.split(';').map(str::trim);
    let name = parts.next()?.to_ascii_lowercase();
    let (mut weight, mut version) = (WHOLE, None);
    for part in parts {
        let (key, value) = part.split_once('=')?;
        let value = value.trim().trim_matches('"');
        match key.trim().to_ascii_lowercase().as_str() {
            "q" => weight = thousandths(value)?,
            "version" => version = Some(value.to_owned()),
            // Others, as charset and escaping, change nothing: names here are plain.
            _ => {}
        }
    }
    let kind = match (name.as_str(), version.as_deref()) {
        // 0.0.1 is a draft that those who ask for it read as 1.0.0.
        ("application/openmetrics-text", None | Some("1.0.0" | "0.0.1")) => Kind::OpenMetrics,
        ("text/plain", None | Some("0.0.4")) => Kind::Plain,
        ("text/*", _) => Kind::AnyText,
        ("*/*", _) => Kind::Any,
        _ => return None,
    };
    Some((kind, weight))
}

/// `0`, `1`, `0.5`, `0.125`.
fn thousandths(text: &str) -> Option<u32> {
    let (whole, decimals) = text.split_once('.').unwrap_or((text, ""));
    let whole: u32 = whole.parse().ok().filter(|whole| *whole <= 1)?;
    if decimals.len() > 3 || !decimals.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let decimals: u32 = format!("{decimals:0<3}").parse().ok()?;
    Some((whole * WHOLE + decimals).min(WHOLE))
}

#[cfg(test)]
mod tests {
    use hyper::header::HeaderValue;

    use super::*;

    fn of(accept: &str) -> Format {
        preferred(&HeaderMap::from_iter([(ACCEPT, HeaderValue::from_str(accept).expect("a header"))]))
    }

    #[test]
    fn scrapers_get_what_they_would_rather_have() {
        for (accept, format) in [
            // Prometheus 2 and 3.
            (
                "application/openmetrics-text;version=1.0.0,application/openmetrics-text;version=0.0.1;q=0.75,text/plain;version=0.0.4;q=0.5,*/*;q=0.1",
                Format::OpenMetrics,
            ),
            (
                "application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.6,application/openmetrics-text;version=0.0.1;q=0.5,text/plain;version=1.0.0;escaping=allow-utf-8;q=0.4,text/plain;version=0.0.4;q=0.3,*/*;q=0.2",
                Format::OpenMetrics,
            ),
            // Prometheus with OpenMetrics switched off.
            ("text/plain;version=0.0.4;q=0.5,*/*;q=0.1", Format::Prometheus),
            // curl, a browser.
            ("*/*", Format::Prometheus),
            ("text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8", Format::Prometheus),
            ("text/plain", Format::Prometheus),
            ("Application/OpenMetrics-Text; Version=\"1.0.0\"; charset=utf-8", Format::OpenMetrics),
            // Weights decide, whatever stands first; 0 is a refusal.
            ("text/plain;q=0.9, application/openmetrics-text;q=0.8", Format::Prometheus),
            ("text/plain;q=0.8, application/openmetrics-text;q=0.9", Format::OpenMetrics),
            ("application/openmetrics-text;q=0", Format::Prometheus),
            ("application/openmetrics-text;q=0.5, text/*;q=0.6", Format::Prometheus),
            ("application/openmetrics-text, */*", Format::OpenMetrics),
            // A version that is not served, and nonsense.
            ("application/openmetrics-text;version=2.0.0", Format::Prometheus),
            ("application/openmetrics-text;q=lots", Format::Prometheus),
            ("application/openmetrics-text;q=0.00001", Format::Prometheus),
            ("application/vnd.google.protobuf", Format::Prometheus),
            (",;=,", Format::Prometheus),
        ] {
            assert_eq!(of(accept), format, "{accept}");
        }
        assert_eq!(preferred(&HeaderMap::new()), Format::Prometheus);
    }

    #[test]
    fn lines_of_one_header_count_together() {
        let mut headers = HeaderMap::new();
        headers.append(ACCEPT, HeaderValue::from_static("text/plain;q=0.1"));
        headers.append(ACCEPT, HeaderValue::from_static("application/openmetrics-text"));
        assert_eq!(preferred(&headers), Format::OpenMetrics);
    }
}
