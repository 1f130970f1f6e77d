//! Heads of requests and answers: from complete bytes to what is kept of them.
//!
//! Parsing is lenient where a server may be: a request that a server understands and this module refuses would hide.

use std::net::{IpAddr, SocketAddr};

use agent_ebpf::wire::Service;
use httparse::{EMPTY_HEADER, Header, ParserConfig, Status};

use super::path;
use super::wiped::Wiped;
use crate::input::{Category, ImdsVersion, Method, RequestFact};

/// Most headers of one head; clients of these services send about ten. 256 of 32 bytes are 8 KiB of stack.
const HEADERS: usize = 256;
/// Most addresses kept of X-Forwarded-For headers; 16 IPv6 addresses are 700 characters.
const FORWARDED_ADDRESSES: usize = 16;
/// Stands for an X-Forwarded-For that is not a list of addresses: its text may be anything and is not kept.
const FORWARDED_UNPARSED: &str = "unparsed";
/// Longest method that is taken for one.
const METHOD_BYTES: usize = 32;

const END_OF_HEAD: &[u8] = b"\r\n";
const TOKEN_HEADER: &str = "x-aws-ec2-metadata-token";
const FORWARDED_HEADER: &str = "x-forwarded-for";

/// How a body is delimited.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Framing {
    /// No statement: none for requests, up to the close for answers.
    Unstated,
    Length(u64),
    Chunked,
    /// Contradictory or unreadable.
    Broken,
}

/// A request's head.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct RequestHead {
    pub(super) fact: RequestFact,
    /// Only part of the head was seen.
    pub(super) truncated: bool,
    pub(super) framing: Framing,
}

/// An answer's head.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct AnswerHead {
    pub(super) status: u16,
    pub(super) framing: Framing,
}

/// Parses a complete request head; `None` if it is not HTTP.
pub(super) fn request(service: Service, head: &[u8]) -> Option<RequestHead> {
    let mut headers = [EMPTY_HEADER; HEADERS];
    let mut request = httparse::Request::new(&mut headers);
    let mut config = ParserConfig::default();
    config
        .allow_multiple_spaces_in_request_line_delimiters(true)
        .allow_space_before_first_header_name(true)
        .ignore_invalid_headers_in_requests(true);
    match config.parse_request(&mut request, head) {
        Ok(Status::Complete(_)) => {
            let target = request.path?.as_bytes();
            Some(head_of(service, request.method?, target, Some(request.headers)))
        }
        Err(httparse::Error::TooManyHeaders) => request_line(service, head),
        Ok(Status::Partial) | Err(_) => None,
    }
}

/// Makes the best of the start of a request head; `None` if it is not even the start of one.
pub(super) fn partial_request(service: Service, head: &[u8]) -> Option<RequestHead> {
    let Some(newline) = head.iter().rposition(|&byte| byte == b'\n') else {
        return request_line(service, head);
    };
    // Ended after its last complete line, the parser takes it.
    let lines = head.get(..=newline)?;
    let mut ended = Wiped::with_limit(lines.len() + END_OF_HEAD.len());
    ended.append(lines);
    ended.append(END_OF_HEAD);
    let parsed = request(service, ended.as_slice())?;
    let version = match parsed.fact.version {
        // A token may have stood in what was not seen.
        ImdsVersion::V1 => ImdsVersion::None,
        seen => seen,
    };
    Some(RequestHead { fact: RequestFact { version, ..parsed.fact }, truncated: true, framing: Framing::Broken })
}

/// The request line alone, when the headers are not to be had.
fn request_line(service: Service, head: &[u8]) -> Option<RequestHead> {
    let line = head.split(|&byte| byte == b'\n').next()?;
    let mut words = line.split(|&byte| byte == b' ').filter(|word| !word.is_empty());
    let method = std::str::from_utf8(words.next()?).ok()?;
    let target = words.next()?;
    // A target that is cut may be of any class, unless only its query is cut.
    let whole = target.contains(&b'?') || line.len() < head.len() || words.next().is_some();
    let mut head = head_of(service, method, if whole { target } else { b"" }, None);
    head.truncated = true;
    head.framing = Framing::Broken;
    Some(head)
}

/// What is kept of a request; `headers` are `None` when they were not seen.
fn head_of(service: Service, method: &str, target: &[u8], headers: Option<&[Header<'_>]>) -> RequestHead {
    let path::Target { category, role } = path::classify(service, target);
    let method = method_of(method);
    let token = headers.is_some_and(|headers| values(headers, TOKEN_HEADER).next().is_some());
    let version = if service != Service::Imds || category == Category::OtherCloud {
        ImdsVersion::None
    } else if token || (method == Method::Put && category == Category::Token) {
        ImdsVersion::V2
    } else if headers.is_some() {
        ImdsVersion::V1
    } else {
        ImdsVersion::None
    };
    let headers = headers.unwrap_or_default();
    RequestHead {
        fact: RequestFact { method, category, role, version, forwarded_for: forwarded_for(headers) },
        truncated: false,
        framing: framing(headers),
    }
}

/// Parses a complete answer head; `None` if it is not HTTP.
pub(super) fn answer(head: &[u8]) -> Option<AnswerHead> {
    let mut headers = [EMPTY_HEADER; HEADERS];
    let mut response = httparse::Response::new(&mut headers);
    let mut config = ParserConfig::default();
    config
        .allow_spaces_after_header_name_in_responses(true)
        .allow_obsolete_multiline_headers_in_responses(true)
        .allow_multiple_spaces_in_response_status_delimiters(true)
        .allow_space_before_first_header_name(true)
        .ignore_invalid_headers_in_responses(true);
    match config.parse_response(&mut response, head) {
        Ok(Status::Complete(_)) => Some(AnswerHead { status: response.code?, framing: framing(response.headers) }),
        Ok(Status::Partial) | Err(_) => None,
    }
}

/// Whether the bytes can be the start of a request head: a method, then a space.
pub(super) fn may_be_request(bytes: &[u8]) -> bool {
    let is_token = |byte: &u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(byte);
    match bytes.iter().position(|&byte| byte == b' ') {
        Some(end) => (1..=METHOD_BYTES).contains(&end) && bytes.iter().take(end).all(is_token),
        None => bytes.len() <= METHOD_BYTES && bytes.iter().all(is_token),
    }
}

/// Whether the bytes are the start of a request head beyond reasonable doubt: a known method and the start of a target.
pub(super) fn is_request(bytes: &[u8]) -> bool {
    const METHODS: [&[u8]; 9] =
        [b"GET ", b"HEAD ", b"PUT ", b"POST ", b"DELETE ", b"OPTIONS ", b"PATCH ", b"TRACE ", b"CONNECT "];
    METHODS.iter().any(|method| {
        bytes
            .strip_prefix(*method)
            .and_then(<[u8]>::first)
            .is_some_and(|byte| matches!(byte, b'/' | b'h' | b'H' | b'*'))
    })
}

/// Whether the bytes can be the start of an answer head.
pub(super) fn may_be_answer(bytes: &[u8]) -> bool {
    bytes.iter().zip(ANSWER_START).all(|(byte, start)| byte == start)
}

/// Whether the bytes are the start of an answer head beyond reasonable doubt.
pub(super) fn is_answer(bytes: &[u8]) -> bool {
    bytes.starts_with(ANSWER_START)
}

const ANSWER_START: &[u8] = b"HTTP/1.";

fn method_of(method: &str) -> Method {
    match method {
        "GET" => Method::Get,
        "HEAD" => Method::Head,
        "PUT" => Method::Put,
        "POST" => Method::Post,
        _ => Method::Other,
    }
}

fn values<'a>(headers: &'a [Header<'_>], name: &'a str) -> impl Iterator<Item = &'a [u8]> {
    headers.iter().filter(move |header| header.name.eq_ignore_ascii_case(name)).map(|header| header.value)
}

fn framing(headers: &[Header<'_>]) -> Framing {
    let is_chunked = |value: &[u8]| {
        value.rsplit(|&byte| byte == b',').next().is_some_and(|last| last.trim_ascii().eq_ignore_ascii_case(b"chunked"))
    };
    if values(headers, "transfer-encoding").any(is_chunked) {
        return Framing::Chunked;
    }
    let mut framing = Framing::Unstated;
    for value in values(headers, "content-length") {
        let length = std::str::from_utf8(value).ok().and_then(|text| text.trim().parse().ok());
        framing = match (framing, length) {
            (Framing::Unstated, Some(length)) => Framing::Length(length),
            (Framing::Length(before), Some(length)) if before == length => framing,
            _ => return Framing::Broken,
        };
    }
    framing
}

/// The addresses of all X-Forwarded-For headers, or the marker for anything else than addresses.
fn forwarded_for(headers: &[Header<'_>]) -> Option<String> {
    let mut addresses = Vec::new();
    let mut present = false;
    for value in values(headers, FORWARDED_HEADER) {
        present = true;
        for item in value.split(|&byte| byte == b',') {
            let address = std::str::from_utf8(item.trim_ascii()).ok().and_then(address_of);
            match address {
                Some(address) if addresses.len() < FORWARDED_ADDRESSES => addresses.push(address.to_string()),
                _ => return Some(FORWARDED_UNPARSED.to_owned()),
            }
        }
    }
    present.then(|| addresses.join(", "))
}

/// An address, which some proxies send with a port or in brackets.
fn address_of(text: &str) -> Option<IpAddr> {
    let bare = text.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(text);
    bare.parse().ok().or_else(|| text.parse::<SocketAddr>().ok().map(|socket| socket.ip()))
}

#[cfg(test)]
mod tests;
