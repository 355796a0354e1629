//! Write side: sends a response; closes clients that are slower than the limits allow.

use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use nix::sys::epoll::{EpollEvent, EpollFlags};

use super::{Body, Connection, EVENTS, Next, State, Step, given_up};
use crate::event_loop::slab::Token;
use crate::io::pool::Task;
use crate::server::access_log::Entry;
use crate::server::answer::{self, Reply};
use crate::server::context::Context;
use crate::server::message::Message;
use crate::server::options::Limits;
use crate::server::stats::Limit;
use crate::transfer::{Budget, Disk, Part, Progress, Target, Transfer};

/// How often the progress of a blocked response is checked.
pub(super) const TICK: Duration = Duration::from_secs(1);
/// How long a response may be slow before the limit `min_rate` counts.
const GRACE: Duration = Duration::from_secs(5);

/// A response on its way.
pub(super) struct Sending {
    pub transfer: Transfer,
    /// Bytes of the head, which come first.
    pub head_length: u64,
    pub pace: Pace,
    /// Since when a pool thread has been bringing the next bytes closer.
    pub prefetching: Option<(Instant, Task)>,
    pub body: Option<Body>,
    /// The file's bytes count for a method.
    pub has_file: bool,
    pub log: Option<Entry>,
}

/// How fast a client takes bytes.
pub(super) struct Pace {
    started: Instant,
    acknowledged: u64,
    progressed: Instant,
    /// Bytes of earlier responses that were not acknowledged at the first check: they leave the send buffer first.
    ahead: Option<u64>,
}

impl Pace {
    pub fn new(now: Instant) -> Self {
        Self { started: now, acknowledged: 0, progressed: now, ahead: None }
    }

    /// Begins the time without progress again, for the client is not the one that is slow.
    pub fn restart(&mut self, now: Instant) {
        self.progressed = now;
    }

    /// Time without a byte that was acknowledged.
    pub fn stalled(&self, now: Instant) -> Duration {
        now.saturating_duration_since(self.progressed)
    }

    /// How many bytes the client has acknowledged, those of earlier responses included: `sent` of this one, of which, with
    /// what was sent before, `queued` are not acknowledged.
    pub fn acknowledged(&mut self, sent: u64, queued: u64, now: Instant) -> u64 {
        let ahead = *self.ahead.get_or_insert_with(|| {
            if queued > sent {
                // What the client has acknowledged until now is not known.
                (self.started, self.progressed) = (now, now);
            }
            queued.saturating_sub(sent)
        });
        (sent + ahead).saturating_sub(queued)
    }

    /// Notes how many bytes the client has acknowledged since the start. Returns the limit that it breaks.
    pub fn check(&mut self, acknowledged: u64, now: Instant, limits: &Limits) -> Option<Limit> {
        if acknowledged > self.acknowledged {
            self.acknowledged = acknowledged;
            self.progressed = now;
        }
        let elapsed = now.saturating_duration_since(self.started);
        if !limits.send_timeout.is_zero() && self.stalled(now) >= limits.send_timeout {
            Some(Limit::SendTimeout)
        } else if elapsed > GRACE && (acknowledged as f64) < limits.min_rate as f64 * elapsed.as_secs_f64() {
            Some(Limit::MinRate)
        } else {
            None
        }
    }
}

impl Sending {
    /// Whether nothing of the response has been sent, so that another one can take its place.
    pub fn is_untouched(&self) -> bool {
        self.transfer.report().bytes == 0
    }

    /// Takes the job out of the pool's queue, or leaves it behind when it runs.
    pub fn give_up_prefetch(&self) {
        if let Some((_, task)) = &self.prefetching {
            task.cancel(given_up());
        }
    }

    /// Counts the response and writes it to the log.
    fn record(&mut self, aborted: bool, cx: &mut Context) {
        let sent = self.transfer.report().bytes;
        let head_bytes = sent.min(self.head_length);
        cx.stats.head_bytes.add(head_bytes);
        cx.stats.bytes.add(sent - head_bytes);
        if aborted {
            cx.stats.aborted.add(1);
        }
        if let Some(mut entry) = self.log.take() {
            entry.bytes = sent - head_bytes;
            entry.head_bytes = head_bytes;
            entry.aborted = aborted;
            entry.duration = self.pace.started.elapsed();
            cx.log.push(entry);
        }
    }
}

impl Connection {
    pub(super) fn start(&mut self, reply: Reply, body: Option<Body>, log: Option<Entry>, cx: &mut Context) {
        let has_file = !reply.body.is_empty();
        let parts = std::iter::once(Part::Memory(reply.head)).chain(reply.body);
        self.state = State::Sending(Box::new(Sending {
            transfer: Transfer::new(parts, reply.method, Target::Socket, Disk::ResidentOnly),
            head_length: reply.head_length as u64,
            pace: Pace::new(cx.now),
            prefetching: None,
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
                    let mailbox = cx.mailbox.clone();
                    let task = prefetch.start(move |outcome| mailbox.send(Message::Prefetched(token, outcome)));
                    sending.prefetching = Some((cx.now, task));
                }
                let limit = cx.options.limits.disk_timeout;
                self.arm(if limit.is_zero() { TICK } else { limit.min(TICK) }, cx);
                Step::Then(Next::Wait)
            }
            Err(error) if error.is_peer_gone() => Step::Then(Next::Close),
            Err(_) => {
                cx.stats.failures.add(1);
                self.fail_response(500, cx)
            }
        }
    }

    /// Asks again even when it was asked for before: an event that came in between must not be lost, for the socket may have
    /// taken less than all without being full.
    fn wait_for_room(&mut self, token: Token, cx: &mut Context) -> bool {
        cx.epoll.modify(&self.socket, &mut EpollEvent::new(EVENTS | EpollFlags::EPOLLOUT, token)).is_ok()
    }

    /// A response is with the kernel.
    fn sent(&mut self, cx: &mut Context) -> Step {
        let State::Sending(sending) = &mut self.state else { return Step::Again };
        sending.record(false, cx);
        if sending.has_file {
            cx.stats.method(sending.transfer.report().method);
        }
        let body = sending.body.take();
        self.state = match (self.keep_alive, body) {
            (true, None) => State::Reading,
            (true, Some(body)) => State::Skipping(body),
            (false, _) => return self.linger(cx),
        };
        self.idle_since = cx.now;
        let limits = &cx.options.limits;
        let after = if let State::Reading = self.state { limits.idle_timeout } else { limits.head_timeout };
        self.arm(after, cx);
        Step::Again
    }

    /// A response that cannot be completed: an error takes its place while nothing of it is sent; after that the connection ends in
    /// a reset.
    pub(super) fn fail_response(&mut self, status: u16, cx: &mut Context) -> Step {
        let State::Sending(sending) = &mut self.state else { return Step::Again };
        if !sending.is_untouched() {
            self.record_aborted(cx);
            return self.abort(cx);
        }
        let mut log = sending.log.take();
        if let Some(entry) = &mut log {
            entry.status = status;
        }
        self.keep_alive = false;
        cx.stats.status(status);
        let reply = answer::refusal(status, cx);
        self.start(reply, None, log, cx);
        Step::Again
    }

    /// Counts a response whose connection ends before it does.
    pub(super) fn record_aborted(&mut self, cx: &mut Context) {
        if let State::Sending(sending) = &mut self.state {
            sending.record(true, cx);
        }
    }

    pub(super) fn check_progress(&mut self, cx: &mut Context) -> Step {
        let State::Sending(sending) = &mut self.state else { return Step::Again };
        let limits = &cx.options.limits;
        if let Some((since, _)) = sending.prefetching {
            if !limits.disk_timeout.is_zero() && cx.now.saturating_duration_since(since) >= limits.disk_timeout {
                sending.give_up_prefetch();
                cx.stats.limit(Limit::DiskTimeout);
                return self.fail_response(503, cx);
            }
            // The disk is slow, not the client.
            sending.pace.restart(cx.now);
        } else {
            let queued = zerosend_sys::socket::unacknowledged(self.socket.as_fd()).unwrap_or(0);
            let acknowledged = sending.pace.acknowledged(sending.transfer.report().bytes, queued, cx.now);
            if let Some(limit) = sending.pace.check(acknowledged, cx.now, limits) {
                cx.stats.limit(limit);
                // What is in the send buffer must not stay there for a client that does not take it: the end is a reset, see
                // `Connection::end`.
                return Step::Then(Next::Close);
            }
        }
        self.arm(TICK, cx);
        Step::Then(Next::Wait)
    }
}
