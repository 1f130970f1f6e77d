//! What the CNI's pool holds on this node, why, and with which settings it would hold less.

use super::carrying;
use super::derived::{assigned, instance, max_pods, settings};
use super::known::Known;
use super::readings::Readings;
use crate::capacity::pool::{Pool, Settings, prefix_delegation, recommend};
use crate::output::{PoolAdvice, PoolRow};
use crate::time::BootNs;

/// Why there is nothing to count.
const WHY_IPV6: &str =
    "IPv6: the node's prefix (/80) has 2^48 addresses and the warm targets do not count; max-pods binds";

/// `None`: ipamd does not tell, or there is no such pool.
pub(super) fn row(readings: &Readings, known: &Known, now: BootNs) -> Option<PoolRow> {
    let (ipam, _) = readings.ipam(now)?;
    let assigned = u32::try_from(assigned(ipam)?).ok()?;
    let settings = settings(ipam, known);
    if settings.as_ref().is_some_and(|(settings, _)| settings.ipv6) {
        return Some(PoolRow { why: Some(WHY_IPV6.to_owned()), ..bare(None, assigned) });
    }
    let held = ipam.total?;
    let mut row = bare(Some(held), assigned);
    if let (Some(of), Some((settings, told_by))) = (instance(readings, known), settings) {
        let settings = Settings::from(&settings);
        let max_pods = max_pods(readings, known, &of, &settings, now);
        let settings = carrying::settings(settings, &of, ipam, readings.unmanaged());
        // How many pods there were is not known: as many as ever could.
        let expected = Pool::new(&of, &settings, max_pods).after_stops(assigned, max_pods);
        let least = Pool::new(&of, &settings, max_pods).from_empty(assigned).high.addresses;
        row.expected_least = Some(expected.low.addresses);
        row.expected_most = Some(expected.high.addresses);
        row.why = Some(why(&settings, prefix_delegation(&of, &settings), told_by, held > least));
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

/// What is held and used, and nothing about why. Without a figure of what is held: IPv6.
fn bare(held: Option<u32>, assigned: u32) -> PoolRow {
    PoolRow {
        ipv6: held.is_none(),
        addresses_held: held,
        assigned,
        free: held.map(|held| held.saturating_sub(assigned)),
        why: None,
        expected_least: None,
        expected_most: None,
        recommended: None,
    }
}

fn why(settings: &Settings, prefixes: bool, told_by: &str, more: bool) -> String {
    let mut why = if settings.warm_ip_target > 0 || settings.minimum_ip_target > 0 {
        format!("WARM_IP_TARGET={} MINIMUM_IP_TARGET={}", settings.warm_ip_target, settings.minimum_ip_target)
    } else if prefixes {
        format!("WARM_PREFIX_TARGET={}: that many prefixes of 16 stay free", settings.warm_prefix_target)
    } else {
        format!("WARM_ENI_TARGET={}: that many interfaces of addresses stay free", settings.warm_eni_target)
    };
    if told_by.contains("environment") {
        why.push_str(" (aws-node's environment)");
    }
    if more {
        why.push_str("; and pods that came and went left what others still hold on to");
    }
    why
}
