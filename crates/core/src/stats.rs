//! Counters that threads share, and containment of panics.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicU64, Ordering};

static CONTAINED_PANICS: Counter = Counter::new();

/// Number of panics in this process that were contained. Each is a bug: the connection, job or callback failed, with
/// [`crate::Code::Internal`] where it has a result.
pub fn contained_panics() -> u64 {
    CONTAINED_PANICS.get()
}

/// Counts a caught panic.
pub fn count_contained_panic() {
    CONTAINED_PANICS.add(1);
}

/// Runs `body`. Returns `None` if it panicked; the panic is counted.
pub fn contain<T>(body: impl FnOnce() -> T) -> Option<T> {
    let outcome = catch_unwind(AssertUnwindSafe(body)).ok();
    if outcome.is_none() {
        count_contained_panic();
    }
    outcome
}

/// A counter that only increases.
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

    /// The current value.
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}
