//! Secrets planted wherever payload can hold one: none may appear in any input.

use super::*;
use crate::input::MetadataOutcome;

/// Every planted secret holds this.
const CANARY: &str = "C4nArY";
/// Waits of every sort are over after this.
const LATER: BootNs = BootNs(1_000_000_000_000);

/// Feeds the two directions of a conversation in pieces of `size` and returns all that came out.
fn converse(service: Service, request: &[u8], answer: &[u8], size: usize) -> Vec<Input> {
    let mut decoder = Decoder::new(DecodeOptions { keep_args: true });
    let mut inputs = Vec::new();
    for (flags, stream) in [(0, request), (flags::RESPONSE, answer)] {
        for (number, piece) in stream.chunks(size).enumerate() {
            let seq = u32::try_from(number * size).expect("small");
            let len = u32::try_from(piece.len()).expect("small");
            let segment = wire::MetadataSegment { service: service as u8, ..segment(flags, seq, piece, len) };
            decoder.feed(Ring::Metadata, &record(&segment, piece), &mut inputs);
        }
    }
    decoder.tick(BootNs(2_000_000_000), &mut inputs);
    decoder.feed(Ring::Metadata, &record(&end(Outcome::Established, flags::ESTABLISHED), &[]), &mut inputs);
    decoder.tick(LATER, &mut inputs);
    decoder.finish(LATER, &mut inputs);
    inputs.retain(|input| !matches!(input, Input::Decoded { .. }));
    inputs
}

fn requests() -> Vec<String> {
    let c = CANARY;
    let role = "/latest/meta-data/iam/security-credentials";
    vec![
        format!("GET {role}/node-role HTTP/1.1\r\nHost: h\r\nX-aws-ec2-metadata-token: {c}==\r\n\r\n"),
        format!("PUT /latest/api/token?{c} HTTP/1.1\r\nX-aws-ec2-metadata-token-ttl-seconds: {c}\r\n\r\n"),
        format!("GET /v1/credentials HTTP/1.1\r\nAuthorization: {c}.{c}.{c}\r\n\r\n"),
        format!("GET /latest/user-data?token={c}#{c} HTTP/1.1\r\nCookie: {c}\r\nUser-Agent: {c}\r\n\r\n"),
        format!("GET /{c}/latest/user-data HTTP/1.1\r\n\r\n"),
        format!("GET /latest/meta-data/{c}/x HTTP/1.1\r\n\r\n"),
        format!("GET {role}/{c}!%20 HTTP/1.1\r\n\r\n"),
        format!("GET {role}/{c}:{c} HTTP/1.1\r\n\r\n"),
        format!("GET {role}/{} HTTP/1.1\r\n\r\n", c.repeat(11)),
        format!("GET {role}/node-role?{c} HTTP/1.1\r\n\r\n"),
        format!("GET {role}/node-role/{c} HTTP/1.1\r\n\r\n"),
        format!("GET http://user:{c}@169.254.169.254/latest/user-data HTTP/1.1\r\nHost: {c}\r\n\r\n"),
        format!("GET /latest/user-data HTTP/1.1\r\nX-Folded: a\r\n {c}\r\n\t{c}\r\n\r\n"),
        format!("GET /latest/user-data HTTP/1.1\r\nX-Forwarded-For: {c}\r\n\r\n"),
        format!("GET /latest/user-data HTTP/1.1\r\nX-Forwarded-For: 10.0.0.1, {c}\r\nX-Forwarded-For: 1.1.1.1\r\n\r\n"),
        format!("GET /latest/user-data HTTP/1.1\r\nX-Forwarded-For: 10.0.0.1\r\n {c}\r\n\r\n"),
        format!("{c} /latest/user-data HTTP/1.1\r\n\r\n"),
        format!("POST /latest/user-data HTTP/1.1\r\nContent-Length: 20\r\n\r\n{c}{c}{c}xx"),
        format!("POST /latest/user-data HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n6\r\n{c}\r\n0\r\n{c}: x\r\n\r\n"),
        format!("POST /x HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n{c}\r\n"),
        format!("GET /latest/user-data HTTP/{c}\r\n\r\n"),
        format!("GET /latest/user-data HTTP/1.1\r\nX-aws-ec2-metadata-token: {c}"),
        format!("GET /latest/user-data HTTP/1.1\r\nX-aws-ec2-metadata-token: {}\r\n\r\n", c.repeat(4000)),
        format!("\u{0}\u{1}{c}"),
        c.to_owned(),
        String::new(),
    ]
}

fn answers() -> Vec<String> {
    let c = CANARY;
    let with_length = |body: &str| format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{body}", body.len());
    vec![
        with_length(&format!(
            "{{ \"AccessKeyId\" : \"ASIAIOSFODNN7EXAMPLE\", \"SecretAccessKey\" : \"{c}\", \"Token\" : \"{c}\" }}"
        )),
        with_length(&format!("{{\"SecretAccessKey\":\"{c}\",\"AccessKeyId\":\"{c}\",\"Token\":\"{c}\"}}")),
        with_length(&format!("{{\"AccessKeyId\":\"ASIA{c}{c}{c}\"}}")),
        with_length(&format!("#cloud-config\npassword: {c}\n")),
        format!("HTTP/1.1 200 {c}\r\nX-Secret: {c}\r\nSet-Cookie: {c}\r\n folded {c}\r\n\r\n{c}"),
        format!("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n6;{c}\r\n{c}\r\n0\r\n{c}: {c}\r\n\r\n"),
        format!("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n{c}"),
        format!("HTTP/1.1 200 OK\r\nX: {c}"),
        format!("HTTP/1.1 {c}\r\n\r\n"),
        format!("HTTP/1.1 200 OK\r\nX: {}\r\n\r\n", c.repeat(4000)),
        c.to_owned(),
        String::new(),
    ]
}

#[test]
fn no_secret_comes_out() {
    let mut facts = 0;
    for service in [Service::Imds, Service::PodIdentity] {
        for request in requests() {
            for answer in answers() {
                for size in [7, 1460, 65536] {
                    let inputs = converse(service, request.as_bytes(), answer.as_bytes(), size);
                    facts += inputs.len();
                    let text = format!("{inputs:?}");
                    assert!(!text.contains(CANARY), "{request:?} answered by {answer:?} gave {text}");
                    // Nor in pieces, percent-decoded or in other letters.
                    assert!(!text.to_ascii_lowercase().contains("c4nary"), "{request:?} gave {text}");
                }
            }
        }
    }
    assert!(facts > 1000, "the conversations were told: {facts}");
}

#[test]
fn the_facts_are_still_there() {
    let request = &requests()[0];
    let answer = &answers()[0];
    let inputs = converse(Service::Imds, request.as_bytes(), answer.as_bytes(), 7);
    let [Input::Metadata(fact)] = inputs.as_slice() else { panic!("{inputs:?}") };
    assert_eq!(fact.outcome, MetadataOutcome::Ok);
    let key = fact.response.as_ref().and_then(|response| response.access_key_id.as_deref());
    assert_eq!(key, Some("ASIAIOSFODNN7EXAMPLE"));
}

#[test]
fn arguments_are_redacted() {
    let args = format!("curl\0-H\0X-aws-ec2-metadata-token: {CANARY}\0--password={CANARY}\0");
    let path = b"/usr/bin/curl";
    let bytes = record(&exec(path, args.as_bytes()), &[path, args.as_bytes()].concat());
    let inputs = decode_with(DecodeOptions { keep_args: true }, Ring::Lifecycle, &bytes);
    let text = format!("{inputs:?}");
    assert!(text.contains("curl") && !text.contains(CANARY), "{text}");
}
