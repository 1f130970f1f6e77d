//! The agent's HTTP endpoint: readiness, and samples of `/metrics` by name and labels.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use anyhow::{Context, Result};

/// For one answer.
const TIMEOUT: Duration = Duration::from_secs(20);

/// One sample.
#[derive(Clone, Debug, PartialEq)]
pub struct Sample {
    /// Name with its suffix.
    pub name: String,
    /// Labels.
    pub labels: BTreeMap<String, String>,
    /// Value.
    pub value: f64,
}

/// A scrape.
#[derive(Clone, Debug)]
pub struct Metrics {
    /// As it was served.
    pub text: String,
    samples: Vec<Sample>,
}

impl Metrics {
    /// Scrapes an agent for OpenMetrics.
    pub fn scrape(agent: SocketAddr) -> Result<Self> {
        let (status, text) = get_as(agent, "/metrics", "application/openmetrics-text")?;
        anyhow::ensure!(status == 200, "/metrics answered {status}");
        Self::parse(text)
    }

    /// What an endpoint answered.
    pub fn parse(text: String) -> Result<Self> {
        let samples = text.lines().filter(|line| !line.starts_with('#')).map(parse).collect::<Result<_>>()?;
        Ok(Self { text, samples })
    }

    /// Sum of the samples of a name that have all these labels.
    pub fn sum(&self, name: &str, labels: &[(&str, &str)]) -> f64 {
        self.samples
            .iter()
            .filter(|sample| sample.name == name)
            .filter(|sample| labels.iter().all(|(key, value)| sample.labels.get(*key).is_some_and(|v| v == value)))
            .map(|sample| sample.value)
            .sum()
    }

    /// The sample of a name with all these labels; `None`: there is none.
    pub fn value(&self, name: &str, labels: &[(&str, &str)]) -> Option<f64> {
        let mut samples = self.samples(name);
        let found =
            samples.find(|one| labels.iter().all(|(key, value)| one.labels.get(*key).is_some_and(|v| v == value)));
        found.map(|sample| sample.value)
    }

    /// The samples of a name.
    pub fn samples(&self, name: &str) -> impl Iterator<Item = &Sample> {
        self.samples.iter().filter(move |sample| sample.name == name)
    }
}

/// GETs a path; status and body.
pub fn get(agent: SocketAddr, path: &str) -> Result<(u16, String)> {
    get_as(agent, path, "*/*")
}

/// GETs a path in a form; status and body.
pub fn get_as(agent: SocketAddr, path: &str, accept: &str) -> Result<(u16, String)> {
    let mut stream = TcpStream::connect_timeout(&agent, TIMEOUT).with_context(|| format!("connect to {agent}"))?;
    stream.set_read_timeout(Some(TIMEOUT)).context("set a timeout")?;
    let request = format!("GET {path} HTTP/1.1\r\nHost: {agent}\r\nAccept: {accept}\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).context("send a request")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).with_context(|| format!("read {path}"))?;
    let (head, body) = answer.split_once("\r\n\r\n").with_context(|| format!("no head in the answer to {path}"))?;
    let status = head.split(' ').nth(1).and_then(|status| status.parse().ok()).context("no status")?;
    Ok((
        status,
        if head.to_ascii_lowercase().contains("transfer-encoding: chunked") { unchunk(body)? } else { body.to_owned() },
    ))
}

fn unchunk(mut body: &str) -> Result<String> {
    let mut whole = String::new();
    loop {
        let (size, rest) = body.split_once("\r\n").context("a chunk without its size")?;
        let size = usize::from_str_radix(size.trim(), 16).with_context(|| format!("chunk size {size:?}"))?;
        if size == 0 {
            return Ok(whole);
        }
        whole.push_str(rest.get(..size).context("a chunk shorter than its size")?);
        body = rest.get(size + 2..).context("a chunk without its end")?;
    }
}

/// `name{label="value",…} number`; label values of this agent hold no escapes besides `\\`, `\"` and `\n`.
fn parse(line: &str) -> Result<Sample> {
    let (series, value) = match line.rfind('}') {
        Some(end) => (&line[..=end], line[end + 1..].split_whitespace().next().unwrap_or_default()),
        None => line.split_once(' ').with_context(|| format!("metric line {line:?}"))?,
    };
    let (name, labels) = series.split_once('{').unwrap_or((series, "}"));
    let mut labels_of = BTreeMap::new();
    let mut rest = labels.trim_end_matches('}');
    while let Some((key, after)) = rest.split_once("=\"") {
        let mut value = String::new();
        let mut characters = after.char_indices();
        let mut end = after.len();
        while let Some((at, character)) = characters.next() {
            match character {
                '"' => {
                    end = at + 1;
                    break;
                }
                '\\' => value.extend(characters.next().map(|(_, c)| if c == 'n' { '\n' } else { c })),
                other => value.push(other),
            }
        }
        labels_of.insert(key.trim_start_matches(',').to_owned(), value);
        rest = &after[end..];
    }
    let value = value.split(' ').next().unwrap_or_default();
    let value = value.parse().with_context(|| format!("value of metric line {line:?}"))?;
    Ok(Sample { name: name.to_owned(), labels: labels_of, value })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_with_labels() {
        let sample = parse(r#"a_total{x="1",y="q\"},\\"} 12"#).unwrap();
        assert_eq!(sample.name, "a_total");
        assert_eq!(sample.labels["x"], "1");
        assert_eq!(sample.labels["y"], "q\"},\\");
        assert!((sample.value - 12.0).abs() < f64::EPSILON);
    }

    #[test]
    fn a_line_without_labels() {
        let sample = parse("up 1").unwrap();
        assert_eq!((sample.name.as_str(), sample.labels.len()), ("up", 0));
    }

    #[test]
    fn chunks_are_joined() {
        assert_eq!(unchunk("3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n").unwrap(), "abcde");
    }
}
