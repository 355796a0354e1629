//! How fast a client acknowledges bytes, and whether that is below the limits.

use std::time::{Duration, Instant};

use crate::server::options::Limits;
use crate::server::stats::Limit;

/// Time from the start of a response during which `limits.min_rate` does not apply.
const GRACE: Duration = Duration::from_secs(5);

pub(super) struct SendRate {
    started: Instant,
    acknowledged: u64,
    last_progress: Instant,
    /// Unacknowledged bytes of earlier responses at the first check. They leave the send buffer first.
    earlier: Option<u64>,
}

impl SendRate {
    pub fn new(now: Instant) -> Self {
        Self { started: now, acknowledged: 0, last_progress: now, earlier: None }
    }

    /// Restarts the time without progress, which the server has caused.
    pub fn restart(&mut self, now: Instant) {
        self.last_progress = now;
    }

    pub fn elapsed(&self) -> Duration {
        self.started.elapsed()
    }

    /// Time since the client last acknowledged a byte.
    pub fn stalled(&self, now: Instant) -> Duration {
        now.saturating_duration_since(self.last_progress)
    }

    /// The number of acknowledged bytes, those of earlier responses included. `sent` is the size of this response so far;
    /// `queued` is the number of unacknowledged bytes in the send buffer.
    pub fn acknowledged(&mut self, sent: u64, queued: u64, now: Instant) -> u64 {
        let earlier = *self.earlier.get_or_insert_with(|| {
            if queued > sent {
                // Progress before this first check is unknown.
                (self.started, self.last_progress) = (now, now);
            }
            queued.saturating_sub(sent)
        });
        (sent + earlier).saturating_sub(queued)
    }

    /// Records the number of bytes acknowledged since the start. Returns the limit that the client breaks.
    pub fn check(&mut self, acknowledged: u64, now: Instant, limits: &Limits) -> Option<Limit> {
        if acknowledged > self.acknowledged {
            self.acknowledged = acknowledged;
            self.last_progress = now;
        }
        let elapsed = now.saturating_duration_since(self.started);
        if !limits.send_timeout.is_zero() && self.stalled(now) >= limits.send_timeout {
            Some(Limit::SendTimeout)
        } else if elapsed > GRACE && (acknowledged as f64) < limits.min_rate as f64 * elapsed.as_secs_f64() {
            Some(Limit::MinRate)
        } else {
            None
        }
    }
}
