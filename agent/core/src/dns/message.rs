//! From the bytes of a DNS message to what it says. Any bytes: messages come from workloads and from whoever answers them.

use std::net::IpAddr;

use domain::base::iana::{Class, Opcode, Rcode, Rtype};
use domain::base::{Message, ParsedName};
use domain::rdata::{A, Aaaa, Cname};

use super::{DnsAnswer, DnsCode, DnsMessage};

/// Most records of an answer that are read: a head of 1,024 bytes holds 63 addresses.
pub const MAX_RECORDS: usize = 64;
/// Most aliases that are followed from a name to its addresses. Resolvers stop near this too.
const MAX_ALIASES: usize = 16;

/// What a message says; `from_server` when it came from the server's side. The message may be cut: what stands before the
/// cut counts. `None`: it has not exactly one question, is no plain query, goes the wrong way, or cannot be read.
pub fn parse(bytes: &[u8], from_server: bool) -> Option<DnsMessage> {
    let message = Message::from_slice(bytes).ok()?;
    let header = message.header();
    if header.qr() != from_server || header.opcode() != Opcode::QUERY || message.header_counts().qdcount() != 1 {
        return None;
    }
    let question = message.question().next()?.ok()?;
    let answer = from_server.then(|| DnsAnswer {
        code: match header.rcode() {
            Rcode::NOERROR => DnsCode::NoError,
            Rcode::NXDOMAIN => DnsCode::NxDomain,
            Rcode::SERVFAIL => DnsCode::ServFail,
            _ => DnsCode::Other,
        },
        truncated: header.tc(),
        records: message.header_counts().ancount(),
        addresses: addresses(message, *question.qname()),
    });
    let name =
        if question.qname().is_root() { ".".to_owned() } else { question.qname().to_string().to_ascii_lowercase() };
    Some(DnsMessage { id: header.id(), name: name.into(), record_type: question.qtype().to_int(), answer })
}

type Name<'a> = ParsedName<&'a [u8]>;

/// The addresses that the answer gives for a name, by its aliases, each with the least time to live on the way there.
fn addresses(message: &Message<[u8]>, asked: Name<'_>) -> Vec<(IpAddr, u32)> {
    let mut aliases: Vec<(Name<'_>, Name<'_>, u32)> = Vec::new();
    let mut found: Vec<(Name<'_>, IpAddr, u32)> = Vec::new();
    let Ok(records) = message.answer() else { return Vec::new() };
    // The first record that cannot be read ends the list: it was cut, or lies.
    let records: Vec<_> = records.take(MAX_RECORDS).map_while(Result::ok).collect();
    for record in records.iter().filter(|record| record.class() == Class::IN) {
        let ttl_s = record.ttl().as_secs();
        match record.rtype() {
            Rtype::A => {
                if let Ok(Some(a)) = record.to_record::<A>() {
                    found.push((*a.owner(), a.data().addr().into(), ttl_s));
                }
            }
            Rtype::AAAA => {
                if let Ok(Some(aaaa)) = record.to_record::<Aaaa>() {
                    found.push((*aaaa.owner(), IpAddr::from(aaaa.data().addr()).to_canonical(), ttl_s));
                }
            }
            Rtype::CNAME => {
                if let Ok(Some(alias)) = record.to_record::<Cname<Name<'_>>>() {
                    aliases.push((*alias.owner(), *alias.data().cname(), ttl_s));
                }
            }
            _ => {}
        }
    }
    let (mut name, mut least_s) = (asked, u32::MAX);
    for _ in 0..MAX_ALIASES {
        let Some((_, target, ttl_s)) = aliases.iter().find(|(owner, ..)| *owner == name) else { break };
        (name, least_s) = (*target, least_s.min(*ttl_s));
    }
    let of_name = found.into_iter().filter(|(owner, ..)| *owner == name);
    of_name.map(|(_, ip, ttl_s)| (ip, ttl_s.min(least_s))).collect()
}
