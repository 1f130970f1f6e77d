//! What the CNI's pool holds on this node, why, and with which settings it would hold less.

use super::derived::{assigned, instance, max_pods};
use super::known::Known;
use super::readings::Readings;
use crate::capacity::pool::{Pool, Settings, prefix_delegation, recommend};
use crate::output::{PoolAdvice, PoolRow};
use crate::time::BootNs;

/// `None`: ipamd does not tell, or there is no such pool.
pub(super) fn row(readings: &Readings, known: &Known, now: BootNs) -> Option<PoolRow> {
    let (ipam, _) = readings.ipam(now)?;
    let (held, assigned) = (ipam.total?, u32::try_from(assigned(ipam)?).ok()?);
    let ipv6 = ipam.settings.as_ref().is_some_and(|settings| settings.ipv6);
    if ipv6 {
        return None;
    }
    let mut row = PoolRow {
        addresses_held: held,
        assigned,
        free: held.saturating_sub(assigned),
        why: None,
        expected_least: None,
        expected_most: None,
        recommended: None,
    };
    if let (Some(of), Some(settings)) = (instance(readings, known), &ipam.settings) {
        let settings = Settings::from(settings);
        let max_pods = max_pods(readings, known, &of, &settings, now);
        // How many pods there were is not known: as many as ever could.
        let expected = Pool::new(&of, &settings, max_pods).after_stops(assigned, max_pods);
        let least = Pool::new(&of, &settings, max_pods).from_empty(assigned).high.addresses;
        row.expected_least = Some(expected.low.addresses);
        row.expected_most = Some(expected.high.addresses);
        row.why = Some(why(&settings, prefix_delegation(&of, &settings), held > least));
        row.recommended = recommend(&of, &settings, max_pods, assigned).map(|found| PoolAdvice {
            warm_ip_target: found.settings.warm_ip_target,
            minimum_ip_target: found.settings.minimum_ip_target,
            addresses_held: found.held.high.addresses,
            addresses_saved: held.saturating_sub(found.held.high.addresses),
            burst_pods: found.burst,
        });
        row.recommended = row.recommended.filter(|advice| advice.addresses_saved > 0);
    }
    Some(row)
}

fn why(settings: &Settings, prefixes: bool, more: bool) -> String {
    let mut why = if settings.warm_ip_target > 0 || settings.minimum_ip_target > 0 {
        format!("WARM_IP_TARGET={} MINIMUM_IP_TARGET={}", settings.warm_ip_target, settings.minimum_ip_target)
    } else if prefixes {
        format!("WARM_PREFIX_TARGET={}: that many prefixes of 16 stay free", settings.warm_prefix_target)
    } else {
        format!("WARM_ENI_TARGET={}: that many interfaces of addresses stay free", settings.warm_eni_target)
    };
    if more {
        why.push_str("; and pods that came and went left what others still hold on to");
    }
    why
}
