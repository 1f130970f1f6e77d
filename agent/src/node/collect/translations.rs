//! Connections whose source address the node translates (SNAT), from the kernel's connection tracking table by netlink.
//! Layouts: `linux/netfilter/nfnetlink.h`, `linux/netfilter/nfnetlink_conntrack.h`, `nf_conntrack_common.h`.
//!
//! The kernel is asked for translated connections alone, which it sorts out itself since 5.15; what an older one sends
//! besides is left out here.

use std::convert::Infallible;
use std::io;
use std::net::{IpAddr, SocketAddr};

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
/// `CTA_TUPLE_REPLY`, `CTA_STATUS`.
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
/// `IPS_SRC_NAT`.
const SOURCE_TRANSLATED: u32 = 1 << 4;

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

/// Hands over all translated connections of this process's network namespace. An error of `take` ends it.
pub(super) fn ask(take: &mut dyn FnMut(Translation) -> io::Result<()>) -> Result<(), Error> {
    let mut netlink = Netlink::open_to(NETLINK_NETFILTER)?;
    let each = |message| match message {
        Message::Answer(Some(translation)) => take(translation),
        Message::Answer(None) | Message::Question => Ok(()),
    };
    netlink.ask_each(Message::Question, NLM_F_DUMP, each).map_err(failed("list translated connections"))
}

/// What goes over the socket.
#[derive(Debug)]
enum Message {
    /// All connections whose source is translated.
    Question,
    /// One connection; `None`: none that matters here.
    Answer(Option<Translation>),
}

// === impl Message ===

impl Message {
    /// Entries whose status has this bit.
    fn filter() -> DefaultNla {
        DefaultNla::new(STATUS, SOURCE_TRANSLATED.to_be_bytes().to_vec())
    }
}

impl NetlinkSerializable for Message {
    fn message_type(&self) -> u16 {
        GET
    }

    fn buffer_len(&self) -> usize {
        HEAD.len() + Self::filter().buffer_len()
    }

    fn serialize(&self, buffer: &mut [u8]) {
        // The caller made it as long as was asked for.
        if let Some((head, attributes)) = buffer.split_at_mut_checked(HEAD.len()) {
            head.copy_from_slice(&HEAD);
            Self::filter().emit(attributes);
        }
    }
}

impl NetlinkDeserializable for Message {
    type Error = Infallible;

    fn deserialize(header: &NetlinkHeader, payload: &[u8]) -> Result<Self, Infallible> {
        Ok(Self::Answer(Some(payload).filter(|_| header.message_type == NEW).and_then(translation)))
    }
}

// === reading ===

/// A translated connection of TCP or UDP; `None` for any other, and for what cannot be read.
fn translation(payload: &[u8]) -> Option<Translation> {
    let mut status = 0;
    let mut reply = None;
    for attribute in attributes(payload.get(HEAD.len()..)?) {
        match attribute.kind() {
            TUPLE_REPLY => reply = tuple(attribute.value()),
            STATUS => status = u32::from_be_bytes(attribute.value().try_into().ok()?),
            _ => {}
        }
    }
    reply.filter(|_| status & SOURCE_TRANSLATED != 0)
}

/// The tuple of the answers: they come from whom the connection goes to.
fn tuple(bytes: &[u8]) -> Option<Translation> {
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
    let [remote, local] = addresses;
    let [remote_port, local_port] = ports;
    Some(Translation {
        protocol: protocol?,
        remote: SocketAddr::new(remote?, remote_port?),
        local: SocketAddr::new(local?, local_port?),
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

    fn read(payload: &[u8]) -> Option<Translation> {
        let mut header = NetlinkHeader::default();
        header.message_type = NEW;
        match Message::deserialize(&header, payload) {
            Ok(Message::Answer(answer)) => answer,
            other => panic!("{other:?}"),
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
        let mut bytes = vec![0xee; Message::Question.buffer_len()];
        Message::Question.serialize(&mut bytes);
        let length = 8_u16.to_ne_bytes();
        assert_eq!(
            bytes,
            [0, 0, 0, 0, length[0], length[1], 3_u16.to_ne_bytes()[0], 3_u16.to_ne_bytes()[1], 0, 0, 0, 16]
        );
    }
}
