//! The VPC CNI's pool of addresses: what a node holds for a number of pods, and why.
//!
//! ipamd keeps addresses ready, so a node holds more of them than it has pods. Its loop is small (`pkg/ipamd/ipamd.go` and
//! `pkg/ipamd/datastore/data_store.go` of <https://github.com/aws/amazon-vpc-cni-k8s>, version 1.23): every few seconds it
//! asks whether too few are free, and adds some to an interface with room, else attaches an interface; else whether too
//! many are free, and gives some back, at most every 30 seconds; and it detaches interfaces without pods. Here stands where
//! that loop comes to rest. For starts from an empty node this is nearly always one answer, in whatever order pods come.
//! After stops it is a range, since the CNI picks the interface, the address and the prefix in no fixed order.

mod recommend;
mod settings;

use super::instances::{Hypervisor, InstanceType};

pub use self::recommend::{Recommendation, recommend};
pub use self::settings::Settings;

/// Addresses of a prefix: a /28.
pub const PREFIX_ADDRESSES: u32 = 16;
/// An address that a pod gave back is not given out again for so long.
pub const ADDRESS_COOLDOWN_S: u32 = 30;
/// ipamd gives addresses back at most once in so long.
pub const DECREASE_INTERVAL_S: u32 = 30;
/// An interface younger than this is not detached.
pub const INTERFACE_MINIMUM_AGE_S: u32 = 60;
/// Longest time between two looks of ipamd at its pool.
pub const LOOP_S: u32 = 5;
/// What attaching an interface takes, by the CNI's documentation (`docs/eni-and-ip-target.md`).
pub const ATTACH_S: u32 = 10;

/// The pool of one node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pool {
    /// Interfaces that can carry addresses for pods.
    carriers: i64,
    /// Places on each: addresses, or prefixes under prefix delegation.
    per_interface: i64,
    /// Addresses a place.
    place: i64,
    /// The first interface carries addresses for pods.
    primary_carries: bool,
    /// An interface is the trunk.
    trunk: bool,
    /// The kubelet's limit: with as many addresses ipamd adds none.
    max_pods: i64,
    targets: Targets,
}

/// What ipamd aims at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Targets {
    /// `WARM_IP_TARGET` and `MINIMUM_IP_TARGET`; either may be 0, not both.
    Addresses { warm: i64, minimum: i64 },
    /// `WARM_ENI_TARGET`, or `WARM_PREFIX_TARGET` under prefix delegation: that many chunks of addresses free.
    Chunks { warm: i64 },
}

/// What a node holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Holding {
    /// Interfaces attached, the first one and the trunk included. Each has a primary address, which no pod gets.
    pub interfaces: u32,
    /// Addresses for pods.
    pub addresses: u32,
    /// Prefixes that these stand in; 0 without prefix delegation.
    pub prefixes: u32,
}

/// Where the pool comes to rest: between these two, ends included.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Held {
    /// The least.
    pub low: Holding,
    /// The most.
    pub high: Holding,
}

/// Calls to EC2 on the way.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Calls {
    /// Addresses or prefixes asked for, on an interface that is there.
    pub assign: u32,
    /// Interfaces made and attached, each with its first addresses.
    pub attach: u32,
}

// === impl Pool ===

impl Pool {
    /// The pool of a node of this type. `max_pods` is the kubelet's.
    pub fn new(of: &InstanceType, settings: &Settings, max_pods: u32) -> Self {
        let prefixes = prefix_delegation(of, settings);
        let most = most_interfaces(of, settings);
        let trunk = has_trunk(of, settings);
        let carriers = most.saturating_sub(u32::from(trunk)).saturating_sub(u32::from(settings.custom_networking));
        let (warm, minimum) = (settings.warm_ip_target, settings.minimum_ip_target);
        let targets = if warm > 0 || minimum > 0 {
            Targets::Addresses { warm: i64::from(warm), minimum: i64::from(minimum) }
        } else {
            let chunks = if prefixes { settings.warm_prefix_target } else { settings.warm_eni_target };
            Targets::Chunks { warm: i64::from(chunks) }
        };
        Self {
            carriers: i64::from(carriers),
            per_interface: i64::from(of.ipv4_per_interface.saturating_sub(1)),
            place: if prefixes { i64::from(PREFIX_ADDRESSES) } else { 1 },
            primary_carries: !settings.custom_networking,
            trunk,
            max_pods: i64::from(max_pods),
            targets,
        }
    }

    /// Most addresses for pods that the interfaces can carry, whatever the targets are.
    pub fn carried(&self) -> u32 {
        narrow(self.most_places() * self.place)
    }

    /// Most prefixes that the interfaces can carry; `None`: without prefix delegation.
    pub fn most_prefixes(&self) -> Option<u32> {
        (self.place > 1).then(|| narrow(self.most_places()))
    }

    /// Most pods that get an address: what the interfaces carry, and, with `MINIMUM_IP_TARGET` alone, what that holds: then
    /// nothing asks for more when the addresses are used up.
    pub fn reachable(&self) -> u32 {
        match self.targets {
            Targets::Addresses { warm: 0, minimum } => {
                narrow((ceil(minimum, self.place) * self.place).min(self.most_places() * self.place))
            }
            _ => self.carried(),
        }
    }

    /// What the node holds once so many pods with addresses of the pool have started, from an empty node. One answer, but
    /// for three cases: with a target of no chunk ipamd attaches and detaches in turn when pods fill chunks exactly; with
    /// more than one warm prefix it matters which prefixes the pods fell on; and where the kubelet's limit ends the growth
    /// it matters how fast the pods came.
    pub fn from_empty(&self, pods: u32) -> Held {
        let pods = self.served(pods);
        let (low, high) = self.places_from_empty(pods);
        Held { low: self.holding(self.filled(low), low), high: self.holding(self.filled(high), high) }
    }

    /// What the node holds for so many pods after there have been as many as `peak`, and any sequence of starts and stops.
    pub fn after_stops(&self, pods: u32, peak: u32) -> Held {
        let (pods, peak) = (self.served(pods), self.served(peak.max(pods)));
        let (low, least_high) = self.places_from_empty(pods);
        let peak_high = self.places_from_empty(peak).1;
        // What keeps places that could go: a pod on each of them, or the targets.
        let kept = match self.targets {
            // Whole interfaces go or stay, the first one always stays.
            Targets::Chunks { warm } if self.place == 1 => {
                let by_pods = pods + i64::from(self.primary_carries);
                by_pods.max(warm + ceil(pods, self.per_interface)) * self.per_interface
            }
            Targets::Chunks { warm } => pods + warm,
            // A single address is free or used.
            Targets::Addresses { .. } if self.place == 1 => 0,
            Targets::Addresses { .. } => pods,
        };
        let high = least_high.max(peak_high.min(kept));
        // Interfaces that came stay while anything on them is needed; without prefixes, an interface without any goes.
        let most_interfaces = self.filled(peak_high);
        let interfaces = match self.targets {
            Targets::Chunks { .. } if self.place == 1 => self.filled(high),
            Targets::Addresses { .. } if self.place == 1 => most_interfaces.min(high + i64::from(self.primary_carries)),
            _ => most_interfaces,
        };
        let high_interfaces = interfaces.max(self.filled(high));
        Held { low: self.holding(self.filled(low), low), high: self.holding(high_interfaces, high) }
    }

    /// Calls to EC2 while so many pods start on an empty node one after the other, each after the pool has settled.
    pub fn calls(&self, pods: u32) -> Calls {
        let (pods, mut calls) = (self.served(pods), Calls::default());
        let (mut places, mut interfaces) = (0, i64::from(self.primary_carries));
        for running in 0..=pods {
            while let Some(wanted) = self.wanted(places, running, places - ceil(running, self.place)) {
                let room = interfaces * self.per_interface - places;
                if room > 0 {
                    calls.assign += 1;
                } else if interfaces < self.carriers {
                    interfaces += 1;
                    calls.attach += 1;
                } else {
                    break;
                }
                places += wanted.min(if room > 0 { room } else { self.per_interface });
            }
        }
        calls
    }

    /// Least and greatest number of places at rest.
    fn places_from_empty(&self, pods: i64) -> (i64, i64) {
        let most = self.most_places();
        let enough = ceil(self.max_pods, self.place);
        let (low, high) = match self.targets {
            Targets::Addresses { warm, minimum } => {
                let target = ceil(minimum.max(pods + warm), self.place);
                // As long as a place is missing and the kubelet's limit is not reached, one is added.
                (target.min(enough), target)
            }
            Targets::Chunks { warm } => {
                let chunk = if self.place == 1 { self.per_interface } else { 1 };
                let chunk_addresses = chunk * self.place;
                let used = ceil(pods, chunk_addresses);
                let enough = ceil(enough, chunk);
                if warm == 0 {
                    // When all are used one more comes, is over the target, and goes: but the first interface stays.
                    let full = pods % chunk_addresses == 0;
                    let first_stays = self.place == 1 && self.primary_carries;
                    let high = (used + i64::from(full)).min(enough.max(1));
                    let low = if first_stays { used.max(1) } else { used };
                    (low.min(enough) * chunk, high.max(low.min(enough)) * chunk)
                } else {
                    let low = (warm + used).min(enough);
                    // Asked for are as many as there are fewer wholly free ones than the target: pods that fell on many
                    // prefixes leave few wholly free.
                    let high = if self.place == 1 || warm == 1 {
                        low
                    } else {
                        (warm + pods).min(2 * warm - 1 + used).min(enough - 1 + warm).max(low)
                    };
                    (low * chunk, high * chunk)
                }
            }
        };
        (low.min(most), high.min(most))
    }

    /// How many places ipamd would add now; `None`: none. `free` is how many prefixes no pod has an address of.
    fn wanted(&self, places: i64, running: i64, free: i64) -> Option<i64> {
        let total = places * self.place;
        if total >= self.max_pods {
            return None;
        }
        let available = total - running;
        match self.targets {
            Targets::Addresses { warm, minimum } => {
                let short = (warm - available).max(0).max(minimum - total);
                Some(ceil(short, self.place)).filter(|&short| short > 0)
            }
            Targets::Chunks { warm } if self.place == 1 => {
                (available < warm * self.per_interface || (warm == 0 && available <= 0)).then_some(self.per_interface)
            }
            Targets::Chunks { warm } => {
                (available < warm * self.place || (warm == 0 && available <= 0)).then_some((warm - free).max(1))
            }
        }
    }

    /// Carrying interfaces that so many places fill; the first interface is there in any case.
    fn filled(&self, places: i64) -> i64 {
        ceil(places, self.per_interface).max(i64::from(self.primary_carries))
    }

    fn holding(&self, carrying: i64, places: i64) -> Holding {
        let others = i64::from(!self.primary_carries) + i64::from(self.trunk);
        Holding {
            interfaces: narrow(carrying + others),
            addresses: narrow(places * self.place),
            prefixes: if self.place == 1 { 0 } else { narrow(places) },
        }
    }

    fn most_places(&self) -> i64 {
        self.carriers * self.per_interface
    }

    /// Pods that get an address.
    fn served(&self, pods: u32) -> i64 {
        i64::from(pods.min(self.reachable())).min(self.max_pods)
    }
}

/// Whether prefixes are used, as they always are with IPv6: Xen types have none, and the CNI then falls back to single
/// addresses.
pub fn prefix_delegation(of: &InstanceType, settings: &Settings) -> bool {
    (settings.prefix_delegation || settings.ipv6) && of.hypervisor != Hypervisor::Xen
}

/// Whether one of the type's interfaces is the trunk: the controller attaches it as soon as there is a place, and ipamd
/// leaves it one.
pub(super) fn has_trunk(of: &InstanceType, settings: &Settings) -> bool {
    settings.pod_eni && of.branch_interfaces > 0 && most_interfaces(of, settings) >= 2
}

/// Interfaces that ipamd and the controller may attach.
fn most_interfaces(of: &InstanceType, settings: &Settings) -> u32 {
    settings.max_eni.filter(|&most| most >= 1).map_or(of.interfaces, |most| most.min(of.interfaces))
}

// === impl Holding ===

impl Holding {
    /// Addresses of the subnet that are taken: those for pods, and each interface's own.
    pub fn total(&self) -> u32 {
        self.addresses.saturating_add(self.interfaces)
    }
}

// === impl Held ===

impl Held {
    /// The one answer, where there is one.
    pub fn exact(&self) -> Option<Holding> {
        (self.low == self.high).then_some(self.low)
    }
}

/// Rounded up; 0 for what is not positive.
fn ceil(number: i64, by: i64) -> i64 {
    if number <= 0 || by <= 0 { 0 } else { (number + by - 1) / by }
}

fn narrow(number: i64) -> u32 {
    u32::try_from(number.max(0)).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests;
