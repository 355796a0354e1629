//! Read side: request heads and discarded bodies.

use std::os::fd::AsRawFd;

use nix::errno::Errno;
use nix::sys::socket::{MsgFlags, recv};

use super::response::Body;
use super::state::{CONTINUE, Connection, Next, State, Step};
use crate::event_loop::slab::Token;
use crate::server::answer;
use crate::server::context::Context;
use crate::server::handoff::Reason;
use crate::server::routing;
use crate::server::stats::Limit;
use crate::transfer::Budget;
use zerosend_http::request::{HeadError, HeadScanner};

impl Connection {
    /// Reads until a request has begun or the socket is empty.
    pub(super) fn read(&mut self, token: Token, cx: &mut Context, budget: &mut Budget) -> Step {
        let mut pending = std::mem::take(&mut self.pending);
        let used = self.take_request(token, pending.get(self.consumed..).unwrap_or_default(), cx);
        self.consumed += used.unwrap_or(0);
        let mut step = used.map(|_| CONTINUE);
        while step.is_none() && self.readable {
            if budget.left() == 0 {
                step = Some(Step::Break(Next::Turn));
                break;
            }
            let mut buffer = cx.take_buffer();
            match self.receive(&mut buffer, budget) {
                Ok(0) if cx.shared.options.handoff.is_some() && self.consumed < pending.len() => {
                    // The application answers an incomplete request.
                    self.set_pending_handoff(Reason::Request);
                    step = Some(CONTINUE);
                }
                Ok(0) if self.head_started => {
                    self.refuse_head(HeadError::Bad("the client closed before the end of the head"), cx);
                    step = Some(CONTINUE);
                }
                Ok(0) => step = Some(Step::Break(Next::Close)),
                Ok(count) => {
                    if self.take_received(token, &mut pending, &buffer[..count], cx) {
                        step = Some(CONTINUE);
                    } else {
                        // The rest of the head is likely to follow at once, so another recv(2) is worthwhile.
                        self.readable = true;
                    }
                }
                Err(Errno::EAGAIN | Errno::EINTR) => {}
                Err(_) => step = Some(Step::Break(Next::Close)),
            }
            cx.buffer = buffer;
        }
        if self.consumed == pending.len() {
            // Idle connections release their read buffer.
            pending = Vec::new();
            self.consumed = 0;
        }
        self.pending = pending;
        match step {
            Some(step) => step,
            None if cx.event_loop.is_draining() && !self.head_started => self.close_drained(cx),
            None => Step::Break(Next::Wait),
        }
    }

    /// Looks for a request in `pending` followed by `received`. Unused bytes are left in `pending`.
    fn take_received(&mut self, token: Token, pending: &mut Vec<u8>, received: &[u8], cx: &mut Context) -> bool {
        if self.consumed == pending.len() {
            // The common case: a whole request is parsed in the worker's buffer, without a copy.
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

    /// Begins or refuses the request at the start of `input`. Returns the number of bytes used, which is 0 for a handoff, or
    /// `None` if the head is incomplete.
    fn take_request(&mut self, token: Token, input: &[u8], cx: &mut Context) -> Option<usize> {
        let options = &cx.shared.options;
        let has_handoff = options.handoff.is_some();
        let end = match self.scanner.scan(input, options.limits.head_bytes) {
            Ok(Some(end)) => end,
            Ok(None) if has_handoff && !routing::may_match(input, &options.mounts) => {
                self.set_pending_handoff(Reason::Request);
                return Some(0);
            }
            Ok(None) => {
                if !self.head_started && self.scanner.has_begun(input) {
                    self.head_started = true;
                    self.set_timeout(options.limits.head_timeout, cx.event_loop.now());
                }
                return None;
            }
            Err(_) if has_handoff => {
                self.set_pending_handoff(Reason::Request);
                return Some(0);
            }
            Err(error) => {
                self.refuse_head(error, cx);
                return Some(input.len());
            }
        };
        self.scanner = HeadScanner::default();
        self.head_started = false;
        let raw = &input[..end];
        let is_consumed = match answer::parse(raw, options) {
            Ok(head) => self.begin(token, &head, raw, cx),
            Err(_) if has_handoff => {
                self.set_pending_handoff(Reason::Request);
                false
            }
            Err(error) => {
                self.refuse_head(error, cx);
                true
            }
        };
        Some(if is_consumed { end } else { 0 })
    }

    pub(super) fn receive(&mut self, buffer: &mut [u8], budget: &mut Budget) -> Result<usize, Errno> {
        let received = recv(self.socket.as_raw_fd(), buffer, MsgFlags::empty());
        match received {
            Ok(0) => {
                self.readable = false;
                self.half_closed = true;
            }
            Ok(count) => {
                budget.spend(count);
                if count < buffer.len() {
                    // epoll(7): a short read from a stream socket means that it is empty. Exceptions: an end of stream that epoll
                    // has already reported, urgent data (tcp(7)), and SCM_RIGHTS on Unix sockets, which also stop a read.
                    self.readable = self.half_closed || self.urgent || self.client.is_none();
                }
            }
            Err(Errno::EAGAIN) => self.readable = false,
            Err(_) => {}
        }
        received
    }

    /// Discards the body of a request that has been answered.
    pub(super) fn skip_body(&mut self, cx: &mut Context, budget: &mut Budget) -> Step {
        if self.consumed == self.pending.len() {
            if !self.readable {
                return Step::Break(Next::Wait);
            }
            if budget.left() == 0 {
                return Step::Break(Next::Turn);
            }
            let mut buffer = cx.take_buffer();
            let received = self.receive(&mut buffer, budget);
            if let Ok(count) = received {
                self.readable |= count > 0;
                self.pending.clear();
                self.consumed = 0;
                self.pending.extend_from_slice(&buffer[..count]);
            }
            cx.buffer = buffer;
            match received {
                Ok(1..) => {}
                Err(Errno::EAGAIN | Errno::EINTR) => return CONTINUE,
                _ => return Step::Break(Next::Close),
            }
        }
        let State::SkippingBody(body) = &mut self.state else { return CONTINUE };
        let input = &self.pending[self.consumed..];
        let limits = &cx.shared.options.limits;
        let (count, is_end) = match body {
            Body::Known(left) => {
                let count = usize::try_from(*left).unwrap_or(usize::MAX).min(input.len());
                *left -= count as u64;
                (count, *left == 0)
            }
            Body::Chunked(skipper) => match skipper.skip(input) {
                Ok(_) if limits.body_bytes > 0 && skipper.is_over(limits.body_bytes) => {
                    cx.stats.limit(Limit::Body);
                    return self.linger(cx);
                }
                Ok(skipped) => skipped,
                // The response has been sent, so an error response is impossible.
                Err(_) => return self.linger(cx),
            },
        };
        self.consumed += count;
        if is_end {
            self.state = State::Reading;
            self.idle_since = cx.event_loop.now();
            self.set_timeout(limits.idle_timeout, cx.event_loop.now());
        }
        CONTINUE
    }
}
