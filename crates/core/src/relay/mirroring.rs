//! Mirrors of links: connecting to servers, results of appends, and the appends that remain when the worker ends.

use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use nix::sys::epoll::{EpollEvent, EpollTimeout};

use super::deadlines::MIRROR_LINGER;
use super::dial::ConnectContext;
use super::endpoint::Endpoint;
use super::message::{AppendResult, Message};
use super::worker::{Worker, watch};
use crate::event_loop::slab::Token;

/// Minimum time that a worker waits for appends before it exits.
const MIN_FLUSH_TIME: Duration = Duration::from_secs(1);

impl Worker {
    /// Connects a mirror to the next address of its server, if necessary.
    pub(super) fn dial_mirror(&mut self, token: Token, index: usize) {
        let Some(link) = self.links.get_mut(token) else { return };
        let Some(mirror) = link.flows.iter_mut().flat_map(|flow| &mut flow.mirrors).nth(index) else { return };
        let side = mirror.dial(&mut ConnectContext {
            keep_alive: self.shared.options.keep_alive,
            reserve: &mut link.reserve,
            pools: [&mut self.pipes, &mut self.mirror_pipes],
            waiting: &self.shared.waiting,
        });
        if let Some(side) = side
            && let Err(errno) = watch(self.event_loop.epoll(), side, token, Endpoint::Mirror(index))
        {
            mirror.fail(errno);
        }
    }

    /// Handles the deadlines of mirrors: to connect, and to try to get a pipe again. Returns whether one had passed.
    pub(super) fn check_mirrors(&mut self, token: Token, now: Instant) -> bool {
        let limit = self.shared.options.connect_timeout;
        let Some(link) = self.links.get_mut(token) else { return false };
        let expired = link.mirrors_mut().enumerate().filter_map(|(at, mirror)| mirror.expire(limit, now).then_some(at));
        let expired: Vec<_> = expired.collect();
        for index in &expired {
            self.dial_mirror(token, *index);
        }
        !expired.is_empty()
    }

    /// Waits for the appends of closed links: until the drain ends, and while appends make progress.
    pub(super) fn flush_mirrors(&mut self) {
        let start = Instant::now();
        let end = self.event_loop.drain_deadline().unwrap_or(start).max(start + MIN_FLUSH_TIME);
        let mut progress = (start, self.settled_bytes);
        loop {
            self.event_loop.mailbox().waker().clear();
            for message in self.event_loop.mailbox().take() {
                self.settle_append(&message);
                if let Message::Appended { token, mirror, result } = message {
                    self.appended(token, mirror, result);
                }
            }
            let now = Instant::now();
            if self.settled_bytes > progress.1 {
                progress = (now, self.settled_bytes);
            }
            let outstanding = self.append_reporter.queued_bytes.load(Ordering::Relaxed) - self.settled_bytes;
            let left = end.min(progress.0 + MIRROR_LINGER).saturating_duration_since(now);
            if outstanding == 0 || left.is_zero() {
                // They may be written later; they count as dropped.
                self.counters.dropped.add(outstanding);
                return;
            }
            let wait = EpollTimeout::try_from(left + Duration::from_millis(1)).unwrap_or(EpollTimeout::MAX);
            let _ = self.event_loop.epoll().wait(&mut [EpollEvent::empty()], wait);
        }
    }

    pub(super) fn appended(&mut self, token: Token, mirror: usize, result: AppendResult) {
        if let Some(mirror) = self.links.get_mut(token).and_then(|link| link.mirrors_mut().nth(mirror)) {
            mirror.appended(result, &mut self.mirror_pipes);
            return self.drive(token);
        }
        self.counters.mirrored.add(result.written as u64);
        self.counters.dropped.add(result.lost as u64);
        match result.pipe {
            Some(pipe) => self.mirror_pipes.release(pipe),
            None => self.mirror_pipes.discard(),
        }
    }
}
