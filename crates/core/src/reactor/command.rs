//! Commands to the reactor's thread, and the mailbox they are sent to.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::job::{RunningJob, Work};
use crate::error::Result;
use crate::event_loop::mailbox::Mailbox;
use crate::event_loop::slab::Token;
use crate::transfer::{Prefetched, Progress};

pub(super) enum Command {
    Submit(Box<RunningJob>),
    Cancel(u64),
    /// The result of a job's prefetch.
    Prefetched(Token, Result<Prefetched>),
    /// A turn on a pool thread has ended. An error: the pool dropped the work.
    TurnEnded(Token, Result<PoolTurn>),
}

/// The result of a turn on a pool thread.
pub(super) struct PoolTurn {
    pub work: Work,
    pub outcome: Result<Progress>,
}

/// The mailbox of the reactor's thread, while it runs.
#[derive(Default)]
pub(super) struct Registration(Mutex<Option<Arc<Mailbox<Command>>>>);

impl Registration {
    pub fn lock(&self) -> MutexGuard<'_, Option<Arc<Mailbox<Command>>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Unregisters the thread that reads `mailbox`, unless another has taken its place: the next job starts a new one.
    pub fn remove(&self, mailbox: &Arc<Mailbox<Command>>) {
        let mut registered = self.lock();
        if registered.as_ref().is_some_and(|registered| Arc::ptr_eq(registered, mailbox)) {
            *registered = None;
        }
    }

    /// Unregisters the thread if its mailbox is empty, so that no command is lost; returns whether it did.
    pub fn remove_if_empty(&self, mailbox: &Mailbox<Command>) -> bool {
        let mut registered = self.lock();
        let empty = mailbox.lock_if_empty();
        if empty.is_some() {
            *registered = None;
        }
        empty.is_some()
    }
}
