//! Write side: sends a response; closes clients that are slower than the limits allow.

use std::os::fd::AsFd;
use std::time::Duration;

use nix::sys::epoll::{EpollEvent, EpollFlags};

use super::EVENTS;
use super::state::{CONTINUE, Connection, Next, State, Step};
use crate::event_loop::slab::Token;
use crate::server::context::Context;
use crate::server::message::Message;
use crate::server::stats::Limit;
use crate::transfer::{Budget, Progress};

/// Interval of the checks of a blocked response.
pub(super) const TICK: Duration = Duration::from_secs(1);

impl Connection {
    pub(super) fn send(&mut self, token: Token, cx: &mut Context, budget: &mut Budget) -> Step {
        let State::Sending(response) = &mut self.state else { return CONTINUE };
        match response.transfer.advance(&self.socket, budget) {
            Ok(Progress::Done) => self.finish_response(cx),
            Ok(Progress::Yield) => Step::Break(Next::Turn),
            Ok(Progress::Blocked) => {
                // EPOLL_CTL_MOD, even if EPOLLOUT is set already, makes an edge-triggered epoll report the current state again:
                // the socket may have become writable after the last short write.
                let mut event = EpollEvent::new(EVENTS | EpollFlags::EPOLLOUT, token);
                if cx.event_loop.epoll().modify(&self.socket, &mut event).is_err() {
                    return Step::Break(Next::Close);
                }
                self.set_timeout(TICK, cx.event_loop.now());
                Step::Break(Next::Wait)
            }
            Ok(Progress::Cold) => {
                if let Some(prefetch) = response.transfer.prefetch() {
                    let mailbox = cx.event_loop.mailbox().clone();
                    let task = prefetch.start(move |result| mailbox.send(Message::Prefetched(token, result)));
                    response.prefetching = Some((cx.event_loop.now(), task));
                }
                let limit = cx.shared.options.limits.disk_timeout;
                self.set_timeout(if limit.is_zero() { TICK } else { limit.min(TICK) }, cx.event_loop.now());
                Step::Break(Next::Wait)
            }
            Err(error) if error.is_peer_gone() => Step::Break(Next::Close),
            Err(_) => {
                cx.stats.failures.add(1);
                self.fail_response(500, cx)
            }
        }
    }

    /// The whole response is in the kernel's send buffer.
    fn finish_response(&mut self, cx: &mut Context) -> Step {
        let State::Sending(response) = &mut self.state else { return CONTINUE };
        response.record(false, &cx.stats, &mut cx.log);
        if response.has_file {
            cx.stats.method(response.transfer.report().method);
        }
        let body = response.body.take();
        if !self.keep_alive {
            return self.linger(cx);
        }
        self.idle_since = cx.event_loop.now();
        let limits = &cx.shared.options.limits;
        match body {
            None => {
                self.state = State::Reading;
                self.set_timeout(limits.idle_timeout, cx.event_loop.now());
            }
            Some(body) => {
                self.state = State::SkippingBody(body);
                self.set_timeout(limits.head_timeout, cx.event_loop.now());
            }
        }
        CONTINUE
    }

    /// Checks the limits of a blocked response.
    pub(super) fn check_progress(&mut self, cx: &mut Context) -> Step {
        let State::Sending(response) = &mut self.state else { return CONTINUE };
        let limits = &cx.shared.options.limits;
        if let Some((since, _)) = response.prefetching {
            if !limits.disk_timeout.is_zero()
                && cx.event_loop.now().saturating_duration_since(since) >= limits.disk_timeout
            {
                response.cancel_prefetch();
                cx.stats.limit(Limit::DiskTimeout);
                return self.fail_response(503, cx);
            }
            // The disk is slow, not the client.
            response.rate.restart(cx.event_loop.now());
        } else {
            let queued = zerosend_sys::socket::unacknowledged(self.socket.as_fd()).unwrap_or(0);
            let acknowledged =
                response.rate.acknowledged(response.transfer.report().bytes, queued, cx.event_loop.now());
            if let Some(limit) = response.rate.check(acknowledged, cx.event_loop.now(), limits) {
                cx.stats.limit(limit);
                // `Connection::end` resets the connection, which frees the send buffer.
                return Step::Break(Next::Close);
            }
        }
        self.set_timeout(TICK, cx.event_loop.now());
        Step::Break(Next::Wait)
    }
}
