//! Networks: one namespace with its loopback, or two namespaces joined by a veth pair.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::AsRawFd;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Result;

use crate::links::configure;
use crate::netns::Namespace;
use crate::scale;

/// Address of the client's end of the veth.
const CLIENT_V4: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 1);
const CLIENT_V6: Ipv6Addr = Ipv6Addr::new(0xfd77, 0, 0, 0, 0, 0, 0, 1);
/// Address of the server's end of the veth.
const SERVER_V4: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 2);
const SERVER_V6: Ipv6Addr = Ipv6Addr::new(0xfd77, 0, 0, 0, 0, 0, 0, 2);
/// Routed to the server's namespace, which drops it without a word: nobody has it and nothing is forwarded.
const SWALLOWED: Ipv4Addr = Ipv4Addr::new(10, 99, 0, 1);
/// No route leads there.
const NOWHERE: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 1);

/// Sysctl `net/ipv4/tcp_fastopen`: client and server, without cookies, for every listener.
pub const FAST_OPEN: &str = "1543";

/// EC2 instance metadata.
pub const IMDS_V4: Ipv4Addr = Ipv4Addr::new(169, 254, 169, 254);
/// EC2 instance metadata.
pub const IMDS_V6: Ipv6Addr = Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254);
/// EKS Pod Identity agent.
pub const POD_IDENTITY_V4: Ipv4Addr = Ipv4Addr::new(169, 254, 170, 23);
/// EKS Pod Identity agent.
pub const POD_IDENTITY_V6: Ipv6Addr = Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x23);

/// The client's and the server's interface.
const CLIENT_LINK: &str = "client0";
const SERVER_LINK: &str = "server0";

/// What joins client and server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wire {
    /// Both are in one namespace and talk over its loopback.
    Loopback,
    /// Each has a namespace; received packets are steered over all CPUs.
    Veth,
}

/// A network with a place for clients and one for servers.
#[derive(Debug)]
pub struct Lab {
    /// Where clients live.
    pub client: Arc<Namespace>,
    /// Where servers live; on [`Wire::Loopback`] the same namespace.
    pub server: Arc<Namespace>,
    wire: Wire,
}

impl Lab {
    /// A network with the metadata addresses at the server's side.
    pub fn new(wire: Wire) -> Result<Self> {
        Self::build(wire, true)
    }

    /// Two namespaces where packets to the metadata addresses are dropped without a word, as by a network policy.
    pub fn with_blocked_metadata() -> Result<Self> {
        Self::build(Wire::Veth, false)
    }

    fn build(wire: Wire, metadata: bool) -> Result<Self> {
        let client = Arc::new(Namespace::new()?);
        let server = match wire {
            Wire::Loopback => Arc::clone(&client),
            Wire::Veth => Arc::new(Namespace::new()?),
        };
        let lab = Self { client, server, wire };
        lab.configure(metadata)?;
        Ok(lab)
    }

    /// The server's IPv4 address as the client sees it, with a port.
    pub fn server_v4(&self, port: u16) -> SocketAddr {
        let ip = if self.wire == Wire::Loopback { Ipv4Addr::LOCALHOST } else { SERVER_V4 };
        SocketAddr::from((ip, port))
    }

    /// The server's IPv6 address as the client sees it, with a port.
    pub fn server_v6(&self, port: u16) -> SocketAddr {
        let ip = if self.wire == Wire::Loopback { Ipv6Addr::LOCALHOST } else { SERVER_V6 };
        SocketAddr::from((ip, port))
    }

    /// The client's IPv4 address, with a port.
    pub fn client_v4(&self, port: u16) -> SocketAddr {
        let ip = if self.wire == Wire::Loopback { Ipv4Addr::LOCALHOST } else { CLIENT_V4 };
        SocketAddr::from((ip, port))
    }

    /// An address that swallows every packet; only on a veth.
    pub fn swallowed(&self, port: u16) -> SocketAddr {
        SocketAddr::from((SWALLOWED, port))
    }

    /// An address to which no route leads.
    pub fn nowhere(&self, port: u16) -> SocketAddr {
        SocketAddr::from((NOWHERE, port))
    }

    /// Waits until every socket of the network is closed, the ones that still say goodbye included.
    pub fn wait_until_closed(&self) -> Result<()> {
        let deadline = Instant::now() + scale::deadline();
        loop {
            let open = self.client.open_sockets()? + self.server.open_sockets()?;
            if open == 0 {
                return Ok(());
            }
            anyhow::ensure!(Instant::now() < deadline, "{open} sockets are still open after {:?}", scale::deadline());
            std::thread::sleep(Duration::from_millis(2));
        }
    }

    fn configure(&self, metadata: bool) -> Result<()> {
        if self.wire == Wire::Veth {
            let peer = self.server.fd().as_raw_fd();
            configure(&self.client, async |link| link.veth(CLIENT_LINK, SERVER_LINK, Some(peer)).await)?;
        }
        configure(&self.server, async |link| {
            link.up("lo").await?;
            if !metadata {
                return Ok(());
            }
            for ip in [IMDS_V4, POD_IDENTITY_V4] {
                link.address("lo", ip.into(), 32).await?;
            }
            for ip in [IMDS_V6, POD_IDENTITY_V6] {
                link.address("lo", ip.into(), 128).await?;
            }
            Ok(())
        })?;
        self.server.steer_over_all_cpus("lo")?;
        if self.wire == Wire::Loopback {
            return Ok(());
        }
        configure(&self.server, async |link| {
            link.address(SERVER_LINK, SERVER_V4.into(), 24).await?;
            link.address(SERVER_LINK, SERVER_V6.into(), 64).await?;
            link.up(SERVER_LINK).await
        })?;
        configure(&self.client, async |link| {
            link.up("lo").await?;
            link.address(CLIENT_LINK, CLIENT_V4.into(), 24).await?;
            link.address(CLIENT_LINK, CLIENT_V6.into(), 64).await?;
            link.up(CLIENT_LINK).await?;
            for ip in [IMDS_V4, POD_IDENTITY_V4, SWALLOWED] {
                link.route_v4(ip, SERVER_V4).await?;
            }
            for ip in [IMDS_V6, POD_IDENTITY_V6] {
                link.route_v6(ip, SERVER_V6).await?;
            }
            Ok(())
        })?;
        self.client.steer_over_all_cpus(CLIENT_LINK)?;
        self.server.steer_over_all_cpus(SERVER_LINK)
    }
}
