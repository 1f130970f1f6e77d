//! Interfaces of the instance that carry no addresses for pods though they take a place: such as ipamd was told to leave
//! alone (tag `node.k8s.amazonaws.com/no_manage`) and such as it was told to keep pods off. ipamd attaches one more only
//! while it has fewer than the type's interfaces without these.

use crate::capacity::IpamFacts;
use crate::capacity::instances::InstanceType;
use crate::capacity::pool::Settings;
use crate::time::BootNs;

/// An interface that the kernel sees and ipamd does not is taken for unmanaged after so long. Attaching one takes ten
/// seconds, ipamd looks for new ones every minute, and its introspection is read every 75 s at least.
const SETTLED_NS: u64 = 300_000_000_000;

/// How many interfaces ipamd leaves alone.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Unmanaged {
    count: u64,
    /// Since when more than these are seen.
    more_since: Option<BootNs>,
}

// === impl Unmanaged ===

impl Unmanaged {
    /// So many interfaces are attached, and so many of them are ipamd's.
    pub(super) fn see(&mut self, attached: u64, managed: u64, now: BootNs) {
        let seen = attached.saturating_sub(managed);
        if seen <= self.count {
            *self = Self { count: seen, more_since: None };
            return;
        }
        let since = *self.more_since.get_or_insert(now);
        if now.since(since) >= SETTLED_NS {
            *self = Self { count: seen, more_since: None };
        }
    }

    pub(super) fn count(self) -> u64 {
        self.count
    }
}

/// The CNI's settings as if the interfaces that carry nothing could not be attached.
pub(super) fn settings(settings: Settings, of: &InstanceType, ipam: &IpamFacts, unmanaged: u64) -> Settings {
    // The pool is the first network card's.
    let excluded = || ipam.interfaces.iter().filter(|interface| interface.excluded && interface.card == 0);
    let others = excluded().filter(|interface| !interface.primary && !interface.trunk).count() as u64;
    // On which card an unmanaged one is, nobody tells.
    let unmanaged = if of.interfaces == of.interfaces_total { unmanaged } else { 0 };
    let left_out = u32::try_from(others.saturating_add(unmanaged)).unwrap_or(u32::MAX);
    let first = settings.custom_networking || excluded().any(|interface| interface.primary);
    Settings { custom_networking: first, ..settings }.without(left_out, of)
}
