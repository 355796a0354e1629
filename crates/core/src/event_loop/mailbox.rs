//! Messages for a thread that waits in `epoll_wait`, from any other.

use std::sync::{Mutex, MutexGuard, PoisonError};

use nix::errno::Errno;

use super::waker::Waker;

/// A queue of messages, and the waker of who reads it.
pub struct Mailbox<M> {
    messages: Mutex<Vec<M>>,
    waker: Waker,
}

impl<M> Mailbox<M> {
    /// An empty one.
    pub fn new() -> Result<Self, Errno> {
        Ok(Self { messages: Mutex::new(Vec::new()), waker: Waker::new()? })
    }

    /// What becomes readable when there are messages.
    pub fn waker(&self) -> &Waker {
        &self.waker
    }

    /// Adds a message; wakes the reader for the first of several.
    pub fn send(&self, message: M) {
        let mut messages = self.lock();
        messages.push(message);
        let first = messages.len() == 1;
        drop(messages);
        if first {
            self.waker.wake();
        }
    }

    /// Takes all messages.
    pub fn take(&self) -> Vec<M> {
        std::mem::take(&mut *self.lock())
    }

    /// Whether there are none, and none can come while the guard is held.
    pub fn empty(&self) -> Option<MutexGuard<'_, Vec<M>>> {
        Some(self.lock()).filter(|messages| messages.is_empty())
    }

    fn lock(&self) -> MutexGuard<'_, Vec<M>> {
        // A queue that is only ever pushed to and taken is whole even after a panic elsewhere.
        self.messages.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
