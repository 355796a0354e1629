//! [`RingHandle`]: a ring with threads that wait for it.
//!
//! A futex cannot be waited for together with descriptors, so a wait needs a thread. There is one for each role that has ever
//! waited. It lives as long as the handle, because starting a thread costs as much as a round trip.

use std::ops::Deref;
use std::sync::atomic::AtomicBool;
use std::sync::mpsc::{Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};

use super::layout::Role;
use super::ring::Ring;
use crate::error::{Code, Error, Result};
use crate::stats::contain;
use crate::thread;

/// Called once, on another thread, with the result of [`Ring::wait`]. Must not block.
pub type Ready = Box<dyn FnOnce(Result<()>) + Send>;

struct Wait {
    ring: Arc<Ring>,
    bytes: usize,
    ready: Ready,
}

/// A ring for callers that must not block. Dropping it closes the ring, so that its threads and pipes stop waiting.
pub struct RingHandle {
    ring: Arc<Ring>,
    waiters: [Mutex<Option<Sender<Wait>>>; 2],
}

impl RingHandle {
    /// A handle of `ring`, which no other handle has.
    pub fn new(ring: Ring) -> Self {
        Self { ring: Arc::new(ring), waiters: Default::default() }
    }

    /// The ring.
    pub fn ring(&self) -> &Arc<Ring> {
        &self.ring
    }

    /// Calls `ready` when [`Ring::wait`] returns. The waits of a role run one after another.
    pub fn when_ready(&self, role: Role, bytes: usize, ready: Ready) {
        let wait = Wait { ring: self.ring.clone(), bytes, ready };
        let mut waiter = self.waiters[role as usize].lock().unwrap_or_else(PoisonError::into_inner);
        let sender = match waiter.take() {
            Some(sender) => sender,
            None => match start(role) {
                Ok(sender) => sender,
                Err(error) => return (wait.ready)(Err(error)),
            },
        };
        match sender.send(wait) {
            Ok(()) => *waiter = Some(sender),
            Err(failed) => {
                let message = "internal error, please report it: the thread that waits for the ring has ended";
                (failed.0.ready)(Err(Error::new(Code::Internal, message)));
            }
        }
    }
}

fn start(role: Role) -> Result<Sender<Wait>> {
    let (sender, waits) = channel::<Wait>();
    let run = move || {
        for Wait { ring, bytes, ready } in waits {
            let outcome = contain(|| ring.wait(role, bytes, &AtomicBool::new(false)));
            // The callback may drop the last other owner of the ring.
            drop(ring);
            contain(|| ready(outcome.unwrap_or_else(|| Err(Error::dropped()))));
        }
    };
    match thread::spawn_with_stack("zerosend-ring", 128 * 1024, run) {
        Ok(_) => Ok(sender),
        Err(error) => Err(thread::failed("to wait for the ring", &error)),
    }
}

impl Deref for RingHandle {
    type Target = Ring;

    fn deref(&self) -> &Ring {
        &self.ring
    }
}

impl Drop for RingHandle {
    fn drop(&mut self) {
        self.ring.close();
    }
}
