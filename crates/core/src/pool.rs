//! A few threads for disk work that may block, so that neither the JavaScript thread nor a reactor ever does.
//!
//! Threads start when there is work and leave after a while without any. A job that panics is contained and its thread
//! lives on.

use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Condvar, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

type Job = Box<dyn FnOnce() + Send>;

/// Threads at most. Disk reads of a cold file are the work: a handful keeps a device's queue busy.
const MAX_THREADS: usize = 4;
/// How long an idle thread stays.
const LINGER: Duration = Duration::from_secs(10);

struct State {
    jobs: VecDeque<Job>,
    threads: usize,
    idle: usize,
}

/// The pool. Use [`Pool::global`].
pub struct Pool {
    state: Mutex<State>,
    wake: Condvar,
}

impl Pool {
    /// The pool of the process.
    pub fn global() -> &'static Pool {
        static POOL: OnceLock<Pool> = OnceLock::new();
        POOL.get_or_init(|| Pool {
            state: Mutex::new(State { jobs: VecDeque::new(), threads: 0, idle: 0 }),
            wake: Condvar::new(),
        })
    }

    /// Runs `job` on one of the threads, after those queued before it.
    ///
    /// Where no thread can be started and none is running, the job runs here and now: late is better than never.
    pub fn run(&'static self, job: impl FnOnce() + Send + 'static) {
        let mut state = self.lock();
        state.jobs.push_back(Box::new(job));
        if state.idle >= state.jobs.len() || state.threads >= MAX_THREADS {
            drop(state);
            self.wake.notify_one();
            return;
        }
        state.threads += 1;
        drop(state);
        let spawned = std::thread::Builder::new().name("zerosend-disk".into()).spawn(move || self.work());
        if spawned.is_err() {
            let mut state = self.lock();
            state.threads -= 1;
            if state.threads == 0
                && let Some(job) = state.jobs.pop_back()
            {
                drop(state);
                contain(job);
            }
        }
    }

    fn work(&self) {
        let mut state = self.lock();
        loop {
            if let Some(job) = state.jobs.pop_front() {
                drop(state);
                contain(job);
                state = self.lock();
                continue;
            }
            state.idle += 1;
            let (next, timeout) = self.wake.wait_timeout(state, LINGER).unwrap_or_else(PoisonError::into_inner);
            state = next;
            state.idle -= 1;
            if timeout.timed_out() && state.jobs.is_empty() {
                state.threads -= 1;
                return;
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn contain(job: Job) {
    // A panic of a job is that job's loss: whoever waits for it is told by the drop of what the job owned.
    let _ = catch_unwind(AssertUnwindSafe(|| {
        crate::failpoint::failpoint!("pool::job");
        job();
    }));
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc;

    #[test]
    fn runs_every_job_and_survives_a_panic() {
        let (sender, receiver) = mpsc::channel();
        for number in 0..100 {
            let sender = sender.clone();
            Pool::global().run(move || {
                assert!(number % 10 != 3, "one in ten panics");
                let _ = sender.send(number);
            });
        }
        drop(sender);
        assert_eq!(receiver.iter().count(), 90);
        assert!(Pool::global().lock().threads <= MAX_THREADS);
    }
}
