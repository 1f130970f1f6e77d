//! One ceiling as one source tells it, and what several sources together tell.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::capacity::{Resource, Scope};

/// A ceiling.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Line {
    pub(super) resource: Resource,
    pub(super) scope: Scope,
    pub(super) used: Option<u64>,
    pub(super) limit: Option<u64>,
    pub(super) source: Arc<str>,
    pub(super) age_s: u64,
}

impl Line {
    /// What is left.
    pub(super) fn headroom(&self) -> Option<u64> {
        Some(self.limit?.saturating_sub(self.used?))
    }

    /// How full, in parts of 65,536.
    pub(super) fn filled(&self) -> Option<u64> {
        filled(self.used?, self.limit?)
    }
}

/// How full, in parts of 65,536; a limit of nothing is full.
pub(super) fn filled(used: u64, limit: u64) -> Option<u64> {
    if limit == 0 {
        return Some(65_536);
    }
    u64::try_from(u128::from(used) * 65_536 / u128::from(limit)).ok().or(Some(u64::MAX))
}

/// One line for each resource and scope: of those that know both figures the one with the least left; where one source
/// knows what is used and another what the limit is, both together.
pub(super) fn merge(lines: Vec<Line>) -> Vec<Line> {
    let mut by_key: BTreeMap<(Resource, Scope), Vec<Line>> = BTreeMap::new();
    for line in lines {
        by_key.entry((line.resource, line.scope.clone())).or_default().push(line);
    }
    by_key.into_values().filter_map(merge_one).collect()
}

fn merge_one(mut lines: Vec<Line>) -> Option<Line> {
    let used = lines.iter().find(|line| line.used.is_some()).cloned();
    for line in &mut lines {
        if let (None, Some(other)) = (line.used, &used) {
            line.used = other.used;
            line.age_s = line.age_s.max(other.age_s);
            line.source = super::shared(format!("{}; {}", other.source, line.source));
        }
    }
    // Known headroom before unknown, then the least; among equals the first.
    lines.into_iter().min_by_key(|line| (line.headroom().is_none(), line.headroom()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(used: Option<u64>, limit: Option<u64>, source: &str) -> Line {
        Line {
            resource: Resource::Threads,
            scope: Scope::Node,
            used,
            limit,
            source: Arc::from(source),
            age_s: u64::from(used.is_some()) * 7,
        }
    }

    #[test]
    fn the_limit_with_the_least_left_binds() {
        let merged = merge(vec![
            line(Some(10), Some(4_194_304), "pid_max"),
            line(Some(10), Some(30), "threads-max"),
            line(Some(10), None, "unlimited"),
        ]);
        assert_eq!(merged, [line(Some(10), Some(30), "threads-max")]);
    }

    #[test]
    fn one_tells_what_is_used_and_another_the_limit() {
        let merged = merge(vec![line(None, Some(58), "kubelet"), line(Some(12), None, "pods")]);
        let [both] = &merged[..] else { panic!("{merged:?}") };
        assert_eq!((both.used, both.limit, both.headroom(), both.age_s), (Some(12), Some(58), Some(46), 7));
        assert_eq!(&*both.source, "pods; kubelet");
    }

    #[test]
    fn absent_is_not_zero() {
        let merged = merge(vec![line(None, Some(58), "kubelet")]);
        assert_eq!(merged.first().and_then(Line::headroom), None);
        assert_eq!((filled(0, 0), filled(u64::MAX, 1), filled(1, 2)), (Some(65_536), Some(u64::MAX), Some(32_768)));
    }
}
