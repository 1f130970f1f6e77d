//! Just enough HTTP for both ends of a test, with every byte counted.

use std::io::{Read, Write};

use anyhow::{Context, Result, ensure};

/// Most bytes of a head; the harness's own are a few hundred.
const HEAD_BYTES: usize = 64 * 1024;
/// Most headers of a head.
const HEADERS: usize = 64;

/// A request's head, and how many bytes of the connection it and its body took.
#[derive(Clone, Debug)]
pub struct Request {
    /// Method.
    pub method: String,
    /// Path with query.
    pub path: String,
    /// Names in lower case, and values.
    pub headers: Vec<(String, String)>,
    /// HTTP/1.0.
    pub old: bool,
    /// Bytes of the body.
    pub body_bytes: usize,
    /// Bytes of head and body.
    pub bytes: u64,
}

impl Request {
    /// A header's value.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(n, _)| n == name).map(|(_, value)| value.as_str())
    }
}

/// A connection with what was read ahead of it.
#[derive(Debug)]
pub struct Reader<S> {
    stream: S,
    ahead: Vec<u8>,
}

impl<S: Read + Write> Reader<S> {
    /// A connection from its start.
    pub fn new(stream: S) -> Self {
        Self { stream, ahead: Vec::new() }
    }

    /// The connection.
    pub fn stream(&mut self) -> &mut S {
        &mut self.stream
    }

    /// The connection, given back.
    pub fn into_stream(self) -> S {
        self.stream
    }

    /// Reads one request with its body; `None` at the end of the connection.
    pub fn request(&mut self) -> Result<Option<Request>> {
        loop {
            let mut headers = [httparse::EMPTY_HEADER; HEADERS];
            let mut parsed = httparse::Request::new(&mut headers);
            if let httparse::Status::Complete(head) = parsed.parse(&self.ahead).context("parse a request")? {
                let mut request = Request {
                    method: parsed.method.unwrap_or_default().to_owned(),
                    path: parsed.path.unwrap_or_default().to_owned(),
                    headers: owned(parsed.headers),
                    old: parsed.version == Some(0),
                    body_bytes: 0,
                    bytes: 0,
                };
                let length = request.header("content-length").map_or(Ok(0), str::parse);
                request.body_bytes = length.context("parse a content-length")?;
                let whole = head + request.body_bytes;
                request.bytes = whole as u64;
                while self.ahead.len() < whole {
                    ensure!(self.more()? > 0, "a request ended within its body");
                }
                self.ahead.drain(..whole);
                return Ok(Some(request));
            }
            ensure!(self.ahead.len() < HEAD_BYTES, "a request's head is longer than {HEAD_BYTES} bytes");
            if self.more()? == 0 {
                ensure!(self.ahead.is_empty(), "a request ended within its head");
                return Ok(None);
            }
        }
    }

    /// Reads one answer with its body; its status and the bytes of the connection that it took.
    pub fn response(&mut self) -> Result<(u16, u64)> {
        loop {
            let mut headers = [httparse::EMPTY_HEADER; HEADERS];
            let mut parsed = httparse::Response::new(&mut headers);
            if let httparse::Status::Complete(head) = parsed.parse(&self.ahead).context("parse an answer")? {
                let status = parsed.code.unwrap_or_default();
                let headers = owned(parsed.headers);
                let length = headers.iter().find(|(name, _)| name == "content-length");
                let body: usize = length.map_or(Ok(0), |(_, value)| value.parse()).context("parse a content-length")?;
                let whole = head + body;
                while self.ahead.len() < whole {
                    ensure!(self.more()? > 0, "an answer ended within its body");
                }
                self.ahead.drain(..whole);
                return Ok((status, whole as u64));
            }
            ensure!(self.more()? > 0, "the connection ended before an answer");
        }
    }

    /// Reads to the end of the connection; how many bytes that were.
    pub fn rest(&mut self) -> Result<u64> {
        while self.more()? > 0 {}
        Ok(self.ahead.len() as u64)
    }

    fn more(&mut self) -> Result<usize> {
        let mut buffer = [0; 16 * 1024];
        let length = self.stream.read(&mut buffer).context("read from a connection")?;
        self.ahead.extend_from_slice(&buffer[..length]);
        Ok(length)
    }
}

fn owned(headers: &[httparse::Header<'_>]) -> Vec<(String, String)> {
    headers
        .iter()
        .map(|header| (header.name.to_ascii_lowercase(), String::from_utf8_lossy(header.value).into_owned()))
        .collect()
}
