//! Deadlines in order. A deadline that moved is found out when its old one comes: the hot path never touches the heap.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::time::{Duration, Instant};

use super::registry::Token;

/// A heap of deadlines.
#[derive(Default)]
pub struct Timers {
    heap: BinaryHeap<Reverse<(Instant, Token)>>,
}

impl Timers {
    /// Wakes `token` at `deadline`.
    pub fn set(&mut self, deadline: Instant, token: Token) {
        self.heap.push(Reverse((deadline, token)));
    }

    /// How long until the first deadline.
    pub fn until_next(&self, now: Instant) -> Option<Duration> {
        self.heap.peek().map(|Reverse((deadline, _))| deadline.saturating_duration_since(now))
    }

    /// The next deadline that has come, and its token.
    pub fn pop_due(&mut self, now: Instant) -> Option<(Instant, Token)> {
        match self.heap.peek() {
            Some(Reverse((deadline, _))) if *deadline <= now => self.heap.pop().map(|Reverse(entry)| entry),
            _ => None,
        }
    }
}
