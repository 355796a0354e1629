//! A job of the pool, and the callback that gets its result exactly once.

use std::ops::ControlFlow;
use std::sync::{Arc, Mutex, PoisonError};

use crate::error::{Error, Result};
use crate::stats::contain;

type Callback<T> = Box<dyn FnOnce(Result<T>) + Send>;

/// The callback of a job until it is called.
pub(super) struct ResultSlot<T>(Mutex<Option<Callback<T>>>);

/// A [`ResultSlot`] of any type.
pub(super) trait Pending: Send + Sync {
    /// True until the callback was called.
    fn is_pending(&self) -> bool;
    /// Calls the callback with an error. False: it was called before.
    fn fail(&self, error: Error) -> bool;
}

impl<T> ResultSlot<T> {
    pub fn new(on_result: impl FnOnce(Result<T>) + Send + 'static) -> Self {
        Self(Mutex::new(Some(Box::new(on_result))))
    }

    /// Calls the callback. False: it was called before, and `result` is dropped.
    fn complete(&self, result: Result<T>) -> bool {
        let callback = self.0.lock().unwrap_or_else(PoisonError::into_inner).take();
        let was_pending = callback.is_some();
        if let Some(callback) = callback {
            contain(move || callback(result));
        }
        was_pending
    }
}

impl<T> Pending for ResultSlot<T> {
    fn is_pending(&self) -> bool {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).is_some()
    }

    fn fail(&self, error: Error) -> bool {
        self.complete(Err(error))
    }
}

/// A job of any type.
pub(super) trait Run: Send {
    /// Runs one step. `Continue`: more steps follow.
    fn run(&mut self) -> ControlFlow<()>;
    /// Ends the job with an error before it runs.
    fn fail(&mut self, error: Error);
}

/// The steps of a job and its callback. A job that is dropped calls it with an error.
pub(super) struct Job<T, S> {
    step: S,
    slot: Arc<ResultSlot<T>>,
}

impl<T, S> Job<T, S> {
    pub fn new(step: S, slot: Arc<ResultSlot<T>>) -> Self {
        Self { step, slot }
    }
}

impl<T: Send, S: FnMut() -> ControlFlow<Result<T>> + Send> Run for Job<T, S> {
    fn run(&mut self) -> ControlFlow<()> {
        if !self.slot.is_pending() {
            return ControlFlow::Break(());
        }
        let outcome = contain(|| {
            crate::failpoint::failpoint!("pool::job");
            (self.step)()
        });
        match outcome {
            Some(ControlFlow::Continue(())) if self.slot.is_pending() => ControlFlow::Continue(()),
            Some(ControlFlow::Continue(())) => ControlFlow::Break(()),
            Some(ControlFlow::Break(result)) => {
                self.slot.complete(result);
                ControlFlow::Break(())
            }
            None => {
                self.slot.complete(Err(Error::dropped()));
                ControlFlow::Break(())
            }
        }
    }

    fn fail(&mut self, error: Error) {
        self.slot.complete(Err(error));
    }
}

impl<T, S> Drop for Job<T, S> {
    fn drop(&mut self) {
        self.slot.complete(Err(Error::dropped()));
    }
}
