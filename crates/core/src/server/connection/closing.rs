//! The end of a connection: a lingering close, RFC 9112 section 9.6, or a reset.
//!
//! close(2) on a socket with unread bytes sends a reset, and so does the kernel for bytes that arrive after the close. A reset
//! discards what the client has not acknowledged yet. So after a whole response the write side is shut down, and what
//! still arrives is read and discarded until the client closes too, within bounds of time and bytes. A response that is not
//! whole must not end like one that is: it ends in a reset.

use std::os::fd::{AsFd, AsRawFd};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::sys::socket::{MsgFlags, Shutdown, recv, setsockopt, shutdown, sockopt};

use super::sending::{Pace, TICK};
use super::{Connection, MAX_RECEIVED_PER_TURN, Next, State, Step};
use crate::event_loop::slab::Token;
use crate::server::context::Context;
use crate::transfer::Budget;

/// How long the client may take to close its side once it has acknowledged everything.
const LINGER: Duration = Duration::from_secs(2);
/// Bytes that are discarded from a client at most. Beyond that they stay in the receive buffer, where TCP holds the client up.
const MAX_DISCARDED: u64 = 16 * 1024 * 1024;
/// How often an aborted response is checked for bytes that are not acknowledged: at first, doubled each time up to [`TICK`].
const FIRST_TICK: Duration = Duration::from_millis(5);
/// How long a new connection may take for its first request while the server drains.
const FIRST_REQUEST: Duration = Duration::from_millis(500);
/// How long a connection may be without its first request before it is closed for others that need its descriptor.
const FIRST_REQUEST_WHEN_EXHAUSTED: Duration = Duration::from_secs(5);
/// Without `limits.send_timeout`: how long a client may acknowledge nothing before the connection is closed all the same.
const MAX_STALL: Duration = Duration::from_secs(30);

/// A connection on which nothing more is sent.
pub(super) struct Lingering {
    pace: Pace,
    /// Bytes that were not acknowledged when this began.
    queued: u64,
    discarded: u64,
    /// It ends in a reset, for what was sent last is not whole.
    reset: bool,
    tick: Duration,
}

impl Connection {
    /// Closes after a whole response.
    pub(super) fn linger(&mut self, cx: &mut Context) -> Step {
        // Not one in whose middle it ends.
        self.state = State::Reading;
        self.pending = Vec::new();
        self.consumed = 0;
        // Nothing can arrive any more from a client that has closed its side. ENOTCONN: the client has reset the connection.
        if self.has_read_end() || shutdown(self.socket.as_raw_fd(), Shutdown::Write).is_err() {
            return Step::Then(Next::Close);
        }
        self.begin_lingering(false, LINGER, cx)
    }

    /// Closes after a part of a response. The reset waits until the client has what was sent, for there may be whole responses
    /// before it.
    pub(super) fn abort(&mut self, cx: &mut Context) -> Step {
        self.pending = Vec::new();
        self.consumed = 0;
        let step = self.begin_lingering(true, FIRST_TICK, cx);
        match self.check_lingering(cx) {
            Next::Close => Step::Then(Next::Close),
            _ => step,
        }
    }

    fn begin_lingering(&mut self, reset: bool, tick: Duration, cx: &mut Context) -> Step {
        let queued = if reset { self.unacknowledged() } else { 0 };
        self.state =
            State::Lingering(Box::new(Lingering { pace: Pace::new(cx.now), queued, discarded: 0, reset, tick }));
        self.arm(tick, cx);
        Step::Again
    }

    /// Reads and discards.
    pub(super) fn discard(&mut self, cx: &mut Context, budget: &mut Budget) -> Step {
        let State::Lingering(lingering) = &mut self.state else { return Step::Again };
        if !self.readable || lingering.reset || lingering.discarded >= MAX_DISCARDED {
            return Step::Then(Next::Wait);
        }
        if budget.left() == 0 {
            return Step::Then(Next::Turn);
        }
        let mut buffer = std::mem::take(&mut cx.buffer);
        let received = self.receive(&mut buffer, budget);
        cx.buffer = buffer;
        let State::Lingering(lingering) = &mut self.state else { return Step::Again };
        match received {
            Ok(count @ 1..) => {
                lingering.discarded += count as u64;
                self.readable = true;
                Step::Again
            }
            Err(Errno::EAGAIN | Errno::EINTR) => Step::Again,
            _ => Step::Then(Next::Close),
        }
    }

    /// Time to see how far the client is.
    pub(super) fn check_lingering(&mut self, cx: &mut Context) -> Next {
        let left = self.unacknowledged();
        let State::Lingering(lingering) = &mut self.state else { return Next::Wait };
        if left == 0 && (lingering.reset || lingering.queued == 0) {
            return Next::Close;
        }
        if left == 0 {
            // Acknowledged since the last check: from now on the client has the usual time to close.
            lingering.queued = 0;
            self.arm(LINGER, cx);
            return Next::Wait;
        }
        lingering.queued = lingering.queued.max(left);
        let acknowledged = lingering.queued - left;
        if let Some(limit) = lingering.pace.check(acknowledged, cx.now, &cx.options.limits) {
            cx.stats.limit(limit);
            lingering.reset = true;
            return Next::Close;
        }
        if lingering.pace.stalled(cx.now) >= MAX_STALL.max(cx.options.limits.send_timeout) {
            return Next::Close;
        }
        lingering.tick = (lingering.tick * 2).min(TICK);
        let tick = lingering.tick;
        self.arm(tick, cx);
        Next::Wait
    }

    /// Closes a connection that waits for a request. A request that has arrived meanwhile is served.
    pub(super) fn close_idle(&mut self, cx: &mut Context) -> Step {
        match self.peek() {
            Ok(0) => Step::Then(Next::Close),
            Ok(_) => {
                self.readable = true;
                Step::Again
            }
            Err(Errno::EAGAIN) if self.requests > 0 && self.unacknowledged() > 0 => self.linger(cx),
            Err(_) => Step::Then(Next::Close),
        }
    }

    /// While the server drains: closes the connection unless its first request may still be on its way.
    pub(super) fn close_drained(&mut self, cx: &mut Context) -> Step {
        let age = cx.now.duration_since(self.idle_since);
        if self.requests == 0 && age < FIRST_REQUEST {
            self.arm(FIRST_REQUEST - age, cx);
            return Step::Then(Next::Wait);
        }
        self.close_idle(cx)
    }

    /// Whether closing it at once loses nothing: the client has all that was sent, has sent nothing since, and its first request is
    /// not on its way.
    pub fn can_be_shed(&self, now: Instant) -> bool {
        let age = now.duration_since(self.idle_since);
        let is_new = self.requests == 0 && age < FIRST_REQUEST_WHEN_EXHAUSTED;
        !is_new && self.unacknowledged() == 0 && matches!(self.peek(), Ok(0) | Err(Errno::EAGAIN))
    }

    /// Makes close(2) send a reset and discard what is in the send buffer; see `SO_LINGER` in socket(7).
    pub(super) fn reset_on_close(&self) {
        let _ = setsockopt(&self.socket, sockopt::Linger, &libc::linger { l_onoff: 1, l_linger: 0 });
    }

    /// Closes it in whatever state: a response that is not whole ends in a reset, a whole one survives.
    pub fn close_now(&mut self, token: Token, cx: &mut Context) -> Next {
        if matches!(self.state, State::Sending(_) | State::PendingHandoff(_))
            || self.requests == 0
            || self.can_be_shed(cx.now)
        {
            return Next::Close;
        }
        if self.is_lingering() {
            return Next::Wait;
        }
        let step = self.linger(cx);
        self.follow(step, token, cx)
    }

    /// Discards what can be read at once, so that closing sends no reset for it.
    pub fn discard_unread(&mut self, buffer: &mut [u8]) {
        let mut budget = Budget::new(MAX_RECEIVED_PER_TURN);
        while !matches!(self.state, State::Sending(_)) && budget.left() > 0 {
            match self.receive(buffer, &mut budget) {
                Ok(1..) | Err(Errno::EINTR) => {}
                _ => break,
            }
        }
    }

    pub fn is_lingering(&self) -> bool {
        matches!(self.state, State::Lingering(_))
    }

    /// Whether the connection ends in a reset.
    pub(super) fn is_aborted(&self) -> bool {
        matches!(&self.state, State::Lingering(lingering) if lingering.reset)
    }

    /// Whether everything that the client will ever send has been read.
    fn has_read_end(&self) -> bool {
        self.half_closed && !self.readable
    }

    fn unacknowledged(&self) -> u64 {
        zerosend_sys::socket::unacknowledged(self.socket.as_fd()).unwrap_or(0)
    }

    fn peek(&self) -> Result<usize, Errno> {
        recv(self.socket.as_raw_fd(), &mut [0], MsgFlags::MSG_PEEK | MsgFlags::MSG_DONTWAIT)
    }
}
