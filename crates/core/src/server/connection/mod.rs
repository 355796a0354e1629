//! One connection: a state machine that is driven whenever its socket, a pool thread or a timer has news.
//!
//! ```text
//!          +------------------------- the next request --------------------------+
//!          v                                                                     |
//!       Reading --> InPool (a pool thread opens the file) --> Sending --> Skipping the body
//!          |                                                  |
//!          +-- refused: the answer, then Lingering <----------+-- the last response
//!          |
//!          +-- with a handoff queue, not for this server: PendingHandoff
//! ```
//!
//! A turn is bounded in bytes sent, bytes received and requests, so that no connection holds up the others of its worker.
//!
//! Between requests it holds no buffer: bytes are read into the worker's, and only what belongs to an unfinished head
//! or to a later request is kept here.

mod closing;
mod reading;
mod sending;

use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use nix::sys::epoll::EpollFlags;

use super::access_log::Entry;
use super::answer::{self, Decision, Reply};
use super::context::Context;
use super::handoff::{Handoff, Reason};
use super::message::{LookupResult, Message};
use super::stats::Limit;
use crate::error::{Code, Error, Result};
use crate::event_loop::slab::Token;
use crate::fs::Access;
use crate::io::pool::{Pool, Task};
use crate::transfer::{Budget, Prefetched};
use closing::Lingering;
use sending::Sending;
use zerosend_http::chunked::ChunkedSkipper;
use zerosend_http::request::{BodyLength, HeadError, HeadScanner, RequestHead};

/// Requests that one connection may have answered before others have their turn.
const MAX_REQUESTS_PER_TURN: u32 = 32;
/// Bytes that one connection may have read before others have their turn.
const MAX_RECEIVED_PER_TURN: u64 = 256 * 1024;
/// What epoll watches a connection for, besides room to send.
pub(super) const EVENTS: EpollFlags =
    EpollFlags::EPOLLIN.union(EpollFlags::EPOLLPRI).union(EpollFlags::EPOLLRDHUP).union(EpollFlags::EPOLLET);
/// What becomes of a connection after it was driven.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Next {
    /// It waits for news.
    Wait,
    /// It could go on: let others have their turn first.
    Turn,
    /// It is over.
    Close,
    /// It is somebody else's.
    HandOff,
}

enum Step {
    Again,
    Then(Next),
}

enum State {
    Reading,
    /// A pool thread has this request, whose head is `raw`.
    InPool {
        raw: Arc<[u8]>,
        task: Task,
    },
    Sending(Box<Sending>),
    /// The body of a request that was answered.
    Skipping(Body),
    /// Nothing more is sent; what still arrives is discarded.
    Lingering(Box<Lingering>),
    /// Handed off as soon as the queue has room.
    PendingHandoff(Reason),
}

/// What is left of a body.
#[derive(Clone, Copy)]
enum Body {
    Known(u64),
    Chunked(ChunkedSkipper),
}

pub(super) struct Connection {
    socket: OwnedFd,
    client: Option<SocketAddr>,
    state: State,
    /// Bytes received that nobody has read yet, from `consumed` on.
    pending: Vec<u8>,
    consumed: usize,
    scanner: HeadScanner,
    /// A part of a head has come.
    heading: bool,
    /// The socket may have more for us.
    readable: bool,
    /// The client will send no more.
    half_closed: bool,
    /// The client has sent urgent data, at which reads stop.
    urgent: bool,
    /// The connection is for further requests.
    keep_alive: bool,
    /// It is in the queue for a turn.
    pub queued: bool,
    /// It counts towards `limits.connections`.
    pub counted: bool,
    requests: u32,
    pub deadline: Option<Instant>,
    /// The one entry of the timers that counts.
    pub timer: Option<Instant>,
    /// Since when it waits for a request.
    idle_since: Instant,
}

impl Connection {
    pub fn new(socket: OwnedFd, client: Option<SocketAddr>, now: Instant) -> Self {
        Self {
            socket,
            client,
            state: State::Reading,
            pending: Vec::new(),
            consumed: 0,
            scanner: HeadScanner::default(),
            heading: false,
            // It often has a request with it already.
            readable: true,
            half_closed: false,
            urgent: false,
            keep_alive: true,
            queued: false,
            counted: true,
            requests: 0,
            deadline: None,
            timer: None,
            idle_since: now,
        }
    }

    pub fn socket(&self) -> &OwnedFd {
        &self.socket
    }

    pub fn client(&self) -> Option<SocketAddr> {
        self.client
    }

    /// Since when it has been waiting for a request of which no byte has come, or has lingered; `None` when it is at something.
    pub fn idle_since(&self) -> Option<Instant> {
        let waiting = matches!(self.state, State::Reading) && self.pending.is_empty();
        (waiting || matches!(self.state, State::Lingering(_))).then_some(self.idle_since)
    }

    /// Takes note of what epoll says. True: drive it.
    pub fn note(&mut self, events: EpollFlags) -> bool {
        self.readable |= events.intersects(EpollFlags::EPOLLIN | EpollFlags::EPOLLRDHUP);
        self.half_closed |= events.contains(EpollFlags::EPOLLRDHUP);
        self.urgent |= events.contains(EpollFlags::EPOLLPRI);
        match self.state {
            State::InPool { .. } => false,
            State::Sending(ref sending) => sending.prefetching.is_none(),
            State::PendingHandoff(_) => false,
            _ => true,
        }
    }

    pub fn drive(&mut self, token: Token, cx: &mut Context) -> Next {
        let mut send_budget = Budget::new(cx.options.chunk);
        let mut receive_budget = Budget::new(MAX_RECEIVED_PER_TURN);
        let mut requests = 0;
        loop {
            let step = match &mut self.state {
                State::Reading if requests == MAX_REQUESTS_PER_TURN => return Next::Turn,
                State::Reading => {
                    requests += 1;
                    self.read(token, cx, &mut receive_budget)
                }
                State::InPool { .. } => return Next::Wait,
                State::Sending(_) => self.send(token, cx, &mut send_budget),
                State::Skipping(_) => self.skip(cx, &mut receive_budget),
                State::Lingering(_) => self.discard(cx, &mut receive_budget),
                State::PendingHandoff(_) => return Next::HandOff,
            };
            match step {
                Step::Again => {}
                Step::Then(next) => return next,
            }
        }
    }

    /// A pool thread has brought the next bytes closer, or has failed to.
    pub fn prefetched(&mut self, outcome: Result<Prefetched>, cx: &mut Context) {
        let State::Sending(sending) = &mut self.state else { return };
        // A response that took the place of one whose time was over.
        if sending.prefetching.take().is_none() {
            return;
        }
        match outcome {
            Ok(prefetched) => sending.transfer.prefetched(prefetched),
            Err(_) => {
                cx.stats.failures.add(1);
                // Where that closes the connection, the next tick does.
                let _ = self.fail_response(500, cx);
            }
        }
    }

    /// A pool thread has the answer.
    pub fn answered(&mut self, answered: LookupResult, cx: &mut Context) {
        let State::InPool { raw, .. } = &self.state else { return };
        let raw = raw.clone();
        let Ok(head) = answer::parse(&raw, &cx.options) else { return };
        match answer::complete(&head, answered, self.keep_alive, cx) {
            Decision::Reply(reply) => self.begin_reply(reply, &head, cx),
            _ => self.hand_off_request(&raw),
        }
    }

    /// Leaves as if the head `raw` had not been read.
    fn hand_off_request(&mut self, raw: &[u8]) {
        self.pending.splice(..self.consumed, raw.iter().copied());
        self.consumed = 0;
        self.set_pending_handoff(Reason::Request);
    }

    /// From now on it waits to be handed over, however long that takes.
    fn set_pending_handoff(&mut self, reason: Reason) {
        self.state = State::PendingHandoff(reason);
        self.deadline = None;
    }

    /// What the application gets of it.
    pub fn into_handoff(mut self) -> Handoff {
        let reason = if let State::PendingHandoff(reason) = self.state { reason } else { Reason::Request };
        self.pending.drain(..self.consumed);
        Handoff { socket: self.socket, received: self.pending, reason }
    }

    /// The time that was allowed is over.
    pub fn expired(&mut self, token: Token, cx: &mut Context) -> Next {
        match &mut self.state {
            State::Reading if cx.draining && !self.heading => self.drive(token, cx),
            State::Reading if cx.options.handoff.is_some() && (self.heading || self.requests == 0) => {
                cx.stats.limit(Limit::HeadTimeout);
                self.set_pending_handoff(Reason::TimedOut);
                Next::HandOff
            }
            State::Reading if self.heading => {
                cx.stats.limit(Limit::HeadTimeout);
                let reply = answer::refusal(408, cx);
                self.refuse(408, reply, cx);
                self.drive(token, cx)
            }
            State::Reading => match self.close_idle(cx) {
                // The request has arrived at the last moment.
                Step::Again if matches!(self.state, State::Reading) => {
                    self.arm(cx.options.limits.idle_timeout, cx);
                    self.drive(token, cx)
                }
                step => {
                    cx.stats.limit(Limit::IdleTimeout);
                    self.follow(step, token, cx)
                }
            },
            State::Skipping(_) => {
                cx.stats.limit(Limit::HeadTimeout);
                let step = self.linger(cx);
                self.follow(step, token, cx)
            }
            State::Lingering(_) => self.check_lingering(cx),
            State::PendingHandoff(_) => Next::Wait,
            State::InPool { raw, task } => {
                let raw = raw.clone();
                task.cancel(given_up());
                cx.stats.limit(Limit::DiskTimeout);
                match answer::parse(&raw, &cx.options) {
                    Ok(head) if cx.options.handoff.is_none() => {
                        self.keep_alive = false;
                        let reply = answer::error(503, &head, false, cx);
                        self.begin_reply(reply, &head, cx);
                    }
                    _ => self.hand_off_request(&raw),
                }
                self.drive(token, cx)
            }
            State::Sending(_) => {
                let step = self.check_progress(cx);
                self.follow(step, token, cx)
            }
        }
    }

    fn follow(&mut self, step: Step, token: Token, cx: &mut Context) -> Next {
        match step {
            Step::Again => self.drive(token, cx),
            Step::Then(next) => next,
        }
    }

    /// Its turn has ended in a panic. The client gets an error where nothing of a response has been sent, and a reset otherwise.
    pub fn panicked(&mut self, token: Token, cx: &mut Context) -> Next {
        let step = match &self.state {
            State::Reading | State::InPool { .. } => {
                let reply = answer::refusal(500, cx);
                self.refuse(500, reply, cx);
                Step::Again
            }
            State::Sending(sending) if sending.is_untouched() => self.fail_response(500, cx),
            State::Skipping(_) => self.linger(cx),
            State::Sending(_) | State::Lingering(_) | State::PendingHandoff(_) => Step::Then(Next::Close),
        };
        self.follow(step, token, cx)
    }

    /// Closes it if it waits for a request.
    pub fn close_if_idle(&mut self, token: Token, cx: &mut Context) -> Next {
        if !matches!(self.state, State::Reading) || self.heading || !self.pending.is_empty() {
            return Next::Wait;
        }
        let step = self.close_idle(cx);
        self.follow(step, token, cx)
    }

    /// Answers a new connection with `status` before it has sent anything, and closes it.
    pub fn turn_away(&mut self, token: Token, status: u16, cx: &mut Context) -> Next {
        let reply = answer::refusal(status, cx);
        self.refuse(status, reply, cx);
        self.drive(token, cx)
    }

    /// The end, in whatever state: a response that is not whole is counted, and its connection reset.
    pub fn end(&mut self, cx: &mut Context) {
        let is_sending = matches!(self.state, State::Sending(_));
        match &self.state {
            State::InPool { task, .. } => drop(task.cancel(given_up())),
            State::Sending(sending) => sending.give_up_prefetch(),
            _ => {}
        }
        self.record_aborted(cx);
        if is_sending || self.is_aborted() {
            self.reset_on_close();
        }
    }

    fn arm(&mut self, after: Duration, cx: &mut Context) {
        self.deadline = (!after.is_zero()).then(|| cx.now + after);
    }

    /// Begins to answer a request. False: it is not for this server, and the connection leaves.
    fn begin(&mut self, token: Token, head: &RequestHead<'_>, raw: &[u8], cx: &mut Context) -> bool {
        self.requests += 1;
        // Behind a door those count that are answered here, which is not known yet.
        if cx.options.handoff.is_none() {
            cx.stats.requests.add(1);
        }
        let limits = &cx.options.limits;
        self.keep_alive = head.keep_alive && !cx.draining;
        if limits.requests_per_connection > 0 && self.requests >= limits.requests_per_connection {
            cx.stats.limit(Limit::Requests);
            self.keep_alive = false;
        }
        if head.upgrade {
            self.keep_alive = false;
        }
        let has_body = head.body != BodyLength::Known(0);
        let too_long = cx.options.handoff.is_none()
            && limits.body_bytes > 0
            && matches!(head.body, BodyLength::Known(length) if length > limits.body_bytes);
        // A client that sent `Expect: 100-continue` gets the final status instead and must not send its body.
        if too_long || (has_body && head.expects_continue) {
            self.keep_alive = false;
        }
        if too_long {
            cx.stats.limit(Limit::Body);
            let reply = answer::error(413, head, false, cx);
            self.begin_reply(reply, head, cx);
            return true;
        }
        match answer::decide(head, self.keep_alive, Access::CachedOnly, cx) {
            Decision::Reply(reply) => self.begin_reply(reply, head, cx),
            Decision::HandOff => {
                self.set_pending_handoff(Reason::Request);
                return false;
            }
            Decision::NeedsLookup => {
                self.arm(cx.options.limits.disk_timeout, cx);
                let raw: Arc<[u8]> = raw.into();
                let (shared, mailbox) = (cx.shared.clone(), cx.mailbox.clone());
                let (lane, volume) = (answer::lane(head, &shared), answer::volume(head, &shared));
                let work = {
                    let raw = raw.clone();
                    move || answer::lookup_blocking(&raw, &shared)
                };
                let answer = move |answered: Result<LookupResult>| {
                    let answered = answered.unwrap_or_else(LookupResult::failed);
                    mailbox.send(Message::LookedUp(token, Box::new(answered)));
                };
                let task = Pool::global().run_in_steps(lane, volume, work, answer);
                self.state = State::InPool { raw, task };
            }
        }
        true
    }

    fn refuse_head(&mut self, error: HeadError, cx: &mut Context) {
        cx.stats.requests.add(1);
        if matches!(error, HeadError::HeadTooLong | HeadError::TargetTooLong | HeadError::TooManyHeaders) {
            cx.stats.limit(Limit::Head);
        }
        let reply = answer::refusal(error.status(), cx);
        self.refuse(error.status(), reply, cx);
    }

    /// An answer to malformed or unexpected input, after which the connection is closed.
    fn refuse(&mut self, status: u16, reply: Reply, cx: &mut Context) {
        self.keep_alive = false;
        let entry = cx.options.log.is_some().then(|| Entry {
            time: SystemTime::now(),
            client: self.client,
            method: "-".to_owned(),
            target: "-".to_owned(),
            host: None,
            is_http10: false,
            status,
            bytes: 0,
            head_bytes: 0,
            duration: Duration::ZERO,
            referer: None,
            user_agent: None,
            aborted: false,
        });
        cx.stats.status(status);
        self.start(reply, None, entry, cx);
    }

    fn begin_reply(&mut self, reply: Reply, head: &RequestHead<'_>, cx: &mut Context) {
        if cx.options.handoff.is_some() {
            cx.stats.requests.add(1);
        }
        cx.stats.status(reply.status);
        let body = match head.body {
            BodyLength::Known(0) => None,
            BodyLength::Known(length) => Some(Body::Known(length)),
            BodyLength::Chunked => Some(Body::Chunked(ChunkedSkipper::default())),
        };
        let entry = cx.options.log.is_some().then(|| Entry {
            time: SystemTime::now(),
            client: self.client,
            method: head.raw_method.to_owned(),
            target: head.raw_target.to_owned(),
            host: head.host.map(str::to_owned),
            is_http10: head.is_http10,
            status: reply.status,
            bytes: 0,
            head_bytes: 0,
            duration: Duration::ZERO,
            referer: head.referer.map(str::to_owned),
            user_agent: head.user_agent.map(str::to_owned),
            aborted: false,
        });
        self.start(reply, body, entry, cx);
    }
}

/// The answer of a disk job that its connection does not wait for any more.
fn given_up() -> Error {
    Error::new(Code::Aborted, "the connection does not wait for the disk any more")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_idle_connection_is_small() {
        // All that one without a request has: its buffers are the worker's, its states are boxed.
        assert!(size_of::<Connection>() <= 320, "{} bytes", size_of::<Connection>());
    }
}
