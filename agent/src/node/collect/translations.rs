//! Connections whose source or destination the node translates (SNAT, DNAT), from the kernel's connection tracking table
//! by netlink. Layouts: `linux/netfilter/nfnetlink.h`, `linux/netfilter/nfnetlink_conntrack.h`, `nf_conntrack_common.h`.
//!
//! The kernel is asked for translated connections alone, which it sorts out itself since 5.15; what an older one sends
//! besides is left out here.
//!
//! A destination's table is by addresses and ports of both ends, as the sender put them; kube-proxy translates by it in
//! every mode (iptables, nftables, IPVS). An entry of a zone of its own is one of somebody who keeps his connections apart,
//! and may say of the same ends something else: then nothing is said.

use std::collections::HashMap;
use std::convert::Infallible;
use std::io;
use std::net::{IpAddr, SocketAddr};

use agent_core::backends::{Backend, Connection};
use agent_core::output::Protocol;

use netlink_packet_core::{
    DefaultNla, Emitable as _, NLM_F_DUMP, NetlinkDeserializable, NetlinkHeader, NetlinkSerializable, NlaBuffer,
    NlasIterator,
};
use netlink_sys::protocols::NETLINK_NETFILTER;

use super::Error;
use super::netlink::{Netlink, failed};

/// `NFNL_SUBSYS_CTNETLINK` with `IPCTNL_MSG_CT_GET` and with `IPCTNL_MSG_CT_NEW`.
const GET: u16 = 0x0101;
const NEW: u16 = 0x0100;
/// `struct nfgenmsg`: family (0: all), version, and two bytes without a meaning here.
const HEAD: [u8; 4] = [0; 4];
/// `CTA_TUPLE_ORIG`, `CTA_TUPLE_REPLY`, `CTA_STATUS`.
const TUPLE_ORIGINAL: u16 = 1;
const TUPLE_REPLY: u16 = 2;
const STATUS: u16 = 3;
/// `CTA_TUPLE_IP`, `CTA_TUPLE_PROTO`.
const TUPLE_IP: u16 = 1;
const TUPLE_PROTO: u16 = 2;
/// `CTA_IP_V4_SRC`, `CTA_IP_V4_DST`, `CTA_IP_V6_SRC`, `CTA_IP_V6_DST`.
const IP_V4: [u16; 2] = [1, 2];
const IP_V6: [u16; 2] = [3, 4];
/// `CTA_PROTO_NUM`, `CTA_PROTO_SRC_PORT`, `CTA_PROTO_DST_PORT`.
const PROTO_NUMBER: u16 = 1;
const PORTS: [u16; 2] = [2, 3];
/// `IPS_SRC_NAT`, `IPS_DST_NAT`.
const SOURCE_TRANSLATED: u32 = 1 << 4;
const DESTINATION_TRANSLATED: u32 = 1 << 5;
const TCP: u8 = 6;
const UDP: u8 = 17;

/// A connection whose source is translated, as its answers come back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Translation {
    /// Number of the protocol: 6 is TCP, 17 UDP.
    pub(super) protocol: u8,
    /// Whom it goes to.
    pub(super) remote: SocketAddr,
    /// The address and port that the node gave it.
    pub(super) local: SocketAddr,
}

/// One direction of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Tuple {
    protocol: u8,
    source: SocketAddr,
    destination: SocketAddr,
}

/// A connection as its entry tells it; a direction that cannot be read, or of a protocol without ports, is `None`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Entry {
    original: Option<Tuple>,
    reply: Option<Tuple>,
    status: u32,
}

/// Hands over all connections of this process's network namespace whose source is translated. An error of `take` ends it.
pub(super) fn ask(take: &mut dyn FnMut(Translation) -> io::Result<()>) -> Result<(), Error> {
    dump(SOURCE_TRANSLATED, "list translated connections", |entry| match entry.source_translated() {
        Some(translation) => take(translation),
        None => Ok(()),
    })
}

/// The backends of these connections, as far as this process's network namespace translates their destinations.
pub(super) fn backends(connections: &[Connection]) -> Result<Vec<Backend>, Error> {
    // Two entries that say two things are none.
    let mut asked: HashMap<Connection, Option<SocketAddr>> = HashMap::with_capacity(connections.len());
    asked.extend(connections.iter().map(|connection| (*connection, None)));
    let mut contradicted = Vec::new();
    dump(DESTINATION_TRANSLATED, "list connections to backends", |entry| {
        if let Some(Backend { of, backend }) = entry.destination_translated()
            && let Some(known) = asked.get_mut(&of)
            && *known.get_or_insert(backend) != backend
        {
            contradicted.push(of);
        }
        Ok(())
    })?;
    for connection in contradicted {
        asked.remove(&connection);
    }
    Ok(asked.into_iter().filter_map(|(of, backend)| Some(Backend { of, backend: backend? })).collect())
}

/// Hands over all entries whose status has these bits, and perhaps more.
fn dump(status: u32, what: &'static str, mut take: impl FnMut(Entry) -> io::Result<()>) -> Result<(), Error> {
    let mut netlink = Netlink::open_to(NETLINK_NETFILTER)?;
    let each = |message| match message {
        Message::Answer(Some(entry)) => take(entry),
        Message::Answer(None) | Message::Question { .. } => Ok(()),
    };
    netlink.ask_each(Message::Question { status }, NLM_F_DUMP, each).map_err(failed(what))
}

/// What goes over the socket.
#[derive(Debug)]
enum Message {
    /// All connections whose status has these bits.
    Question { status: u32 },
    /// One connection; `None`: another message.
    Answer(Option<Entry>),
}

// === impl Entry ===

impl Entry {
    fn source_translated(&self) -> Option<Translation> {
        let reply = self.reply.filter(|_| self.status & SOURCE_TRANSLATED != 0)?;
        Some(Translation { protocol: reply.protocol, remote: reply.source, local: reply.destination })
    }

    fn destination_translated(&self) -> Option<Backend> {
        let (original, reply) = self.original.zip(self.reply).filter(|_| self.status & DESTINATION_TRANSLATED != 0)?;
        let protocol = match original.protocol {
            TCP => Protocol::Tcp,
            UDP => Protocol::Udp,
            _ => return None,
        };
        let of = Connection { protocol, local: original.source, remote: original.destination };
        Some(Backend { of, backend: reply.source })
    }
}

// === impl Message ===

impl Message {
    /// Entries whose status has these bits.
    fn filter(status: u32) -> DefaultNla {
        DefaultNla::new(STATUS, status.to_be_bytes().to_vec())
    }

    fn status(&self) -> u32 {
        match self {
            Self::Question { status } => *status,
            Self::Answer(_) => 0,
        }
    }
}

impl NetlinkSerializable for Message {
    fn message_type(&self) -> u16 {
        GET
    }

    fn buffer_len(&self) -> usize {
        HEAD.len() + Self::filter(self.status()).buffer_len()
    }

    fn serialize(&self, buffer: &mut [u8]) {
        // The caller made it as long as was asked for.
        if let Some((head, attributes)) = buffer.split_at_mut_checked(HEAD.len()) {
            head.copy_from_slice(&HEAD);
            Self::filter(self.status()).emit(attributes);
        }
    }
}

impl NetlinkDeserializable for Message {
    type Error = Infallible;

    fn deserialize(header: &NetlinkHeader, payload: &[u8]) -> Result<Self, Infallible> {
        Ok(Self::Answer(Some(payload).filter(|_| header.message_type == NEW).and_then(entry)))
    }
}

// === reading ===

/// What an entry tells; `None` for what cannot be read.
fn entry(payload: &[u8]) -> Option<Entry> {
    let mut entry = Entry::default();
    for attribute in attributes(payload.get(HEAD.len()..)?) {
        match attribute.kind() {
            TUPLE_ORIGINAL => entry.original = tuple(attribute.value()),
            TUPLE_REPLY => entry.reply = tuple(attribute.value()),
            STATUS => entry.status = u32::from_be_bytes(attribute.value().try_into().ok()?),
            _ => {}
        }
    }
    Some(entry)
}

fn tuple(bytes: &[u8]) -> Option<Tuple> {
    let (mut addresses, mut ports, mut protocol) = ([None; 2], [None; 2], None);
    for part in attributes(bytes) {
        for attribute in attributes(part.value()) {
            let value = attribute.value();
            let place = |kinds: [u16; 2]| kinds.iter().position(|kind| *kind == attribute.kind());
            match part.kind() {
                TUPLE_IP => {
                    let v4 = || Some((place(IP_V4)?, IpAddr::from(<[u8; 4]>::try_from(value).ok()?)));
                    let v6 = || Some((place(IP_V6)?, IpAddr::from(<[u8; 16]>::try_from(value).ok()?)));
                    if let Some((place, address)) = v4().or_else(v6) {
                        *addresses.get_mut(place)? = Some(address);
                    }
                }
                TUPLE_PROTO => {
                    if let Some(place) = place(PORTS) {
                        *ports.get_mut(place)? = Some(u16::from_be_bytes(value.try_into().ok()?));
                    } else if attribute.kind() == PROTO_NUMBER {
                        protocol = value.first().copied();
                    }
                }
                _ => {}
            }
        }
    }
    let [source, destination] = addresses;
    let [source_port, destination_port] = ports;
    Some(Tuple {
        protocol: protocol?,
        source: SocketAddr::new(source?, source_port?),
        destination: SocketAddr::new(destination?, destination_port?),
    })
}

/// The attributes up to the first that is broken.
fn attributes(bytes: &[u8]) -> impl Iterator<Item = NlaBuffer<&[u8]>> {
    NlasIterator::new(bytes).map_while(Result::ok)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn attribute(kind: u16, value: &[u8]) -> Vec<u8> {
        let attribute = DefaultNla::new(kind, value.to_vec());
        let mut bytes = vec![0; attribute.buffer_len()];
        attribute.emit(&mut bytes);
        bytes
    }

    fn nested(kind: u16, parts: &[Vec<u8>]) -> Vec<u8> {
        attribute(kind | 0x8000, &parts.concat())
    }

    /// A connection as the kernel tells it, with what it tells besides.
    fn entry(status: u32, protocol: u8) -> Vec<u8> {
        let reply = nested(
            TUPLE_REPLY,
            &[
                nested(TUPLE_IP, &[attribute(1, &[192, 0, 2, 7]), attribute(2, &[10, 0, 0, 5])]),
                nested(TUPLE_PROTO, &[attribute(1, &[protocol]), attribute(2, &[1, 187]), attribute(3, &[0x9c, 0x40])]),
            ],
        );
        let timeout = attribute(7, &[0, 0, 0, 9]);
        [HEAD.to_vec(), attribute(STATUS, &status.to_be_bytes()), timeout, reply].concat()
    }

    fn message(payload: &[u8]) -> Option<Entry> {
        let mut header = NetlinkHeader::default();
        header.message_type = NEW;
        match Message::deserialize(&header, payload) {
            Ok(Message::Answer(answer)) => answer,
            other => panic!("{other:?}"),
        }
    }

    fn read(payload: &[u8]) -> Option<Translation> {
        message(payload)?.source_translated()
    }

    /// A connection to 172.20.0.9:80 that 10.0.1.1:8080 answers.
    fn to_service(status: u32, protocol: u8) -> Vec<u8> {
        let way = |kind, from: ([u8; 4], u16), to: ([u8; 4], u16)| {
            nested(
                kind,
                &[
                    nested(TUPLE_IP, &[attribute(1, &from.0), attribute(2, &to.0)]),
                    nested(
                        TUPLE_PROTO,
                        &[
                            attribute(1, &[protocol]),
                            attribute(2, &from.1.to_be_bytes()),
                            attribute(3, &to.1.to_be_bytes()),
                        ],
                    ),
                ],
            )
        };
        let (pod, service, backend) = (([10, 0, 0, 5], 40_000), ([172, 20, 0, 9], 80), ([10, 0, 1, 1], 8_080));
        let status = attribute(STATUS, &status.to_be_bytes());
        [HEAD.to_vec(), way(TUPLE_ORIGINAL, pod, service), way(TUPLE_REPLY, backend, pod), status].concat()
    }

    #[test]
    fn a_service_has_the_backend_that_answers() {
        let told =
            |status, protocol| message(&to_service(status, protocol)).and_then(|entry| entry.destination_translated());
        let backend = |protocol| Backend {
            of: Connection {
                protocol,
                local: "10.0.0.5:40000".parse().expect("an address"),
                remote: "172.20.0.9:80".parse().expect("an address"),
            },
            backend: "10.0.1.1:8080".parse().expect("an address"),
        };
        assert_eq!(told(0x1ae, TCP), Some(backend(Protocol::Tcp)));
        assert_eq!(told(0x1ae, UDP), Some(backend(Protocol::Udp)));
        assert_eq!(told(0x1ae, 132), None, "SCTP");
        assert_eq!(told(0x18e, TCP), None, "nothing is translated");
        let whole = to_service(DESTINATION_TRANSLATED, TCP);
        for length in 0..whole.len() {
            assert_eq!(message(&whole[..length]).and_then(|entry| entry.destination_translated()), None, "{length}");
        }
    }

    #[test]
    fn translated_connections_are_read() {
        let expected = Translation {
            protocol: 6,
            remote: "192.0.2.7:443".parse().expect("an address"),
            local: "10.0.0.5:40000".parse().expect("an address"),
        };
        assert_eq!(read(&entry(0x19e, 6)), Some(expected));
        // Confirmed and answered, and nothing is translated; ports of ICMP are none.
        assert_eq!(read(&entry(0x10e & !SOURCE_TRANSLATED, 6)), None);
    }

    #[test]
    fn broken_answers_are_none() {
        let whole = entry(SOURCE_TRANSLATED, 17);
        for length in 0..whole.len() {
            assert_eq!(read(&whole[..length]), None, "{length}");
        }
        for at in 0..whole.len() {
            let mut odd = whole.clone();
            odd[at] ^= 0xff;
            // Whatever it is taken for, it is taken for something.
            let _ = read(&odd);
        }
    }

    #[test]
    fn the_question_asks_for_translated_ones_alone() {
        let mut bytes = vec![0xee; Message::Question { status: SOURCE_TRANSLATED }.buffer_len()];
        Message::Question { status: SOURCE_TRANSLATED }.serialize(&mut bytes);
        let length = 8_u16.to_ne_bytes();
        assert_eq!(
            bytes,
            [0, 0, 0, 0, length[0], length[1], 3_u16.to_ne_bytes()[0], 3_u16.to_ne_bytes()[1], 0, 0, 0, 16]
        );
    }
}
