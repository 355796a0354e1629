//! The reactor's loop.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};

use super::job::{Cancel, Job, Running, Work};
use super::mailbox::Mailbox;
use super::registry::{Registry, Token};
use super::timers::Timers;
use super::{Command, NonBlocking, Reactor};
use crate::error::{Code, Error, Result};
use crate::pool::Pool;
use crate::transfer::{Budget, Disk, Progress, Report};

/// How long the thread stays without a job.
const LINGER: Duration = Duration::from_secs(5);
/// Bytes after which a turn asks whether it is still wanted, so that a cancel does not wait for a large chunk to end.
const SLICE: u64 = 8 * 1024 * 1024;
/// The token of the waker; no registry gives it out.
const WAKER: Token = u64::MAX;

/// What the reactor's thread shares with those who send it commands.
pub(super) struct Shared {
    mailbox: Mailbox<Command>,
    epoll: Epoll,
}

impl Shared {
    pub fn new() -> std::result::Result<Self, Errno> {
        let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?;
        let mailbox = Mailbox::new()?;
        epoll.add(mailbox.waker(), EpollEvent::new(EpollFlags::EPOLLIN, WAKER))?;
        Ok(Self { mailbox, epoll })
    }

    pub fn send(&self, command: Command) {
        self.mailbox.send(command);
    }
}

pub(super) fn start(shared: Arc<Shared>, reactor: &'static Reactor) -> std::io::Result<()> {
    std::thread::Builder::new().name("zerosend-reactor".into()).spawn(move || {
        let mut state = State {
            shared,
            jobs: Registry::default(),
            tokens: HashMap::new(),
            turns: VecDeque::new(),
            timers: Timers::default(),
        };
        state.run(reactor);
    })?;
    Ok(())
}

struct State {
    shared: Arc<Shared>,
    jobs: Registry<Running>,
    tokens: HashMap<u64, Token>,
    /// Jobs that have their turn next, in order.
    turns: VecDeque<Token>,
    timers: Timers,
}

impl State {
    fn run(&mut self, reactor: &'static Reactor) {
        let mut events = [EpollEvent::empty(); 256];
        let mut idle_since = Instant::now();
        loop {
            let count = match self.shared.epoll.wait(&mut events, self.wait_time(Instant::now())) {
                Ok(count) => count,
                Err(Errno::EINTR) => 0,
                // EBADF, EFAULT, EINVAL: none can happen to a descriptor and a buffer that this thread owns. Should one
                // happen all the same, the next job starts a new thread, and those of this one end with it.
                Err(_) => {
                    *reactor.lock() = None;
                    return;
                }
            };
            for event in &events[..count] {
                match event.data() {
                    WAKER => self.shared.mailbox.waker().clear(),
                    token => self.enqueue(token),
                }
            }
            for command in self.shared.mailbox.take() {
                self.obey(command);
            }
            for _ in 0..self.turns.len() {
                if let Some(token) = self.turns.pop_front() {
                    self.turn(token);
                }
            }
            let now = Instant::now();
            while let Some((_, token)) = self.timers.pop_due(now) {
                self.check_deadline(token, now);
            }
            if !self.jobs.is_empty() {
                idle_since = now;
            } else if now.duration_since(idle_since) >= LINGER && self.leave(reactor) {
                return;
            }
        }
    }

    fn wait_time(&self, now: Instant) -> EpollTimeout {
        if !self.turns.is_empty() {
            return EpollTimeout::ZERO;
        }
        let wait = if self.jobs.is_empty() { Some(LINGER) } else { self.timers.until_next(now) };
        match wait {
            // Rounded up: waking a fraction of a millisecond early would spin until the deadline comes.
            Some(wait) => EpollTimeout::try_from(wait + Duration::from_micros(999)).unwrap_or(EpollTimeout::MAX),
            None => EpollTimeout::NONE,
        }
    }

    /// Leaves, unless a command has come in between.
    fn leave(&self, reactor: &Reactor) -> bool {
        let mut running = reactor.lock();
        let empty = self.shared.mailbox.empty();
        if empty.is_some() {
            *running = None;
        }
        empty.is_some()
    }

    fn obey(&mut self, command: Command) {
        crate::failpoint::failpoint!("reactor::command");
        match command {
            Command::Submit(id, job, cancel) => self.admit(id, job, cancel),
            Command::Cancel(id) => {
                let Some(token) = self.tokens.get(&id).copied() else { return };
                // What is away is told when it comes back, so that nothing moves any more when the observer hears of it.
                if self.jobs.get_mut(token).is_some_and(|running| !matches!(running.job.work, Work::Away)) {
                    self.finish(token, Err(aborted()));
                }
            }
            Command::Warmed(token, until) => {
                if let Some(running) = self.jobs.get_mut(token) {
                    running.away = false;
                    running.job.work.warmed(until);
                    self.enqueue(token);
                }
            }
            Command::Back(token, work, outcome) => {
                if let Some(running) = self.jobs.get_mut(token) {
                    running.away = false;
                    running.job.work = *work;
                    let wanted = !running.cancel.is_requested();
                    self.after_turn(token, if wanted { outcome } else { Err(aborted()) });
                }
            }
        }
    }

    fn admit(&mut self, id: u64, job: Job, cancel: Cancel) {
        if !job.peer.is_pollable() {
            return run_on_pool(job, cancel);
        }
        let now = Instant::now();
        let timeout = job.timeout;
        match self.jobs.insert(Running::new(id, job, cancel, now)) {
            Ok(token) => {
                self.tokens.insert(id, token);
                if let Some(timeout) = timeout {
                    self.timers.set(now + timeout, token);
                }
                self.enqueue(token);
            }
            Err(refused) => {
                let limit = Error::new(Code::Limit, "too many transfers at once; wait for some to end");
                refused.job.observer.done(Err(limit));
            }
        }
    }

    fn enqueue(&mut self, token: Token) {
        if let Some(running) = self.jobs.get_mut(token)
            && !running.queued
            && !running.away
        {
            running.queued = true;
            self.turns.push_back(token);
        }
    }

    fn turn(&mut self, token: Token) {
        let Some(running) = self.jobs.get_mut(token) else { return };
        running.queued = false;
        if running.cancel.is_requested() {
            return self.finish(token, Err(aborted()));
        }
        crate::failpoint::failpoint!("reactor::turn");
        let budget = running.job.chunk.min(SLICE);
        if let Work::Receive(_) = running.job.work {
            running.away = true;
            let work = std::mem::replace(&mut running.job.work, Work::Away);
            let peer = Some(running.job.peer.clone());
            let errand = Errand { shared: self.shared.clone(), token, work, peer, outcome: None };
            return Pool::global().run(move || errand.run(budget));
        }
        let outcome = running.job.work.advance(&running.job.peer, &mut Budget::new(budget));
        self.after_turn(token, outcome);
    }

    fn after_turn(&mut self, token: Token, outcome: Result<Progress>) {
        let Some(running) = self.jobs.get_mut(token) else { return };
        running.note_progress(Instant::now());
        match outcome {
            Ok(Progress::Yield) => self.enqueue(token),
            Ok(Progress::Blocked) => {
                if let Err(errno) = self.wait_for(token) {
                    self.refused_by_epoll(token, errno);
                }
            }
            Ok(Progress::Cold) => self.read_ahead(token),
            Ok(Progress::Done) => {
                let report = running.job.work.report().ok_or_else(vanished);
                self.finish(token, report);
            }
            Err(error) => self.finish(token, Err(error)),
        }
    }

    /// Once per `Blocked`: the entry is armed for one event, so that a job that has its turn elsewhere is not woken.
    fn wait_for(&mut self, token: Token) -> std::result::Result<(), Errno> {
        let Some(running) = self.jobs.get_mut(token) else { return Ok(()) };
        let mut event = EpollEvent::new(running.job.work.interest() | EpollFlags::EPOLLONESHOT, token);
        if running.registered {
            self.shared.epoll.modify(&*running.job.peer, &mut event)
        } else {
            self.shared.epoll.add(&*running.job.peer, event)?;
            running.registered = true;
            Ok(())
        }
    }

    /// `EPERM`: a device that is always ready. It may block, so a pool thread drives it.
    fn refused_by_epoll(&mut self, token: Token, errno: Errno) {
        if errno == Errno::EPERM {
            if let Some(running) = self.remove(token) {
                run_on_pool(running.job, running.cancel);
            }
        } else {
            self.finish(token, Err(Error::system("epoll_ctl", errno)));
        }
    }

    fn read_ahead(&mut self, token: Token) {
        let Some(running) = self.jobs.get_mut(token) else { return };
        let Some(range) = running.job.work.read_ahead() else { return };
        running.away = true;
        let shared = self.shared.clone();
        Pool::global().run(move || {
            let until = range.run();
            shared.send(Command::Warmed(token, until));
        });
    }

    fn check_deadline(&mut self, token: Token, now: Instant) {
        let Some(running) = self.jobs.get_mut(token) else { return };
        let Some(timeout) = running.job.timeout else { return };
        let deadline = running.last_progress + timeout;
        if deadline > now {
            self.timers.set(deadline, token);
        } else if matches!(running.job.work, Work::Away) {
            // The disk is slow, not the sender.
            self.timers.set(now + timeout, token);
        } else {
            self.finish(token, Err(timed_out(timeout)));
        }
    }

    fn finish(&mut self, token: Token, result: Result<crate::transfer::Report>) {
        if let Some(running) = self.remove(token) {
            let Job { observer, peer, work, .. } = running.job;
            let sent = work.report().map_or(0, |report| report.bytes);
            // The descriptors first: who hears of the end may count on their modes and numbers being given back.
            drop((peer, work));
            observer.done(result.map_err(|error| error.with_bytes(sent)));
        }
    }

    fn remove(&mut self, token: Token) -> Option<Running> {
        let running = self.jobs.remove(token)?;
        self.tokens.remove(&running.id);
        if running.registered {
            // Not left to close(2): the entry lives as long as any duplicate of the descriptor; see epoll(7).
            let _ = self.shared.epoll.delete(&*running.job.peer);
        }
        Some(running)
    }
}

fn aborted() -> Error {
    Error::new(Code::Aborted, "the transfer was aborted")
}

fn timed_out(timeout: Duration) -> Error {
    Error::new(
        Code::Timeout,
        format!(
            "no byte moved for {} ms; the receiver is too slow or gone, or `timeout` too short",
            timeout.as_millis()
        ),
    )
}

fn vanished() -> Error {
    Error::new(Code::Internal, "a bug in zerosend was contained, please report it: a turn vanished")
}

/// A turn on a pool thread. The work comes back whatever happens, so that its end is told.
struct Errand {
    shared: Arc<Shared>,
    token: Token,
    work: Work,
    peer: Option<Arc<NonBlocking>>,
    outcome: Option<Result<Progress>>,
}

impl Errand {
    fn run(mut self, budget: u64) {
        self.outcome = self.peer.as_ref().map(|peer| self.work.advance(peer, &mut Budget::new(budget)));
    }
}

impl Drop for Errand {
    fn drop(&mut self) {
        // Given back before the word is: the reactor's own is then the last, and its drop restores the descriptor's mode.
        self.peer = None;
        let work = Box::new(std::mem::replace(&mut self.work, Work::Away));
        let outcome = self.outcome.take().unwrap_or_else(|| Err(vanished()));
        self.shared.send(Command::Back(self.token, work, outcome));
    }
}

/// Regular files and devices as peers: always ready, and each write may wait for a disk.
fn run_on_pool(mut job: Job, cancel: Cancel) {
    Pool::global().run(move || {
        if let Work::Send(transfer) = &mut job.work {
            transfer.set_disk(Disk::MayBlock);
        }
        let mut last_report = Instant::now();
        let report = |job: &Job| job.work.report().unwrap_or_else(|| unreachable!("the work is here"));
        let result: Result<Report> = loop {
            if cancel.is_requested() {
                break Err(aborted());
            }
            match job.work.advance(&job.peer, &mut Budget::new(job.chunk.min(SLICE))) {
                Ok(Progress::Done) => break Ok(report(&job)),
                Ok(_) => {
                    if let Some(every) = job.progress
                        && last_report.elapsed() >= every
                    {
                        last_report = Instant::now();
                        job.observer.progress(report(&job).bytes);
                    }
                }
                Err(error) => break Err(error),
            }
        };
        let sent = report(&job).bytes;
        let Job { observer, peer, work, .. } = job;
        drop((peer, work));
        observer.done(result.map_err(|error| error.with_bytes(sent)));
    });
}
