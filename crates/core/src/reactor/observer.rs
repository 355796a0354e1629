//! Reports about a job, whatever becomes of it.

use crate::error::{Error, Result};
use crate::stats::contain;
use crate::transfer::Report;

/// Receives the reports about a job. Called on the reactor's thread or another, so it must be quick and must not block.
pub trait Observer: Send {
    /// Bytes have moved; `sent` is the sum so far.
    fn progress(&mut self, sent: u64);
    /// The end. Nothing is called after it.
    fn done(self: Box<Self>, result: Result<Report>);
}

/// Reports the end to an observer exactly once: when this is dropped before, it reports an error. Panics of
/// an observer end here.
pub(super) struct Notifier(Option<Box<dyn Observer>>);

impl Notifier {
    pub fn new(observer: Box<dyn Observer>) -> Self {
        Self(Some(observer))
    }

    pub fn progress(&mut self, sent: u64) {
        if let Some(observer) = &mut self.0 {
            contain(|| observer.progress(sent));
        }
    }

    pub fn done(mut self, result: Result<Report>) {
        self.give(result);
    }

    fn give(&mut self, result: Result<Report>) {
        if let Some(observer) = self.0.take() {
            contain(|| observer.done(result));
        }
    }
}

impl Drop for Notifier {
    fn drop(&mut self) {
        self.give(Err(Error::dropped()));
    }
}
