//! What goes out: a response, at the pace of the client, unless that is none.

use std::os::fd::{AsFd, AsRawFd};
use std::time::{Duration, Instant};

use nix::sys::epoll::{EpollEvent, EpollFlags};
use nix::sys::socket::{Shutdown, setsockopt, shutdown, sockopt};

use super::{Body, Connection, Next, State, Step};
use crate::reactor::registry::Token;
use crate::server::answer::Reply;
use crate::server::log::Entry;
use crate::server::stats::Limit;
use crate::server::worker::{Context, Message};
use crate::transfer::{Budget, Disk, Part, Progress, Target, Transfer};

/// How long a client may go on sending after it was told that the connection closes.
const LINGER: Duration = Duration::from_secs(2);
/// How often the progress of a blocked response is looked at.
pub(super) const TICK: Duration = Duration::from_secs(1);
/// How long a response may be slow before the limit `min_rate` counts.
const GRACE: Duration = Duration::from_secs(5);

/// A response on its way.
pub(super) struct Sending {
    pub transfer: Transfer,
    pub started: Instant,
    /// Bytes that the client had acknowledged when that was last looked at, and when there were more than before.
    pub acknowledged: u64,
    pub progressed: Instant,
    /// A pool thread reads ahead.
    pub warming: bool,
    pub body: Option<Body>,
    /// The file's bytes count for a method.
    pub has_file: bool,
    pub log: Option<Entry>,
}

impl Connection {
    pub(super) fn start(&mut self, reply: Reply, body: Option<Body>, log: Option<Entry>, cx: &mut Context) {
        let has_file = !reply.body.is_empty();
        let parts = std::iter::once(Part::Memory(reply.head)).chain(reply.body);
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

    pub(super) fn send(&mut self, token: Token, cx: &mut Context, budget: &mut Budget) -> Step {
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
                if let Some(prefetch) = sending.transfer.prefetch() {
                    sending.warming = true;
                    let mailbox = cx.mailbox.clone();
                    prefetch.start(move |outcome| mailbox.send(Message::Prefetched(token, outcome))).detach();
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
            entry.duration = sending.started.elapsed();
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

    pub(super) fn check_progress(&mut self, cx: &mut Context) -> Next {
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
}
