//! One connection: a state machine that is driven after an epoll event, the result of a pool task, or a timeout.
//!
//! ```text
//!        +------------------------------ next request -------------------------------+
//!        v                                                                           |
//!     Reading --> LookingUp (a pool thread opens the file) --> Sending --> SkippingBody
//!        |  |         |                                           |
//!        |  +---------+--> PendingHandoff, for the application    |
//!        |                                                        |
//!        +--> error response, then Lingering <--------------------+ after the last response
//! ```
//!
//! A turn is bounded in requests, bytes sent and bytes received, so that a busy connection does not starve the others of its
//! worker. An idle connection holds no buffer: bytes are received into the buffer of the worker, and only an incomplete head or
//! a later pipelined request is copied into the connection.
//!
//! | module | what it is for |
//! |---|---|
//! | `state` | the states and their data |
//! | `reading` | request heads and bodies |
//! | `requests` | from a head to the start of its response |
//! | `response`, `send_rate`, `sending` | the write side |
//! | `closing` | lingering close and reset |

mod closing;
mod reading;
mod requests;
mod response;
mod send_rate;
mod sending;
mod state;
#[cfg(test)]
mod tests;

use std::time::Instant;

use nix::sys::epoll::EpollFlags;

use super::context::Context;
use super::handoff::Reason;
use super::stats::Limit;
use crate::error::Result;
use crate::event_loop::slab::Token;
use crate::transfer::{Budget, Prefetched};
use response::aborted;
pub(super) use state::{Connection, Next};
use state::{MAX_RECEIVED_PER_TURN, State, Step};

/// Requests that one connection may have answered per turn.
const MAX_REQUESTS_PER_TURN: u32 = 32;
/// The events of every connection. EPOLLOUT is added after a blocked write.
pub(super) const EVENTS: EpollFlags =
    EpollFlags::EPOLLIN.union(EpollFlags::EPOLLPRI).union(EpollFlags::EPOLLRDHUP).union(EpollFlags::EPOLLET);

impl Connection {
    /// Start of the current wait for the first byte of a request, or of a lingering close. `None` when the connection is busy.
    pub fn idle_since(&self) -> Option<Instant> {
        let is_idle = matches!(self.state, State::Reading) && self.pending.is_empty();
        (is_idle || self.is_lingering()).then_some(self.idle_since)
    }

    /// Records epoll events. Returns whether the connection can proceed.
    pub fn record_events(&mut self, events: EpollFlags) -> bool {
        self.readable |= events.intersects(EpollFlags::EPOLLIN | EpollFlags::EPOLLRDHUP);
        self.half_closed |= events.contains(EpollFlags::EPOLLRDHUP);
        self.urgent |= events.contains(EpollFlags::EPOLLPRI);
        match &self.state {
            State::LookingUp { .. } | State::PendingHandoff(_) => false,
            State::Sending(response) => response.prefetching.is_none(),
            State::Reading | State::SkippingBody(_) | State::Lingering(_) => true,
        }
    }

    /// Runs one turn.
    pub fn drive(&mut self, token: Token, cx: &mut Context) -> Next {
        let mut send_budget = Budget::new(cx.shared.options.chunk);
        let mut receive_budget = Budget::new(MAX_RECEIVED_PER_TURN);
        let mut requests = 0;
        loop {
            let step = match &mut self.state {
                State::Reading if requests == MAX_REQUESTS_PER_TURN => return Next::Turn,
                State::Reading => {
                    requests += 1;
                    self.read(token, cx, &mut receive_budget)
                }
                State::LookingUp { .. } => return Next::Wait,
                State::Sending(_) => self.send(token, cx, &mut send_budget),
                State::SkippingBody(_) => self.skip_body(cx, &mut receive_budget),
                State::Lingering(_) => self.discard(cx, &mut receive_budget),
                State::PendingHandoff(_) => return Next::HandOff,
            };
            if let Step::Break(next) = step {
                return next;
            }
        }
    }

    /// Runs a turn after `step`, unless that ended it.
    fn proceed(&mut self, step: Step, token: Token, cx: &mut Context) -> Next {
        match step {
            Step::Continue(()) => self.drive(token, cx),
            Step::Break(next) => next,
        }
    }

    /// Takes the result of a read-ahead on a pool thread.
    pub fn prefetched(&mut self, result: Result<Prefetched>, cx: &mut Context) {
        let State::Sending(response) = &mut self.state else { return };
        // Without a read-ahead this is an error response: the one that started the read-ahead has timed out.
        if response.prefetching.take().is_none() {
            return;
        }
        match result {
            Ok(prefetched) => response.transfer.prefetched(prefetched),
            Err(_) => {
                cx.stats.failures.add(1);
                // If this aborts the connection, the next tick closes it.
                let _ = self.fail_response(500, cx);
            }
        }
    }

    /// The deadline has passed.
    pub fn expired(&mut self, token: Token, cx: &mut Context) -> Next {
        let has_handoff = cx.shared.options.handoff.is_some();
        match &mut self.state {
            State::Reading if cx.event_loop.is_draining() && !self.head_started => self.drive(token, cx),
            State::Reading if has_handoff && (self.head_started || self.requests == 0) => {
                cx.stats.limit(Limit::HeadTimeout);
                self.set_pending_handoff(Reason::TimedOut);
                Next::HandOff
            }
            State::Reading if self.head_started => {
                cx.stats.limit(Limit::HeadTimeout);
                self.refuse(408, cx);
                self.drive(token, cx)
            }
            State::Reading => match self.close_idle(cx) {
                // A request has just arrived.
                Step::Continue(()) if matches!(self.state, State::Reading) => {
                    self.set_timeout(cx.shared.options.limits.idle_timeout, cx.event_loop.now());
                    self.drive(token, cx)
                }
                step => {
                    cx.stats.limit(Limit::IdleTimeout);
                    self.proceed(step, token, cx)
                }
            },
            State::LookingUp { raw, task } => {
                let raw = raw.clone();
                task.cancel(aborted());
                self.lookup_expired(&raw, cx);
                self.drive(token, cx)
            }
            State::Sending(_) => {
                let step = self.check_progress(cx);
                self.proceed(step, token, cx)
            }
            State::SkippingBody(_) => {
                cx.stats.limit(Limit::HeadTimeout);
                let step = self.linger(cx);
                self.proceed(step, token, cx)
            }
            State::Lingering(_) => self.check_lingering(cx),
            State::PendingHandoff(_) => Next::Wait,
        }
    }

    /// A turn has panicked. The client gets a 500 response if no part of another response is sent, and a reset otherwise.
    pub fn panicked(&mut self, token: Token, cx: &mut Context) -> Next {
        let step = match &self.state {
            State::Reading | State::LookingUp { .. } => {
                self.refuse(500, cx);
                state::CONTINUE
            }
            State::Sending(response) if response.is_unsent() => self.fail_response(500, cx),
            State::SkippingBody(_) => self.linger(cx),
            State::Sending(_) | State::Lingering(_) | State::PendingHandoff(_) => Step::Break(Next::Close),
        };
        self.proceed(step, token, cx)
    }

    /// Responds with `status` to a connection that exceeds a limit, and closes it.
    pub fn reject(&mut self, token: Token, status: u16, cx: &mut Context) -> Next {
        self.refuse(status, cx);
        self.drive(token, cx)
    }

    /// Ends the connection in any state. An incomplete response is counted and ends in a reset.
    pub fn end(&mut self, cx: &mut Context) {
        match &mut self.state {
            State::LookingUp { task, .. } => drop(task.cancel(aborted())),
            State::Sending(response) => {
                response.cancel_prefetch();
                response.record(true, &cx.stats, &mut cx.log);
                self.reset_on_close();
            }
            State::Lingering(lingering) if lingering.reset => self.reset_on_close(),
            _ => {}
        }
    }
}
