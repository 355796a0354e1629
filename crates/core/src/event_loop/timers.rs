//! Deadlines in order.
//!
//! An owner has at most one entry, and keeps its time. A deadline that moves to a later time needs no new entry: the
//! owner finds out when the old one is due, so that a busy connection never touches the set. An owner that ends cancels its
//! entry, so that the set is as large as there are owners, however fast they come and go.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use super::slab::Token;

/// A set of deadlines.
#[derive(Default)]
pub struct Timers {
    entries: BTreeSet<(Instant, Token)>,
}

impl Timers {
    /// Wakes `token` at `deadline`. Every other entry of `token` must be cancelled first, or be expected too.
    pub fn set(&mut self, deadline: Instant, token: Token) {
        self.entries.insert((deadline, token));
    }

    /// Removes the entry that [`Timers::set`] made with the same arguments.
    pub fn cancel(&mut self, deadline: Instant, token: Token) {
        self.entries.remove(&(deadline, token));
    }

    /// Time until the first deadline.
    pub fn until_next(&self, now: Instant) -> Option<Duration> {
        self.entries.first().map(|(deadline, _)| deadline.saturating_duration_since(now))
    }

    /// Removes and returns the first deadline that has come, and its token.
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

    /// True without an entry.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_come_in_order_and_end_with_their_owner() {
        let start = Instant::now();
        let at = |milliseconds| start + Duration::from_millis(milliseconds);
        let mut timers = Timers::default();
        for token in 0..1000 {
            timers.set(at(60_000), token);
            timers.cancel(at(60_000), token);
        }
        assert!(timers.is_empty(), "nothing stays behind");
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
