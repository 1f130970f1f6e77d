//! Whose turn it is: what is new goes first, and what is too old has every second call. Pure; time is an argument.

use std::time::Duration;

use tokio::time::Instant;

use super::ask::Ask;
use super::pace::Bucket;

/// What is so many times older than it should be does not wait for calls that are left over: news that never end, as
/// peers that come and go, would keep it old for ever.
const OVERDUE: u32 = 2;

/// See the module's text.
#[derive(Debug, Default)]
pub(super) struct Turns {
    /// The last question was for news.
    was_news: bool,
}

impl Turns {
    /// The question to ask now, of what is new and what is old, with its age; `old_after`: what is older is old.
    pub(super) fn next(
        &mut self,
        news: Option<Ask>,
        old: Option<(Duration, Ask)>,
        old_after: Duration,
        bucket: &mut Bucket,
        now: Instant,
    ) -> Option<Ask> {
        let is_overdue = old.as_ref().is_some_and(|(age, _)| *age > old_after * OVERDUE);
        let is_news = news.is_some() && !(is_overdue && self.was_news);
        let may = if is_overdue || is_news { bucket.has_for_news(now) } else { bucket.has_for_refresh(now) };
        let ask = if is_news { news } else { old.map(|(_, ask)| ask) }.filter(|_| may);
        if ask.is_some() {
            self.was_news = is_news;
        }
        ask
    }
}

#[cfg(test)]
mod tests;
