//! Questions to the kernel by netlink: interfaces, routes, and by which number this network namespace knows another.
//!
//! One socket that waits, without a runtime: whoever asks is on a thread that may wait.

use std::fmt::Debug;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::time::Duration;

use netlink_packet_core::{
    NLM_F_DUMP, NLM_F_REQUEST, NetlinkDeserializable, NetlinkHeader, NetlinkMessage, NetlinkPayload,
    NetlinkSerializable,
};
use netlink_packet_route::link::{LinkAttribute, LinkMessage};
use netlink_packet_route::nsid::{NsidAttribute, NsidMessage};
use netlink_packet_route::route::RouteMessage;
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};
use netlink_sys::protocols::NETLINK_ROUTE;
use netlink_sys::{Socket, SocketAddr};
use rustix::net::sockopt::{Timeout, set_socket_timeout};

use super::Error;

/// The kernel answers at once; this is for a kernel that does not.
const WAIT: Duration = Duration::from_secs(5);
/// The kernel fills at most 32 KiB of a dump at a time when the reader offers that much.
const BUFFER_BYTES: usize = 64 << 10;
/// Most messages of one dump: 4,096 interfaces, or the routes of as many pods in two tables and both families.
const MAX_MESSAGES: usize = 16_384;

/// A netlink socket in this process's network namespace.
pub(super) struct Netlink {
    socket: Socket,
    sequence: u32,
}

// === impl Netlink ===

impl Netlink {
    /// For questions about interfaces and routes.
    pub(super) fn open() -> Result<Self, Error> {
        Self::open_to(NETLINK_ROUTE)
    }

    /// For questions to one of the kernel's families.
    pub(super) fn open_to(family: isize) -> Result<Self, Error> {
        let open = || {
            let mut socket = Socket::new(family)?;
            socket.bind_auto()?;
            socket.connect(&SocketAddr::new(0, 0))?;
            set_socket_timeout(socket.as_fd(), Timeout::Recv, Some(WAIT))?;
            Ok(socket)
        };
        open().map(|socket| Self { socket, sequence: 0 }).map_err(failed("open a netlink socket"))
    }

    /// All interfaces.
    pub(super) fn links(&mut self) -> Result<Vec<LinkMessage>, Error> {
        let answers = self.ask(RouteNetlinkMessage::GetLink(LinkMessage::default()), NLM_F_DUMP);
        Ok(answers
            .map_err(failed("list interfaces"))?
            .into_iter()
            .filter_map(|answer| match answer {
                RouteNetlinkMessage::NewLink(link) => Some(link),
                _ => None,
            })
            .collect())
    }

    /// All routes of a family, of all tables.
    pub(super) fn routes(&mut self, family: AddressFamily) -> Result<Vec<RouteMessage>, Error> {
        let mut question = RouteMessage::default();
        question.header.address_family = family;
        let answers = self.ask(RouteNetlinkMessage::GetRoute(question), NLM_F_DUMP);
        Ok(answers
            .map_err(failed("list routes"))?
            .into_iter()
            .filter_map(|answer| match answer {
                RouteNetlinkMessage::NewRoute(route) => Some(route),
                _ => None,
            })
            .collect())
    }

    /// By which number this namespace knows another one; `None`: by none, so that none of its interfaces leads there.
    pub(super) fn namespace_id(&mut self, namespace: BorrowedFd<'_>) -> Result<Option<i32>, Error> {
        let mut question = NsidMessage::default();
        question.attributes.push(NsidAttribute::Fd(namespace.as_raw_fd().cast_unsigned()));
        let answers =
            self.ask(RouteNetlinkMessage::GetNsId(question), 0).map_err(failed("name a network namespace"))?;
        let attributes = answers.into_iter().flat_map(|answer| match answer {
            RouteNetlinkMessage::NewNsId(message) => message.attributes,
            _ => Vec::new(),
        });
        Ok(attributes.into_iter().find_map(|attribute| match attribute {
            NsidAttribute::Id(id) if id >= 0 => Some(id),
            _ => None,
        }))
    }

    fn ask(&mut self, question: RouteNetlinkMessage, flags: u16) -> io::Result<Vec<RouteNetlinkMessage>> {
        let mut answers = Vec::new();
        self.ask_each(question, flags, |answer| {
            if answers.len() >= MAX_MESSAGES {
                return Err(io::Error::other(format!("more than {MAX_MESSAGES} answers")));
            }
            answers.push(answer);
            Ok(())
        })?;
        Ok(answers)
    }

    /// Asks, and hands over each answer as it comes: nothing is kept here, however many there are.
    pub(super) fn ask_each<T>(
        &mut self,
        question: T,
        flags: u16,
        mut each: impl FnMut(T) -> io::Result<()>,
    ) -> io::Result<()>
    where
        T: NetlinkSerializable + NetlinkDeserializable + Debug,
    {
        self.sequence = self.sequence.wrapping_add(1);
        let mut header = NetlinkHeader::default();
        header.flags = NLM_F_REQUEST | flags;
        header.sequence_number = self.sequence;
        let mut message = NetlinkMessage::new(header, NetlinkPayload::InnerMessage(question));
        message.finalize();
        let mut bytes = vec![0; message.buffer_len()];
        message.serialize(&mut bytes);
        self.socket.send(&bytes, 0)?;

        let is_dump = flags & NLM_F_DUMP == NLM_F_DUMP;
        let mut buffer = Vec::with_capacity(BUFFER_BYTES);
        loop {
            buffer.clear();
            self.socket.recv(&mut buffer, 0)?;
            if self.take(&buffer, is_dump, &mut each)? {
                return Ok(());
            }
        }
    }

    /// Takes the messages of one datagram; whether they were the last.
    fn take<T>(&self, mut bytes: &[u8], is_dump: bool, each: &mut impl FnMut(T) -> io::Result<()>) -> io::Result<bool>
    where
        T: NetlinkDeserializable + Debug,
    {
        while !bytes.is_empty() {
            let message = deserialize::<T>(bytes)?;
            let length = message.header.length as usize;
            bytes = bytes.get(length.next_multiple_of(4)..).unwrap_or_default();
            // The late answer to a question whose asker gave up.
            if message.header.sequence_number != self.sequence {
                continue;
            }
            match message.payload {
                NetlinkPayload::Done(_) => return Ok(true),
                NetlinkPayload::Error(error) => {
                    return match error.code {
                        None => Ok(true),
                        Some(code) => Err(io::Error::from_raw_os_error(code.get().saturating_neg())),
                    };
                }
                NetlinkPayload::InnerMessage(answer) => {
                    each(answer)?;
                    if !is_dump {
                        return Ok(true);
                    }
                }
                _ => {}
            }
        }
        Ok(false)
    }
}

/// Which end of a veth pair a link message names: the other end's index, and the namespace it is in.
pub(super) fn other_end(link: &LinkMessage) -> (Option<u32>, Option<i32>) {
    let mut ends = (None, None);
    for attribute in &link.attributes {
        match attribute {
            LinkAttribute::Link(index) => ends.0 = Some(*index),
            LinkAttribute::LinkNetNsId(id) => ends.1 = Some(*id),
            _ => {}
        }
    }
    ends
}

fn deserialize<T: NetlinkDeserializable + Debug>(bytes: &[u8]) -> io::Result<NetlinkMessage<T>> {
    let message = NetlinkMessage::<T>::deserialize(bytes).map_err(io::Error::other)?;
    // A length of nothing would be read for ever.
    if message.header.length == 0 {
        return Err(io::Error::other("a message of no length"));
    }
    Ok(message)
}

pub(super) fn failed(what: &'static str) -> impl Fn(io::Error) -> Error {
    move |source| Error::Kernel { what: what.to_owned(), source }
}
