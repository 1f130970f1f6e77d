//! What the Engine knows, for whoever asks: the books, the ledger, the cluster, the node's ceilings, what EC2 should be asked.

use super::Engine;
use crate::backends::Connection;
use crate::books::Books;
use crate::cluster::Cluster;
use crate::continuity::{Losses, Place};
use crate::ec2::{self, Ec2};
use crate::facts::Ec2Wishes;
use crate::finding::Ledger as Findings;
use crate::finding::TokenRow;
use crate::finding::ledger::{RestoreError, Snapshot};
use crate::flow_groups::audit::{Audit, audit};
use crate::output::{CapacityRow, Identity};
use crate::process::ProcessTable;
use crate::time::Moment;
use crate::traffic::{TrafficBasis, TrafficRow};

impl Engine {
    /// Where all records ended.
    pub fn books(&self) -> &Books {
        &self.books
    }

    /// For whoever drops records before they get here, or rows after.
    pub fn books_mut(&mut self) -> &mut Books {
        &mut self.books
    }

    /// What stands before this in the metadata ring stands in the outputs so far; `None` for rings that end with the agent.
    pub fn told(&self) -> Option<Place> {
        let held = self.held.iter().filter_map(|held| held.row.origin.map(|origin| origin.place)).min();
        self.told.map(|told| held.map_or(told, |held| told.min(held)))
    }

    /// By ledger, what the kernel did not write and the outputs so far tell of.
    pub fn told_unwritten(&self) -> Losses {
        let at_once = self.books.told_at_once();
        std::array::from_fn(|index| match (at_once.get(index), self.merged_told.get(index)) {
            (Some(at_once), Some(merged)) => at_once.saturating_add(*merged),
            _ => 0,
        })
    }

    /// Who lives on this node now, silent ones included; an identity comes once for each of its cgroups.
    pub fn living(&self) -> impl Iterator<Item = Identity> {
        self.attribution.living(self.cluster.pods())
    }

    /// Who sent and received how much, in no order, and what that rests on.
    pub fn traffic(&self) -> (Vec<TrafficRow>, TrafficBasis) {
        (self.traffic.rows(self.living(), self.now), self.traffic.basis())
    }

    /// What was found.
    pub fn ledger(&self) -> &Findings {
        self.findings.ledger()
    }

    /// Takes in what was found before a restart, ahead of all inputs but the first. `same_boot`: boot times in it are of
    /// this boot. Returns how many findings that were.
    pub fn restore(&mut self, before: Snapshot, same_boot: bool) -> Result<usize, RestoreError> {
        let now = Moment { boot: self.now, wall: self.clock.wall(self.now) };
        self.findings.restore(before, same_boot, self.goes_on, now)
    }

    /// Whether there is anything to keep for the next start.
    pub fn keeps(&self) -> bool {
        self.findings.keeps()
    }

    /// What was found and what the next start is to know besides.
    pub fn snapshot(&self) -> Snapshot {
        self.findings.snapshot(&self.cluster, self.is_stopped)
    }

    /// What is known of the cluster.
    pub fn cluster(&self) -> &Cluster {
        &self.cluster
    }

    /// What is known from the EC2 API.
    pub fn ec2(&self) -> &Ec2 {
        &self.ec2
    }

    /// What the EC2 API should be asked; see [`ec2::wishes`].
    pub fn wishes(&self) -> Ec2Wishes {
        let known = ec2::Known { cluster: &self.cluster, host: &self.host, ec2: &self.ec2 };
        let peers = self.findings.unanswered_peers().into_iter().chain(self.flow_groups.waiting());
        ec2::wishes(known, peers, self.capacity.unknown_instance_type())
    }

    /// Policies, groups, and what pods of this node used of them.
    pub fn audit(&self) -> Audit {
        audit(&self.flow_groups, self.known())
    }

    /// Connections whose backends an open fold waits for, told once: the answer is [`HostFact::Backends`], and comes within
    /// a second or too late.
    ///
    /// [`HostFact::Backends`]: crate::facts::HostFact::Backends
    pub fn asks_backends(&mut self) -> Option<Vec<Connection>> {
        self.backends.question()
    }

    /// Tells rows as a fold would, for tests of what only others fill in.
    #[cfg(test)]
    pub(crate) fn judge_rows(&mut self, rows: &mut [crate::output::Output]) {
        let now = Moment { boot: self.now, wall: self.clock.wall(self.now) };
        let known = super::known(&self.cluster, &self.host, &self.ec2, &self.node, &self.capacity, now);
        self.flow_groups.rows(rows, known);
        let (findings, view) = self.findings();
        findings.fold(rows, view);
    }

    /// Pods with a token for the Kubernetes API, and what they did with it.
    pub fn tokens(&self) -> Vec<TokenRow> {
        self.findings.tokens(&self.cluster, self.clock, self.now)
    }

    /// The node's ceilings as they stand.
    pub fn capacity(&self) -> CapacityRow {
        self.capacity.row(self.now, self.clock)
    }

    /// What is known of processes.
    pub fn processes(&self) -> &ProcessTable {
        &self.processes
    }
}
