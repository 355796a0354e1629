//! A job of the pool and its answer: given exactly once, whatever becomes of the job.

use std::ops::ControlFlow;
use std::sync::{Arc, Mutex, PoisonError};

use super::{Lane, Pool, Volume};
use crate::error::{Error, Result};
use crate::stats::contain;

type Answer<T> = Box<dyn FnOnce(Result<T>) + Send>;

/// The answer that is still to be given.
pub(super) struct Slot<T>(Mutex<Option<Answer<T>>>);

/// An answer that may be given before its job has ended.
pub(super) trait Pending: Send + Sync {
    /// True while the answer has not been given.
    fn is_open(&self) -> bool;
    /// Gives this error as the answer, unless there was one before.
    fn refuse(&self, error: Error) -> bool;
}

impl<T> Slot<T> {
    pub fn new(answer: impl FnOnce(Result<T>) + Send + 'static) -> Self {
        Self(Mutex::new(Some(Box::new(answer))))
    }

    /// False: it was answered before, and `result` is dropped here.
    fn give(&self, result: Result<T>) -> bool {
        let answer = self.0.lock().unwrap_or_else(PoisonError::into_inner).take();
        let open = answer.is_some();
        if let Some(answer) = answer {
            contain(move || answer(result));
        }
        open
    }
}

impl<T> Pending for Slot<T> {
    fn is_open(&self) -> bool {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).is_some()
    }

    fn refuse(&self, error: Error) -> bool {
        self.give(Err(error))
    }
}

/// Work that is done in bounded pieces.
pub(super) trait Run: Send {
    /// Does a piece of it. `Continue`: there is more, and it has not been cancelled.
    fn run(&mut self) -> ControlFlow<()>;
    /// Answers with this error instead of running.
    fn refuse(&mut self, error: Error);
}

/// The pieces of one job, and its answer. Dropping it answers too.
pub(super) struct Job<T, P> {
    piece: P,
    slot: Arc<Slot<T>>,
}

impl<T, P> Job<T, P> {
    pub fn new(piece: P, slot: Arc<Slot<T>>) -> Self {
        Self { piece, slot }
    }
}

impl<T: Send, P: FnMut() -> ControlFlow<Result<T>> + Send> Run for Job<T, P> {
    fn run(&mut self) -> ControlFlow<()> {
        if !self.slot.is_open() {
            return ControlFlow::Break(());
        }
        let outcome = contain(|| {
            crate::failpoint::failpoint!("pool::job");
            (self.piece)()
        });
        match outcome {
            Some(ControlFlow::Continue(())) if self.slot.is_open() => ControlFlow::Continue(()),
            Some(ControlFlow::Continue(())) => ControlFlow::Break(()),
            Some(ControlFlow::Break(result)) => {
                self.slot.give(result);
                ControlFlow::Break(())
            }
            None => {
                self.slot.give(Err(Error::dropped()));
                ControlFlow::Break(())
            }
        }
    }

    fn refuse(&mut self, error: Error) {
        self.slot.give(Err(error));
    }
}

impl<T, P> Drop for Job<T, P> {
    fn drop(&mut self) {
        self.slot.give(Err(Error::dropped()));
    }
}

/// A job that was handed to the pool. Dropping this does not stop the job.
#[must_use = "keep it to cancel the job, or call `detach`"]
pub struct Task {
    pool: &'static Pool,
    lane: Lane,
    volume: Volume,
    number: u64,
    pending: Arc<dyn Pending>,
}

impl Task {
    pub(super) fn new(pool: &'static Pool, lane: Lane, volume: Volume, number: u64, pending: Arc<dyn Pending>) -> Self {
        Self { pool, lane, volume, number, pending }
    }

    /// Answers with `error` at once, on this thread, unless the job was answered already. A job that waits is taken out
    /// of the queue. One that runs is left behind: it does no further piece, and what it returns is dropped.
    pub fn cancel(&self, error: Error) -> bool {
        let refused = self.pending.refuse(error);
        // A job of several pieces has another number by now; it ends before its next piece.
        drop(self.pool.withdraw(self.lane, self.volume, self.number));
        refused
    }

    /// True until the answer has been given.
    pub fn is_pending(&self) -> bool {
        self.pending.is_open()
    }

    /// Lets the job run to its end.
    pub fn detach(self) {}
}

impl std::fmt::Debug for Task {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Task").field("lane", &self.lane).field("number", &self.number).finish_non_exhaustive()
    }
}
