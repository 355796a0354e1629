//! Threads that sleep for those who must not: one for each side of a ring that has ever waited.
//!
//! A futex cannot be waited for together with others, or with descriptors, so a thread it has to be. It lives as long as its
//! ring, because to start one costs as much as a round trip.

use std::sync::atomic::AtomicBool;
use std::sync::mpsc::{Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};

use super::ring::{Ring, Role};
use crate::error::{Code, Error, Result};
use crate::stats::contain;
use crate::thread;

/// Hears once that a side of a ring need wait no longer, or why it waits in vain. Called on another thread; it must not block.
pub type Ready = Box<dyn FnOnce(Result<()>) + Send>;

struct Job {
    ring: Arc<Ring>,
    bytes: usize,
    ready: Ready,
}

/// The threads of a ring, as far as they are running.
#[derive(Default)]
pub(super) struct Waiters([Mutex<Option<Sender<Job>>>; 2]);

impl Ring {
    /// Calls `ready` when [`Ring::wait`] would return. One at a time for each role; others queue up.
    pub fn when_ready(self: &Arc<Self>, role: Role, bytes: usize, ready: Ready) {
        let job = Job { ring: self.clone(), bytes, ready };
        let mut waiter = self.waiters.0[role as usize].lock().unwrap_or_else(PoisonError::into_inner);
        let sender = match waiter.take() {
            Some(sender) => sender,
            None => {
                let (sender, jobs) = channel::<Job>();
                let spawned = thread::spawn_with_stack("zerosend-ring", 128 * 1024, move || {
                    for Job { ring, bytes, ready } in jobs {
                        let outcome = contain(|| ring.wait(role, bytes, &AtomicBool::new(false)));
                        // The callback may drop the last other owner of the ring.
                        drop(ring);
                        contain(|| ready(outcome.unwrap_or_else(|| Err(Error::dropped()))));
                    }
                });
                if let Err(error) = spawned {
                    let message = format!("no thread could be started to wait for the ring: {error}");
                    return (job.ready)(Err(Error::new(Code::Limit, message)));
                }
                sender
            }
        };
        match sender.send(job) {
            Ok(()) => *waiter = Some(sender),
            Err(failed) => (failed.0.ready)(Err(Error::new(Code::Internal, "the ring's thread has gone"))),
        }
    }
}
