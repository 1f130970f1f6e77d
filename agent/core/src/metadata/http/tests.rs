//! Heads of requests and answers: versions, methods, framing, and what is cut off.

use super::*;

fn head(text: &str) -> RequestHead {
    request(Service::Imds, text.as_bytes()).expect(text)
}

#[test]
fn versions() {
    for (text, version) in [
        ("GET /latest/user-data HTTP/1.1\r\n\r\n", ImdsVersion::V1),
        ("GET /latest/user-data HTTP/1.1\r\nX-AWS-EC2-Metadata-Token: t\r\n\r\n", ImdsVersion::V2),
        ("GET /latest/user-data HTTP/1.1\nx-aws-ec2-metadata-token:\n\n", ImdsVersion::V2),
        ("PUT /latest/api/token HTTP/1.1\r\nX-aws-ec2-metadata-token-ttl-seconds: 60\r\n\r\n", ImdsVersion::V2),
        ("GET /latest/api/token HTTP/1.1\r\n\r\n", ImdsVersion::V1),
        ("GET /x HTTP/1.1\r\nX-aws-ec2-metadata-token-ttl-seconds: 60\r\n\r\n", ImdsVersion::V1),
        ("GET /computeMetadata/v1/ HTTP/1.1\r\nMetadata-Flavor: Google\r\n\r\n", ImdsVersion::None),
    ] {
        assert_eq!(head(text).fact.version, version, "{text:?}");
    }
    let pod_identity = request(Service::PodIdentity, b"GET /v1/credentials HTTP/1.1\r\n\r\n").expect("a head");
    assert_eq!(pod_identity.fact.version, ImdsVersion::None);
}

#[test]
fn methods_and_lenience() {
    for (text, method) in [
        ("HEAD / HTTP/1.0\r\n\r\n", Method::Head),
        ("POST / HTTP/1.1\r\n\r\n", Method::Post),
        ("DELETE / HTTP/1.1\r\n\r\n", Method::Other),
        ("GET  /  HTTP/1.1\r\n\r\n", Method::Get),
        ("GET / HTTP/1.1\r\nbad header\r\n folded\r\nA: b\r\n\r\n", Method::Get),
        ("GET / HTTP/1.1\r\n A: b\r\n\r\n", Method::Get),
    ] {
        assert_eq!(head(text).fact.method, method, "{text:?}");
    }
    for text in
        ["GET /\r\n\r\n", "GET / HTTP/2.0\r\n\r\n", "GET / HTTP/1.1\r\nA: b\r\n", "\u{16}\u{3} / HTTP/1.1\r\n\r\n"]
    {
        assert_eq!(request(Service::Imds, text.as_bytes()), None, "{text:?}");
    }
}

#[test]
fn more_headers_than_are_parsed() {
    let text = format!("GET /latest/user-data HTTP/1.1\r\n{}\r\n", "A: b\r\n".repeat(HEADERS + 1));
    let head = head(&text);
    assert!(head.truncated);
    assert_eq!((head.fact.category, head.fact.version), (Category::UserData, ImdsVersion::None));
}

#[test]
fn forwarded() {
    for (headers, value) in [
        ("", None),
        ("X-Forwarded-For: 10.0.0.1\r\n", Some("10.0.0.1")),
        ("x-forwarded-for: 10.0.0.1,  fd00::1\r\nX-Forwarded-For: 1.2.3.4:80\r\n", Some("10.0.0.1, fd00::1, 1.2.3.4")),
        ("X-Forwarded-For: [fd00::1]:443, [fd00::2]\r\n", Some("fd00::1, fd00::2")),
        ("X-Forwarded-For: secret\r\n", Some("unparsed")),
        ("X-Forwarded-For: 10.0.0.1, secret\r\n", Some("unparsed")),
        ("X-Forwarded-For:\r\n", Some("unparsed")),
    ] {
        let text = format!("GET / HTTP/1.1\r\n{headers}\r\n");
        assert_eq!(head(&text).fact.forwarded_for.as_deref(), value, "{headers:?}");
    }
    let many = format!("GET / HTTP/1.1\r\nX-Forwarded-For: 1.1.1.1{}\r\n\r\n", ",1.1.1.1".repeat(FORWARDED_ADDRESSES));
    assert_eq!(head(&many).fact.forwarded_for.as_deref(), Some("unparsed"));
}

#[test]
fn framings() {
    for (headers, expected) in [
        ("", Framing::Unstated),
        ("Content-Length: 12\r\n", Framing::Length(12)),
        ("Content-Length: 12\r\nContent-Length: 12\r\n", Framing::Length(12)),
        ("Content-Length: 12\r\nContent-Length: 13\r\n", Framing::Broken),
        ("Content-Length: x\r\n", Framing::Broken),
        ("Content-Length: 99999999999999999999\r\n", Framing::Broken),
        ("Transfer-Encoding: gzip, Chunked\r\nContent-Length: 12\r\n", Framing::Chunked),
    ] {
        let text = format!("HTTP/1.1 200 OK\r\n{headers}\r\n");
        assert_eq!(answer(text.as_bytes()), Some(AnswerHead { status: 200, framing: expected }), "{headers:?}");
        let text = format!("GET / HTTP/1.1\r\n{headers}\r\n");
        assert_eq!(head(&text).framing, expected, "{headers:?}");
    }
    assert_eq!(answer(b"HTTP/1.1 404\r\n\r\n").map(|head| head.status), Some(404));
    assert_eq!(answer(b"HTTP/1.1 OK\r\n\r\n"), None);
}

#[test]
fn partial_heads() {
    let partial = |text: &str| {
        partial_request(Service::Imds, text.as_bytes()).map(|head| {
            assert!(head.truncated);
            (head.fact.method, head.fact.category, head.fact.role, head.fact.version)
        })
    };
    let path = "/latest/meta-data/iam/security-credentials/node";
    let role = Some("node".to_owned());
    assert_eq!(
        partial(&format!("GET {path} HTTP/1.1\r\nHost: x\r\nX-aws-ec2-metadata-token: s\r\nA")),
        Some((Method::Get, Category::RoleCredentials, role.clone(), ImdsVersion::V2))
    );
    assert_eq!(
        partial(&format!("GET {path} HTTP/1.1\r\nHost: x\r\nX-aws-ec2-metadata-tok")),
        Some((Method::Get, Category::RoleCredentials, role.clone(), ImdsVersion::None))
    );
    let with_query = partial(&format!("GET {path}?{}", "x".repeat(5000)));
    assert_eq!(with_query, Some((Method::Get, Category::RoleCredentials, role.clone(), ImdsVersion::None)));
    assert_eq!(partial(&format!("GET {path} HT")).map(|head| head.2), Some(role));
    // More of the path may have followed.
    assert_eq!(partial(&format!("PUT {path}")), Some((Method::Put, Category::Other, None, ImdsVersion::None)));
    assert_eq!(partial("GET"), None);
    assert_eq!(partial("GET /latest HTTP/1.1\r\n").map(|head| head.1), Some(Category::Metadata));
}

#[test]
fn plausible_beginnings() {
    for text in ["G", "GET", "GET /", "M-SEARCH * HTTP/1.1"] {
        assert!(may_be_request(text.as_bytes()), "{text}");
    }
    for text in ["\u{16}\u{3}\u{1}", " GET", "SSH-2.0-x\r\n", &"x".repeat(40), "GE\u{e4} /"] {
        assert!(!may_be_request(text.as_bytes()), "{text}");
    }
    assert!(is_request(b"GET /") && is_request(b"OPTIONS *") && is_request(b"PUT http://x"));
    assert!(!is_request(b"ET /") && !is_request(b"GET") && !is_request(b"GET ") && !is_request(b"FOO /"));
    assert!(may_be_answer(b"HT") && may_be_answer(b"HTTP/1.1 200") && !may_be_answer(b"HTTP/2"));
    assert!(is_answer(b"HTTP/1.0 200") && !is_answer(b"HTTP/1"));
}
