//! A set of deadlines in order.
//!
//! An owner has one entry or none, and stores its time. To move a deadline to a later time the owner leaves the entry as it is
//! and sets another one when the old one is due, so that a busy connection never touches the set. An owner that ends cancels
//! its entry: the set never has more entries than there are owners.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use super::slab::Token;

/// A set of deadlines.
#[derive(Default)]
pub struct Timers {
    entries: BTreeSet<(Instant, Token)>,
}

impl Timers {
    /// Adds an entry. The caller cancels any earlier entry of `token` first.
    pub fn set(&mut self, deadline: Instant, token: Token) {
        self.entries.insert((deadline, token));
    }

    /// Removes the entry that [`Timers::set`] added with the same arguments.
    pub fn cancel(&mut self, deadline: Instant, token: Token) {
        self.entries.remove(&(deadline, token));
    }

    /// Time from `now` until the first deadline; zero when it has passed.
    pub fn until_next(&self, now: Instant) -> Option<Duration> {
        self.entries.first().map(|(deadline, _)| deadline.saturating_duration_since(now))
    }

    /// Removes and returns the first entry whose deadline is not after `now`.
    pub fn pop_due(&mut self, now: Instant) -> Option<(Instant, Token)> {
        match self.entries.first() {
            Some((deadline, _)) if *deadline <= now => self.entries.pop_first(),
            _ => None,
        }
    }

    /// Number of entries.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// True without entries.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_are_ordered_and_can_be_cancelled() {
        let start = Instant::now();
        let at = |milliseconds| start + Duration::from_millis(milliseconds);
        let mut timers = Timers::default();
        for token in 0..1000 {
            timers.set(at(60_000), token);
            timers.cancel(at(60_000), token);
        }
        assert!(timers.is_empty(), "cancelled entries remain");
        for (milliseconds, token) in [(30, 3), (10, 1), (20, 2), (10, 4)] {
            timers.set(at(milliseconds), token);
        }
        timers.cancel(at(20), 2);
        assert_eq!(timers.until_next(start), Some(Duration::from_millis(10)));
        assert_eq!(timers.pop_due(at(9)), None);
        let due: Vec<_> = std::iter::from_fn(|| timers.pop_due(at(30))).map(|(_, token)| token).collect();
        assert_eq!(due, [1, 4, 3]);
    }
}
