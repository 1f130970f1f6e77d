//! Names of pods on other nodes, as they were looked up. An address is another pod's soon: a look-up holds for a minute.

use std::collections::VecDeque;
use std::net::IpAddr;

use crate::facts::{RemotePod, RemotePodName};
use crate::fast::FastMap;
use crate::time::BootNs;

/// Most addresses kept, at about 200 bytes: 200 KiB. One look-up a second fills 60 of them before they age.
pub const MAX_REMOTE: usize = 1_024;
/// How long a look-up holds. ipamd gives an address out again 30 seconds after its pod is gone; a fold is ten seconds.
pub const REMOTE_VALID_NS: u64 = 30 * 1_000_000_000;

#[derive(Debug, Default)]
pub(super) struct RemotePods {
    names: FastMap<IpAddr, (BootNs, Option<RemotePodName>)>,
    order: VecDeque<(BootNs, IpAddr)>,
}

impl RemotePods {
    pub(super) fn put(&mut self, pod: &RemotePod, now: BootNs) {
        let ip = pod.ip.to_canonical();
        if self.order.len() >= MAX_REMOTE {
            self.drop_oldest();
        }
        self.names.insert(ip, (now, pod.pod.clone()));
        self.order.push_back((now, ip));
    }

    pub(super) fn get(&self, ip: IpAddr, now: BootNs) -> Option<&RemotePodName> {
        let (told, name) = self.names.get(&ip.to_canonical())?;
        name.as_ref().filter(|_| now.since(*told) <= REMOTE_VALID_NS)
    }

    pub(super) fn expire(&mut self, now: BootNs) {
        while self.order.front().is_some_and(|(told, _)| now.since(*told) > REMOTE_VALID_NS) {
            self.drop_oldest();
        }
    }

    fn drop_oldest(&mut self) {
        let Some((told, ip)) = self.order.pop_front() else { return };
        // Looked up again since: that one counts.
        if self.names.get(&ip).is_some_and(|(at, _)| *at == told) {
            self.names.remove(&ip);
        }
    }
}
