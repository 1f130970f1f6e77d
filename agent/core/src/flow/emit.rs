//! The end of a fold: who is asked, rows of one identity become one, and all go out.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use agent_ebpf::wire::{Direction, Owner};

use super::Folder;
use super::mesh;
use super::mirror::Mirrors;
use super::redirects::Redirects;
use super::rows::{Key, Subject, Totals};
use crate::attribution::Attribution;
use crate::backends::Answer;
use crate::books::Books;
use crate::cluster::Cluster;
use crate::ec2::Ec2;
use crate::facts::{PodFacts, Source};
use crate::fast::FastMap;
use crate::output::{
    ActualPeer, AttributionKind, By, FlowRow, Identity, Local, Output, Peer, PeerClass, ProcessView, Protocol, Who,
    Window, direction_name, outcome_name,
};
use crate::peer::{self, Around, NodeAddresses};
use crate::process::ProcessTable;
use crate::time::{BootNs, Clock};

/// What is asked when a fold closes.
pub struct Context<'a> {
    /// Who a cgroup is.
    pub attribution: &'a mut Attribution,
    /// What the cluster calls whom.
    pub cluster: &'a Cluster,
    /// Who a process is.
    pub processes: &'a ProcessTable,
    /// The node's own addresses.
    pub node: &'a NodeAddresses,
    /// What EC2 told: ranges of the VPC, addresses of AWS's services.
    pub ec2: &'a Ec2,
    /// What stands behind translated addresses.
    pub(crate) backends: &'a Answer,
    /// Wall time of the window.
    pub clock: Clock,
    /// Where the records of the rows are written off.
    pub books: &'a mut Books,
}

/// Rows of different cgroups that are one identity are one row; the network namespace is not shown.
#[derive(PartialEq, Eq, Hash)]
struct Shown {
    identity: Arc<Identity>,
    peer: Option<Arc<Identity>>,
    key: Key,
}

impl Folder {
    /// Closes the fold at `end` and puts its rows out, in the order of their first records. Returns its window.
    pub fn close(&mut self, end: BootNs, context: &mut Context<'_>, outputs: &mut Vec<Output>) -> Window {
        let start = self.start.replace(end).unwrap_or(end);
        let window = Window { start: context.clock.wall(start), end: context.clock.wall(end) };
        // What the fold took is given back: quiet folds after a busy one are small.
        let rows = std::mem::take(&mut self.rows).into_rows();
        let rows = merge_by_identity(rows, &mut self.mirrors, context);
        let mut views = FastMap::default();
        let redirects = &self.redirects;
        let around = Around {
            node: context.node,
            services: context.cluster.services(),
            pods: context.cluster.pods().addresses().collect(),
            vpc: context.ec2.vpc_ranges(),
            aws: peer::published(context.ec2),
        };
        outputs.reserve(rows.len());
        for (shown, totals) in rows {
            for (ledger, records) in totals.records.iter() {
                context.books.folded(ledger, records, shown.key.merged);
            }
            let mut row = row(shown, &totals, (window, end), &mut views, &around, context);
            if !row.merged
                && let Some(proxy) = proxy_of(redirects, &totals)
            {
                row.actual_peer = Some(ActualPeer { ip: proxy.ip(), port: proxy.port() });
            }
            outputs.push(Output::Flow(Box::new(row)));
        }
        self.redirects.begin();
        window
    }
}

fn merge_by_identity(
    rows: Vec<(Key, Totals)>,
    mirrors: &mut Mirrors,
    context: &mut Context<'_>,
) -> Vec<(Shown, Totals)> {
    mirrors.begin();
    let who: Vec<_> = rows.iter().map(|(key, _)| identity(key.subject, context)).collect();
    for ((key, _), identity) in rows.iter().zip(&who) {
        mirrors.note(key, identity);
    }
    let mut index: FastMap<Shown, usize> = FastMap::default();
    let mut sums: Vec<Totals> = Vec::with_capacity(rows.len());
    for ((key, totals), identity) in rows.into_iter().zip(who) {
        let peer = mirrors.other_end(&key).map(Arc::clone);
        let key = Key { subject: Subject::Cgroup(0), netns: 0, ..key };
        match index.entry(Shown { identity, peer, key }) {
            std::collections::hash_map::Entry::Occupied(entry) => {
                if let Some(sum) = sums.get_mut(*entry.get()) {
                    sum.absorb(totals);
                }
            }
            std::collections::hash_map::Entry::Vacant(entry) => {
                entry.insert(sums.len());
                sums.push(totals);
            }
        }
    }
    let mut shown: Vec<_> = index.into_iter().collect();
    shown.sort_unstable_by_key(|(_, row)| *row);
    shown.into_iter().map(|(shown, _)| shown).zip(sums).collect()
}

fn identity(subject: Subject, context: &mut Context<'_>) -> Arc<Identity> {
    match subject {
        Subject::Cgroup(id) => context.attribution.who(id, None, context.cluster.pods()),
        Subject::RootProcess(owner) => {
            let v1 = context.processes.get(owner).and_then(|process| process.v1());
            context.attribution.who(crate::cgroup::ROOT_ID, v1.map(|cgroup| &**cgroup), context.cluster.pods())
        }
    }
}

type Views = FastMap<(Owner, By, Option<Arc<str>>), Arc<ProcessView>>;

fn row(
    shown: Shown,
    totals: &Totals,
    (window, now): (Window, BootNs),
    views: &mut Views,
    around: &Around<'_>,
    context: &Context<'_>,
) -> FlowRow {
    let Shown { identity, peer, key } = shown;
    let own = context.cluster.pods().of_cgroup(&identity.uid).map(|pod| &*pod.facts);
    let own = own.filter(|_| identity.attribution == AttributionKind::Pod);
    let container = identity.container.clone();
    let peer = match own.filter(|pod| is_itself(pod, &key)) {
        Some(pod) => itself(pod, &key),
        None => peer_of(&key, peer.as_deref(), now, around, context),
    };
    let process = totals.processes.first.map(|(_, owner, by)| {
        let view = views.entry((owner, by, key.exe.clone())).or_insert_with(|| {
            let mut view = context.processes.view(owner, by);
            // It has started another program since: the row tells the one that its connections were of.
            if view.exe.as_deref() != key.exe.as_deref() {
                view.exe = key.exe.as_deref().map(ToOwned::to_owned);
                view.exe_resolved = None;
                view.args.clear();
            }
            Arc::new(view)
        });
        Arc::clone(view)
    });
    FlowRow {
        who: Who { identity, process },
        window,
        direction: direction_name(key.direction),
        protocol: key.protocol,
        local: Local { ip: key.local.map(|ip| ip.to_string()) },
        peer,
        actual_peer: actual_peer(&key, totals, context.backends),
        via: own.and_then(|pod| mesh::via(pod, &container, key.protocol)),
        service_port: key.service_port,
        outcome: key.outcome.map(outcome_name),
        connections: totals.connections,
        open: totals.open,
        processes: totals.processes.count(),
        bytes_sent: totals.bytes_sent,
        bytes_received: totals.bytes_received,
        retransmits: (key.protocol == Some(Protocol::Tcp)).then_some(totals.retransmits),
        rtt_us: totals.rtt_us,
        merged: key.merged,
        preexisting: totals.preexisting,
        // Told once all rows are there.
        sg: None,
        rtt: totals.rtt,
        records: totals.records,
    }
}

/// The proxy in the pod that accepted all connections of a row, if that is certain.
fn proxy_of(redirects: &Redirects, totals: &Totals) -> Option<SocketAddr> {
    redirects.proxy_of(totals.redirected.as_deref()?, totals.records.total())
}

/// Whether a pod with a network of its own talks to itself.
fn is_itself(pod: &PodFacts, key: &Key) -> bool {
    let is_own = |ip: IpAddr| ip.is_loopback() || pod.ips.iter().any(|own| own.to_canonical() == ip);
    !pod.host_network && key.remote.is_some_and(is_own)
}

fn itself(pod: &PodFacts, key: &Key) -> Peer {
    Peer {
        ip: key.remote.map(|ip| ip.to_string()),
        class: PeerClass::ClusterPod,
        name: None,
        namespace: Some(pod.namespace.to_string()),
        pod: Some(pod.name.to_string()),
    }
}

/// The backend of all connections of a row, if it is one, and certain.
fn actual_peer(key: &Key, totals: &Totals, backends: &Answer) -> Option<ActualPeer> {
    let ports = totals.ports.as_ref()?.all()?;
    backends.of(key.connections(ports).map(|(connection, _)| connection))
}

fn peer_of(key: &Key, other_end: Option<&Identity>, now: BootNs, around: &Around<'_>, context: &Context<'_>) -> Peer {
    let service = match key.direction {
        Direction::Outbound => key.service_port.zip(key.protocol),
        _ => None,
    };
    let mut class = key.remote.map_or(PeerClass::Unknown, |ip| around.class(ip, service));
    // Addresses of pods look private, or global in IPv6 clusters; that it is one was seen at its own end, or looked up.
    let may_be_pod = matches!(class, PeerClass::Unknown | PeerClass::Internet | PeerClass::Vpc | PeerClass::ClusterPod);
    let (namespace, pod, is_pod) = match other_end {
        Some(other_end) => {
            let pod = if other_end.pod.is_empty() { &other_end.workload } else { &other_end.pod };
            let is_pod = other_end.attribution == AttributionKind::Pod;
            (Some(other_end.namespace.clone()), Some(pod.clone()), is_pod)
        }
        // Not on this node, as far as was seen: as a look-up tells, unless the address is one that no pod has.
        None => match key.remote.and_then(|ip| context.cluster.remote(ip, now)) {
            Some(remote) if may_be_pod => (Some(remote.namespace.to_string()), Some(remote.pod.to_string()), true),
            _ => (None, None, false),
        },
    };
    if is_pod && may_be_pod {
        class = PeerClass::ClusterPod;
    }
    let ip = key.remote.map(|ip| ip.to_string());
    // As the pod asked for it.
    let asked = key.name.as_deref().map(ToOwned::to_owned);
    let of_service = || {
        let (port, protocol) = service?;
        let is_recent = context.cluster.is_recent(Source::Services, context.clock.wall(now));
        context.cluster.services().at(key.remote?, port, protocol).filter(|_| is_recent)
    };
    if matches!(class, PeerClass::Service | PeerClass::KubeApi)
        && pod.is_none()
        && let Some(of) = of_service()
    {
        let name = asked.or_else(|| Some(format!("{}.{}.svc", of.name, of.namespace)));
        return Peer { ip, class, name, namespace: Some(of.namespace.to_string()), pod: None };
    }
    Peer { ip, class, name: asked, namespace, pod }
}
