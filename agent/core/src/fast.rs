//! Hash maps for the hot path.
//!
//! Seeded per process, so that a workload which chooses addresses and ports cannot prepare collisions. Nothing that the
//! Engine puts out depends on the order of a map, so the seed does not harm replay.

use std::collections::{HashMap, HashSet};

use foldhash::fast::RandomState;

/// A hash map with a cheap hasher.
pub(crate) type FastMap<K, V> = HashMap<K, V, RandomState>;
/// A hash set with a cheap hasher.
pub(crate) type FastSet<K> = HashSet<K, RandomState>;
