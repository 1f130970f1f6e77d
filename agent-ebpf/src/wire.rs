//! Records as they stand in the rings.
//!
//! Every record starts with a [`Header`]. Integers are in the machine's order (the probes and the agent run on the same
//! machine), addresses in network order and always sixteen bytes: IPv4 as v4-mapped IPv6. Padding is named, and zero.
//! Times are nanoseconds of `CLOCK_BOOTTIME`. A zero [`Owner::tgid`] means "not known".

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// Raised with every change of a layout below; the decoder refuses others.
pub const VERSION: u8 = 2;

/// Longest path of an executable in a [`Exec`] record; longer ones are cut and flagged.
pub const EXE_PATH_BYTES: usize = 256;
/// Most bytes of arguments in a [`Exec`] record (only when the agent asks for arguments).
pub const ARGS_BYTES: usize = 512;
/// Longest cgroup path in a [`CgroupMkdir`] record. A nested systemd kubepods path is about 200 bytes.
pub const CGROUP_PATH_BYTES: usize = 512;
/// Most bytes of a DNS message in a [`Dns`] record: what a message without EDNS may have, twice. A longer one is cut.
pub const DNS_BYTES: usize = 1024;
/// Ancestors that a metadata record carries itself.
pub const ANCESTORS: usize = 4;
/// `TASK_COMM_LEN` of the kernel.
pub const COMM_BYTES: usize = 16;

/// Declares the record kinds and their decoding from a byte.
macro_rules! closed_enum {
    ($(#[$doc:meta])* $name:ident { $($(#[$vdoc:meta])* $variant:ident = $value:literal,)+ }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        #[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
        #[repr(u8)]
        pub enum $name { $($(#[$vdoc])* $variant = $value,)+ }

        impl $name {
            /// Every value, in order.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)+];

            /// The value of a wire byte; `None` for a byte that no probe of this version writes.
            pub const fn from_wire(byte: u8) -> Option<Self> {
                match byte { $($value => Some(Self::$variant),)+ _ => None }
            }
        }
    };
}
pub(crate) use closed_enum;

closed_enum! {
    /// What a record says. The number decides the body.
    Kind {
        /// A TCP connection ended: [`Tcp`] with the bytes since the last record of the same connection.
        TcpEnd = 1,
        /// A TCP connection goes on: [`Tcp`] with the bytes since the last record of the same connection.
        TcpOpen = 2,
        /// A TCP connect that never became a connection state: [`Attempt`].
        Attempt = 3,
        /// A UDP flow ended, by the close of its socket or by silence: [`Udp`].
        UdpEnd = 4,
        /// A UDP flow goes on: [`Udp`].
        UdpOpen = 5,
        /// The head of a DNS message between a client on this machine and UDP port 53: [`Dns`] and payload bytes.
        Dns = 6,
        /// A process replaced its program: [`Exec`].
        Exec = 16,
        /// A process was made (threads are not reported): [`Fork`].
        Fork = 17,
        /// The last thread of a process ended: [`Exit`].
        Exit = 18,
        /// A cgroup appeared: [`CgroupMkdir`].
        CgroupMkdir = 19,
        /// A cgroup vanished: [`CgroupRmdir`].
        CgroupRmdir = 20,
        /// The head of one packet's payload to or from a metadata service: [`MetadataSegment`] and payload bytes.
        MetadataSegment = 32,
        /// A connection to a metadata service ended: [`MetadataEnd`].
        MetadataEnd = 33,
    }
}

closed_enum! {
    /// The ring a record travels in.
    Ring {
        /// Metadata requests and answers: rare, woken at once.
        Metadata = 0,
        /// Processes and cgroups.
        Lifecycle = 1,
        /// Flows, drained in batches.
        Bulk = 2,
    }
}

impl Kind {
    /// The ring that carries this kind.
    pub const fn ring(self) -> Ring {
        match self {
            Self::TcpEnd | Self::TcpOpen | Self::Attempt | Self::UdpEnd | Self::UdpOpen | Self::Dns => Ring::Bulk,
            Self::Exec | Self::Fork | Self::Exit | Self::CgroupMkdir | Self::CgroupRmdir => Ring::Lifecycle,
            Self::MetadataSegment | Self::MetadataEnd => Ring::Metadata,
        }
    }

    /// Position in dense tables of counters, and in [`Kind::ALL`].
    pub const fn index(self) -> usize {
        match self {
            Self::TcpEnd => 0,
            Self::TcpOpen => 1,
            Self::Attempt => 2,
            Self::UdpEnd => 3,
            Self::UdpOpen => 4,
            Self::Dns => 5,
            Self::Exec => 6,
            Self::Fork => 7,
            Self::Exit => 8,
            Self::CgroupMkdir => 9,
            Self::CgroupRmdir => 10,
            Self::MetadataSegment => 11,
            Self::MetadataEnd => 12,
        }
    }
}

closed_enum! {
    /// Who opened a connection, seen from the socket that the record is about.
    Direction {
        /// Not known: the socket is older than the agent.
        Unknown = 0,
        /// This socket called connect, or sent the first datagram.
        Outbound = 1,
        /// This socket was accepted, or received the first datagram.
        Inbound = 2,
    }
}

closed_enum! {
    /// How a connection ended. Wire form of the outcome names of the documentation.
    Outcome {
        /// Established, and ended by both sides' FIN (or still open).
        Established = 1,
        /// The peer answered the SYN with RST.
        Refused = 2,
        /// The SYN stayed unanswered, or an established connection was given up after retransmissions.
        TimedOut = 3,
        /// Ended by RST after establishment, sent by either side.
        Reset = 4,
        /// The kernel or a router said that there is no way: no route, host or network unreachable, no local port.
        Unreachable = 5,
        /// Refused on this machine by policy, before any packet.
        Denied = 6,
        /// The caller gave up before an answer.
        Aborted = 7,
        /// UDP only: datagrams in one direction alone were seen.
        OneWay = 8,
    }
}

impl Outcome {
    /// Number of values, for tables indexed by [`Outcome::index`].
    pub const COUNT: usize = Self::ALL.len();

    /// Position in tables of counters.
    pub const fn index(self) -> usize {
        self as usize - 1
    }
}

closed_enum! {
    /// Which metadata service a connection goes to.
    Service {
        /// EC2 instance metadata: 169.254.169.254 or `fd00:ec2::254`.
        Imds = 1,
        /// EKS Pod Identity agent: 169.254.170.23 or `fd00:ec2::23`.
        PodIdentity = 2,
    }
}

/// Bits of [`Tcp::flags`], [`Udp::flags`], [`Exec::flags`] and the others; each constant says where it applies.
pub mod flags {
    /// Tcp: the three-way handshake completed.
    pub const ESTABLISHED: u16 = 1;
    /// Tcp, Udp: the socket existed before the probes were attached; byte counts start at the attachment.
    pub const PREEXISTING: u16 = 1 << 1;
    /// Tcp: this is the connection's first record.
    pub const FIRST: u16 = 1 << 2;
    /// Udp: this socket talks to several peers; others stand in the peers map until they go silent.
    pub const MANY_PEERS: u16 = 1 << 3;
    /// Udp: ended by silence, the socket may still be open.
    pub const IDLE: u16 = 1 << 4;
    /// Exec: the path was longer than the record.
    pub const PATH_CUT: u16 = 1 << 5;
    /// Exec: the arguments were longer than the record.
    pub const ARGS_CUT: u16 = 1 << 6;
    /// `MetadataSegment`, `Dns`: from the service to the client.
    pub const RESPONSE: u16 = 1 << 7;
    /// Tcp: the opener is the listener's owner (inbound), not a caller of connect.
    pub const OPENER_LISTENED: u16 = 1 << 8;
    /// `MetadataSegment`: the owner is the sender seen at the packet, for no connect was seen.
    pub const OWNER_SENT: u16 = 1 << 9;
}

/// Start of every record.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C)]
pub struct Header {
    /// [`VERSION`].
    pub version: u8,
    /// [`Kind`].
    pub kind: u8,
    /// Bits of [`flags`].
    pub flags: u16,
    /// Bytes of the whole record, header included. The ring may hand over more (records have fixed sizes there).
    pub len: u32,
    /// When the probe wrote the record, boot-time nanoseconds.
    pub time_ns: u64,
    /// Inode of the cgroup2 directory that the subject belongs to; 1 is the root.
    pub cgroup_id: u64,
}

/// A process, told apart from later ones with the same number by its start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[repr(C)]
pub struct Owner {
    /// `start_boottime` of the thread group's leader, boot-time nanoseconds.
    pub start_ns: u64,
    /// Process id (thread group id) in the initial pid namespace; 0 means not known.
    pub tgid: u32,
    /// Zero.
    #[cfg_attr(feature = "serde", serde(skip))]
    pub pad: u32,
}

/// A process with the name it gave itself.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C)]
pub struct Named {
    /// Who.
    pub owner: Owner,
    /// `comm`, NUL-padded.
    pub comm: [u8; COMM_BYTES],
}

/// Both ends of a socket.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, FromBytes, IntoBytes, KnownLayout, Immutable)]
// Aligned so that addresses move as words.
#[repr(C, align(8))]
pub struct Tuple {
    /// Local address, v4 as v4-mapped.
    pub local: [u8; 16],
    /// Remote address, v4 as v4-mapped.
    pub remote: [u8; 16],
    /// Local port, 0 when not known.
    pub local_port: u16,
    /// Remote port.
    pub remote_port: u16,
    /// Inode of the network namespace, 0 when not known.
    pub netns: u32,
}

/// Kinds [`Kind::TcpEnd`] and [`Kind::TcpOpen`].
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C)]
pub struct Tcp {
    /// See [`Header`].
    pub header: Header,
    /// Socket cookie. One socket may carry several connections, one after another.
    pub cookie: u64,
    /// When the SYN was sent, or the accepted socket was made; 0 when not known.
    pub start_ns: u64,
    /// Payload bytes sent and acknowledged or still in flight, without retransmissions, since the last record.
    pub bytes_sent: u64,
    /// Payload bytes received, since the last record.
    pub bytes_received: u64,
    /// Who connected (outbound) or listened (inbound).
    pub opener: Owner,
    /// Who closed or shut down.
    pub closer: Owner,
    /// Addresses and ports.
    pub tuple: Tuple,
    /// Retransmitted segments since the last record.
    pub retransmits: u32,
    /// Smoothed round trip time in microseconds; 0 = not measured.
    pub srtt_us: u32,
    /// Least round trip time in microseconds; all ones = not measured.
    pub min_rtt_us: u32,
    /// [`Direction`].
    pub direction: u8,
    /// [`Outcome`]; `Established` while open and past the handshake, `Aborted` never stands in an open record.
    pub outcome: u8,
    /// State before CLOSE, as in the kernel's `tcp_states.h`.
    pub old_state: u8,
    /// Zero.
    pub pad: u8,
}

/// Kind [`Kind::Attempt`].
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C)]
pub struct Attempt {
    /// See [`Header`].
    pub header: Header,
    /// Socket cookie.
    pub cookie: u64,
    /// When connect was called.
    pub start_ns: u64,
    /// Who called connect.
    pub opener: Owner,
    /// Remote end; the local one is not known.
    pub tuple: Tuple,
    /// [`Outcome`]: `Denied` or `Unreachable`.
    pub outcome: u8,
    /// Zero.
    pub pad: [u8; 7],
}

/// Kinds [`Kind::UdpEnd`] and [`Kind::UdpOpen`].
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C)]
pub struct Udp {
    /// See [`Header`].
    pub header: Header,
    /// Socket cookie.
    pub cookie: u64,
    /// First datagram of the flow; 0 when not known.
    pub start_ns: u64,
    /// Payload bytes sent since the last record.
    pub bytes_sent: u64,
    /// Payload bytes received since the last record. Datagrams that the receive buffer then refused count.
    pub bytes_received: u64,
    /// Datagrams sent since the last record.
    pub packets_sent: u64,
    /// Datagrams received since the last record.
    pub packets_received: u64,
    /// Who sent the first datagram, if the socket sent first.
    pub opener: Owner,
    /// Who closed the socket.
    pub closer: Owner,
    /// Addresses and ports.
    pub tuple: Tuple,
    /// [`Direction`].
    pub direction: u8,
    /// [`Outcome`]: `Established` when both directions were seen in the flow's whole life, else `OneWay`.
    pub outcome: u8,
    /// Zero.
    pub pad: [u8; 6],
}

/// Kind [`Kind::Dns`]; `captured` payload bytes follow the fixed part.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C)]
pub struct Dns {
    /// See [`Header`]; [`flags::RESPONSE`] tells an answer from a query.
    pub header: Header,
    /// Socket cookie of the client's socket.
    pub cookie: u64,
    /// Addresses and ports; the remote one is the server.
    pub tuple: Tuple,
    /// Payload bytes of the datagram.
    pub payload_len: u32,
    /// Payload bytes that follow in the record, at most [`DNS_BYTES`].
    pub captured: u32,
}

/// Kind [`Kind::Exec`]; the path and then the arguments follow the fixed part.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C)]
pub struct Exec {
    /// See [`Header`].
    pub header: Header,
    /// The process.
    pub process: Named,
    /// Its parent.
    pub parent: Owner,
    /// Bytes of the path that follow, as given to `execve`, without NUL.
    pub path_len: u16,
    /// Bytes of arguments that follow the path, separated by NUL.
    pub args_len: u16,
    /// Real user id.
    pub uid: u32,
}

/// Kind [`Kind::Fork`].
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C)]
pub struct Fork {
    /// See [`Header`]; the cgroup is the child's.
    pub header: Header,
    /// The new process.
    pub child: Named,
    /// Who forked.
    pub parent: Owner,
}

/// Kind [`Kind::Exit`].
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C)]
pub struct Exit {
    /// See [`Header`].
    pub header: Header,
    /// The process.
    pub process: Owner,
}

/// Kind [`Kind::CgroupMkdir`]; the path follows the fixed part. `header.cgroup_id` is the new directory.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C)]
pub struct CgroupMkdir {
    /// See [`Header`].
    pub header: Header,
    /// Depth below the root.
    pub level: u32,
    /// Bytes of the path that follow, relative to the cgroup2 root, with a leading slash, without NUL.
    pub path_len: u32,
}

/// Kind [`Kind::CgroupRmdir`]. `header.cgroup_id` is the directory.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C)]
pub struct CgroupRmdir {
    /// See [`Header`].
    pub header: Header,
}

/// Kind [`Kind::MetadataSegment`]; `captured` payload bytes follow the fixed part.
///
/// The payload may hold secrets: only the decoder touches it, and wipes what it copied.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C)]
pub struct MetadataSegment {
    /// See [`Header`].
    pub header: Header,
    /// Socket cookie of the client's socket.
    pub cookie: u64,
    /// Who opened the connection, with the ancestors that the record could walk to.
    pub process: Named,
    /// Parent, its parent, and so on; zero `tgid` ends the list.
    pub ancestors: [Named; ANCESTORS],
    /// Addresses and ports; the remote one is the service.
    pub tuple: Tuple,
    /// TCP sequence number of the first payload byte.
    pub seq: u32,
    /// Payload bytes of the packet.
    pub payload_len: u32,
    /// Payload bytes that follow in the record.
    pub captured: u32,
    /// [`Service`].
    pub service: u8,
    /// IP time to live or hop limit of the packet.
    pub ttl: u8,
    /// Zero.
    pub pad: [u8; 2],
}

/// Kind [`Kind::MetadataEnd`].
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C)]
pub struct MetadataEnd {
    /// See [`Header`]; [`flags::ESTABLISHED`] tells a blocked SYN from an answered one.
    pub header: Header,
    /// Socket cookie of the client's socket.
    pub cookie: u64,
    /// When the SYN was sent.
    pub start_ns: u64,
    /// Who opened the connection, with ancestors.
    pub process: Named,
    /// Parent, its parent, and so on.
    pub ancestors: [Named; ANCESTORS],
    /// Addresses and ports.
    pub tuple: Tuple,
    /// [`Service`].
    pub service: u8,
    /// [`Outcome`] of the connection.
    pub outcome: u8,
    /// Zero.
    pub pad: [u8; 6],
}

// Sizes are part of the contract: a change here is a change of VERSION.
const _: () = {
    assert!(size_of::<Header>() == 24);
    assert!(size_of::<Owner>() == 16);
    assert!(size_of::<Named>() == 32);
    assert!(size_of::<Tuple>() == 40);
    assert!(size_of::<Tcp>() == 144);
    assert!(size_of::<Attempt>() == 104);
    assert!(size_of::<Udp>() == 152);
    assert!(size_of::<Dns>() == 80);
    assert!(size_of::<Exec>() == 80);
    assert!(size_of::<Fork>() == 72);
    assert!(size_of::<Exit>() == 40);
    assert!(size_of::<CgroupMkdir>() == 32);
    assert!(size_of::<CgroupRmdir>() == 24);
    assert!(size_of::<MetadataSegment>() == 248);
    assert!(size_of::<MetadataEnd>() == 248);
};
