//! A worker: one thread, one epoll, and the connections it has accepted.

use std::collections::VecDeque;
use std::os::fd::RawFd;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};

use super::accepting;
use super::connection::{Connection, Next};
use super::context::Context;
use super::listener::Listener;
use super::message::Message;
use super::shared::Shared;
use super::stats::Limit;
use crate::error::{Error, Result};
use crate::event_loop::mailbox::Mailbox;
use crate::event_loop::slab::{Slab, Token};
use crate::event_loop::timers::Timers;

/// Epoll data that is never a token of a slab.
const WAKER: Token = u64::MAX;
pub(super) const LISTENER: Token = u64::MAX - 1;
/// How long the last worker waits for the log at least, however short the drain is.
const LAST_LINES: Duration = Duration::from_millis(500);
/// Deadlines that are handled before others have their turn.
const MAX_TIMERS: usize = 256;

/// A worker before its thread runs.
pub(super) struct Worker {
    pub cx: Context,
    pub listener: Option<Listener>,
    /// The other workers, where this one accepts for all; and whose turn it is.
    pub peers: Vec<Arc<Mailbox<Message>>>,
    pub next_peer: usize,
    /// Connections to accept for the next event of the listener.
    pub batch: usize,
    pub connections: Slab<Connection>,
    turns: VecDeque<Token>,
    timers: Timers,
    /// Nothing is accepted before this.
    pub paused: Option<Instant>,
    /// A connection with this descriptor or a higher one is the last for a while.
    pub scarce_from: RawFd,
    /// Connections that wait to be handed over; while there are any, nothing is accepted.
    pub pending_handoffs: VecDeque<Token>,
    /// Connections that are being turned away.
    pub turned_away: usize,
    pub end: Option<Instant>,
    /// Connections that may still be accepted while the server drains.
    pub backlog_left: usize,
}

impl Worker {
    /// `peers`: the other workers, when this one accepts for all.
    pub fn new(
        shared: Arc<Shared>,
        index: usize,
        listener: Option<Listener>,
        mailbox: Arc<Mailbox<Message>>,
        peers: Vec<Arc<Mailbox<Message>>>,
    ) -> Result<Self> {
        let failed = |errno| Error::system("epoll_create1", errno);
        let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC).map_err(failed)?;
        epoll.add(mailbox.waker(), EpollEvent::new(EpollFlags::EPOLLIN, WAKER)).map_err(failed)?;
        if let Some(listener) = &listener {
            accepting::watch(&epoll, listener).map_err(failed)?;
        }
        let cx = Context::new(shared, index, mailbox, epoll);
        Ok(Self {
            cx,
            listener,
            peers,
            next_peer: 0,
            batch: 1,
            connections: Slab::default(),
            turns: VecDeque::new(),
            timers: Timers::default(),
            paused: None,
            scarce_from: accepting::scarce_from(),
            pending_handoffs: VecDeque::new(),
            turned_away: 0,
            end: None,
            backlog_left: 0,
        })
    }

    /// Serves until it is told to drain and has.
    pub fn run(mut self) {
        let mut events = [EpollEvent::empty(); 256];
        loop {
            // EINTR, and nothing else: the descriptor and the buffer are this thread's own.
            let count = self.cx.epoll.wait(&mut events, self.wait_time()).unwrap_or_default();
            self.cx.now = Instant::now();
            // Before the messages are taken: once this is false, all new connections are among them.
            let may_receive = self.peers.is_empty() && self.cx.shared.is_accepting();
            for event in &events[..count] {
                match event.data() {
                    WAKER => self.cx.mailbox.waker().clear(),
                    LISTENER => drop(self.contain(None, Self::accept)),
                    token => drop(self.contain(Some(token), |this| this.wake(token, event.events()))),
                }
            }
            for message in self.cx.mailbox.take() {
                self.receive(message);
            }
            if self.has_backlog() {
                self.contain(None, Self::accept);
            }
            for _ in 0..self.turns.len() {
                if let Some(token) = self.turns.pop_front() {
                    if let Some(connection) = self.connections.get_mut(token) {
                        connection.queued = false;
                    }
                    self.contain(Some(token), |this| this.drive(token));
                }
            }
            self.contain(None, Self::check_timers);
            self.contain(None, Self::flush);
            let is_done = self.connections.is_empty() && self.listener.is_none() && !may_receive;
            if self.end.is_some_and(|end| is_done || self.cx.now >= end) {
                break;
            }
        }
        self.leave();
    }

    /// Runs one step of the loop. A panic in it is counted, and ends the connection it was about and no other. Returns false then.
    fn contain(&mut self, token: Option<Token>, act: impl FnOnce(&mut Self)) -> bool {
        let is_whole = crate::stats::contain(|| act(self)).is_some();
        if !is_whole {
            self.cx.stats.failures.add(1);
            if let Some(token) = token {
                self.step(token, |connection, cx| connection.panicked(token, cx));
            }
        }
        is_whole
    }

    fn receive(&mut self, message: Message) {
        let token = match &message {
            Message::Prefetched(token, _) | Message::LookedUp(token, _) => Some(*token),
            _ => None,
        };
        // Others wait for these to be obeyed, so a panic does not lose them.
        let again = match &message {
            Message::Drain(end) => Some(Message::Drain(*end)),
            Message::CloseIdle => Some(Message::CloseIdle),
            Message::CloseAll => Some(Message::CloseAll),
            Message::QueueHasRoom => Some(Message::QueueHasRoom),
            _ => None,
        };
        let received = |this: &mut Self| {
            crate::failpoint::failpoint!("server::message");
            this.handle(message);
        };
        if !self.contain(token, received)
            && let Some(message) = again
        {
            self.contain(None, |this| this.handle(message));
        }
    }

    fn flush(&mut self) {
        if std::mem::take(&mut self.cx.exhausted) {
            self.cx.stats.limit(Limit::Descriptors);
            self.shed();
            self.pause();
        }
        if let Some(log) = &self.cx.shared.options.log
            && !self.cx.log.is_empty()
        {
            log.add(&mut self.cx.log);
        }
    }

    fn leave(&mut self) {
        for token in self.tokens() {
            self.contain(None, |this| {
                if let Some(connection) = this.connections.get_mut(token) {
                    connection.discard_unread(&mut this.cx);
                }
                this.close(token);
            });
        }
        self.stop_listening();
        let Some(log) = &self.cx.shared.options.log else { return };
        log.add(&mut self.cx.log);
        if self.cx.shared.running.fetch_sub(1, Ordering::AcqRel) == 1 {
            let least = Instant::now() + LAST_LINES;
            log.finish(self.end.map_or(least, |end| end.max(least)));
        }
    }

    fn wait_time(&self) -> EpollTimeout {
        if !self.turns.is_empty() || self.has_backlog() {
            return EpollTimeout::ZERO;
        }
        let now = Instant::now();
        let moments = [self.paused, self.end].into_iter().flatten().map(|at| at.saturating_duration_since(now));
        match self.timers.until_next(now).into_iter().chain(moments).min() {
            // Rounded up: waking a fraction of a millisecond early would spin until the deadline comes.
            Some(wait) => EpollTimeout::try_from(wait + Duration::from_micros(999)).unwrap_or(EpollTimeout::MAX),
            None => EpollTimeout::NONE,
        }
    }

    fn wake(&mut self, token: Token, events: EpollFlags) {
        let Some(connection) = self.connections.get_mut(token) else { return };
        // HUP without ERR: both sides are shut down, ours by a lingering close, which has bytes to discard.
        let is_over = events.contains(EpollFlags::EPOLLERR)
            || (events.contains(EpollFlags::EPOLLHUP) && !connection.is_lingering());
        if is_over {
            return self.close(token);
        }
        if connection.note(events) && !connection.queued {
            self.drive(token);
        }
    }

    pub fn drive(&mut self, token: Token) {
        self.step(token, |connection, cx| connection.drive(token, cx));
    }

    /// Gives a connection a turn in this round or the next.
    pub fn enqueue(&mut self, token: Token) {
        if let Some(connection) = self.connections.get_mut(token)
            && connection.note(EpollFlags::empty())
            && !connection.queued
        {
            connection.queued = true;
            self.turns.push_back(token);
        }
    }

    /// Lets a connection do something. A panic ends that connection and no other.
    pub fn step(&mut self, token: Token, act: impl FnOnce(&mut Connection, &mut Context) -> Next) {
        let Some(connection) = self.connections.get_mut(token) else { return };
        let cx = &mut self.cx;
        let turn = || {
            crate::failpoint::failpoint!("server::turn");
            act(connection, cx)
        };
        let next = match crate::stats::contain(turn) {
            Some(next) => next,
            None => {
                self.cx.stats.failures.add(1);
                let cx = &mut self.cx;
                let Some(connection) = self.connections.get_mut(token) else { return };
                crate::stats::contain(|| connection.panicked(token, cx)).unwrap_or(Next::Close)
            }
        };
        let Some(connection) = self.connections.get_mut(token) else { return };
        match next {
            Next::Close => return self.close(token),
            Next::HandOff => return self.hand_off(token),
            Next::Turn if !connection.queued => {
                connection.queued = true;
                self.turns.push_back(token);
            }
            _ => {}
        }
        // An entry that comes too early finds out; one that would come too late is replaced.
        if let Some(deadline) = connection.deadline
            && connection.timer.is_none_or(|timer| deadline < timer)
        {
            if let Some(timer) = connection.timer.replace(deadline) {
                self.timers.cancel(timer, token);
            }
            self.timers.set(deadline, token);
        }
    }

    pub fn close(&mut self, token: Token) {
        if let Some(mut connection) = self.remove(token) {
            connection.end(&mut self.cx);
            self.cx.stats.closed.add(1);
        }
    }

    /// Takes a connection out, with its timer and its place among those that are counted.
    fn remove(&mut self, token: Token) -> Option<Connection> {
        let connection = self.connections.remove(token)?;
        if let Some(timer) = connection.timer {
            self.timers.cancel(timer, token);
        }
        if connection.counted {
            self.cx.shared.release(connection.client());
        } else {
            self.turned_away -= 1;
        }
        Some(connection)
    }

    fn hand_off(&mut self, token: Token) {
        let Some(queue) = self.cx.shared.options.handoff.clone() else { return self.close(token) };
        if !queue.reserve(&self.cx.mailbox) {
            self.cx.stats.limit(Limit::HandoffQueue);
            if self.pending_handoffs.is_empty() {
                self.stop_watching();
            }
            return self.pending_handoffs.push_back(token);
        }
        if let Some(connection) = self.remove(token) {
            let _ = self.cx.epoll.delete(connection.socket());
            self.cx.stats.handed_off.add(1);
            queue.hand_off(connection.into_handoff());
        }
    }

    /// Hands over connections that wait for it, as many as there is room for.
    fn hand_off_pending(&mut self) {
        for token in std::mem::take(&mut self.pending_handoffs) {
            if self.connections.get_mut(token).is_some() {
                self.hand_off(token);
            }
        }
        if self.pending_handoffs.is_empty() && self.paused.is_none() {
            self.watch_again();
        }
    }

    fn handle(&mut self, message: Message) {
        match message {
            Message::Accepted(socket, client) => self.admit(socket, client),
            Message::CloseIdle => {
                for token in self.tokens() {
                    self.step(token, |connection, cx| connection.close_if_idle(token, cx));
                }
            }
            Message::CloseAll => {
                for token in self.tokens() {
                    self.step(token, |connection, cx| connection.close_now(token, cx));
                }
            }
            Message::QueueHasRoom => self.hand_off_pending(),
            Message::Prefetched(token, outcome) => self.step(token, |connection, cx| {
                connection.prefetched(outcome, cx);
                connection.drive(token, cx)
            }),
            Message::LookedUp(token, answered) => self.step(token, |connection, cx| {
                connection.looked_up(*answered, cx);
                connection.drive(token, cx)
            }),
            Message::Drain(end) => self.drain(end),
            // The loop looks whether it is done.
            Message::StoppedAccepting => {}
        }
    }

    pub fn tokens(&self) -> Vec<Token> {
        self.connections.tokens().collect()
    }

    fn check_timers(&mut self) {
        let now = self.cx.now;
        for _ in 0..MAX_TIMERS {
            let Some((at, token)) = self.timers.pop_due(now) else { break };
            let Some(connection) = self.connections.get_mut(token) else { continue };
            if connection.timer != Some(at) {
                continue;
            }
            connection.timer = None;
            match connection.deadline {
                Some(deadline) if deadline <= now => {
                    connection.deadline = None;
                    self.step(token, |connection, cx| connection.expired(token, cx));
                }
                Some(deadline) => {
                    connection.timer = Some(deadline);
                    self.timers.set(deadline, token);
                }
                None => {}
            }
        }
        self.end_pause();
    }
}
