//! Reports about a job.

use crate::error::{Error, Result};
use crate::stats::contain;
use crate::transfer::Report;

/// Receives the reports about a job. Usually called on the reactor's thread, so its methods must not block.
pub trait Observer: Send {
    /// Bytes have moved: `bytes` in all.
    fn progress(&mut self, bytes: u64);
    /// The result. No method is called afterwards.
    fn done(self: Box<Self>, result: Result<Report>);
}

/// Reports exactly one result to an observer: an error if it is dropped without one. A panic of the observer is contained.
pub(super) struct Notifier(Option<Box<dyn Observer>>);

impl Notifier {
    pub fn new(observer: Box<dyn Observer>) -> Self {
        Self(Some(observer))
    }

    pub fn progress(&mut self, bytes: u64) {
        if let Some(observer) = &mut self.0 {
            contain(|| observer.progress(bytes));
        }
    }

    pub fn done(mut self, result: Result<Report>) {
        self.report(result);
    }

    fn report(&mut self, result: Result<Report>) {
        if let Some(observer) = self.0.take() {
            contain(|| observer.done(result));
        }
    }
}

impl Drop for Notifier {
    fn drop(&mut self) {
        self.report(Err(Error::dropped()));
    }
}
