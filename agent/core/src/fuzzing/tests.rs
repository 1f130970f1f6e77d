//! A bounded run of the fuzz targets on the stable toolchain: seeded, so that a failure repeats.

use super::*;

/// Runs of the targets that parse payload; all of them together take some seconds in a debug build.
const RUNS: usize = 90_000;
/// Runs of the target whose patterns take ten times as long.
const ARGUMENT_RUNS: usize = 20_000;

/// xorshift64*: small, seeded, good enough to mutate bytes.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_F491_4F6C_DD1D)
    }

    fn below(&mut self, end: usize) -> usize {
        usize::try_from(self.next() >> 32).unwrap_or(0) % end.max(1)
    }

    fn byte(&mut self) -> u8 {
        self.next().to_le_bytes()[7]
    }

    /// Changes a seed in a few places: bytes, runs, lengths, pieces of others.
    fn mutate(&mut self, seeds: &[Vec<u8>]) -> Vec<u8> {
        let mut data = seeds[self.below(seeds.len())].clone();
        for _ in 0..self.below(8) {
            let at = self.below(data.len() + 1);
            match self.below(6) {
                0 if at < data.len() => data[at] = self.byte(),
                1 if at < data.len() => data[at] ^= 1 << self.below(8),
                2 => data.truncate(at),
                3 => {
                    let run = vec![self.byte(); self.below(300)];
                    data.splice(at..at, run);
                }
                4 => {
                    let other = &seeds[self.below(seeds.len())];
                    let from = self.below(other.len());
                    let to = from + self.below(other.len() - from + 1);
                    data.splice(at..at, other[from..to].iter().copied());
                }
                _ => {
                    let end = (at + self.below(40)).min(data.len());
                    data.drain(at..end);
                }
            }
        }
        data
    }
}

fn run(target: fn(&[u8]), runs: usize, seeds: &[Vec<u8>]) {
    let mut random = Random(0x5e5f_1540);
    for seed in seeds {
        target(seed);
    }
    for number in 0..runs {
        let data = random.mutate(seeds);
        // The failing data itself is what a developer needs.
        let survived = std::panic::catch_unwind(|| target(&data)).is_ok();
        assert!(survived, "run {number} failed on b\"{}\"", data.escape_ascii());
    }
}

/// A conversation as [`http_heads`] reads it.
fn conversation(packets: &[(u8, &str)]) -> Vec<u8> {
    let mut data = vec![0];
    for (control, payload) in packets {
        let scale = if control & 2 == 0 { 1 } else { 16 };
        data.extend([*control, u8::try_from(payload.len() / scale).unwrap_or(255)]);
        data.extend(&payload.as_bytes()[..payload.len() / scale * scale]);
    }
    data
}

/// Records as [`decode`] reads them.
fn records(records: &[(u8, Vec<u8>)]) -> Vec<u8> {
    let mut data = vec![0];
    for (step, record) in records {
        let len = u16::try_from(record.len()).expect("small");
        data.push(*step);
        data.extend(len.to_le_bytes());
        data.extend(record);
    }
    data
}

fn packet(way: usize, seq: u32, payload: &str) -> Vec<u8> {
    Packet { service: Service::Imds, way, seq, missing: 0, now: 1_000 }.record(payload.as_bytes())
}

const REQUEST: &str = "GET /latest/meta-data/iam/security-credentials/role HTTP/1.1\r\nX-aws-ec2-metadata-token: t\r\nX-Forwarded-For: 1.1.1.1\r\n\r\n";
const ANSWER: &str = "HTTP/1.1 200 OK\r\nContent-Length: 42\r\n\r\n{\"AccessKeyId\" : \"ASIAIOSFODNN7EXAMPLE\" }";
const CHUNKED: &str = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2a\r\n{\"AccessKeyId\" : \"ASIAIOSFODNN7EXAMPLE\" }\r\n0\r\n\r\n";

#[test]
fn decode_survives() {
    let zeros = |len: usize| vec![0; len];
    let exec =
        [zeros(40), 5u32.to_le_bytes().to_vec(), zeros(28), vec![2, 0, 3, 0], zeros(4), b"/aa\0b".to_vec()].concat();
    let seeds = [
        records(&[(5, zeros(152)), (5, zeros(104)), (2, zeros(24))]),
        records(&[
            (4, zeros(80)),
            (7, exec),
            (7, zeros(72)),
            (7, zeros(40)),
            (7, [zeros(28), vec![2, 0, 0, 0], b"/a".to_vec()].concat()),
        ]),
        records(&[(3, packet(0, 0, REQUEST)), (3, packet(1, 0, ANSWER)), (6, end_record(Service::Imds, 0, 2_000))]),
        records(&[(6, packet(1, 5, ANSWER)), (6, packet(0, 5, REQUEST)), (6, packet(1, 80, CHUNKED))]),
    ];
    run(decode, RUNS, &seeds);
}

#[test]
fn http_heads_survive() {
    let seeds = [
        conversation(&[(0, REQUEST), (1, ANSWER), (0, REQUEST), (1, CHUNKED), (0xf1, "")]),
        conversation(&[
            (0, "GET /latest/user-data HT"),
            (0, "TP/1.1\r\n\r\n"),
            (9, "HTTP/1.1 100 C\r\n\r\n"),
            (1, ANSWER),
        ]),
        conversation(&[
            (0, "PUT /latest/api/token HTTP/1.1\r\nContent-Length: 3\r\n\r\nabc"),
            (0x21, ANSWER),
            (0x41, ANSWER),
        ]),
        conversation(&[(4, REQUEST), (2, REQUEST), (5, ANSWER), (3, CHUNKED), (0x61, ANSWER)]),
        conversation(&[(0, "HEAD / HTTP/1.0\n\n"), (1, "HTTP/1.0 204 N\n\n"), (0xf0, "")]),
    ];
    run(http_heads, RUNS, &seeds);
}

#[test]
fn dns_messages_survive() {
    let framed = |messages: &[(u8, &[u8])]| {
        let frame = |(control, message): &(u8, &[u8])| {
            let len = u16::try_from(message.len()).expect("small").to_le_bytes();
            [&[*control], &len[..], message].concat()
        };
        messages.iter().flat_map(frame).collect::<Vec<u8>>()
    };
    let query = b"\0\x07\x01\0\0\x01\0\0\0\0\0\x01\x03www\x07example\0\0\x01\0\x01\0\0\x29\x04\xd0\0\0\0\0\0\0";
    let answer = b"\0\x07\x81\x80\0\x01\0\x02\0\0\0\0\x03www\x07example\0\0\x01\0\x01\
        \xc0\x0c\0\x05\0\x01\0\0\0\x3c\0\x05\x02lb\xc0\x10\xc0\x29\0\x01\0\x01\0\0\0\x14\0\x04\xc0\0\x02\x01";
    let refused = b"\0\x07\x81\x83\0\x01\0\0\0\0\0\0\x03www\x07example\x05local\0\0\x1c\0\x01";
    let seeds = [
        framed(&[(0, query), (1, answer)]),
        framed(&[(0, refused), (1, refused), (0x42, query), (0x43, answer), (0x40, query), (0xfe, query)]),
        framed(&[(1, b"\0\x07\x81\x80\0\x01\0\x01\0\0\0\0\xc0\x0c\0\x01\0\x01\xc0\x0c")]),
    ];
    run(dns_messages, RUNS, &seeds);
}

#[test]
fn arguments_survive() {
    let seeds = [
        b"mysql\0-uroot\0-psecret\0--password\0x\0".to_vec(),
        b"sh\0-c\0curl -H 'Authorization: Bearer x' https://u:p@host/?token=x".to_vec(),
        "env\0TOKEN=ä\0-----BEGIN\0AKIAIOSFODNN7EXAMPLE".as_bytes().to_vec(),
    ];
    run(arguments, ARGUMENT_RUNS, &seeds);
}
