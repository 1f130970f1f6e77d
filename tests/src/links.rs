//! Interfaces, addresses and routes in a test's network namespaces, by rtnetlink.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use anyhow::{Context, Result};
use rtnetlink::packet_route::address::AddressHeaderFlags;
use rtnetlink::packet_route::link::{InfoData, InfoVeth};
use rtnetlink::packet_route::route::RouteScope;
use rtnetlink::{LinkUnspec, LinkVeth, RouteMessageBuilder};

use crate::netns::Namespace;

/// Runs rtnetlink requests in a namespace.
pub(crate) fn configure<T: Send>(
    namespace: &Namespace,
    requests: impl AsyncFnOnce(Netlink) -> Result<T> + Send,
) -> Result<T> {
    namespace.run(|| {
        let runtime =
            tokio::runtime::Builder::new_current_thread().enable_io().build().context("build a tokio runtime")?;
        runtime.block_on(async {
            let (connection, handle, _) = rtnetlink::new_connection().context("open a netlink socket")?;
            tokio::spawn(connection);
            requests(Netlink { handle }).await
        })
    })
}

/// The few requests that tests need.
pub(crate) struct Netlink {
    handle: rtnetlink::Handle,
}

impl Netlink {
    /// A veth pair, the peer in another namespace from the start.
    pub(crate) async fn veth(&self, here: &str, there: &str, namespace: Option<i32>) -> Result<()> {
        let peer = LinkUnspec::new_with_name(there);
        let peer = match namespace {
            Some(namespace) => peer.setns_by_fd(namespace).build(),
            None => peer.build(),
        };
        let message = LinkVeth::new(here, there).set_info_data(InfoData::Veth(InfoVeth::Peer(peer))).build();
        self.handle.link().add(message).execute().await.with_context(|| format!("add veth {here}"))
    }

    pub(crate) async fn up(&self, link: &str) -> Result<()> {
        let message = LinkUnspec::new_with_name(link).up().build();
        self.handle.link().set(message).execute().await.with_context(|| format!("set {link} up"))
    }

    pub(crate) async fn hardware_address(&self, link: &str, mac: [u8; 6]) -> Result<()> {
        let message = LinkUnspec::new_with_name(link).address(mac.to_vec()).build();
        self.handle.link().set(message).execute().await.with_context(|| format!("set the address of {link}"))
    }

    pub(crate) async fn remove(&self, link: &str) -> Result<()> {
        self.handle.link().del(index_of(link)?).execute().await.with_context(|| format!("remove {link}"))
    }

    /// A route to one address over an interface, without a gateway.
    pub(crate) async fn route_over(&self, to: Ipv4Addr, prefix: u8, link: &str) -> Result<()> {
        let route = RouteMessageBuilder::<Ipv4Addr>::new()
            .destination_prefix(to, prefix)
            .output_interface(index_of(link)?)
            .scope(RouteScope::Link)
            .build();
        self.handle.route().add(route).execute().await.with_context(|| format!("add a route to {to} over {link}"))
    }

    pub(crate) async fn remove_default_route(&self, gateway: Ipv4Addr) -> Result<()> {
        let route = RouteMessageBuilder::<Ipv4Addr>::new().gateway(gateway).build();
        self.handle.route().del(route).execute().await.with_context(|| format!("remove the route to {gateway}"))
    }

    pub(crate) async fn default_route(&self, gateway: Ipv4Addr) -> Result<()> {
        let route = RouteMessageBuilder::<Ipv4Addr>::new().gateway(gateway).build();
        self.handle.route().add(route).execute().await.with_context(|| format!("add a default route to {gateway}"))
    }

    pub(crate) async fn address(&self, link: &str, ip: IpAddr, prefix: u8) -> Result<()> {
        let index = index_of(link)?;
        let mut request = self.handle.address().add(index, ip, prefix);
        // IPv6 addresses are usable at once, not only after the search for duplicates.
        request.message_mut().header.flags |= AddressHeaderFlags::Nodad;
        request.execute().await.with_context(|| format!("add {ip} to {link}"))
    }

    pub(crate) async fn route_v4(&self, to: Ipv4Addr, gateway: Ipv4Addr) -> Result<()> {
        let route = RouteMessageBuilder::<Ipv4Addr>::new().destination_prefix(to, 32).gateway(gateway).build();
        self.handle.route().add(route).execute().await.with_context(|| format!("add a route to {to}"))
    }

    pub(crate) async fn route_v6(&self, to: Ipv6Addr, gateway: Ipv6Addr) -> Result<()> {
        let route = RouteMessageBuilder::<Ipv6Addr>::new().destination_prefix(to, 128).gateway(gateway).build();
        self.handle.route().add(route).execute().await.with_context(|| format!("add a route to {to}"))
    }
}

fn index_of(link: &str) -> Result<u32> {
    let socket = rustix::net::socket(rustix::net::AddressFamily::INET, rustix::net::SocketType::DGRAM, None)
        .context("open a socket")?;
    rustix::net::netdevice::name_to_index(socket, link).with_context(|| format!("find interface {link}"))
}
