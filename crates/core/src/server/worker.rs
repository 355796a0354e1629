//! A worker: one thread with its event loop and the connections it serves.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use nix::sys::epoll::EpollFlags;

use super::connection::{Connection, Next};
use super::context::Context;
use super::descriptors::ReservedDescriptors;
use super::message::Message;
use super::shared::Shared;
use super::stats::Limit;
use crate::error::{Error, Result};
use crate::event_loop::mailbox::Mailbox;
use crate::event_loop::slab::Token;
use crate::event_loop::{self, EventLoop, Handler, Scheduler, contain};
use crate::net::acceptor::{Accept, Acceptor};

/// Minimum time that the last worker waits for the access log to be written, however short the drain is.
const MIN_LOG_TIMEOUT: Duration = Duration::from_millis(500);

pub(super) struct Worker {
    pub cx: Context,
    pub acceptor: Acceptor<Message>,
    pub connections: Scheduler<Connection>,
    /// Connections that wait for room in the handoff queue. Meanwhile nothing is accepted.
    pub pending_handoffs: VecDeque<Token>,
    /// Connections over a limit that are being refused with a response.
    pub refused: usize,
    pub reserved_descriptors: ReservedDescriptors,
}

impl Worker {
    pub fn new(
        shared: Arc<Shared>,
        index: usize,
        mut acceptor: Acceptor<Message>,
        mailbox: Arc<Mailbox<Message>>,
    ) -> Result<Self> {
        let event_loop = EventLoop::new(mailbox)?;
        acceptor.update_interest(event_loop.epoll()).map_err(|errno| Error::system("epoll_ctl", errno))?;
        Ok(Self {
            cx: Context::new(shared, index, event_loop),
            acceptor,
            connections: Scheduler::default(),
            pending_handoffs: VecDeque::new(),
            refused: 0,
            reserved_descriptors: ReservedDescriptors::new(),
        })
    }

    /// Serves until the server has been drained.
    pub fn run(mut self) {
        event_loop::run(&mut self);
        for token in self.connections.tokens() {
            contain(&mut self, None, |worker| {
                if let Some(connection) = worker.connections.get_mut(token) {
                    connection.discard_unread(&mut worker.cx);
                }
                worker.close(token);
            });
        }
        self.close_listener();
        let Some(log) = &self.cx.shared.options.log else { return };
        log.add(&mut self.cx.log);
        if self.cx.shared.running.fetch_sub(1, Ordering::AcqRel) == 1 {
            let min = Instant::now() + MIN_LOG_TIMEOUT;
            log.finish(self.cx.event_loop.drain_deadline().map_or(min, |deadline| deadline.max(min)));
        }
    }

    pub fn drive(&mut self, token: Token) {
        self.step(token, |connection, cx| connection.drive(token, cx));
    }

    /// Runs `act` on a connection and does what it returns.
    pub fn step(&mut self, token: Token, act: impl FnOnce(&mut Connection, &mut Context) -> Next) {
        crate::failpoint::failpoint!("server::turn");
        self.apply(token, act);
    }

    fn apply(&mut self, token: Token, act: impl FnOnce(&mut Connection, &mut Context) -> Next) {
        let Some(connection) = self.connections.get_mut(token) else { return };
        let next = act(connection, &mut self.cx);
        let deadline = connection.deadline;
        match next {
            Next::Close => return self.close(token),
            Next::HandOff => return self.hand_off(token),
            Next::Turn => self.connections.enqueue(token),
            Next::Wait => {}
        }
        self.connections.set_deadline(token, deadline);
    }

    fn step_all(&mut self, act: impl Fn(Token, &mut Connection, &mut Context) -> Next) {
        for token in self.connections.tokens() {
            contain(self, Some(token), |worker| worker.step(token, |connection, cx| act(token, connection, cx)));
        }
    }

    pub fn close(&mut self, token: Token) {
        if let Some(mut connection) = self.remove(token) {
            connection.end(&mut self.cx);
            self.cx.stats.closed.add(1);
        }
    }

    fn remove(&mut self, token: Token) -> Option<Connection> {
        let connection = self.connections.remove(token)?;
        if connection.counted {
            self.cx.shared.release(connection.client());
        } else {
            self.refused -= 1;
        }
        Some(connection)
    }

    fn hand_off(&mut self, token: Token) {
        let Some(queue) = self.cx.shared.options.handoff.clone() else { return self.close(token) };
        if !queue.reserve(self.cx.event_loop.mailbox()) {
            self.cx.stats.limit(Limit::HandoffQueue);
            self.pending_handoffs.push_back(token);
            return self.block_accepting(true);
        }
        if let Some(connection) = self.remove(token) {
            let _ = self.cx.event_loop.epoll().delete(connection.socket());
            self.cx.stats.handed_off.add(1);
            queue.hand_off(connection.into_handoff());
        }
    }

    /// Hands off pending connections, as many as the queue has room for.
    fn hand_off_pending(&mut self) {
        for token in std::mem::take(&mut self.pending_handoffs) {
            if self.connections.get_mut(token).is_some() {
                contain(self, Some(token), |worker| worker.hand_off(token));
            }
        }
        self.block_accepting(!self.pending_handoffs.is_empty());
    }

    fn drain(&mut self, deadline: Instant) {
        if !self.cx.event_loop.drain(deadline) {
            return;
        }
        self.drain_listener();
        // Idle connections close in their next turn.
        for token in self.connections.tokens() {
            if self.connections.get_mut(token).is_some_and(|connection| connection.record_events(EpollFlags::empty())) {
                self.connections.enqueue(token);
            }
        }
    }
}

impl Handler for Worker {
    type Message = Message;
    type Entry = Connection;

    fn event_loop(&mut self) -> &mut EventLoop<Message> {
        &mut self.cx.event_loop
    }

    fn scheduler(&mut self) -> &mut Scheduler<Connection> {
        &mut self.connections
    }

    fn token_of_message(&self, message: &Message) -> Option<Token> {
        match message {
            Message::Prefetched(token, _) | Message::LookedUp(token, _) => Some(*token),
            _ => None,
        }
    }

    fn on_event(&mut self, token: Token, events: EpollFlags) {
        let Some(connection) = self.connections.get_mut(token) else { return };
        // HUP without ERR: both sides are shut down, ours by a lingering close, which has bytes to discard.
        let is_over = events.contains(EpollFlags::EPOLLERR)
            || (events.contains(EpollFlags::EPOLLHUP) && !connection.is_lingering());
        if is_over {
            return self.close(token);
        }
        if connection.record_events(events) && !self.connections.is_queued(token) {
            self.drive(token);
        }
    }

    fn on_listener(&mut self) {
        self.accept_batch();
    }

    fn on_message(&mut self, message: Message) {
        // The first four concern several connections: a panic in one of them must not stop the others.
        let message = match message {
            Message::Drain(deadline) => return self.drain(deadline),
            Message::CloseIdle => return self.step_all(|token, connection, cx| connection.close_if_idle(token, cx)),
            Message::CloseAll => return self.step_all(|token, connection, cx| connection.close_now(token, cx)),
            Message::QueueHasRoom => return self.hand_off_pending(),
            other => other,
        };
        crate::failpoint::failpoint!("server::message");
        match message {
            Message::Accepted(connection) => self.on_accept(connection),
            Message::Prefetched(token, result) => self.step(token, |connection, cx| {
                connection.prefetched(result, cx);
                connection.drive(token, cx)
            }),
            Message::LookedUp(token, result) => self.step(token, |connection, cx| {
                connection.looked_up(*result, cx);
                connection.drive(token, cx)
            }),
            _ => {}
        }
    }

    fn before_turns(&mut self) {
        if self.acceptor.has_backlog() {
            self.accept_batch();
        }
    }

    fn on_turn(&mut self, token: Token) {
        self.drive(token);
    }

    fn on_deadline(&mut self, token: Token) {
        self.step(token, |connection, cx| {
            connection.deadline = None;
            connection.expired(token, cx)
        });
    }

    fn on_round_end(&mut self) {
        if std::mem::take(&mut self.cx.exhausted) {
            self.free_descriptors();
            self.pause_accepting();
        }
        self.resume_accepting();
        if let Some(log) = &self.cx.shared.options.log
            && !self.cx.log.is_empty()
        {
            log.add(&mut self.cx.log);
        }
    }

    fn on_panic(&mut self, token: Option<Token>) {
        self.cx.stats.failures.add(1);
        let Some(token) = token else { return };
        let respond = || self.apply(token, |connection, cx| connection.panicked(token, cx));
        if crate::stats::contain(respond).is_none() {
            self.close(token);
        }
    }

    fn next_round_at(&self, now: Instant) -> Option<Instant> {
        self.acceptor.next_round_at(now)
    }

    fn is_done(&mut self) -> bool {
        let event_loop = &self.cx.event_loop;
        event_loop.is_drained(|| self.connections.is_empty() && self.acceptor.is_finished(event_loop.mailbox()))
    }
}
