//! Counters that any thread may add to and any may read.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicU64, Ordering};

static CONTAINED_PANICS: Counter = Counter::new();

/// Panics of turns, jobs, threads and callbacks of the process that ended where they happened: each is a bug, and what it was
/// about failed with [`crate::Code::Internal`].
pub fn contained_panics() -> u64 {
    CONTAINED_PANICS.get()
}

/// Counts a panic that a `catch_unwind` has caught.
pub fn count_contained_panic() {
    CONTAINED_PANICS.add(1);
}

/// Runs `body`. `None`: it panicked, which ends here and is counted.
pub fn contain<T>(body: impl FnOnce() -> T) -> Option<T> {
    let outcome = catch_unwind(AssertUnwindSafe(body)).ok();
    if outcome.is_none() {
        count_contained_panic();
    }
    outcome
}

/// A counter that only grows.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    /// A counter at 0.
    pub const fn new() -> Self {
        Self(AtomicU64::new(0))
    }

    /// Adds `amount`.
    pub fn add(&self, amount: u64) {
        self.0.fetch_add(amount, Ordering::Relaxed);
    }

    /// The value now.
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}
