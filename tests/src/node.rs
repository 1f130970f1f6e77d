//! A worker node as the VPC CNI makes it: a network namespace of the node, pods with namespaces of their own behind
//! veths that are named as the CNI names them, another host in the VPC, and the objects that Kubernetes has about them.
//!
//! Replies from the VPC find a pod only after [`Node::admit`]: before, its packets go out and nothing comes back, which
//! is what a pod sees of a security group that refuses.

use std::collections::BTreeSet;
use std::fs;
use std::net::{Ipv4Addr, SocketAddr};
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::{Context, Result};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::actor::{self, Actor};
use crate::agent::Agent;
use crate::cgroup::Pod;
use crate::lab::{IMDS_V4, IMDS_V6, POD_IDENTITY_V4, POD_IDENTITY_V6};
use crate::links::configure;
use crate::netns::Namespace;

mod objects;

pub use objects::{Wiring, account, policy};

/// The node's name.
pub const NODE: &str = "node-1";
/// The node's address.
pub const NODE_IP: Ipv4Addr = Ipv4Addr::new(10, 78, 0, 1);
/// A host in the VPC.
pub const VPC_IP: Ipv4Addr = Ipv4Addr::new(10, 79, 0, 2);
/// The node's address on the way to it.
const UPLINK_IP: Ipv4Addr = Ipv4Addr::new(10, 79, 0, 1);
/// Where replies go before [`Node::admit`].
const LOST: Ipv4Addr = Ipv4Addr::new(10, 79, 0, 99);
const UPLINK: &str = "eth0";
const VPC_LINK: &str = "vpc0";
/// Last byte of the last address that a pod may have.
const LAST_ADDRESS: u8 = 254;
/// What pods have as their gateway.
const GATEWAY: Ipv4Addr = Ipv4Addr::new(169, 254, 1, 1);

/// A node, until dropped.
#[derive(Debug)]
pub struct Node {
    /// The node's own network namespace, with the metadata addresses.
    pub network: Arc<Namespace>,
    /// Another host of the VPC.
    pub vpc: Arc<Namespace>,
    objects: TempDir,
    addresses: Mutex<Addresses>,
}

/// Which addresses of pods are taken, by their last byte.
#[derive(Debug, Default)]
struct Addresses {
    taken: BTreeSet<u8>,
    last: u8,
}

/// A pod on it.
#[derive(Debug)]
pub struct NodePod {
    /// Its first container's control group.
    pub container: Pod,
    /// Its network namespace; the node's with host networking.
    pub network: Arc<Namespace>,
    /// Its address.
    pub ip: Ipv4Addr,
    /// Its object; [`Node::put`] tells the agent of changes.
    pub object: Value,
}

impl Node {
    /// A node without pods, with the metadata services on it.
    pub fn new() -> Result<Self> {
        let node = Self::bare()?;
        metadata_addresses(&node.network, &[IMDS_V4, POD_IDENTITY_V4])?;
        Ok(node)
    }

    /// As [`Node::new`], but EC2's metadata service is one hop away, with the host in the VPC, as on an instance: what a
    /// pod hears from it was forwarded by the node.
    pub fn with_metadata_beyond() -> Result<Self> {
        let node = Self::bare()?;
        metadata_addresses(&node.network, &[POD_IDENTITY_V4])?;
        metadata_addresses(&node.vpc, &[IMDS_V4, POD_IDENTITY_V4])?;
        configure(&node.network, async |link| link.route_v4(IMDS_V4, VPC_IP).await)?;
        Ok(node)
    }

    fn bare() -> Result<Self> {
        let network = Arc::new(Namespace::new()?);
        let vpc = Arc::new(Namespace::new()?);
        network.sysctl("net/ipv4/ip_forward", "1")?;
        let peer = vpc.fd().as_raw_fd();
        configure(&network, async |link| {
            link.up("lo").await?;
            link.address("lo", NODE_IP.into(), 32).await?;
            link.veth(UPLINK, VPC_LINK, Some(peer)).await?;
            link.address(UPLINK, UPLINK_IP.into(), 24).await?;
            link.up(UPLINK).await
        })?;
        configure(&vpc, async |link| {
            link.up("lo").await?;
            link.address(VPC_LINK, VPC_IP.into(), 24).await?;
            link.up(VPC_LINK).await?;
            link.route_v4(NODE_IP, UPLINK_IP).await?;
            // Nobody has that address: what is sent there is lost, and whoever sends it hears of nothing.
            link.default_route(LOST).await
        })?;
        let node = Self {
            network,
            vpc,
            objects: tempfile::tempdir().context("make a directory")?,
            addresses: Mutex::default(),
        };
        node.put(&objects::node())?;
        Ok(node)
    }

    /// An agent in the node's network namespace that knows the node's objects.
    pub fn agent(&self, configuration: Value) -> Result<Agent> {
        self.agent_with_environment(configuration, &[])
    }

    /// As [`Node::agent`], with more in its environment.
    pub fn agent_with_environment(&self, configuration: Value, environment: &[(&str, &str)]) -> Result<Agent> {
        Agent::with_environment_in(Some(Arc::clone(&self.network)), self.configuration(configuration), environment)
    }

    /// As [`Node::agent`], with more on its command line.
    pub fn agent_with_arguments(&self, configuration: Value, arguments: &[&str]) -> Result<Agent> {
        Agent::with_arguments_in(Some(Arc::clone(&self.network)), self.configuration(configuration), arguments)
    }

    /// As [`Node::agent`], without rows on standard output: for a run so long that its rows cannot be kept.
    pub fn silent_agent(&self, configuration: Value) -> Result<Agent> {
        Agent::silent_in(Some(Arc::clone(&self.network)), self.configuration(configuration))
    }

    /// As [`Node::silent_agent`], and waits for nothing.
    pub fn launch(&self, configuration: Value) -> Result<Agent> {
        Agent::launch_silent_in(Some(Arc::clone(&self.network)), self.configuration(configuration))
    }

    fn configuration(&self, configuration: Value) -> Value {
        let mut whole = json!({
            "node_name": NODE,
            "cluster": { "manifests": self.objects.path() },
        });
        crate::agent::merge(&mut whole, configuration);
        whole
    }

    /// Adds a pod, wired as the CNI would have done it, with an object as the API server has it.
    pub fn pod(&mut self, namespace: &str, name: &str, wiring: Wiring) -> Result<NodePod> {
        let container = Pod::new()?;
        let ip = if wiring == Wiring::HostNetwork {
            NODE_IP
        } else {
            self.addresses.get_mut().unwrap_or_else(PoisonError::into_inner).take()?
        };
        let network = match wiring {
            Wiring::HostNetwork => Arc::clone(&self.network),
            _ => Arc::new(Namespace::new()?),
        };
        if wiring != Wiring::HostNetwork {
            self.wire(&network, ip, &wiring.veth(namespace, name))?;
        }
        if let Wiring::Strict { vlan } | Wiring::Standard { vlan } = wiring {
            self.branch(vlan)?;
        }
        let object = objects::pod(namespace, name, &container, ip, wiring);
        let pod = NodePod { container, network, ip, object };
        self.put(&pod.object)?;
        Ok(pod)
    }

    /// Lets replies of the VPC find a pod.
    pub fn admit(&self, pod: &NodePod) -> Result<()> {
        configure(&self.vpc, async |link| link.route_v4(pod.ip, UPLINK_IP).await)
    }

    /// Takes the pod's way to everything but its gateway: what reaches it gets no answer.
    pub fn cut_off(&self, pod: &NodePod) -> Result<()> {
        configure(&pod.network, async |link| link.remove_default_route(GATEWAY).await)
    }

    /// Gives it back.
    pub fn reconnect(&self, pod: &NodePod) -> Result<()> {
        configure(&pod.network, async |link| link.default_route(GATEWAY).await)
    }

    /// Ends a pod: its object, its control group and all that is in it.
    pub fn end(&self, pod: NodePod) -> Result<()> {
        self.remove(&pod.object)?;
        self.addresses.lock().unwrap_or_else(PoisonError::into_inner).give_back(pod.ip);
        drop(pod);
        Ok(())
    }

    /// Makes the device of a branch interface, whose real kind needs a kernel with 802.1q.
    pub fn branch(&self, vlan: u16) -> Result<()> {
        let name = objects::vlan_device(vlan);
        configure(&self.network, async |link| {
            link.veth(&name, &format!("trunk{vlan}"), None).await?;
            link.hardware_address(&name, objects::branch_mac(vlan)).await?;
            link.up(&name).await
        })
    }

    /// Takes the device of a branch interface away.
    pub fn remove_branch(&self, vlan: u16) -> Result<()> {
        configure(&self.network, async |link| link.remove(&objects::vlan_device(vlan)).await)
    }

    /// Writes or changes an object.
    pub fn put(&self, object: &Value) -> Result<()> {
        let path = self.path_of(object);
        let fresh = path.with_extension("new");
        fs::write(&fresh, object.to_string()).with_context(|| format!("write {}", fresh.display()))?;
        fs::rename(&fresh, &path).with_context(|| format!("rename {}", path.display()))
    }

    /// Removes an object.
    pub fn remove(&self, object: &Value) -> Result<()> {
        let path = self.path_of(object);
        fs::remove_file(&path).with_context(|| format!("remove {}", path.display()))
    }

    /// Starts an actor on the host of the VPC, in a control group that is no pod's.
    pub fn vpc_actor(&self, group: &Pod) -> Result<Actor> {
        group.actor(&self.vpc)
    }

    /// Starts the kubelet: an actor of that name in the node's namespace, outside any pod.
    pub fn kubelet(&self) -> Result<Actor> {
        let program = self.objects.path().join("kubelet");
        if !program.exists() {
            fs::copy(actor::program()?, &program).context("copy the actor")?;
        }
        Actor::start_program(&program, &crate::cgroup::mount_point()?, &self.network)
    }

    /// Where the VPC's host listens.
    pub fn vpc_address(port: u16) -> SocketAddr {
        SocketAddr::from((VPC_IP, port))
    }

    fn path_of(&self, object: &Value) -> PathBuf {
        let part = |value: &Value| value.as_str().unwrap_or("none").to_ascii_lowercase();
        let metadata = &object["metadata"];
        let name = format!(
            "{}.{}.{}.json",
            part(&object["kind"]),
            part(metadata.get("namespace").unwrap_or(&Value::Null)),
            part(&metadata["name"])
        );
        Path::new(self.objects.path()).join(name)
    }

    fn wire(&self, network: &Arc<Namespace>, ip: Ipv4Addr, veth: &str) -> Result<()> {
        let peer = network.fd().as_raw_fd();
        configure(&self.network, async |link| {
            link.veth(veth, "eth0", Some(peer)).await?;
            link.address(veth, GATEWAY.into(), 32).await?;
            link.up(veth).await?;
            link.route_over(ip, 32, veth).await
        })?;
        configure(network, async |link| {
            link.up("lo").await?;
            link.address("eth0", ip.into(), 32).await?;
            link.up("eth0").await?;
            link.route_over(GATEWAY, 32, "eth0").await?;
            link.default_route(GATEWAY).await
        })
    }
}

impl Addresses {
    /// One that was free for longest: the kernel takes the interface of an ended pod away some time later.
    fn take(&mut self) -> Result<Ipv4Addr> {
        let mut next = self.last;
        for _ in 0..LAST_ADDRESS {
            next = next % LAST_ADDRESS + 1;
            if self.taken.insert(next) {
                self.last = next;
                return Ok(Ipv4Addr::new(10, 78, 1, next));
            }
        }
        anyhow::bail!("a node of a test has room for {LAST_ADDRESS} pods with addresses of their own")
    }

    fn give_back(&mut self, ip: Ipv4Addr) {
        if let [10, 78, 1, last] = ip.octets() {
            self.taken.remove(&last);
        }
    }
}

fn metadata_addresses(namespace: &Namespace, v4: &[Ipv4Addr]) -> Result<()> {
    configure(namespace, async |link| {
        for ip in v4 {
            link.address("lo", (*ip).into(), 32).await?;
        }
        for ip in [IMDS_V6, POD_IDENTITY_V6] {
            link.address("lo", ip.into(), 128).await?;
        }
        Ok(())
    })
}

impl NodePod {
    /// Starts an actor in the pod.
    pub fn actor(&self) -> Result<Actor> {
        self.container.actor(&self.network)
    }

    /// Its `metadata.uid`.
    pub fn uid(&self) -> &str {
        &self.container.uid
    }
}
