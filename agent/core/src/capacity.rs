//! Capacity: how full the node's ceilings are, which one binds first, and what would fit.

mod forecast;
pub mod instances;
mod ipam;
pub mod model;
pub mod plan;
pub mod pool;
mod resource;
mod sample;

pub use self::ipam::{CniEnvironment, IpamAllocation, IpamFacts, IpamInterface, IpamSettings};
pub use self::resource::{Resource, Unit};
pub use self::sample::{Collector, Counter, CounterName, Limit, Sample, Scope};
