//! The reactor's handler of the event loop: commands, deadlines and results of jobs. A panic ends the job of that call only.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use nix::sys::epoll::EpollFlags;

use super::command::{Command, PoolTurn, Registration};
use super::job::{Place, RunningJob};
use crate::error::{Code, Error, Result};
use crate::event_loop::slab::Token;
use crate::event_loop::{self, EventLoop, Handler, Scheduler};
use crate::transfer::{Prefetched, Progress, Report};
use crate::{stats, thread};

/// How long the thread stays without a job.
pub(super) const IDLE_TIMEOUT: Duration = Duration::from_secs(5);
/// How long a job that is to stop waits for the pool thread that runs its turn, so that its byte count is exact. After that
/// the turn is abandoned: its result is dropped.
const STOP_TIMEOUT: Duration = Duration::from_millis(50);

pub(super) fn start(event_loop: EventLoop<Command>, registration: &'static Registration) -> std::io::Result<()> {
    thread::spawn("zerosend-reactor", move || {
        let mailbox = event_loop.mailbox().clone();
        let mut this = ReactorThread {
            idle_since: event_loop.now(),
            event_loop,
            registration,
            jobs: Scheduler::default(),
            tokens: HashMap::new(),
        };
        stats::contain(|| event_loop::run(&mut this));
        // After a panic of the loop itself too: the next job starts another thread.
        registration.remove(&mailbox);
    })?;
    Ok(())
}

pub(super) struct ReactorThread {
    pub event_loop: EventLoop<Command>,
    pub jobs: Scheduler<RunningJob>,
    registration: &'static Registration,
    tokens: HashMap<u64, Token>,
    idle_since: Instant,
}

impl Handler for ReactorThread {
    type Message = Command;
    type Entry = RunningJob;

    fn event_loop(&mut self) -> &mut EventLoop<Command> {
        &mut self.event_loop
    }

    fn scheduler(&mut self) -> &mut Scheduler<RunningJob> {
        &mut self.jobs
    }

    fn token_of_message(&self, command: &Command) -> Option<Token> {
        match command {
            Command::Submit(_) => None,
            Command::Cancel(id) => self.tokens.get(id).copied(),
            Command::Prefetched(token, _) | Command::TurnEnded(token, _) => Some(*token),
        }
    }

    fn on_event(&mut self, token: Token, _: EpollFlags) {
        self.enqueue(token);
    }

    fn on_message(&mut self, command: Command) {
        self.handle_command(command);
    }

    /// Several transfers may write to one pipe or terminal. The kernel reports them in the same order each time, so the first
    /// would fill it again before the others get a turn: jobs that moved nothing in their last turns go first.
    fn before_turns(&mut self) {
        self.jobs.prioritize(|job| job.stalled_turns);
    }

    fn on_turn(&mut self, token: Token) {
        self.turn(token);
    }

    fn on_deadline(&mut self, token: Token) {
        self.check_deadline(token);
    }

    fn on_panic(&mut self, token: Option<Token>) {
        if let Some(token) = token {
            self.finish(token, Err(Error::dropped()));
        }
    }

    fn next_round_at(&self, _: Instant) -> Option<Instant> {
        self.jobs.is_empty().then(|| self.idle_since + IDLE_TIMEOUT)
    }

    fn is_done(&mut self) -> bool {
        let now = self.event_loop.now();
        if !self.jobs.is_empty() {
            self.idle_since = now;
        }
        now.duration_since(self.idle_since) >= IDLE_TIMEOUT
            && self.registration.remove_if_empty(self.event_loop.mailbox())
    }
}

impl ReactorThread {
    fn handle_command(&mut self, command: Command) {
        crate::failpoint::failpoint!("reactor::command");
        match command {
            Command::Submit(job) => self.start(*job),
            Command::Cancel(id) => {
                if let Some(token) = self.tokens.get(&id).copied() {
                    self.stop(token, aborted());
                }
            }
            Command::Prefetched(token, result) => self.prefetched(token, result),
            Command::TurnEnded(token, result) => self.pool_turn_ended(token, result),
        }
    }

    fn start(&mut self, job: RunningJob) {
        let id = job.id;
        match self.jobs.insert(job) {
            Ok(token) => {
                self.tokens.insert(id, token);
                self.update_deadline(token);
                self.enqueue(token);
            }
            Err(job) => {
                job.notifier.done(Err(Error::new(Code::Limit, "too many concurrent transfers; wait for some to end")));
            }
        }
    }

    /// Gives the job a turn, unless a pool thread works for it.
    pub fn enqueue(&mut self, token: Token) {
        if self.jobs.get_mut(token).is_some_and(|job| !job.is_on_pool_thread()) {
            self.jobs.enqueue(token);
        }
    }

    /// Ends a job at once, or after its turn on a pool thread, for which it waits [`STOP_TIMEOUT`].
    fn stop(&mut self, token: Token, reason: Error) {
        let Some(job) = self.jobs.get_mut(token) else { return };
        if !matches!(job.place, Place::InPool(_)) {
            return self.finish(token, Err(reason));
        }
        if job.stop_reason.is_none() {
            job.stop_reason = Some(reason);
            // The turn ends with its next system call.
            job.cancel.request();
            self.jobs.set_deadline(token, Some(Instant::now() + STOP_TIMEOUT));
        }
    }

    fn prefetched(&mut self, token: Token, result: Result<Prefetched>) {
        let Some(job) = self.jobs.get_mut(token) else { return };
        match (std::mem::replace(&mut job.place, Place::Lost), result) {
            (Place::Prefetching(mut work, _), Ok(prefetched)) => {
                work.prefetched(prefetched);
                job.place = Place::Local(work);
                self.enqueue(token);
            }
            (Place::Prefetching(work, _), Err(error)) => {
                job.place = Place::Local(work);
                self.finish(token, Err(error));
            }
            (place, _) => job.place = place,
        }
    }

    fn pool_turn_ended(&mut self, token: Token, result: Result<PoolTurn>) {
        let Some(job) = self.jobs.get_mut(token) else { return };
        let outcome = match result {
            Ok(PoolTurn { work, outcome }) => {
                job.place = Place::Local(work);
                outcome
            }
            Err(error) => {
                job.place = Place::Lost;
                Err(error)
            }
        };
        match job.stop_reason.take() {
            // The turn completed the transfer before it was stopped.
            Some(_) if matches!(outcome, Ok(Progress::Done)) => self.after_turn(token, outcome),
            Some(reason) => {
                job.record_progress(Instant::now());
                self.finish(token, Err(reason));
            }
            None => self.after_turn(token, outcome),
        }
    }

    pub fn update_deadline(&mut self, token: Token) {
        if let Some(job) = self.jobs.get_mut(token) {
            let deadline = job.deadline();
            self.jobs.set_deadline(token, deadline);
        }
    }

    fn check_deadline(&mut self, token: Token) {
        let now = self.event_loop.now();
        let Some(job) = self.jobs.get_mut(token) else { return };
        if let Some(reason) = job.stop_reason.take() {
            return self.finish(token, Err(reason));
        }
        if let Some(timeout) = job.timeout
            && now.saturating_duration_since(job.last_progress) >= timeout
        {
            let error = job.timeout_error(timeout);
            return self.stop(token, error);
        }
        if job.retry_at.is_some_and(|at| at <= now) {
            job.retry_at = None;
            self.enqueue(token);
        }
        self.update_deadline(token);
    }

    /// Removes the job and reports its result.
    pub fn finish(&mut self, token: Token, result: Result<Report>) {
        let Some(job) = self.jobs.remove(token) else { return };
        self.tokens.remove(&job.id);
        if job.is_registered {
            // close(2) would not remove it: the entry lives as long as any duplicate of the descriptor, see epoll(7).
            let _ = self.event_loop.epoll().delete(&*job.peer);
        }
        let RunningJob { notifier, peer, place, reported_bytes, receives, .. } = job;
        let bytes = match &place {
            Place::Local(work) | Place::Prefetching(work, _) => work.report().bytes,
            Place::InPool(_) | Place::Lost => reported_bytes,
        };
        if let Place::Prefetching(_, task) | Place::InPool(task) = &place {
            task.cancel(aborted());
        }
        if let Err(error) = &result
            && !receives
            && peer.is_socket()
            && error.leaves_body_incomplete()
        {
            // Fails for a Unix socket, which has no reset: its peer sees the close only.
            let _ = zerosend_sys::socket::reset(&*peer);
        }
        // Before the report: the observer may rely on the descriptor being closed and on the mode of its duplicates.
        drop((peer, place));
        notifier.done(result.map_err(|error| error.with_bytes(bytes)));
    }
}

pub(super) fn aborted() -> Error {
    Error::new(Code::Aborted, "the transfer was aborted")
}
