//! Threads for work that may wait for a disk, so that neither the JavaScript thread nor a reactor ever does.
//!
//! Two lanes with separate threads: [`Lane::Short`] for work that a request waits for, some milliseconds long, and [`Lane::Long`]
//! for the rest. In both a job is a bounded piece of work; longer work is done in pieces
//! ([`Pool::run_in_pieces`]) and goes to the end of the queue after each.
//!
//! Every job names the [`Volume`] that it depends on. A hung disk or mount occupies a bounded number of threads, and
//! jobs of other volumes get replacements: see `schedule.rs`. Threads start when there is work and leave after a while
//! without any.
//!
//! Every job has an answer, which is called exactly once: with the result, or with an error when the job panics, is
//! cancelled, or is dropped.

mod schedule;
mod task;
mod volume;

use std::ops::ControlFlow;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use crate::error::Result;
use crate::thread;
use schedule::{MAX_THREADS, Next, Schedule, Ticket};
use task::{Job, Run, Slot};

pub use task::Task;
pub use volume::Volume;

/// How long an idle thread stays.
const LINGER: Duration = Duration::from_secs(10);

/// What a job is like.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lane {
    /// Work that a request waits for: opening, metadata, the first bytes of a cold file.
    Short,
    /// Hashing, writing, reading far ahead.
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

    /// Runs `work` on a thread of the lane and gives its result to `answer`, which is called exactly once, on any thread:
    /// also when `work` panics, when the task is cancelled, and when no thread can be started
    /// ([`crate::Code::Limit`]). `answer` must not block.
    pub fn run<T: Send + 'static>(
        &'static self,
        lane: Lane,
        volume: Volume,
        work: impl FnOnce() -> Result<T> + Send + 'static,
        answer: impl FnOnce(Result<T>) + Send + 'static,
    ) -> Task {
        let mut work = Some(work);
        // `None` cannot come: nothing is run again after `Break`.
        let piece = move || match work.take() {
            Some(work) => ControlFlow::Break(work()),
            None => ControlFlow::Break(Err(crate::Error::dropped())),
        };
        self.run_in_pieces(lane, volume, piece, answer)
    }

    /// Calls `piece`, each time at the end of the queue of its volume, until it returns `Break` with the result. A piece
    /// is bounded: some milliseconds of computing, or a few megabytes of a disk. Otherwise as [`Pool::run`].
    pub fn run_in_pieces<T: Send + 'static>(
        &'static self,
        lane: Lane,
        volume: Volume,
        piece: impl FnMut() -> ControlFlow<Result<T>> + Send + 'static,
        answer: impl FnOnce(Result<T>) + Send + 'static,
    ) -> Task {
        let slot = Arc::new(Slot::new(answer));
        let number = self.push(lane, volume, Box::new(Job::new(piece, slot.clone())));
        Task::new(self, lane, volume, number, slot)
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
            // The threads that run take the jobs in turn.
            return;
        }
        // No thread is left to run them. They do not run here: the caller must not wait for a disk.
        let mut refused = std::mem::take(&mut state.schedule);
        drop(state);
        for mut job in refused.drain() {
            job.refuse(thread::failed("for work on files", &error));
        }
    }

    fn work(&'static self, lane: Lane) {
        let here = self.lane(lane);
        let mut state = here.lock();
        loop {
            let now = Instant::now();
            let wait = match state.schedule.next(now) {
                Next::Run(mut job, ticket) => {
                    // One thread more than is busy, while jobs wait: it starts those that may run once others are stuck.
                    let another = state.schedule.waiting() > 0 && state.idle == 0 && state.threads < MAX_THREADS;
                    state.threads += usize::from(another);
                    drop(state);
                    if another {
                        self.start(lane);
                    }
                    let again = job.run().is_continue();
                    state = self.ended(lane, ticket, job, again);
                    continue;
                }
                Next::At(at) => at.saturating_duration_since(now),
                Next::Nothing => LINGER,
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

    /// Takes note of the end of a job, or of a piece of it.
    fn ended(&'static self, lane: Lane, ticket: Ticket, job: BoxedJob, again: bool) -> MutexGuard<'static, State> {
        // What a job owned is dropped outside the lock: that may call its answer, or close files.
        let again = if again {
            Some(job)
        } else {
            crate::stats::contain(|| drop(job));
            None
        };
        let here = self.lane(lane);
        let mut state = here.lock();
        state.schedule.finished(ticket);
        if let Some(job) = again {
            state.schedule.push(ticket.volume(), job);
        }
        // This thread takes one of the jobs that wait; a second one may have become possible for another thread.
        if state.schedule.waiting() > 1 && state.idle > 0 {
            here.wake.notify_one();
        }
        state
    }

    fn withdraw(&self, lane: Lane, volume: Volume, number: u64) -> Option<BoxedJob> {
        self.lane(lane).lock().schedule.withdraw(volume, number)
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
