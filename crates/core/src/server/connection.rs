//! One connection: a state machine that is driven whenever its socket, a pool thread or a timer has news.
//!
//! ```text
//!          +------------------------- the next request --------------------------+
//!          v                                                                     |
//!       Reading --> Away (a pool thread asks the disk) --> Sending --> Skipping the body
//!          |                                                  |
//!          +-- refused: the answer, then Lingering <----------+-- to be closed, bytes still coming
//! ```
//!
//! Between requests it holds no buffer: bytes are read into the worker's, and only what belongs to an unfinished head
//! or to a later request is kept here.

use std::net::SocketAddr;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use nix::errno::Errno;
use nix::sys::epoll::{EpollEvent, EpollFlags};
use nix::sys::socket::{MsgFlags, Shutdown, recv, setsockopt, shutdown, sockopt};

use super::answer::{self, Reply};
use super::log::Entry;
use super::stats::Limit;
use super::worker::{Answered, Context, Message};
use crate::files::Access;
use crate::http::chunked::ChunkedSkipper;
use crate::http::request::{BodyLength, HeadError, HeadScanner, RequestHead};
use crate::pool::Pool;
use crate::reactor::registry::Token;
use crate::transfer::{Budget, Disk, Progress, Target, Transfer};

/// Requests that one connection may have answered before others have their turn.
const MOST_REQUESTS_PER_TURN: u32 = 32;
/// How long a client may go on sending after it was told that the connection closes.
const LINGER: Duration = Duration::from_secs(2);
/// How often the progress of a blocked response is looked at.
const TICK: Duration = Duration::from_secs(1);
/// How long a response may be slow before [`super::Limits::min_rate`] counts.
const GRACE: Duration = Duration::from_secs(5);

/// What becomes of a connection after it was driven.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Next {
    /// It waits for news.
    Wait,
    /// It could go on: let others have their turn first.
    Turn,
    /// It is over.
    Close,
}

enum Step {
    Again,
    Then(Next),
}

enum State {
    Reading,
    /// A pool thread has this request, whose head is `raw`.
    Away {
        raw: Arc<[u8]>,
    },
    Sending(Box<Sending>),
    /// The body of a request that was answered.
    Skipping(Body),
    /// Nothing more is sent; what still comes is thrown away.
    Lingering,
}

/// What is left of a body.
#[derive(Clone, Copy)]
enum Body {
    Known(u64),
    Chunked(ChunkedSkipper),
}

struct Sending {
    transfer: Transfer,
    started: Instant,
    /// Bytes that the client had acknowledged when that was last looked at, and when there were more than before.
    acknowledged: u64,
    progressed: Instant,
    /// A pool thread reads ahead.
    warming: bool,
    body: Option<Body>,
    /// The file's bytes count for a method.
    has_file: bool,
    log: Option<Entry>,
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
    /// The connection is for further requests.
    keep_alive: bool,
    /// It is in the queue for a turn.
    pub queued: bool,
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
            keep_alive: true,
            queued: false,
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

    /// Since when it has been waiting for a request of which no byte has come; `None` when it is at something.
    pub fn idle_since(&self) -> Option<Instant> {
        let waiting = matches!(self.state, State::Reading) && self.pending.is_empty();
        waiting.then_some(self.idle_since)
    }

    /// Takes note of what epoll says. True: drive it.
    pub fn note(&mut self, events: EpollFlags) -> bool {
        self.readable |= events.intersects(EpollFlags::EPOLLIN | EpollFlags::EPOLLRDHUP);
        self.half_closed |= events.contains(EpollFlags::EPOLLRDHUP);
        match self.state {
            State::Away { .. } => false,
            State::Sending(ref sending) => !sending.warming,
            _ => true,
        }
    }

    pub fn drive(&mut self, token: Token, cx: &mut Context) -> Next {
        let mut budget = Budget::new(cx.options.chunk);
        let mut requests = 0;
        loop {
            let step = match &mut self.state {
                State::Reading if requests == MOST_REQUESTS_PER_TURN => return Next::Turn,
                State::Reading => {
                    requests += 1;
                    self.read(token, cx)
                }
                State::Away { .. } => return Next::Wait,
                State::Sending(_) => self.send(token, cx, &mut budget),
                State::Skipping(_) => self.skip(cx),
                State::Lingering => self.linger(cx),
            };
            match step {
                Step::Again => {}
                Step::Then(next) => return next,
            }
        }
    }

    /// A pool thread has read ahead.
    pub fn warmed(&mut self, until: u64) {
        if let State::Sending(sending) = &mut self.state {
            sending.warming = false;
            sending.transfer.warmed(until);
        }
    }

    /// A pool thread has the answer.
    pub fn answered(&mut self, answered: Answered, cx: &mut Context) {
        let State::Away { raw } = &self.state else { return };
        let raw = raw.clone();
        if let Ok(head) = RequestHead::parse(&raw, cx.options.limits.headers) {
            let reply = answer::reply(&head, answered, self.keep_alive, cx);
            self.begin_reply(reply, &head, cx);
        }
    }

    /// The time that was allowed is over.
    pub fn expired(&mut self, token: Token, cx: &mut Context) -> Next {
        match &mut self.state {
            State::Reading if self.heading => {
                cx.stats.limit(Limit::HeadTimeout);
                let reply = answer::refusal(408, cx);
                self.refuse(408, reply, cx);
                self.drive(token, cx)
            }
            State::Reading => {
                cx.stats.limit(Limit::IdleTimeout);
                Next::Close
            }
            State::Skipping(_) => {
                cx.stats.limit(Limit::HeadTimeout);
                Next::Close
            }
            State::Lingering => Next::Close,
            State::Away { .. } => Next::Wait,
            State::Sending(sending) if sending.warming => {
                sending.progressed = cx.now;
                self.arm(TICK, cx);
                Next::Wait
            }
            State::Sending(_) => self.check_progress(cx),
        }
    }

    fn check_progress(&mut self, cx: &mut Context) -> Next {
        let State::Sending(sending) = &mut self.state else { return Next::Wait };
        let limits = &cx.options.limits;
        let queued = crate::sys::socket::unacknowledged(self.socket.as_fd()).unwrap_or(0);
        let acknowledged = sending.transfer.report().bytes.saturating_sub(queued);
        if acknowledged > sending.acknowledged {
            sending.acknowledged = acknowledged;
            sending.progressed = cx.now;
        }
        let elapsed = cx.now.duration_since(sending.started);
        let stalled = cx.now.duration_since(sending.progressed);
        let met = if !limits.send_timeout.is_zero() && stalled >= limits.send_timeout {
            Some(Limit::SendTimeout)
        } else if elapsed > GRACE && (acknowledged as f64) < limits.min_rate as f64 * elapsed.as_secs_f64() {
            Some(Limit::MinRate)
        } else {
            None
        };
        match met {
            Some(limit) => {
                cx.stats.limit(limit);
                // A reset: what is in the send buffer must not stay there for a client that does not take it.
                let _ = setsockopt(&self.socket, sockopt::Linger, &libc::linger { l_onoff: 1, l_linger: 0 });
                Next::Close
            }
            None => {
                self.arm(TICK, cx);
                Next::Wait
            }
        }
    }

    /// The end, whatever it is at: writes down the response that is cut off.
    pub fn end(&mut self, cx: &mut Context) {
        if let State::Sending(sending) = &mut self.state {
            let bytes = sending.transfer.report().bytes;
            cx.stats.bytes.add(bytes);
            cx.stats.aborted.add(1);
            if let Some(mut entry) = sending.log.take() {
                entry.bytes = bytes;
                entry.aborted = true;
                entry.duration = cx.now.duration_since(sending.started);
                cx.log.push(entry);
            }
        }
    }

    fn arm(&mut self, after: Duration, cx: &mut Context) {
        self.deadline = (!after.is_zero()).then(|| cx.now + after);
    }

    fn unread(&self) -> &[u8] {
        self.pending.get(self.consumed..).unwrap_or_default()
    }

    /// Reads until a request is complete and begun, or there is nothing more to read.
    fn read(&mut self, token: Token, cx: &mut Context) -> Step {
        let mut pending = std::mem::take(&mut self.pending);
        let used = self.take_request(token, pending.get(self.consumed..).unwrap_or_default(), cx);
        self.consumed += used.unwrap_or(0);
        let mut step = used.map(|_| Step::Again);
        while step.is_none() && self.readable {
            let mut buffer = std::mem::take(&mut cx.buffer);
            match self.receive(&mut buffer) {
                Ok(0) => step = Some(Step::Then(Next::Close)),
                Ok(count) => {
                    if self.take_received(token, &mut pending, &buffer[..count], cx) {
                        step = Some(Step::Again);
                    }
                }
                Err(Errno::EAGAIN | Errno::EINTR) => {}
                Err(_) => step = Some(Step::Then(Next::Close)),
            }
            cx.buffer = buffer;
        }
        if self.consumed == pending.len() {
            // Who waits keeps no memory.
            pending = Vec::new();
            self.consumed = 0;
        }
        self.pending = pending;
        step.unwrap_or({
            let close = cx.draining && !self.heading;
            Step::Then(if close { Next::Close } else { Next::Wait })
        })
    }

    /// Looks for a request in what is pending and in `received`. What is not used of it becomes pending.
    fn take_received(&mut self, token: Token, pending: &mut Vec<u8>, received: &[u8], cx: &mut Context) -> bool {
        if self.consumed == pending.len() {
            // Straight from the worker's buffer.
            let used = self.take_request(token, received, cx);
            pending.clear();
            self.consumed = 0;
            pending.extend_from_slice(&received[used.unwrap_or(0)..]);
            return used.is_some();
        }
        pending.drain(..self.consumed);
        pending.extend_from_slice(received);
        let used = self.take_request(token, pending, cx);
        self.consumed = used.unwrap_or(0);
        used.is_some()
    }

    /// Begins the request at the start of `input`, or refuses what stands there; gives how many bytes that was. `None`:
    /// there is no whole head.
    fn take_request(&mut self, token: Token, input: &[u8], cx: &mut Context) -> Option<usize> {
        let end = match self.scanner.scan(input, cx.options.limits.head_bytes) {
            Ok(Some(end)) => end,
            Ok(None) => {
                if !self.heading && self.scanner.has_begun(input) {
                    self.heading = true;
                    self.arm(cx.options.limits.head_timeout, cx);
                }
                return None;
            }
            Err(error) => {
                self.refuse_head(error, cx);
                return Some(input.len());
            }
        };
        self.scanner = HeadScanner::default();
        self.heading = false;
        let raw = &input[..end];
        match RequestHead::parse(raw, cx.options.limits.headers) {
            Ok(head) => self.begin(token, &head, raw, cx),
            Err(error) => self.refuse_head(error, cx),
        }
        Some(end)
    }

    fn receive(&mut self, buffer: &mut [u8]) -> Result<usize, Errno> {
        let received = recv_into(&self.socket, buffer);
        match received {
            // epoll(7): a stream that gave less than it was asked for is drained, unless its end has been announced.
            Ok(count) if count < buffer.len() && count > 0 => self.readable = self.half_closed,
            Ok(0) | Err(Errno::EAGAIN) => self.readable = false,
            _ => {}
        }
        received
    }

    /// Begins to answer a request.
    fn begin(&mut self, token: Token, head: &RequestHead<'_>, raw: &[u8], cx: &mut Context) {
        cx.stats.requests.add(1);
        self.requests += 1;
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
        let too_long = matches!(head.body, BodyLength::Known(length) if length > limits.body_bytes);
        // Who waits for a word before it sends its body gets the answer instead, and must not send it then.
        if too_long || (has_body && head.expects_continue) {
            self.keep_alive = false;
        }
        if too_long {
            cx.stats.limit(Limit::Body);
            let reply = answer::error(413, head, false, cx);
            return self.begin_reply(reply, head, cx);
        }
        match answer::decide(head, self.keep_alive, Access::CachedOnly, cx) {
            Some(reply) => self.begin_reply(reply, head, cx),
            None => {
                self.deadline = None;
                let raw: Arc<[u8]> = raw.into();
                self.state = State::Away { raw: raw.clone() };
                let (shared, mailbox) = (cx.shared.clone(), cx.mailbox.clone());
                Pool::global().run(move || {
                    let answered = answer::ask_disk(&raw, &shared);
                    mailbox.send(Message::Answered(token, Box::new(answered)));
                });
            }
        }
    }

    fn refuse_head(&mut self, error: HeadError, cx: &mut Context) {
        cx.stats.requests.add(1);
        if matches!(error, HeadError::HeadTooLong | HeadError::TargetTooLong | HeadError::TooManyHeaders) {
            cx.stats.limit(Limit::Head);
        }
        let reply = answer::refusal(error.status(), cx);
        self.refuse(error.status(), reply, cx);
    }

    /// An answer to what was no request.
    fn refuse(&mut self, status: u16, reply: Vec<u8>, cx: &mut Context) {
        self.keep_alive = false;
        // So that the connection lingers: nobody knows what else is under way.
        let body = Some(Body::Known(u64::MAX));
        let entry = cx.options.log.is_some().then(|| Entry {
            time: SystemTime::now(),
            client: self.client,
            method: "-".to_owned(),
            target: "-".to_owned(),
            is_http10: false,
            status,
            bytes: 0,
            duration: Duration::ZERO,
            referer: None,
            user_agent: None,
            aborted: false,
        });
        cx.stats.status(status);
        self.start(Reply::bare(status, reply), body, entry, cx);
    }

    fn begin_reply(&mut self, reply: Reply, head: &RequestHead<'_>, cx: &mut Context) {
        cx.stats.status(reply.status);
        let body = match head.body {
            BodyLength::Known(0) => None,
            BodyLength::Known(length) => Some(Body::Known(length)),
            BodyLength::Chunked => Some(Body::Chunked(ChunkedSkipper::default())),
        };
        let entry = cx.options.log.is_some().then(|| Entry {
            time: SystemTime::now(),
            client: self.client,
            method: head.method.to_owned(),
            target: head.raw_target.to_owned(),
            is_http10: head.is_http10,
            status: reply.status,
            bytes: 0,
            duration: Duration::ZERO,
            referer: head.referer.map(str::to_owned),
            user_agent: head.user_agent.map(str::to_owned),
            aborted: false,
        });
        self.start(reply, body, entry, cx);
    }

    fn start(&mut self, reply: Reply, body: Option<Body>, log: Option<Entry>, cx: &mut Context) {
        let has_file = !reply.body.is_empty();
        let parts = std::iter::once(crate::transfer::Part::Memory(reply.head)).chain(reply.body);
        self.state = State::Sending(Box::new(Sending {
            transfer: Transfer::new(parts, reply.method, Target::Socket, Disk::ResidentOnly),
            started: cx.now,
            acknowledged: 0,
            progressed: cx.now,
            warming: false,
            body,
            has_file,
            log,
        }));
    }

    fn send(&mut self, token: Token, cx: &mut Context, budget: &mut Budget) -> Step {
        let State::Sending(sending) = &mut self.state else { return Step::Again };
        match sending.transfer.advance(&self.socket, budget) {
            Ok(Progress::Done) => self.sent(cx),
            Ok(Progress::Yield) => Step::Then(Next::Turn),
            Ok(Progress::Blocked) => {
                if !self.wait_for_room(token, cx) {
                    return Step::Then(Next::Close);
                }
                self.arm(TICK, cx);
                Step::Then(Next::Wait)
            }
            Ok(Progress::Cold) => {
                if let Some(range) = sending.transfer.read_ahead() {
                    sending.warming = true;
                    let mailbox = cx.mailbox.clone();
                    Pool::global().run(move || {
                        let until = range.run();
                        mailbox.send(Message::Warmed(token, until));
                    });
                }
                Step::Then(Next::Wait)
            }
            Err(error) => {
                if !error.is_peer_gone() {
                    cx.stats.failures.add(1);
                }
                Step::Then(Next::Close)
            }
        }
    }

    /// Asks anew even when it was asked for before: an event that came in between must not be lost, for the socket may have
    /// taken less than all without being full.
    fn wait_for_room(&mut self, token: Token, cx: &mut Context) -> bool {
        let events = EpollFlags::EPOLLIN | EpollFlags::EPOLLOUT | EpollFlags::EPOLLRDHUP | EpollFlags::EPOLLET;
        cx.epoll.modify(&self.socket, &mut EpollEvent::new(events, token)).is_ok()
    }

    /// A response is with the kernel.
    fn sent(&mut self, cx: &mut Context) -> Step {
        let State::Sending(sending) = &mut self.state else { return Step::Again };
        let report = sending.transfer.report();
        cx.stats.bytes.add(report.bytes);
        if sending.has_file {
            cx.stats.method(report.method);
        }
        if let Some(mut entry) = sending.log.take() {
            entry.bytes = report.bytes;
            entry.duration = cx.now.duration_since(sending.started);
            cx.log.push(entry);
        }
        let body = sending.body.take();
        self.state = match (self.keep_alive, body) {
            (true, None) => State::Reading,
            (true, Some(body)) => State::Skipping(body),
            (false, None) if self.unread().is_empty() => return Step::Then(Next::Close),
            (false, _) => {
                if shutdown(self.socket.as_raw_fd(), Shutdown::Write).is_err() {
                    return Step::Then(Next::Close);
                }
                self.pending = Vec::new();
                self.consumed = 0;
                self.arm(LINGER, cx);
                State::Lingering
            }
        };
        if self.keep_alive {
            self.idle_since = cx.now;
            let limits = &cx.options.limits;
            let after = if let State::Reading = self.state { limits.idle_timeout } else { limits.head_timeout };
            self.arm(after, cx);
        }
        Step::Again
    }

    fn skip(&mut self, cx: &mut Context) -> Step {
        if self.consumed == self.pending.len() {
            if !self.readable {
                return Step::Then(Next::Wait);
            }
            let mut buffer = std::mem::take(&mut cx.buffer);
            let received = self.receive(&mut buffer);
            if let Ok(count) = received {
                self.pending.clear();
                self.consumed = 0;
                self.pending.extend_from_slice(&buffer[..count]);
            }
            cx.buffer = buffer;
            match received {
                Ok(1..) => {}
                Err(Errno::EAGAIN | Errno::EINTR) => return Step::Again,
                _ => return Step::Then(Next::Close),
            }
        }
        let State::Skipping(body) = &mut self.state else { return Step::Again };
        let input = &self.pending[self.consumed..];
        let (count, is_end) = match body {
            Body::Known(left) => {
                let count = usize::try_from(*left).unwrap_or(usize::MAX).min(input.len());
                *left -= count as u64;
                (count, *left == 0)
            }
            Body::Chunked(skipper) => match skipper.skip(input) {
                Ok(_) if skipper.bytes() > cx.options.limits.body_bytes => {
                    cx.stats.limit(Limit::Body);
                    return Step::Then(Next::Close);
                }
                Ok(step) => step,
                // The answer is out already, so there is nothing left to say.
                Err(_) => return Step::Then(Next::Close),
            },
        };
        self.consumed += count;
        if is_end {
            self.state = State::Reading;
            self.idle_since = cx.now;
            self.arm(cx.options.limits.idle_timeout, cx);
        }
        Step::Again
    }

    fn linger(&mut self, cx: &mut Context) -> Step {
        if !self.readable {
            return Step::Then(Next::Wait);
        }
        let mut buffer = std::mem::take(&mut cx.buffer);
        let received = self.receive(&mut buffer);
        cx.buffer = buffer;
        match received {
            Ok(1..) | Err(Errno::EAGAIN | Errno::EINTR) => Step::Again,
            _ => Step::Then(Next::Close),
        }
    }
}

fn recv_into(socket: &OwnedFd, buffer: &mut [u8]) -> Result<usize, Errno> {
    recv(socket.as_raw_fd(), buffer, MsgFlags::empty())
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
