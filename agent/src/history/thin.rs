//! Capacity samples, thinned: a resource is written every five minutes, and at once when its limit changes, when it is
//! used up, or when it has room again.

use std::collections::BTreeMap;

use agent_core::output::{CapacityRow, ResourceRow};
use agent_core::time::WallNs;

/// Between two samples of one resource and scope.
const EVERY_NS: i64 = 300 * 1_000_000_000;
/// Resources and scopes remembered: 26 resources, most of them per node, a few per pod of 250, interface and file system.
/// At about 150 bytes, 0.6 MiB. Beyond it all are forgotten and so written anew.
const SCOPES_MAX: usize = 4_096;

/// What was written last, by resource and scope.
#[derive(Default)]
pub(super) struct Thin(BTreeMap<(&'static str, String), Last>);

struct Last {
    time: WallNs,
    limit: Option<u64>,
    used_up: bool,
}

impl Thin {
    /// Forgets what was written: it may stand in no file.
    pub(super) fn clear(&mut self) {
        self.0.clear();
    }

    /// The part of a row that is to be written; `None` for nothing.
    pub(super) fn due(&mut self, row: &CapacityRow) -> Option<CapacityRow> {
        // The pool is what its own sources say at any time, and so are pods that wait; the history keeps the ceilings.
        let CapacityRow { time, resources, pods_fit, binding_resource, pool: _, pods_waiting: _, left_out: _ } = row;
        let resources: Vec<_> = resources.iter().filter(|resource| self.is_due(resource, *time)).cloned().collect();
        (!resources.is_empty()).then_some(CapacityRow {
            time: *time,
            resources,
            pods_fit: *pods_fit,
            binding_resource: *binding_resource,
            ..CapacityRow::default()
        })
    }

    fn is_due(&mut self, row: &ResourceRow, time: WallNs) -> bool {
        let key = (row.resource.name(), row.scope.clone());
        let used_up = row.headroom == Some(0);
        if let Some(last) = self.0.get(&key) {
            // A clock that was set back must not keep samples away.
            let age = time.0.saturating_sub(last.time.0);
            if (0..EVERY_NS).contains(&age) && last.limit == row.limit && last.used_up == used_up {
                return false;
            }
        } else if self.0.len() >= SCOPES_MAX {
            self.0.clear();
        }
        self.0.insert(key, Last { time, limit: row.limit, used_up });
        true
    }
}

#[cfg(test)]
mod tests {
    use agent_core::capacity::{Resource, Unit};
    use agent_core::output::Exhaustion;

    use super::*;

    fn row(second: i64, used: u64, limit: u64) -> CapacityRow {
        let resource = ResourceRow {
            resource: Resource::PodIps,
            scope: "node".to_owned(),
            used: Some(used),
            limit: Some(limit),
            unit: Unit::Count,
            source: "x".to_owned(),
            age_s: 0,
            headroom: Some(limit - used),
            exhaustion_s: Exhaustion::NotGrowing,
        };
        let time = WallNs(second * 1_000_000_000);
        CapacityRow { time, resources: vec![resource], ..CapacityRow::default() }
    }

    #[test]
    fn a_sample_is_kept_every_five_minutes_or_when_it_matters() {
        let mut thin = Thin::default();
        let kept = |thin: &mut Thin, second, used, limit| thin.due(&row(second, used, limit)).is_some();
        assert!(kept(&mut thin, 0, 1, 10));
        assert!(!kept(&mut thin, 30, 2, 10));
        assert!(kept(&mut thin, 60, 2, 12), "another limit");
        assert!(kept(&mut thin, 90, 12, 12), "used up");
        assert!(!kept(&mut thin, 120, 12, 12));
        assert!(kept(&mut thin, 150, 11, 12), "room again");
        assert!(!kept(&mut thin, 449, 11, 12));
        assert!(kept(&mut thin, 450, 11, 12), "five minutes");
        assert!(kept(&mut thin, 100, 11, 12), "the clock was set back");
    }
}
