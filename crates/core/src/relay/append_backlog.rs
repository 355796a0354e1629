//! The number of appends that are queued for a mirror's file.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

/// Appends queued for one mirror when its disk hangs. Closed links leave theirs behind, and each holds a pipe.
const MAX_QUEUED: usize = 256;
/// Time without a finished append after which a disk counts as hanging.
const STALL_TIME: Duration = Duration::from_secs(1);

/// Counts the appends that are queued for one mirror.
pub(super) struct AppendBacklog {
    queued: AtomicUsize,
    start: Instant,
    /// When the last append finished, or the first was queued: milliseconds after `start`.
    progressed: AtomicU64,
}

impl Default for AppendBacklog {
    fn default() -> Self {
        Self { queued: AtomicUsize::new(0), start: Instant::now(), progressed: AtomicU64::new(0) }
    }
}

impl AppendBacklog {
    pub fn add(&self) {
        if self.queued.fetch_add(1, Ordering::Relaxed) == 0 {
            self.note_progress();
        }
    }

    pub fn remove(&self) {
        self.queued.fetch_sub(1, Ordering::Relaxed);
        self.note_progress();
    }

    fn note_progress(&self) {
        self.progressed.store(self.start.elapsed().as_millis() as u64, Ordering::Relaxed);
    }

    /// Whether the disk hangs and the queue is full, so that nothing more may be queued.
    pub fn is_stalled(&self) -> bool {
        let progressed = Duration::from_millis(self.progressed.load(Ordering::Relaxed));
        self.queued.load(Ordering::Relaxed) >= MAX_QUEUED
            && self.start.elapsed().saturating_sub(progressed) > STALL_TIME
    }
}
