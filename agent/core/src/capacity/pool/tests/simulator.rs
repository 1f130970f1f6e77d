//! ipamd's loop, address by address, with time and chance: the yardstick of the model. It shares nothing with it.

#![expect(clippy::cast_possible_wrap, clippy::cast_possible_truncation, reason = "numbers of addresses are small")]

use crate::capacity::instances::{Hypervisor, InstanceType};
use crate::capacity::pool::{Holding, Settings};

/// Seconds of a turn of the loop.
const STEP_S: u64 = 5;
/// Turns until all is at rest: ten minutes, twenty times the longest wait in the loop for each interface of any type.
const SETTLE_STEPS: u32 = 240;
/// Turns that are looked at then: five minutes, several rounds of anything that swings.
const WATCH_STEPS: u32 = 60;

/// What was there while all was at rest, field by field.
#[derive(Clone, Copy, Debug)]
pub(super) struct Seen {
    pub(super) least: Holding,
    pub(super) most: Holding,
}

/// An address or a prefix.
#[derive(Clone, Debug, Default)]
struct Place {
    used: i64,
    /// When each address that was given back may be used again.
    cooling: Vec<u64>,
}

#[derive(Clone, Debug)]
struct Interface {
    primary: bool,
    born: u64,
    places: Vec<Place>,
}

/// A node.
#[expect(clippy::struct_excessive_bools, reason = "settings as the CNI has them")]
pub(super) struct Simulator {
    now: u64,
    chance: u64,
    most_interfaces: usize,
    per_interface: usize,
    size: i64,
    prefixes: bool,
    custom: bool,
    trunk_wanted: bool,
    trunk: bool,
    max_pods: i64,
    settings: Settings,
    interfaces: Vec<Interface>,
    waiting: u32,
    last_decrease: Option<u64>,
}

impl Simulator {
    pub(super) fn new(of: &InstanceType, settings: &Settings, max_pods: u32, seed: u64) -> Self {
        let prefixes = settings.prefix_delegation && of.hypervisor != Hypervisor::Xen;
        let limit = of.interfaces.min(settings.max_eni.unwrap_or(u32::MAX));
        Self {
            now: 0,
            chance: seed | 1,
            most_interfaces: limit as usize,
            per_interface: of.ipv4_per_interface as usize - 1,
            size: if prefixes { 16 } else { 1 },
            prefixes,
            custom: settings.custom_networking,
            trunk_wanted: settings.pod_eni && of.branch_interfaces > 0,
            trunk: false,
            max_pods: i64::from(max_pods),
            settings: *settings,
            interfaces: vec![Interface { primary: true, born: 0, places: Vec::new() }],
            waiting: 0,
            last_decrease: None,
        }
    }

    /// Pods that have an address.
    pub(super) fn pods(&self) -> u32 {
        u32::try_from(self.assigned()).expect("not negative")
    }

    /// Pods that have an address or wait for one.
    pub(super) fn wanted(&self) -> u32 {
        self.pods() + self.waiting
    }

    /// Pods come, as far as the kubelet takes them.
    pub(super) fn start(&mut self, pods: u32) {
        let room = self.max_pods - self.assigned() - i64::from(self.waiting);
        self.waiting += pods.min(u32::try_from(room.max(0)).expect("small"));
        self.assign();
    }

    /// Pods go, those that wait first.
    pub(super) fn stop(&mut self, pods: u32) {
        for _ in 0..pods {
            if self.waiting > 0 {
                self.waiting -= 1;
                continue;
            }
            let used = self.positions(|place| place.used > 0);
            let Some((interface, place)) = self.pick(&used) else { return };
            let free_again = self.now + 30;
            let place = &mut self.interfaces[interface].places[place];
            place.used -= 1;
            place.cooling.push(free_again);
        }
    }

    pub(super) fn run(&mut self, steps: u32) {
        for _ in 0..steps {
            self.now += STEP_S;
            self.turn();
        }
    }

    /// Lets it come to rest, then looks.
    pub(super) fn settle(&mut self) -> Seen {
        self.run(SETTLE_STEPS);
        let mut seen = Seen { least: self.holding(), most: self.holding() };
        for _ in 0..WATCH_STEPS {
            self.run(1);
            let Holding { interfaces, addresses, prefixes } = self.holding();
            let (least, most) = (&mut seen.least, &mut seen.most);
            *least = Holding {
                interfaces: least.interfaces.min(interfaces),
                addresses: least.addresses.min(addresses),
                prefixes: least.prefixes.min(prefixes),
            };
            *most = Holding {
                interfaces: most.interfaces.max(interfaces),
                addresses: most.addresses.max(addresses),
                prefixes: most.prefixes.max(prefixes),
            };
        }
        seen
    }

    fn turn(&mut self) {
        // The controller attaches the trunk when there is room for it.
        if self.trunk_wanted && !self.trunk && self.interfaces.len() < self.most_interfaces {
            self.trunk = true;
        }
        self.assign();
        if self.is_low() {
            self.increase();
        } else if self.over() > 0 && self.last_decrease.is_none_or(|last| self.now - last > 30) {
            self.decrease();
            self.last_decrease = Some(self.now);
        }
        if self.may_detach() {
            self.detach();
        }
        self.assign();
    }

    // === what ipamd asks ===

    fn total(&self) -> i64 {
        self.interfaces.iter().map(|interface| interface.places.len() as i64).sum::<i64>() * self.size
    }

    fn assigned(&self) -> i64 {
        self.interfaces.iter().flat_map(|interface| &interface.places).map(|place| place.used).sum()
    }

    fn free_prefixes(&self) -> i64 {
        self.positions(|place| place.used == 0).len() as i64
    }

    fn targets_set(&self) -> bool {
        self.settings.warm_ip_target != 0 || self.settings.minimum_ip_target != 0
    }

    /// Addresses that are missing for the targets of addresses.
    fn short_addresses(&self) -> i64 {
        let available = self.total() - self.assigned();
        let short = (i64::from(self.settings.warm_ip_target) - available).max(0);
        short.max(i64::from(self.settings.minimum_ip_target) - self.total())
    }

    fn is_low(&self) -> bool {
        if self.total() >= self.max_pods {
            return false;
        }
        if self.targets_set() {
            return self.short_addresses() > 0;
        }
        let available = self.total() - self.assigned();
        let (target, chunk) = if self.prefixes {
            (self.settings.warm_prefix_target, 16)
        } else {
            (self.settings.warm_eni_target, self.per_interface as i64)
        };
        available < i64::from(target) * chunk || (target == 0 && available == 0)
    }

    /// Places that are too many.
    fn over(&self) -> i64 {
        let (total, assigned) = (self.total(), self.assigned());
        let (warm, minimum) = (i64::from(self.settings.warm_ip_target), i64::from(self.settings.minimum_ip_target));
        match (self.targets_set(), self.prefixes) {
            (true, false) => (total - assigned - warm).max(0).min(total - minimum).max(0),
            (true, true) => {
                let prefixes = total / 16;
                let needed = (assigned + warm + 15) / 16;
                let least = (minimum + 15) / 16;
                self.free_prefixes().min(prefixes - needed).max(0).min(prefixes - least).max(0)
            }
            (false, true) => (self.free_prefixes() - i64::from(self.settings.warm_prefix_target)).max(0),
            (false, false) => 0,
        }
    }

    // === what ipamd does ===

    fn increase(&mut self) {
        let wanted = if self.targets_set() {
            let short = self.short_addresses();
            if self.prefixes { ((short + 15) / 16).max(1) } else { short }
        } else if self.prefixes {
            (i64::from(self.settings.warm_prefix_target) - self.free_prefixes()).max(1)
        } else {
            self.per_interface as i64
        };
        let wanted = usize::try_from(wanted).expect("positive");
        let with_room: Vec<usize> = (0..self.interfaces.len())
            .filter(|&index| !(self.custom && self.interfaces[index].primary))
            .filter(|&index| self.interfaces[index].places.len() < self.per_interface)
            .collect();
        if !with_room.is_empty() {
            let index = with_room[self.chance(with_room.len())];
            let places = &mut self.interfaces[index].places;
            let new = wanted.min(self.per_interface - places.len());
            places.extend(std::iter::repeat_n(Place::default(), new));
            return;
        }
        let reserved = usize::from(self.trunk_wanted && !self.trunk);
        let attached = self.interfaces.len() + usize::from(self.trunk);
        if attached + reserved < self.most_interfaces {
            let places = vec![Place::default(); wanted.min(self.per_interface)];
            self.interfaces.push(Interface { primary: false, born: self.now, places });
        }
    }

    fn decrease(&mut self) {
        let mut over = self.over();
        let first = self.chance(self.interfaces.len());
        let count = self.interfaces.len();
        for index in (0..count).map(|index| (first + index) % count) {
            let places = &mut self.interfaces[index].places;
            places.retain(|place| {
                let goes = over > 0 && place.used == 0;
                over -= i64::from(goes);
                !goes
            });
        }
    }

    fn may_detach(&self) -> bool {
        if self.targets_set() {
            return true;
        }
        let available = self.total() - self.assigned();
        let (target, interface) = if self.prefixes {
            (self.settings.warm_prefix_target, self.per_interface as i64 * 16)
        } else {
            (self.settings.warm_eni_target, self.per_interface as i64)
        };
        available >= (i64::from(target) + 1) * interface || self.prefixes
    }

    fn detach(&mut self) {
        let candidates: Vec<usize> = (0..self.interfaces.len()).filter(|&index| self.is_detachable(index)).collect();
        if !candidates.is_empty() {
            let index = candidates[self.chance(candidates.len())];
            self.interfaces.remove(index);
        }
    }

    fn is_detachable(&self, index: usize) -> bool {
        let interface = &self.interfaces[index];
        let cooling = interface.places.iter().flat_map(|place| &place.cooling).any(|&until| until > self.now);
        let has_pods = interface.places.iter().any(|place| place.used > 0);
        if interface.primary || self.now - interface.born < 60 || cooling || has_pods {
            return false;
        }
        let own = interface.places.len() as i64;
        let (warm, minimum) = (i64::from(self.settings.warm_ip_target), i64::from(self.settings.minimum_ip_target));
        let other_total = self.total() - own * self.size;
        let other_free = other_total - self.assigned();
        let warm = if self.prefixes { (warm + 15) / 16 * 16 } else { warm };
        if warm != 0 && other_free < warm || minimum != 0 && other_total < minimum {
            return false;
        }
        let prefixes = i64::from(self.settings.warm_prefix_target);
        !(self.prefixes && prefixes != 0 && self.free_prefixes() - own < prefixes)
    }

    // === pods ===

    fn assign(&mut self) {
        let now = self.now;
        for place in self.interfaces.iter_mut().flat_map(|interface| &mut interface.places) {
            place.cooling.retain(|&until| until > now);
        }
        while self.waiting > 0 {
            let size = self.size;
            let free = self.positions(|place| place.used + (place.cooling.len() as i64) < size);
            let Some((interface, place)) = self.pick(&free) else { return };
            self.interfaces[interface].places[place].used += 1;
            self.waiting -= 1;
        }
    }

    fn positions(&self, which: impl Fn(&Place) -> bool) -> Vec<(usize, usize)> {
        let mut found = Vec::new();
        for (index, interface) in self.interfaces.iter().enumerate() {
            found.extend(
                interface.places.iter().enumerate().filter(|(_, place)| which(place)).map(|(at, _)| (index, at)),
            );
        }
        found
    }

    fn pick(&mut self, among: &[(usize, usize)]) -> Option<(usize, usize)> {
        if among.is_empty() { None } else { Some(among[self.chance(among.len())]) }
    }

    /// A number below `most`, by xorshift.
    fn chance(&mut self, most: usize) -> usize {
        self.chance ^= self.chance << 13;
        self.chance ^= self.chance >> 7;
        self.chance ^= self.chance << 17;
        (self.chance % most as u64) as usize
    }

    fn holding(&self) -> Holding {
        let narrow = |number: i64| u32::try_from(number).expect("small");
        Holding {
            interfaces: narrow(self.interfaces.len() as i64 + i64::from(self.trunk)),
            addresses: narrow(self.total()),
            prefixes: if self.prefixes { narrow(self.total() / 16) } else { 0 },
        }
    }
}
