//! Lingering close, RFC 9112 section 9.6, and reset.
//!
//! close(2) sends a reset if the socket has unread bytes, and so does the kernel for bytes that arrive after close(2). A reset
//! makes the client discard bytes that it has not read yet. So after a complete response the server shuts down its write side,
//! and discards what it receives until the client closes, within limits of time and bytes. An incomplete response ends in a
//! reset, so that the client does not take it for a complete one.

use std::os::fd::{AsFd, AsRawFd};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::sys::socket::{MsgFlags, Shutdown, recv, setsockopt, shutdown, sockopt};

use super::send_rate::SendRate;
use super::sending::TICK;
use super::state::{CONTINUE, Connection, Lingering, MAX_RECEIVED_PER_TURN, Next, State, Step};
use crate::event_loop::slab::Token;
use crate::server::context::Context;
use crate::transfer::Budget;

/// Time for the client to close after it has acknowledged everything.
const LINGER: Duration = Duration::from_secs(2);
/// Maximum of discarded bytes per connection. More bytes stay in the receive buffer, and TCP flow control stops the client.
const MAX_DISCARDED: u64 = 16 * 1024 * 1024;
/// First interval of the checks for unacknowledged bytes of an aborted response. It doubles up to [`TICK`].
const FIRST_TICK: Duration = Duration::from_millis(5);
/// Time for the first request of a new connection while the server drains.
const FIRST_REQUEST: Duration = Duration::from_millis(500);
/// Time for the first request of a new connection when the process is out of descriptors.
const FIRST_REQUEST_WHEN_EXHAUSTED: Duration = Duration::from_secs(5);
/// Time without an acknowledged byte after which a lingering connection is closed, even without `limits.send_timeout`.
const MAX_STALL: Duration = Duration::from_secs(30);

impl Connection {
    /// Closes after a complete response.
    pub(super) fn linger(&mut self, cx: &mut Context) -> Step {
        // `end` does not reset a connection in this state.
        self.state = State::Reading;
        self.pending = Vec::new();
        self.consumed = 0;
        // After the client has shut down its write side, no more bytes can arrive. ENOTCONN: it has reset the connection.
        if self.has_read_end() || shutdown(self.socket.as_raw_fd(), Shutdown::Write).is_err() {
            return Step::Break(Next::Close);
        }
        self.begin_lingering(false, LINGER, cx)
    }

    /// Closes after a part of a response. The reset is delayed until the client has acknowledged all bytes, because complete
    /// responses may precede the incomplete one.
    pub(super) fn abort(&mut self, cx: &mut Context) -> Step {
        self.pending = Vec::new();
        self.consumed = 0;
        let step = self.begin_lingering(true, FIRST_TICK, cx);
        match self.check_lingering(cx) {
            Next::Close => Step::Break(Next::Close),
            _ => step,
        }
    }

    fn begin_lingering(&mut self, reset: bool, tick: Duration, cx: &mut Context) -> Step {
        let now = cx.event_loop.now();
        let queued = if reset { self.unacknowledged() } else { 0 };
        let lingering = Lingering { rate: SendRate::new(now), queued, discarded: 0, reset, tick };
        self.state = State::Lingering(Box::new(lingering));
        self.set_timeout(tick, now);
        CONTINUE
    }

    /// Receives and discards bytes.
    pub(super) fn discard(&mut self, cx: &mut Context, budget: &mut Budget) -> Step {
        let State::Lingering(lingering) = &mut self.state else { return CONTINUE };
        if !self.readable || lingering.reset || lingering.discarded >= MAX_DISCARDED {
            return Step::Break(Next::Wait);
        }
        if budget.left() == 0 {
            return Step::Break(Next::Turn);
        }
        let mut buffer = cx.take_buffer();
        let received = self.receive(&mut buffer, budget);
        cx.buffer = buffer;
        let State::Lingering(lingering) = &mut self.state else { return CONTINUE };
        match received {
            Ok(count @ 1..) => {
                lingering.discarded += count as u64;
                self.readable = true;
                CONTINUE
            }
            Err(Errno::EAGAIN | Errno::EINTR) => CONTINUE,
            _ => Step::Break(Next::Close),
        }
    }

    /// Checks whether the client has acknowledged everything, and how fast it does.
    pub(super) fn check_lingering(&mut self, cx: &mut Context) -> Next {
        let now = cx.event_loop.now();
        let limits = &cx.shared.options.limits;
        let left = self.unacknowledged();
        let State::Lingering(lingering) = &mut self.state else { return Next::Wait };
        if left == 0 && (lingering.reset || lingering.queued == 0) {
            return Next::Close;
        }
        if left == 0 {
            // Everything has been acknowledged since the last check. Now the client has time to close.
            lingering.queued = 0;
            self.set_timeout(LINGER, now);
            return Next::Wait;
        }
        lingering.queued = lingering.queued.max(left);
        let acknowledged = lingering.queued - left;
        if let Some(limit) = lingering.rate.check(acknowledged, now, limits) {
            cx.stats.limit(limit);
            lingering.reset = true;
            return Next::Close;
        }
        if lingering.rate.stalled(now) >= MAX_STALL.max(limits.send_timeout) {
            return Next::Close;
        }
        lingering.tick = (lingering.tick * 2).min(TICK);
        let tick = lingering.tick;
        self.set_timeout(tick, now);
        Next::Wait
    }

    /// Closes an idle connection, unless a request has arrived.
    pub(super) fn close_idle(&mut self, cx: &mut Context) -> Step {
        match self.peek() {
            Ok(0) => Step::Break(Next::Close),
            Ok(_) => {
                self.readable = true;
                CONTINUE
            }
            Err(Errno::EAGAIN) if self.requests > 0 && self.unacknowledged() > 0 => self.linger(cx),
            Err(_) => Step::Break(Next::Close),
        }
    }

    /// Closes the connection if it is idle.
    pub fn close_if_idle(&mut self, token: Token, cx: &mut Context) -> Next {
        if !matches!(self.state, State::Reading) || self.head_started || !self.pending.is_empty() {
            return Next::Wait;
        }
        let step = self.close_idle(cx);
        self.proceed(step, token, cx)
    }

    /// Closes an idle connection while the server drains, unless it is new and its first request may be in flight.
    pub(super) fn close_drained(&mut self, cx: &mut Context) -> Step {
        let now = cx.event_loop.now();
        let age = now.duration_since(self.idle_since);
        if self.requests == 0 && age < FIRST_REQUEST {
            self.set_timeout(FIRST_REQUEST - age, now);
            return Step::Break(Next::Wait);
        }
        self.close_idle(cx)
    }

    /// Whether closing an idle connection at once loses nothing: the client has acknowledged all bytes and has sent none, and the
    /// connection is not so new that its first request may be in flight.
    pub fn closes_without_loss(&self, now: Instant) -> bool {
        let age = now.duration_since(self.idle_since);
        let is_new = self.requests == 0 && age < FIRST_REQUEST_WHEN_EXHAUSTED;
        !is_new && self.unacknowledged() == 0 && matches!(self.peek(), Ok(0) | Err(Errno::EAGAIN))
    }

    /// Makes close(2) send a reset and discard the send buffer; see `SO_LINGER` in socket(7).
    pub(super) fn reset_on_close(&self) {
        let _ = setsockopt(&self.socket, sockopt::Linger, &libc::linger { l_onoff: 1, l_linger: 0 });
    }

    /// Closes the connection in any state. An incomplete response ends in a reset; complete ones still reach the client.
    pub fn close_now(&mut self, token: Token, cx: &mut Context) -> Next {
        if matches!(self.state, State::Sending(_) | State::PendingHandoff(_))
            || self.requests == 0
            || self.closes_without_loss(cx.event_loop.now())
        {
            return Next::Close;
        }
        if self.is_lingering() {
            return Next::Wait;
        }
        let step = self.linger(cx);
        self.proceed(step, token, cx)
    }

    /// Discards received bytes, so that close(2) does not send a reset because of them.
    pub fn discard_unread(&mut self, cx: &mut Context) {
        let mut buffer = cx.take_buffer();
        let mut budget = Budget::new(MAX_RECEIVED_PER_TURN);
        while !matches!(self.state, State::Sending(_)) && budget.left() > 0 {
            match self.receive(&mut buffer, &mut budget) {
                Ok(1..) | Err(Errno::EINTR) => {}
                _ => break,
            }
        }
        cx.buffer = buffer;
    }

    pub fn is_lingering(&self) -> bool {
        matches!(self.state, State::Lingering(_))
    }

    /// Whether the end of the client's stream has been read.
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
