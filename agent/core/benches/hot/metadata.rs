//! A request to the metadata service for a role's credentials, and its answer, from packets to a fact. The size is how many
//! connections are open at a time; the unit is an exchange.

use agent_core::decode::{DecodeOptions, Decoder};
use agent_core::input::{Input, MetadataOutcome};
use agent_core::time::BootNs;
use agent_ebpf::wire::{self, Kind, Outcome, Ring, Service, flags};
use zerocopy::{FromZeros, IntoBytes};

use crate::Once;
use crate::records::{header, tuple};

const REQUEST: &str = "GET /latest/meta-data/iam/security-credentials/eks-node-role HTTP/1.1\r\nHost: 169.254.169.254\r\n\
                       User-Agent: aws-sdk-go/1.44\r\nAccept-Encoding: gzip\r\nX-Aws-Ec2-Metadata-Token: \
                       AQAEAExampleExampleExampleExampleExampleExampleExampleExampleEx==\r\n\r\n";
const BODY: &str = "{\n  \"Code\" : \"Success\",\n  \"LastUpdated\" : \"2026-01-01T00:00:00Z\",\n  \"Type\" : \"AWS-HMAC\",\n  \
                    \"AccessKeyId\" : \"ASIAIOSFODNN7EXAMPLE\",\n  \"SecretAccessKey\" : \
                    \"wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY\",\n  \"Token\" : \"ExampleExampleExampleExampleExample\",\n  \
                    \"Expiration\" : \"2026-01-01T06:00:00Z\"\n}";

pub(crate) fn exchanges(size: u32) -> Once {
    let answer = format!(
        "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: {}\r\nServer: EC2ws\r\n\r\n{BODY}",
        BODY.len()
    );
    let of = |record: fn(u32, &str) -> Vec<u8>, text: &str| (0..size).map(|n| record(n, text)).collect::<Vec<_>>();
    let (requests, answers, ends) = (of(request, REQUEST), of(response, &answer), of(end, ""));
    let mut decoder = Decoder::new(DecodeOptions::default());
    let mut inputs = Vec::new();
    let mut now = 1_000_000_000;
    Box::new(move || {
        inputs.clear();
        for records in [&requests, &answers, &ends] {
            for record in records {
                decoder.feed(Ring::Metadata, record, &mut inputs);
            }
        }
        now += 1_000_000_000;
        decoder.tick(BootNs(now), &mut inputs);
        let told = inputs.iter().filter(|input| is_told(input)).count();
        if told != requests.len() {
            return Err(format!("{told} of {size} exchanges were told").into());
        }
        Ok(u64::from(size))
    })
}

fn is_told(input: &Input) -> bool {
    let Input::Metadata(fact) = input else { return false };
    let key = fact.response.as_ref().and_then(|response| response.access_key_id.as_deref());
    fact.outcome == MetadataOutcome::Ok && key == Some("ASIAIOSFODNN7EXAMPLE")
}

fn request(n: u32, text: &str) -> Vec<u8> {
    segment(n, text, 0, 1_000)
}

fn response(n: u32, text: &str) -> Vec<u8> {
    segment(n, text, flags::RESPONSE, 5_000)
}

fn segment(n: u32, text: &str, flags: u16, seq: u32) -> Vec<u8> {
    let mut segment = wire::MetadataSegment::new_zeroed();
    let bytes = u32::try_from(text.len()).unwrap_or(u32::MAX);
    segment.header = header(Kind::MetadataSegment, size_of::<wire::MetadataSegment>() + text.len(), 1_000);
    segment.header.flags = flags;
    segment.cookie = u64::from(n) + 1;
    segment.process.owner = wire::Owner { start_ns: 7, tgid: 10, pad: 0 };
    segment.tuple = tuple(n, 80);
    (segment.seq, segment.payload_len, segment.captured) = (seq, bytes, bytes);
    segment.service = Service::Imds as u8;
    segment.ttl = 64;
    [segment.as_bytes(), text.as_bytes()].concat()
}

fn end(n: u32, _: &str) -> Vec<u8> {
    let mut end = wire::MetadataEnd::new_zeroed();
    end.header = header(Kind::MetadataEnd, size_of::<wire::MetadataEnd>(), 2_000);
    end.header.flags = flags::ESTABLISHED;
    end.cookie = u64::from(n) + 1;
    end.start_ns = 1;
    end.tuple = tuple(n, 80);
    end.service = Service::Imds as u8;
    end.outcome = Outcome::Established as u8;
    end.as_bytes().to_vec()
}
