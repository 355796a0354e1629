//! The reactor: one thread that drives transfers to and from descriptors outside the server and the relay, so that they do
//! not run on the JavaScript thread. A blocked transfer costs an entry in a slab, not a thread.
//!
//! The thread starts with the first job and exits after `thread::IDLE_TIMEOUT` without jobs. An [`Observer`] receives the
//! progress and the result of a job on the reactor's thread.
//!
//! | module | contents |
//! |---|---|
//! | `job` | `Job`, what the caller submits, and the state of a running job |
//! | `command` | commands to the thread |
//! | `thread` | the handler of the event loop: commands, deadlines, results |
//! | `turn` | one turn of a job, on this thread or on the pool |
//! | `observer` | `Observer`, and the guarantee that it gets exactly one result |

mod command;
mod job;
mod observer;
mod thread;
mod turn;

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

use crate::error::Result;
use crate::event_loop::EventLoop;
use crate::event_loop::mailbox::Mailbox;
use crate::transfer::Cancel;

pub use job::{Job, Work};
pub use observer::Observer;

use command::{Command, Registration};
use job::RunningJob;

/// Identifies a job, for [`Reactor::cancel`].
#[derive(Debug, Clone)]
pub struct JobHandle {
    id: u64,
    cancel: Cancel,
}

/// The reactor of the process.
pub struct Reactor {
    registration: Registration,
    next_id: AtomicU64,
}

impl Reactor {
    /// The reactor of the process.
    pub fn global() -> &'static Reactor {
        static REACTOR: OnceLock<Reactor> = OnceLock::new();
        REACTOR.get_or_init(|| Reactor { registration: Registration::default(), next_id: AtomicU64::new(1) })
    }

    /// Starts a job. Its observer gets exactly one result; if this returns an error, an error with
    /// [`crate::Code::Internal`].
    pub fn submit(&'static self, job: Job) -> Result<JobHandle> {
        let id = self.next_id.fetch_add(1, Ordering::Relaxed);
        let cancel = Cancel::default();
        let job = Box::new(RunningJob::new(id, job, cancel.clone()));
        let mut registered = self.registration.lock();
        let mailbox = match registered.as_ref() {
            Some(mailbox) => mailbox.clone(),
            None => {
                let mailbox = Arc::new(Mailbox::new()?);
                let event_loop = EventLoop::new(mailbox.clone())?;
                thread::start(event_loop, &self.registration)
                    .map_err(|error| crate::thread::failed("for transfers", &error))?;
                registered.insert(mailbox).clone()
            }
        };
        mailbox.send(Command::Submit(job));
        Ok(JobHandle { id, cancel })
    }

    /// Ends a job with [`crate::Code::Aborted`], unless it has ended already.
    pub fn cancel(&self, job: &JobHandle) {
        job.cancel.request();
        if let Some(mailbox) = self.registration.lock().as_ref() {
            mailbox.send(Command::Cancel(job.id));
        }
    }
}
