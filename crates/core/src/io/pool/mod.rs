//! Threads for work that may wait for a disk. The JavaScript thread and event loop threads never do.
//!
//! There are two lanes with separate threads: [`Lane::Short`] for work of some milliseconds that a request waits for, and
//! [`Lane::Long`] for the rest. A job is bounded in both; longer work runs in steps ([`Pool::run_in_steps`]) and goes to
//! the end of the queue after each.
//!
//! Every job names the [`Volume`] that it depends on. A hung disk or mount blocks a bounded number of threads, and other
//! threads are started for jobs of other volumes: see `schedule.rs`. Threads start on demand and exit when they were
//! idle for ten seconds.
//!
//! The callback of a job is called exactly once: with the result, or with an error when the job panics, is cancelled or is
//! dropped.

mod job;
mod schedule;
mod volume;

use std::ops::ControlFlow;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use crate::error::{Error, Result};
use crate::thread;
use job::{Job, Pending, ResultSlot, Run};
use schedule::{MAX_THREADS, Next, Schedule, Ticket};

pub use volume::Volume;

/// After this time an idle thread exits.
const IDLE_TIMEOUT: Duration = Duration::from_secs(10);

/// The two kinds of jobs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lane {
    /// Work that a request waits for: opening, metadata, the first bytes of a cold file.
    Short,
    /// Hashing, writing, reading further ahead.
    Long,
}

impl Lane {
    fn thread_name(self) -> &'static str {
        match self {
            Lane::Short => "zerosend-disk",
            Lane::Long => "zerosend-long",
        }
    }
}

type BoxedJob = Box<dyn Run>;

struct State {
    schedule: Schedule<BoxedJob>,
    threads: usize,
    idle: usize,
}

struct LaneState {
    state: Mutex<State>,
    wake: Condvar,
}

/// The pool. Use [`Pool::global`].
pub struct Pool {
    lanes: [LaneState; 2],
}

impl Pool {
    /// The pool of the process.
    pub fn global() -> &'static Pool {
        static POOL: OnceLock<Pool> = OnceLock::new();
        POOL.get_or_init(|| Pool { lanes: [LaneState::new(), LaneState::new()] })
    }

    /// Runs `work` on a thread of the lane and calls `on_result` exactly once, on any thread: also when `work` panics, when
    /// the task is cancelled, and when no thread can be started ([`crate::Code::Limit`]). `on_result` must not block.
    pub fn run<T: Send + 'static>(
        &'static self,
        lane: Lane,
        volume: Volume,
        work: impl FnOnce() -> Result<T> + Send + 'static,
        on_result: impl FnOnce(Result<T>) + Send + 'static,
    ) -> Task {
        let mut work = Some(work);
        // Not reached after `Break`.
        let step = move || match work.take() {
            Some(work) => ControlFlow::Break(work()),
            None => ControlFlow::Break(Err(Error::dropped())),
        };
        self.run_in_steps(lane, volume, step, on_result)
    }

    /// Calls `step` until it returns `Break` with the result. After each call the job goes to the end of the queue of its
    /// volume. A step is bounded: some milliseconds of computation, or a few megabytes of disk I/O. Otherwise as
    /// [`Pool::run`].
    pub fn run_in_steps<T: Send + 'static>(
        &'static self,
        lane: Lane,
        volume: Volume,
        step: impl FnMut() -> ControlFlow<Result<T>> + Send + 'static,
        on_result: impl FnOnce(Result<T>) + Send + 'static,
    ) -> Task {
        let slot = Arc::new(ResultSlot::new(on_result));
        let number = self.push(lane, volume, Box::new(Job::new(step, slot.clone())));
        Task { pool: self, lane, volume, number, pending: slot }
    }

    fn push(&'static self, lane: Lane, volume: Volume, job: BoxedJob) -> u64 {
        let here = self.lane(lane);
        let mut state = here.lock();
        let number = state.schedule.push(volume, job);
        if state.idle > 0 {
            drop(state);
            here.wake.notify_one();
        } else if state.threads < MAX_THREADS {
            state.threads += 1;
            drop(state);
            self.start(lane);
        }
        number
    }

    fn start(&'static self, lane: Lane) {
        let Err(error) = thread::spawn(lane.thread_name(), move || self.work(lane)) else { return };
        let mut state = self.lane(lane).lock();
        state.threads -= 1;
        if state.threads > 0 {
            // The running threads take the jobs.
            return;
        }
        // They do not run on this thread: the caller must not wait for a disk.
        let mut failed = std::mem::take(&mut state.schedule);
        drop(state);
        for mut job in failed.drain() {
            job.fail(thread::failed("for work on files", &error));
        }
    }

    fn work(&'static self, lane: Lane) {
        let here = self.lane(lane);
        let mut state = here.lock();
        loop {
            let now = Instant::now();
            let wait = match state.schedule.next(now) {
                Next::Run(mut job, ticket) => {
                    // While jobs wait, one thread more than there are running jobs: it starts the next job once others are
                    // stuck.
                    let another = state.schedule.waiting() > 0 && state.idle == 0 && state.threads < MAX_THREADS;
                    state.threads += usize::from(another);
                    drop(state);
                    if another {
                        self.start(lane);
                    }
                    let continues = job.run().is_continue();
                    state = self.finish(lane, ticket, job, continues);
                    continue;
                }
                Next::WaitUntil(time) => time.saturating_duration_since(now),
                Next::Wait => IDLE_TIMEOUT,
            };
            state.idle += 1;
            let (next, timeout) = here.wake.wait_timeout(state, wait).unwrap_or_else(PoisonError::into_inner);
            state = next;
            state.idle -= 1;
            if timeout.timed_out() && state.schedule.waiting() == 0 {
                state.threads -= 1;
                return;
            }
        }
    }

    /// Ends a step of a job, and the job unless it `continues`.
    fn finish(&'static self, lane: Lane, ticket: Ticket, job: BoxedJob, continues: bool) -> MutexGuard<'static, State> {
        // A job is dropped outside the lock: that may call its callback, or close files.
        let next = if continues {
            Some(job)
        } else {
            crate::stats::contain(|| drop(job));
            None
        };
        let here = self.lane(lane);
        let mut state = here.lock();
        state.schedule.finish(ticket);
        if let Some(job) = next {
            state.schedule.push(ticket.volume(), job);
        }
        // This thread takes one waiting job; a second one may run on another thread.
        if state.schedule.waiting() > 1 && state.idle > 0 {
            here.wake.notify_one();
        }
        state
    }

    fn remove(&self, lane: Lane, volume: Volume, number: u64) -> Option<BoxedJob> {
        self.lane(lane).lock().schedule.remove(volume, number)
    }

    fn lane(&self, lane: Lane) -> &LaneState {
        match lane {
            Lane::Short => &self.lanes[0],
            Lane::Long => &self.lanes[1],
        }
    }
}

impl LaneState {
    fn new() -> Self {
        Self { state: Mutex::new(State { schedule: Schedule::default(), threads: 0, idle: 0 }), wake: Condvar::new() }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A job in the pool. Dropping this does not cancel the job.
#[must_use = "keep it to cancel the job, or call `detach`"]
pub struct Task {
    pool: &'static Pool,
    lane: Lane,
    volume: Volume,
    number: u64,
    pending: Arc<dyn Pending>,
}

impl Task {
    /// Calls the job's callback with `error` on this thread, unless it was called before. A waiting job is removed from the
    /// queue. A running job is not interrupted: it runs no further step, and its result is dropped.
    pub fn cancel(&self, error: Error) -> bool {
        let was_pending = self.pending.fail(error);
        // After its first step a job has another number and stays in the queue. It ends before its next step.
        drop(self.pool.remove(self.lane, self.volume, self.number));
        was_pending
    }

    /// True until the job's callback was called.
    pub fn is_pending(&self) -> bool {
        self.pending.is_pending()
    }

    /// Lets the job run to its end.
    pub fn detach(self) {}
}

impl std::fmt::Debug for Task {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Task").field("lane", &self.lane).field("number", &self.number).finish_non_exhaustive()
    }
}
