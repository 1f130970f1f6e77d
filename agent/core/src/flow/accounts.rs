//! The kernel's accounts: totals of flows that found no room in the ring, by cgroup. They only grow; rows need what they
//! grew by.

use agent_ebpf::shared::Account;
use agent_ebpf::wire::{Direction, Outcome};

use super::rows::Totals;
use crate::fast::FastMap;

/// Readings in a row that must miss an account before it is taken for deleted. A walk of a kernel map beside deletions
/// may skip an entry once; to take that for a deletion would count the entry's totals twice.
const ABSENT_READINGS: u8 = 3;

/// The accounts as of the last reading: at most as many as the kernel's map holds, times [`ABSENT_READINGS`].
#[derive(Debug, Default)]
pub(super) struct Accounts {
    last: FastMap<u64, Last>,
}

#[derive(Debug)]
struct Last {
    account: Account,
    absent: u8,
}

impl Accounts {
    /// Takes a reading of all accounts; tells what grew, by cgroup, direction and outcome.
    ///
    /// An account never seen before counts from zero: totals begin when the probes are loaded. One that shrank was
    /// deleted and made anew in between, and counts from zero again.
    pub(super) fn read(
        &mut self,
        accounts: &[(u64, Account)],
        mut grew: impl FnMut(u64, Direction, Option<Outcome>, Totals),
    ) {
        for last in self.last.values_mut() {
            last.absent = last.absent.saturating_add(1);
        }
        for (cgroup_id, account) in accounts {
            let before = self.last.insert(*cgroup_id, Last { account: *account, absent: 0 });
            let before = before.map(|last| last.account).filter(|before| !shrank(before, account)).unwrap_or_default();
            let sides = [Direction::Outbound, Direction::Inbound].into_iter();
            for ((direction, now), then) in sides.zip(account.merged_connections).zip(before.merged_connections) {
                for ((outcome, now), then) in Outcome::ALL.iter().zip(now).zip(then) {
                    if now > then {
                        let totals = Totals { connections: now - then, ..Totals::default() };
                        grew(*cgroup_id, direction, Some(*outcome), totals);
                    }
                }
            }
            let bytes_sent = account.merged_bytes_sent.saturating_sub(before.merged_bytes_sent);
            let bytes_received = account.merged_bytes_received.saturating_sub(before.merged_bytes_received);
            if bytes_sent > 0 || bytes_received > 0 {
                let totals = Totals { bytes_sent, bytes_received, ..Totals::default() };
                grew(*cgroup_id, Direction::Unknown, None, totals);
            }
        }
        self.last.retain(|_, last| last.absent < ABSENT_READINGS);
    }
}

fn shrank(before: &Account, now: &Account) -> bool {
    let connections = before.merged_connections.as_flattened().iter().zip(now.merged_connections.as_flattened());
    now.merged_bytes_sent < before.merged_bytes_sent
        || now.merged_bytes_received < before.merged_bytes_received
        || connections.into_iter().any(|(before, now)| now < before)
}
