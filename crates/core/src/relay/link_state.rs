//! The states of a link.

use std::time::{Duration, Instant};

use super::dial::Dial;
use super::session::Outcome;

pub(super) enum LinkState {
    /// No target is connected yet.
    Connecting(Connecting),
    Relaying,
    /// The link has failed. Its sides are reset once their peers have acknowledged all bytes: a reset discards the rest.
    Closing(Closing),
}

/// A connection to a target that is being made.
pub(super) struct Connecting {
    /// Indexes of the targets that were tried.
    pub tried: Vec<usize>,
    /// Number of targets tried, or of requests to the target function.
    pub attempts: u32,
    /// To the current target; `None` while the target function runs.
    pub dial: Option<Dial>,
    /// When the target function was called.
    pub requested: Instant,
}

impl Connecting {
    pub fn new(now: Instant) -> Self {
        Self { tried: Vec::new(), attempts: 0, dial: None, requested: now }
    }

    /// When the current attempt ends or changes without an event. `timeout`: the connect timeout; zero for none.
    pub fn deadline(&self, timeout: Duration) -> Option<Instant> {
        match &self.dial {
            Some(dial) => dial.deadline(timeout),
            None => (!timeout.is_zero()).then(|| self.requested + timeout),
        }
    }
}

/// A link that is about to be reset.
#[derive(Debug, Clone, Copy)]
pub(super) struct Closing {
    pub outcome: Outcome,
    /// Unacknowledged bytes at the last check.
    pub unacknowledged: u64,
    /// When that number last decreased.
    pub progressed: Instant,
    /// Time until the next check: the kernel reports no event for acknowledgements.
    pub pause: Duration,
}
