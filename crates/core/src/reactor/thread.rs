//! The reactor's loop. Each turn, command and deadline is contained: a panic ends the job it was about, and no other.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};

use super::job::{Place, Running};
use super::{Command, InPool, Reactor};
use crate::error::{Code, Error, Result};
use crate::event_loop::mailbox::Mailbox;
use crate::event_loop::slab::{Slab, Token};
use crate::event_loop::timers::Timers;
use crate::io::pool::{Lane, Pool};
use crate::transfer::{Budget, Prefetched, Progress};
use crate::{stats, thread};
use zerosend_sys as sys;

/// How long the thread stays without a job.
const LINGER: Duration = Duration::from_secs(5);
/// Bytes after which a turn asks whether it is still wanted, so that a cancel does not wait for a large chunk to end.
const SLICE: u64 = 8 * 1024 * 1024;
/// The same on a thread of the pool, where a turn is one piece of work among others.
const PIECE: u64 = 1024 * 1024;
/// A job that is not wanted any more, or has run out of time, while a pool thread is at it: how long it may take to come
/// back, so that the report is exact. After that the call is left behind.
const RETURN: Duration = Duration::from_millis(50);
/// Turns without a byte moved, after which the next one comes by the clock: epoll may report a descriptor as ready over
/// and over that takes nothing (an error queue, a device, a FUSE daemon that answers EAGAIN).
const MAX_FRUITLESS: u32 = 16;
/// The distance of such turns.
const RETRY: Duration = Duration::from_millis(20);
/// Epoll data of the waker. A slab never returns it: its tokens are below 2^51.
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
    thread::spawn("zerosend-reactor", move || {
        let mut state = State {
            shared: shared.clone(),
            jobs: Slab::default(),
            tokens: HashMap::new(),
            turns: VecDeque::new(),
            timers: Timers::default(),
        };
        stats::contain(|| state.run(reactor));
        // However it ended: the next job starts a new thread, and the jobs of this one end with it.
        reactor.forget(&shared);
    })?;
    Ok(())
}

struct State {
    shared: Arc<Shared>,
    jobs: Slab<Running>,
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
                // EBADF, EFAULT, EINVAL: none can happen to a descriptor and a buffer that this thread owns.
                Err(_) => return,
            };
            for event in &events[..count] {
                match event.data() {
                    WAKER => self.shared.mailbox.waker().clear(),
                    token => self.enqueue(token),
                }
            }
            for command in self.shared.mailbox.take() {
                let token = self.token_of(&command);
                self.contain(token, |state| state.handle(command));
            }
            self.put_starved_first();
            for _ in 0..self.turns.len() {
                if let Some(token) = self.turns.pop_front() {
                    self.contain(Some(token), |state| state.turn(token));
                }
            }
            let now = Instant::now();
            while let Some((_, token)) = self.timers.pop_due(now) {
                self.contain(Some(token), |state| state.check_deadline(token, now));
            }
            if !self.jobs.is_empty() {
                idle_since = now;
            } else if now.duration_since(idle_since) >= LINGER && self.leave(reactor) {
                return;
            }
        }
    }

    /// Runs `body`; if it panics, the job `token` fails.
    fn contain(&mut self, token: Option<Token>, body: impl FnOnce(&mut Self)) {
        if stats::contain(|| body(self)).is_none()
            && let Some(token) = token
        {
            self.finish(token, Err(Error::dropped()));
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
        let empty = self.shared.mailbox.lock_if_empty();
        if empty.is_some() {
            *running = None;
        }
        empty.is_some()
    }

    /// The job that a command is about, as far as it is known yet.
    fn token_of(&self, command: &Command) -> Option<Token> {
        match command {
            Command::Submit(_) => None,
            Command::Cancel(id) => self.tokens.get(id).copied(),
            Command::Prefetched(token, _) | Command::Back(token, _) => Some(*token),
        }
    }

    fn handle(&mut self, command: Command) {
        crate::failpoint::failpoint!("reactor::command");
        match command {
            Command::Submit(running) => self.admit(*running),
            Command::Cancel(id) => {
                if let Some(token) = self.tokens.get(&id).copied() {
                    self.stop(token, aborted());
                }
            }
            Command::Prefetched(token, outcome) => self.prefetched(token, outcome),
            Command::Back(token, outcome) => self.back(token, outcome),
        }
    }

    fn admit(&mut self, running: Running) {
        let id = running.id;
        match self.jobs.insert(running) {
            Ok(token) => {
                self.tokens.insert(id, token);
                self.set_timer(token);
                self.enqueue(token);
            }
            Err(refused) => {
                refused.notifier.done(Err(Error::new(Code::Limit, "too many transfers at once; wait for some to end")));
            }
        }
    }

    /// Ends a job at once; one that a pool thread is at, when that comes back or after [`RETURN`].
    fn stop(&mut self, token: Token, error: Error) {
        let Some(running) = self.jobs.get_mut(token) else { return };
        if !matches!(running.place, Place::InPool(_)) {
            return self.finish(token, Err(error));
        }
        if running.ending.is_none() {
            running.ending = Some(error);
            // Its turn ends with the next system call.
            running.cancel.request();
            self.wake_at(token, Instant::now() + RETURN);
        }
    }

    fn prefetched(&mut self, token: Token, outcome: Result<Prefetched>) {
        let Some(running) = self.jobs.get_mut(token) else { return };
        match (std::mem::replace(&mut running.place, Place::Lost), outcome) {
            (Place::Prefetching(mut work, _), Ok(prefetched)) => {
                work.prefetched(prefetched);
                running.place = Place::Here(work);
                self.enqueue(token);
            }
            (Place::Prefetching(work, _), Err(error)) => {
                running.place = Place::Here(work);
                self.finish(token, Err(error));
            }
            (place, _) => running.place = place,
        }
    }

    fn back(&mut self, token: Token, outcome: Result<InPool>) {
        let Some(running) = self.jobs.get_mut(token) else { return };
        let result = match outcome {
            Ok(InPool { work, outcome }) => {
                running.place = Place::Here(work);
                outcome
            }
            Err(error) => {
                running.place = Place::Lost;
                Err(error)
            }
        };
        match running.ending.take() {
            // Whole after all.
            Some(_) if matches!(result, Ok(Progress::Done)) => self.after_turn(token, result),
            Some(error) => {
                running.note_progress(Instant::now());
                self.finish(token, Err(error));
            }
            None => self.after_turn(token, result),
        }
    }

    fn enqueue(&mut self, token: Token) {
        if let Some(running) = self.jobs.get_mut(token)
            && !running.queued
            && !running.is_away()
        {
            running.queued = true;
            self.turns.push_back(token);
        }
    }

    /// Several transfers may write to one pipe or terminal. The kernel wakes them in the same order each time, so the first of
    /// them would fill it again before the others have their turn: those that moved nothing the last time go first.
    fn put_starved_first(&mut self) {
        if self.turns.len() < 2 {
            return;
        }
        let jobs = &mut self.jobs;
        let mut fruitless = |token: &Token| jobs.get_mut(*token).map_or(0, |running| running.fruitless);
        if self.turns.iter().any(|token| fruitless(token) > 0) {
            self.turns.make_contiguous().sort_by_cached_key(|token| std::cmp::Reverse(fruitless(token)));
        }
    }

    fn turn(&mut self, token: Token) {
        let Some(running) = self.jobs.get_mut(token) else { return };
        running.queued = false;
        running.retry_at = None;
        if running.cancel.is_requested() {
            return self.finish(token, Err(aborted()));
        }
        crate::failpoint::failpoint!("reactor::turn");
        if running.on_pool {
            return self.turn_on_pool(token);
        }
        let mut budget = Budget::new(running.chunk.min(SLICE));
        let peer = running.peer.clone();
        let Some(work) = running.work() else { return };
        let outcome = work.advance(&peer, &mut budget);
        // `finish` lets go of the last one before it reports.
        drop(peer);
        self.after_turn(token, outcome);
    }

    fn turn_on_pool(&mut self, token: Token) {
        let Some(running) = self.jobs.get_mut(token) else { return };
        let mut work = match std::mem::replace(&mut running.place, Place::Lost) {
            Place::Here(work) => work,
            other => {
                running.place = other;
                return;
            }
        };
        let (peer, cancel, chunk) = (running.peer.clone(), running.cancel.clone(), running.chunk.min(PIECE));
        let volume = work.volume(&peer);
        let turn = move || {
            let outcome = work.advance(&peer, &mut Budget::stoppable(chunk, cancel));
            Ok(InPool { work, outcome })
        };
        let shared = self.shared.clone();
        let answer = move |outcome| shared.send(Command::Back(token, outcome));
        running.place = Place::InPool(Pool::global().run(Lane::Long, volume, turn, answer));
    }

    fn after_turn(&mut self, token: Token, outcome: Result<Progress>) {
        let now = Instant::now();
        let Some(running) = self.jobs.get_mut(token) else { return };
        running.note_progress(now);
        match outcome {
            Ok(Progress::Yield) => self.enqueue(token),
            Ok(Progress::Blocked) if running.fruitless >= MAX_FRUITLESS || !running.peer.is_pollable() => {
                running.retry_at = Some(now + RETRY);
                self.set_timer(token);
            }
            Ok(Progress::Blocked) => {
                if let Err(errno) = self.wait_for(token) {
                    self.refused_by_epoll(token, errno);
                }
            }
            Ok(Progress::Cold) => self.prefetch(token),
            Ok(Progress::Done) => {
                let report = running.work().map(|work| work.report()).ok_or_else(Error::dropped);
                self.finish(token, report);
            }
            Err(error) => self.finish(token, Err(error)),
        }
    }

    /// Once per `Blocked`: the entry is armed for one event, so that a job that has its turn elsewhere is not woken.
    fn wait_for(&mut self, token: Token) -> std::result::Result<(), Errno> {
        let Some(running) = self.jobs.get_mut(token) else { return Ok(()) };
        let Some(interest) = running.work().map(|work| work.interest()) else { return Ok(()) };
        let mut event = EpollEvent::new(interest | EpollFlags::EPOLLONESHOT, token);
        if running.registered {
            self.shared.epoll.modify(&*running.peer, &mut event)
        } else {
            self.shared.epoll.add(&*running.peer, event)?;
            running.registered = true;
            Ok(())
        }
    }

    /// `EPERM`: a device that is always ready. It may block, so pool threads drive it.
    fn refused_by_epoll(&mut self, token: Token, errno: Errno) {
        let Some(running) = self.jobs.get_mut(token) else { return };
        if errno != Errno::EPERM {
            return self.finish(token, Err(Error::system("epoll_ctl", errno)));
        }
        running.move_to_pool();
        running.retry_at = Some(Instant::now() + RETRY);
        self.set_timer(token);
    }

    fn prefetch(&mut self, token: Token) {
        let Some(running) = self.jobs.get_mut(token) else { return };
        let Some(prefetch) = running.work().and_then(|work| work.prefetch()) else {
            return self.finish(token, Err(Error::dropped()));
        };
        let shared = self.shared.clone();
        let task = prefetch.start(move |outcome| shared.send(Command::Prefetched(token, outcome)));
        running.place = match std::mem::replace(&mut running.place, Place::Lost) {
            Place::Here(work) => Place::Prefetching(work, task),
            other => other,
        };
    }

    fn set_timer(&mut self, token: Token) {
        if let Some(deadline) = self.jobs.get_mut(token).and_then(|running| running.deadline()) {
            self.wake_at(token, deadline);
        }
    }

    fn wake_at(&mut self, token: Token, deadline: Instant) {
        let Some(running) = self.jobs.get_mut(token) else { return };
        if let Some(before) = running.timer.replace(deadline) {
            self.timers.cancel(before, token);
        }
        self.timers.set(deadline, token);
    }

    fn check_deadline(&mut self, token: Token, now: Instant) {
        let Some(running) = self.jobs.get_mut(token) else { return };
        running.timer = None;
        if let Some(error) = running.ending.take() {
            // It did not come back: its call is left behind, and what that returns is dropped.
            return self.finish(token, Err(error));
        }
        if running.retry_at.is_some_and(|at| at <= now) {
            running.retry_at = None;
            self.enqueue(token);
        }
        if let Some(running) = self.jobs.get_mut(token)
            && let Some(timeout) = running.timeout
            && now.duration_since(running.last_progress) >= timeout
        {
            let error = running.timed_out(timeout);
            return self.stop(token, error);
        }
        self.set_timer(token);
    }

    fn finish(&mut self, token: Token, result: Result<crate::transfer::Report>) {
        let Some(running) = self.remove(token) else { return };
        let Running { notifier, peer, place, reported, receives, .. } = running;
        let sent = match &place {
            Place::Here(work) | Place::Prefetching(work, _) => work.report().bytes,
            Place::InPool(_) | Place::Lost => reported,
        };
        if let Place::Prefetching(_, task) | Place::InPool(task) = &place {
            task.cancel(aborted());
        }
        if let Err(error) = &result
            && !receives
            && peer.is_socket()
            && error.leaves_body_incomplete()
        {
            // A Unix socket has no reset; closing it is all that can be done there.
            let _ = sys::socket::reset(&*peer);
        }
        // The descriptors first: who hears of the end may count on their modes and numbers being given back.
        drop((peer, place));
        notifier.done(result.map_err(|error| error.with_bytes(sent)));
    }

    fn remove(&mut self, token: Token) -> Option<Running> {
        let running = self.jobs.remove(token)?;
        self.tokens.remove(&running.id);
        if let Some(deadline) = running.timer {
            self.timers.cancel(deadline, token);
        }
        if running.registered {
            // Not left to close(2): the entry lives as long as any duplicate of the descriptor; see epoll(7).
            let _ = self.shared.epoll.delete(&*running.peer);
        }
        Some(running)
    }
}

fn aborted() -> Error {
    Error::new(Code::Aborted, "the transfer was aborted")
}
