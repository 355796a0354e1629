//! One epoll thread that drives transfers to bare descriptors, and everything else that must stay off the JavaScript
//! thread. A transfer that is blocked costs an entry in a slab, no thread.
//!
//! The thread starts with the first job and leaves when there has been none for a while. Jobs come in and are cancelled
//! by messages; their end is told to the [`Observer`] that came with them, on the reactor's thread.

pub mod ending;
mod job;
pub mod mailbox;
pub mod registry;
mod thread;
pub mod timers;
pub mod waker;

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use nix::errno::Errno;

use crate::error::{Error, Result};

pub use job::{Cancel, Job, NonBlocking, Observer, Work};

use thread::Shared;

/// Names a job, for [`Reactor::cancel`].
#[derive(Debug, Clone)]
pub struct JobHandle {
    id: u64,
    cancel: Cancel,
}

pub(crate) enum Command {
    Submit(u64, Job, Cancel),
    Cancel(u64),
    /// A read-ahead for the job is done up to an offset.
    Warmed(registry::Token, u64),
    /// A turn on a pool thread is over.
    Back(registry::Token, Box<Work>, Result<crate::transfer::Progress>),
}

/// The reactor of the process.
pub struct Reactor {
    running: Mutex<Option<Arc<Shared>>>,
    next: AtomicU64,
}

impl Reactor {
    /// The one reactor of the process.
    pub fn global() -> &'static Reactor {
        static REACTOR: OnceLock<Reactor> = OnceLock::new();
        REACTOR.get_or_init(|| Reactor { running: Mutex::new(None), next: AtomicU64::new(1) })
    }

    /// Takes a job. Its observer hears of the end exactly once, unless an error is returned here.
    pub fn submit(&'static self, job: Job) -> Result<JobHandle> {
        let id = self.next.fetch_add(1, Ordering::Relaxed);
        let cancel = Cancel::default();
        let mut running = self.lock();
        let shared = match running.as_ref() {
            Some(shared) => shared.clone(),
            None => {
                let shared = Arc::new(Shared::new().map_err(|errno| Error::system("epoll_create", errno))?);
                thread::start(shared.clone(), self).map_err(|error| {
                    Error::system("clone", Errno::from_raw(error.raw_os_error().unwrap_or(libc::EAGAIN)))
                })?;
                *running = Some(shared.clone());
                shared
            }
        };
        shared.send(Command::Submit(id, job, cancel.clone()));
        Ok(JobHandle { id, cancel })
    }

    /// Ends a job with [`crate::Code::Aborted`], unless it has ended already.
    pub fn cancel(&self, job: &JobHandle) {
        job.cancel.request();
        if let Some(shared) = self.lock().as_ref() {
            shared.send(Command::Cancel(job.id));
        }
    }

    fn lock(&self) -> MutexGuard<'_, Option<Arc<Shared>>> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
