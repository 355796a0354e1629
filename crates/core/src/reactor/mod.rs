//! One epoll thread that drives transfers to bare descriptors, and everything else that must stay off the JavaScript
//! thread. A transfer that is blocked costs an entry in a slab, no thread.
//!
//! The thread starts with the first job and leaves when there has been none for a while. Jobs come in and are cancelled
//! by messages; their end is told to the [`Observer`] that came with them, on the reactor's thread.

mod job;
mod observer;
mod thread;

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use std::time::Instant;

use crate::error::{Error, Result};
use crate::transfer::{Cancel, Prefetched, Progress};

pub use job::{Job, Work};
pub use observer::Observer;

use crate::event_loop::slab::Token;
use job::Running;
use thread::Shared;

/// Names a job, for [`Reactor::cancel`].
#[derive(Debug, Clone)]
pub struct JobHandle {
    id: u64,
    cancel: Cancel,
}

enum Command {
    Submit(Box<Running>),
    Cancel(u64),
    /// A prefetch for the job is done.
    Prefetched(Token, Result<Prefetched>),
    /// A turn on a pool thread is over. An error: the pool lost the work.
    Back(Token, Result<InPool>),
}

/// What comes back from a turn on a pool thread.
struct InPool {
    work: Work,
    outcome: Result<Progress>,
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

    /// Takes a job. Its observer hears of the end exactly once; if an error is returned here, it is an internal error.
    pub fn submit(&'static self, job: Job) -> Result<JobHandle> {
        let id = self.next.fetch_add(1, Ordering::Relaxed);
        let cancel = Cancel::default();
        let submitted = Box::new(Running::new(id, job, cancel.clone(), Instant::now()));
        let mut running = self.lock();
        let shared = match running.as_ref() {
            Some(shared) => shared.clone(),
            None => {
                let shared = Arc::new(Shared::new().map_err(|errno| Error::system("epoll_create", errno))?);
                thread::start(shared.clone(), self).map_err(|error| crate::thread::failed("for transfers", &error))?;
                *running = Some(shared.clone());
                shared
            }
        };
        shared.send(Command::Submit(submitted));
        Ok(JobHandle { id, cancel })
    }

    /// Ends a job with [`crate::Code::Aborted`], unless it has ended already.
    pub fn cancel(&self, job: &JobHandle) {
        job.cancel.request();
        if let Some(shared) = self.lock().as_ref() {
            shared.send(Command::Cancel(job.id));
        }
    }

    /// The thread of `ended` runs no longer.
    fn forget(&self, ended: &Arc<Shared>) {
        let mut running = self.lock();
        if running.as_ref().is_some_and(|shared| Arc::ptr_eq(shared, ended)) {
            *running = None;
        }
    }

    fn lock(&self) -> MutexGuard<'_, Option<Arc<Shared>>> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
