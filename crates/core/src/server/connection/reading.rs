//! Read side: request heads and discarded bodies.

use std::os::fd::AsRawFd;

use nix::errno::Errno;
use nix::sys::socket::{MsgFlags, recv};

use super::{Body, Connection, Next, State, Step};
use crate::event_loop::slab::Token;
use crate::server::answer;
use crate::server::context::Context;
use crate::server::handoff::Reason;
use crate::server::routing;
use crate::server::stats::Limit;
use crate::transfer::Budget;
use zerosend_http::request::{HeadError, HeadScanner};

impl Connection {
    /// Reads until a request is complete and begun, or there is nothing more to read.
    pub(super) fn read(&mut self, token: Token, cx: &mut Context, budget: &mut Budget) -> Step {
        let mut pending = std::mem::take(&mut self.pending);
        let used = self.take_request(token, pending.get(self.consumed..).unwrap_or_default(), cx);
        self.consumed += used.unwrap_or(0);
        let mut step = used.map(|_| Step::Again);
        while step.is_none() && self.readable {
            if budget.left() == 0 {
                step = Some(Step::Then(Next::Turn));
                break;
            }
            let mut buffer = std::mem::take(&mut cx.buffer);
            match self.receive(&mut buffer, budget) {
                Ok(0) if cx.options.handoff.is_some() && self.consumed < pending.len() => {
                    // A request that ends in its middle: for the application to say so.
                    self.set_pending_handoff(Reason::Request);
                    step = Some(Step::Again);
                }
                Ok(0) if self.heading => {
                    self.refuse_head(HeadError::Bad("the client closed before the end of the head"), cx);
                    step = Some(Step::Again);
                }
                Ok(0) => step = Some(Step::Then(Next::Close)),
                Ok(count) => {
                    if self.take_received(token, &mut pending, &buffer[..count], cx) {
                        step = Some(Step::Again);
                    } else {
                        // The rest is expected at once, so that it is worth a call to be sure.
                        self.readable = true;
                    }
                }
                Err(Errno::EAGAIN | Errno::EINTR) => {}
                Err(_) => step = Some(Step::Then(Next::Close)),
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
            None if cx.draining && !self.heading => self.close_drained(cx),
            None => Step::Then(Next::Wait),
        }
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

    /// Begins the request at the start of `input`, or refuses what stands there; gives how many bytes that was: none when
    /// the connection leaves with them. `None`: there is no whole head.
    fn take_request(&mut self, token: Token, input: &[u8], cx: &mut Context) -> Option<usize> {
        let end = match self.scanner.scan(input, cx.options.limits.head_bytes) {
            Ok(Some(end)) => end,
            Ok(None) if cx.options.handoff.is_some() && !routing::may_match(input, &cx.options.mounts) => {
                self.set_pending_handoff(Reason::Request);
                return Some(0);
            }
            Ok(None) => {
                if !self.heading && self.scanner.has_begun(input) {
                    self.heading = true;
                    self.arm(cx.options.limits.head_timeout, cx);
                }
                return None;
            }
            Err(_) if cx.options.handoff.is_some() => {
                self.set_pending_handoff(Reason::Request);
                return Some(0);
            }
            Err(error) => {
                self.refuse_head(error, cx);
                return Some(input.len());
            }
        };
        self.scanner = HeadScanner::default();
        self.heading = false;
        let raw = &input[..end];
        let is_ours = match answer::parse(raw, &cx.options) {
            Ok(head) => self.begin(token, &head, raw, cx),
            Err(_) if cx.options.handoff.is_some() => {
                self.set_pending_handoff(Reason::Request);
                false
            }
            Err(error) => {
                self.refuse_head(error, cx);
                true
            }
        };
        Some(if is_ours { end } else { 0 })
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
                    // epoll(7): a stream that gave less than it was asked for is drained, unless its end has been announced. A
                    // read also stops at urgent data, tcp(7), and on a Unix socket behind bytes that came with descriptors.
                    self.readable = self.half_closed || self.urgent || self.client.is_none();
                }
            }
            Err(Errno::EAGAIN) => self.readable = false,
            Err(_) => {}
        }
        received
    }

    pub(super) fn skip(&mut self, cx: &mut Context, budget: &mut Budget) -> Step {
        if self.consumed == self.pending.len() {
            if !self.readable {
                return Step::Then(Next::Wait);
            }
            if budget.left() == 0 {
                return Step::Then(Next::Turn);
            }
            let mut buffer = std::mem::take(&mut cx.buffer);
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
                Err(Errno::EAGAIN | Errno::EINTR) => return Step::Again,
                _ => return Step::Then(Next::Close),
            }
        }
        let State::Skipping(body) = &mut self.state else { return Step::Again };
        let input = &self.pending[self.consumed..];
        let most = cx.options.limits.body_bytes;
        let (count, is_end) = match body {
            Body::Known(left) => {
                let count = usize::try_from(*left).unwrap_or(usize::MAX).min(input.len());
                *left -= count as u64;
                (count, *left == 0)
            }
            Body::Chunked(skipper) => match skipper.skip(input) {
                Ok(_) if most > 0 && skipper.is_over(most) => {
                    cx.stats.limit(Limit::Body);
                    return self.linger(cx);
                }
                Ok(step) => step,
                // The answer is out already, so there is nothing left to say.
                Err(_) => return self.linger(cx),
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
}
