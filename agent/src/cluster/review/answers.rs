//! What was answered about tokens, by their hashes, and who may have the API server asked. Time is an argument.

use std::collections::HashMap;
use std::time::Duration;

use tokio::time::Instant;

use super::Review;

/// A token that is good is taken for good this long, as a kubelet does by default. A fleet of 900 nodes with one scraper then
/// asks 2 x 900 / 120 = 15 questions a second, none of which reaches etcd.
pub(super) const GOOD_FOR: Duration = Duration::from_mins(2);
/// One that is not, this long.
pub(super) const BAD_FOR: Duration = Duration::from_secs(30);
/// Whose token was good is asked about again before strangers, this long.
const REMEMBERED_FOR: Duration = Duration::from_hours(1);
/// Answers that are kept, 700 bytes each at the most: a handful of scrapers with the tokens of an hour, and strangers at
/// their pace.
const ANSWERS_MAX: usize = 128;
/// Strangers have a question asked each such time in the long run,
const STRANGERS_PACE: Duration = Duration::from_secs(1);
/// and so many at once after a rest.
const STRANGERS_BURST: u32 = 8;

/// See the module's documentation.
#[derive(Debug, Default)]
pub(super) struct Answers {
    kept: HashMap<[u8; 32], Kept>,
    /// When the strangers so far would have been through at the long run's pace.
    paid: Option<Instant>,
}

#[derive(Debug)]
struct Kept {
    review: Review,
    until: Instant,
    remembered_until: Instant,
}

/// What to do about a token.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Leave {
    /// Nothing: this is the answer.
    Known(Review),
    /// Ask again: it was good.
    Renew,
    /// Ask.
    Ask,
    /// Do not ask: strangers had their part.
    TooMany,
}

impl Answers {
    /// Looks a token up; who is to ask has then had his part.
    pub(super) fn look(&mut self, key: &[u8; 32], now: Instant) -> Leave {
        if let Some(review) = self.known(key, now) {
            return Leave::Known(review);
        }
        let was_good = |kept: &Kept| kept.review == Review::Allowed && now < kept.remembered_until;
        if self.kept.get(key).is_some_and(was_good) {
            return Leave::Renew;
        }
        let begins = self.paid.map_or(now, |paid| paid.max(now));
        if begins.saturating_duration_since(now) > STRANGERS_PACE * (STRANGERS_BURST - 1) {
            return Leave::TooMany;
        }
        self.paid = Some(begins + STRANGERS_PACE);
        Leave::Ask
    }

    /// An answer that still holds.
    pub(super) fn known(&self, key: &[u8; 32], now: Instant) -> Option<Review> {
        self.kept.get(key).filter(|kept| now < kept.until).map(|kept| kept.review.clone())
    }

    /// Keeps an answer. A full table forgets a bad token before a good one, and what ends first before the rest.
    pub(super) fn keep(&mut self, key: [u8; 32], review: Review, now: Instant) {
        let (holds, remembered) = match review {
            Review::Allowed => (GOOD_FOR, REMEMBERED_FOR),
            Review::Unknown | Review::Denied(_) => (BAD_FOR, BAD_FOR),
        };
        if self.kept.len() >= ANSWERS_MAX && !self.kept.contains_key(&key) {
            self.kept.retain(|_, kept| now < kept.remembered_until);
        }
        if self.kept.len() >= ANSWERS_MAX && !self.kept.contains_key(&key) {
            let worst = |kept: &Kept| (kept.review == Review::Allowed, kept.remembered_until);
            let gone = self.kept.iter().min_by_key(|(_, kept)| worst(kept)).map(|(key, _)| *key);
            gone.and_then(|key| self.kept.remove(&key));
        }
        self.kept.insert(key, Kept { review, until: now + holds, remembered_until: now + remembered });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(number: usize) -> [u8; 32] {
        let mut key = [0; 32];
        key[..8].copy_from_slice(&number.to_le_bytes());
        key
    }

    #[test]
    fn a_good_token_holds_two_minutes_and_a_bad_one_half() {
        let (mut answers, now) = (Answers::default(), Instant::now());
        answers.keep(key(1), Review::Allowed, now);
        answers.keep(key(2), Review::Unknown, now);
        answers.keep(key(3), Review::Denied("x".into()), now);
        let last = |holds: Duration| now + holds - Duration::from_nanos(1);
        assert_eq!(answers.look(&key(1), last(GOOD_FOR)), Leave::Known(Review::Allowed));
        assert_eq!(answers.look(&key(2), last(BAD_FOR)), Leave::Known(Review::Unknown));
        assert_eq!(answers.look(&key(3), last(BAD_FOR)), Leave::Known(Review::Denied("x".into())));
        assert_eq!(answers.look(&key(1), now + GOOD_FOR), Leave::Renew);
        assert_eq!(answers.look(&key(2), now + BAD_FOR), Leave::Ask);
        assert_eq!(answers.look(&key(1), now + REMEMBERED_FOR), Leave::Ask, "nobody is known for ever");
    }

    #[test]
    fn a_token_that_is_taken_back_is_good_no_longer() {
        let (mut answers, now) = (Answers::default(), Instant::now());
        answers.keep(key(1), Review::Allowed, now);
        answers.keep(key(1), Review::Unknown, now);
        assert_eq!(answers.look(&key(1), now), Leave::Known(Review::Unknown));
        assert_eq!(answers.look(&key(1), now + BAD_FOR), Leave::Ask);
    }

    #[test]
    fn strangers_have_their_part_and_scrapers_are_not_in_it() {
        let (mut answers, now) = (Answers::default(), Instant::now());
        answers.keep(key(0), Review::Allowed, now);
        let later = now + GOOD_FOR;
        let asked =
            |answers: &mut Answers, at| (1..100).filter(|number| answers.look(&key(*number), at) == Leave::Ask).count();
        assert_eq!(asked(&mut answers, later), STRANGERS_BURST as usize);
        assert_eq!(answers.look(&key(200), later), Leave::TooMany);
        assert_eq!(answers.look(&key(0), later), Leave::Renew);
        assert_eq!(asked(&mut answers, later + STRANGERS_PACE * 2), 2, "as many as time went by");
        assert_eq!(asked(&mut answers, later + STRANGERS_PACE * 1_000), STRANGERS_BURST as usize);
    }

    #[test]
    fn a_full_table_forgets_bad_tokens_first() {
        let (mut answers, now) = (Answers::default(), Instant::now());
        answers.keep(key(0), Review::Allowed, now);
        for number in 1..ANSWERS_MAX * 3 {
            answers.keep(key(number), Review::Unknown, now + Duration::from_millis(number as u64));
            assert!(answers.kept.len() <= ANSWERS_MAX);
        }
        assert_eq!(answers.known(&key(0), now), Some(Review::Allowed));
        assert_eq!(answers.known(&key(ANSWERS_MAX * 3 - 1), now), Some(Review::Unknown), "the newest is kept");
        assert_eq!(answers.known(&key(1), now), None, "the oldest is not");
    }
}
