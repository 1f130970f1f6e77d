//! A start where the kernel's side outlived the run before.

use super::{Engine, gap};
use crate::continuity::{Adopted, Losses};
use crate::input::GapCause;
use crate::output::Output;

impl Engine {
    /// Takes over what went on meanwhile: counting begins at it, and whether anything was missed is known.
    pub(super) fn adopted(&mut self, adopted: &Adopted, outputs: &mut Vec<Output>) {
        self.books.adopt(adopted);
        self.merged_told = self.books.merged_by_kernel();
        self.goes_on = adopted.replaced.is_none() && adopted.lost().is_some_and(|lost| lost == Losses::default());
        match adopted.replaced {
            None => self.folder.known_accounts(&adopted.totals.accounts),
            Some((start, end)) => {
                let (start, end) = (self.clock.wall(start), self.clock.wall(end));
                outputs.push(gap(start, end, GapCause::ProbeMissing, None));
            }
        }
    }
}
