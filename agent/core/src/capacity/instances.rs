//! What EC2 instance types can hold: a table compiled in, looked up by name.
//!
//! `cargo xtask instances` writes the table from `agent/core/data/instance-types.csv`; CONTRIBUTING.md says where the
//! figures come from and how they are renewed. What the node itself says wins over the table.

mod table;

/// What is known of an instance type. `None`: the sources do not say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InstanceType {
    /// As `m5.large`.
    pub name: &'static str,
    /// Virtual CPUs.
    pub vcpus: Option<u32>,
    /// Memory, MiB.
    pub memory_mib: Option<u32>,
    /// Network interfaces of the default network card: those that carry addresses for pods.
    pub interfaces: u32,
    /// Network interfaces of all network cards.
    pub interfaces_total: u32,
    /// Network cards.
    pub network_cards: u32,
    /// IPv4 addresses an interface, its primary one included.
    pub ipv4_per_interface: u32,
    /// Branch interfaces of a trunk; 0: no trunk can be attached.
    pub branch_interfaces: u32,
    /// What runs below.
    pub hypervisor: Hypervisor,
    /// Network bandwidth that it always has, Mbit/s.
    pub network_mbps: Option<u32>,
    /// Network bandwidth that it has for a while, Mbit/s.
    pub network_peak_mbps: Option<u32>,
    /// EBS volumes.
    pub volumes: VolumeLimit,
    /// EBS bandwidth that it always has, Mbit/s.
    pub ebs_mbps: Option<u32>,
    /// EBS bandwidth that it has for a while, Mbit/s.
    pub ebs_peak_mbps: Option<u32>,
    /// EBS operations a second that it always has.
    pub ebs_iops: Option<u32>,
    /// EBS operations a second that it has for a while.
    pub ebs_peak_iops: Option<u32>,
    /// How long the network card keeps an idle established TCP connection unless configured otherwise, seconds.
    pub conntrack_tcp_s: Option<u32>,
}

/// What runs below an instance.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hypervisor {
    /// AWS Nitro.
    Nitro,
    /// Xen: the generations before.
    Xen,
    /// None: a bare metal type.
    Metal,
}

/// How many EBS volumes can be attached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct VolumeLimit {
    /// Attachments, the root volume included.
    pub attachments: u32,
    /// Network interfaces beyond the first take a place each.
    pub shared: bool,
}

impl VolumeLimit {
    /// What holds for types that nobody gives a figure for, whatever runs below them: 28 places, one of them the first
    /// interface's. The smaller of the EBS CSI driver's defaults: too few volumes is the safe error.
    pub(crate) const DEFAULT: Self = Self { attachments: 27, shared: true };
    /// Places of the root volume, as the EBS CSI driver reserves them.
    const ROOT: u32 = 1;

    /// Volumes that pods can have beside the root volume when so many interfaces are attached; at least 1, as the EBS CSI
    /// driver reports. Branch interfaces are not attached to the instance and do not count.
    pub fn slots(self, interfaces: u32) -> u32 {
        let taken = if self.shared { interfaces.saturating_sub(1) } else { 0 };
        self.attachments.saturating_sub(Self::ROOT).saturating_sub(taken).max(1)
    }
}

/// All types, in the order of their names' bytes.
pub fn instance_types() -> impl ExactSizeIterator<Item = InstanceType> {
    table::ROWS.iter().map(Row::decode)
}

/// A type by its name.
pub fn instance_type(name: &str) -> Option<InstanceType> {
    let index = table::ROWS.binary_search_by(|row| row.name().cmp(name)).ok()?;
    table::ROWS.get(index).map(Row::decode)
}

/// Names of types that look most like this one, the nearest first.
pub fn nearest(name: &str, most: usize) -> Vec<&'static str> {
    // Longer than any name: nothing is near, and comparing takes time by length.
    if name.len() > 4 * NAME_BYTES {
        return Vec::new();
    }
    let name = name.to_lowercase();
    let mut scored: Vec<_> = table::ROWS.iter().map(|row| (strsim::jaro_winkler(&name, row.name()), row)).collect();
    scored.sort_by(|a, b| b.0.total_cmp(&a.0));
    scored.into_iter().take(most).filter(|(score, _)| *score > LEAST_LIKENESS).map(|(_, row)| row.name()).collect()
}

/// Jaro-Winkler likeness of names that are worth a mention: `m5large` and `m5.large` have 0.98, unrelated ones about 0.5.
const LEAST_LIKENESS: f64 = 0.75;
/// Bytes of the longest name: `u7in-32tb.224xlarge` has 19.
const NAME_BYTES: usize = 20;

/// A type as it stands in the table: 60 bytes without a pointer, so 1,401 of them are 83 KiB that no loader has to touch.
/// 0: not known.
#[derive(Debug)]
struct Row {
    name: [u8; NAME_BYTES],
    /// Memory MiB, network and its peak Mbit/s, EBS and its peak Mbit/s, EBS operations and their peak.
    wide: [u32; 7],
    vcpus: u16,
    /// Interfaces, interfaces of all cards, cards, addresses an interface, branch interfaces, EBS attachments, then codes:
    /// hypervisor (0 Nitro, 1 Xen, 2 none), attachments shared with interfaces (1), idle time of connections (1: 350 s, 2:
    /// 432,000 s).
    narrow: [u8; 9],
}

/// A row of the table. A longer name is cut: the generator refuses it.
const fn row(text: &str, vcpus: u16, wide: [u32; 7], narrow: [u8; 9]) -> Row {
    let mut name = [0; NAME_BYTES];
    let bytes = text.as_bytes();
    let mut index = 0;
    while index < bytes.len() && index < NAME_BYTES {
        name[index] = bytes[index];
        index += 1;
    }
    Row { name, wide, vcpus, narrow }
}

// === impl Row ===

impl Row {
    fn name(&self) -> &str {
        let end = self.name.iter().position(|&byte| byte == 0).unwrap_or(NAME_BYTES);
        self.name.get(..end).and_then(|name| std::str::from_utf8(name).ok()).unwrap_or_default()
    }

    fn decode(&'static self) -> InstanceType {
        let known = |figure: u32| Some(figure).filter(|&figure| figure != 0);
        let [memory, network, network_peak, ebs, ebs_peak, iops, iops_peak] = self.wide;
        let [interfaces, total, cards, ipv4, branch, attachments, hypervisor, shared, conntrack] =
            self.narrow.map(u32::from);
        let hypervisor = match hypervisor {
            0 => Hypervisor::Nitro,
            1 => Hypervisor::Xen,
            _ => Hypervisor::Metal,
        };
        let volumes = match attachments {
            0 => VolumeLimit::DEFAULT,
            _ => VolumeLimit { attachments, shared: shared == 1 },
        };
        InstanceType {
            name: self.name(),
            vcpus: known(u32::from(self.vcpus)),
            memory_mib: known(memory),
            interfaces,
            interfaces_total: total,
            network_cards: cards,
            ipv4_per_interface: ipv4,
            branch_interfaces: branch,
            hypervisor,
            network_mbps: known(network),
            network_peak_mbps: known(network_peak),
            volumes,
            ebs_mbps: known(ebs),
            ebs_peak_mbps: known(ebs_peak),
            ebs_iops: known(iops),
            ebs_peak_iops: known(iops_peak),
            conntrack_tcp_s: match conntrack {
                1 => Some(350),
                2 => Some(432_000),
                _ => None,
            },
        }
    }
}

#[cfg(test)]
mod tests;
