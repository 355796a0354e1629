//! Messages from any thread to a thread that blocks in `epoll_wait`.

use std::sync::{Mutex, MutexGuard, PoisonError};

use super::waker::Waker;
use crate::error::{Error, Result};

/// A queue of messages and the waker of the receiving thread.
pub struct Mailbox<M> {
    messages: Mutex<Vec<M>>,
    waker: Waker,
}

impl<M> Mailbox<M> {
    /// An empty mailbox.
    pub fn new() -> Result<Self> {
        let waker = Waker::new().map_err(|errno| Error::system("eventfd", errno))?;
        Ok(Self { messages: Mutex::new(Vec::new()), waker })
    }

    /// Becomes readable when a message arrives.
    pub fn waker(&self) -> &Waker {
        &self.waker
    }

    /// Appends a message. Only the first message of an empty queue wakes the receiver.
    pub fn send(&self, message: M) {
        let mut messages = self.lock();
        messages.push(message);
        let is_first = messages.len() == 1;
        drop(messages);
        if is_first {
            self.waker.wake();
        }
    }

    /// Takes all messages, in the order they were sent.
    pub fn take(&self) -> Vec<M> {
        std::mem::take(&mut *self.lock())
    }

    /// Locks the queue if it is empty: no message can arrive while the guard lives.
    pub fn lock_if_empty(&self) -> Option<MutexGuard<'_, Vec<M>>> {
        Some(self.lock()).filter(|messages| messages.is_empty())
    }

    fn lock(&self) -> MutexGuard<'_, Vec<M>> {
        // Push and take leave the queue consistent, so a lock that a panic poisoned can be used.
        self.messages.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
