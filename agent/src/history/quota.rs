//! How much may be on disk.
//!
//! The quota is cut into [`SEGMENTS`] parts. The file that is written takes [`HEADROOM`] of them at the most: beyond one
//! part, its log included, it is given up for a new one; a transaction adds at most half a part to the log; and the log,
//! which is copied into the file when it has reached a quarter, adds the three quarters that it then is at the most. So
//! what was written before may take the quota less three parts, at any moment, and the oldest file goes first when it
//! does not.
//!
//! On a file system that fills up, the history stops growing where it stands: new rows then cost the oldest ones. It does
//! not shrink, so that nobody can erase it by filling the disk; where there is no room at all, new rows are lost.

use std::path::Path;

/// Parts of the quota.
const SEGMENTS: u64 = 16;
/// Parts that are kept free of earlier files.
const HEADROOM: u64 = 3;
/// A new row touches one page in each of its table, its dictionaries (who, process, program, peer, key) and their four
/// indexes, and half of them are split now and then: 16 pages of 4 KiB.
const ROW_BYTES_MAX: u64 = 16 * 4_096;
/// Most rows of a transaction: their pages fit in the cache.
const TRANSACTION_ROWS_MAX: u64 = 512;

/// The bounds that follow from a quota.
#[derive(Clone, Copy, Debug)]
pub(super) struct Bounds {
    quota_bytes: u64,
    free_percent: u8,
    /// Where the history stands since the file system began to be short of room.
    ceiling_bytes: Option<u64>,
}

/// A file system, as of now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Disk {
    /// Its size.
    pub(super) total_bytes: u64,
    /// What unprivileged users could still write.
    pub(super) free_bytes: u64,
}

impl Bounds {
    /// A quota, or as much of it as the file system could hold at all.
    pub(super) fn new(quota_bytes: u64, free_percent: u8, disk: Option<Disk>) -> Self {
        let holds = disk.map_or(u64::MAX, |disk| disk.total_bytes - disk.reserve_bytes(free_percent));
        Self { quota_bytes: quota_bytes.min(holds), free_percent, ceiling_bytes: None }
    }

    /// The file that is written is given up for a new one beyond this, its log included.
    pub(super) fn segment_bytes(&self) -> u64 {
        self.quota_bytes / SEGMENTS
    }

    /// The log is copied into the file beyond this.
    pub(super) fn log_bytes(&self) -> u64 {
        self.segment_bytes() / 4
    }

    /// Most rows of one transaction.
    pub(super) fn transaction_rows(&self) -> usize {
        let rows = (self.segment_bytes() / 2 / ROW_BYTES_MAX).clamp(1, TRANSACTION_ROWS_MAX);
        usize::try_from(rows).unwrap_or(1)
    }

    /// Looks at the file system while the history takes so much.
    pub(super) fn look(&mut self, used_bytes: u64, disk: Option<Disk>) {
        let Some(disk) = disk else { return };
        let room = disk.free_bytes.saturating_sub(disk.reserve_bytes(self.free_percent));
        if room >= HEADROOM * self.segment_bytes() {
            self.ceiling_bytes = None;
        } else {
            self.ceiling_bytes.get_or_insert(used_bytes.saturating_add(room));
        }
    }

    /// What earlier files may take together; `None` when there is no room even for the one that is written.
    pub(super) fn earlier_bytes(&self) -> Option<u64> {
        let allowed = self.quota_bytes.min(self.ceiling_bytes.unwrap_or(u64::MAX));
        allowed.checked_sub(HEADROOM * self.segment_bytes())
    }
}

impl Disk {
    fn reserve_bytes(self, free_percent: u8) -> u64 {
        self.total_bytes / 100 * u64::from(free_percent.min(100))
    }
}

/// The file system of a directory; `None` when it does not tell.
pub(super) fn disk(directory: &Path) -> Option<Disk> {
    let disk = rustix::fs::statvfs(directory).ok()?;
    // Some file systems do not say how large they are.
    (disk.f_blocks > 0).then(|| Disk {
        total_bytes: disk.f_blocks.saturating_mul(disk.f_frsize),
        free_bytes: disk.f_bavail.saturating_mul(disk.f_frsize),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;

    fn disk(free_mib: u64) -> Disk {
        Disk { total_bytes: 1_000 * MIB, free_bytes: free_mib * MIB }
    }

    #[test]
    fn the_parts_of_a_quota() {
        let bounds = Bounds::new(512 * MIB, 5, Some(disk(1_000)));
        assert_eq!(bounds.segment_bytes(), 32 * MIB);
        assert_eq!(bounds.transaction_rows(), 256);
        assert_eq!(bounds.earlier_bytes(), Some(416 * MIB));
        assert_eq!(Bounds::new(64 * MIB, 5, None).transaction_rows(), 32);
        // A file system smaller than the quota.
        assert_eq!(Bounds::new(2_000 * MIB, 20, Some(disk(1_000))).segment_bytes(), 50 * MIB);
    }

    #[test]
    fn a_filling_disk_stops_growth_and_erases_nothing() {
        let mut bounds = Bounds::new(512 * MIB, 10, Some(disk(1_000)));
        bounds.look(200 * MIB, Some(disk(800)));
        assert_eq!(bounds.earlier_bytes(), Some(416 * MIB));
        // 50 MiB above the reserve: so much more than now.
        bounds.look(200 * MIB, Some(disk(150)));
        assert_eq!(bounds.earlier_bytes(), Some((200 + 50 - 96) * MIB));
        // Somebody takes what the history gave up, again and again: it stays where it stands.
        for used in [180, 150, 100] {
            bounds.look(used * MIB, Some(disk(0)));
            assert_eq!(bounds.earlier_bytes(), Some((200 + 50 - 96) * MIB));
        }
        bounds.look(200 * MIB, Some(disk(500)));
        assert_eq!(bounds.earlier_bytes(), Some(416 * MIB));
    }

    #[test]
    fn a_full_disk_has_no_room() {
        let mut bounds = Bounds::new(512 * MIB, 10, Some(disk(0)));
        bounds.look(0, Some(disk(0)));
        assert_eq!(bounds.earlier_bytes(), None);
    }
}
