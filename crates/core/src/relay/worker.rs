//! A worker of a relay: one thread, one epoll, and the links of the connections it has accepted.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::os::fd::{AsFd, OwnedFd};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};

use super::flow::Means;
use super::link::{End, Link, Side, State, connected};
use super::options::{Destination, RelayOptions};
use super::pipes::PipePool;
use super::stats::RelayStats;
use super::targets::Targets;
use crate::error::{Error, Result};
use crate::reactor::mailbox::Mailbox;
use crate::reactor::registry::{Registry, Token};
use crate::reactor::timers::Timers;
use crate::server::listener::{self, Listener};

/// Tokens that no registry gives out. Others are a link's token, shifted, and which side it is.
const WAKER: u64 = u64::MAX;
const LISTENER: u64 = u64::MAX - 1;
/// What one read takes at most where bytes go through user space.
const BUFFER: usize = 256 * 1024;
/// What one direction may move before others have their turn.
const BUDGET: u64 = 4 * 1024 * 1024;
const MOST_ACCEPTS: usize = 64;
const PAUSE: Duration = Duration::from_millis(50);
const EVENTS: EpollFlags =
    EpollFlags::EPOLLIN.union(EpollFlags::EPOLLOUT).union(EpollFlags::EPOLLRDHUP).union(EpollFlags::EPOLLET);

/// News for a worker.
pub(super) enum Message {
    /// Accept no more, and end at this moment at the latest.
    Drain(Instant),
}

/// What the workers of a relay share.
pub(super) struct Shared {
    pub options: RelayOptions,
    pub targets: Option<Targets>,
    pub stats: RelayStats,
    pub connections: AtomicUsize,
}

impl Shared {
    pub fn new(options: RelayOptions) -> Self {
        let targets = match &options.destination {
            Destination::Echo => None,
            Destination::Targets(list, balance) => Some(Targets::new(list, *balance, options.down_time)),
        };
        Self { options, targets, stats: RelayStats::default(), connections: AtomicUsize::new(0) }
    }
}

pub(super) struct Worker {
    shared: Arc<Shared>,
    mailbox: Arc<Mailbox<Message>>,
    epoll: Epoll,
    listener: Option<Listener>,
    links: Registry<Link>,
    turns: VecDeque<Token>,
    timers: Timers,
    pipes: PipePool,
    buffer: Vec<u8>,
    paused: Option<Instant>,
    end: Option<Instant>,
}

impl Worker {
    pub fn new(shared: Arc<Shared>, listener: Listener, mailbox: Arc<Mailbox<Message>>) -> Result<Self> {
        let failed = |errno| Error::system("epoll_create1", errno);
        let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC).map_err(failed)?;
        epoll.add(mailbox.waker(), EpollEvent::new(EpollFlags::EPOLLIN, WAKER)).map_err(failed)?;
        epoll.add(&listener, EpollEvent::new(EpollFlags::EPOLLIN, LISTENER)).map_err(failed)?;
        let pipes = PipePool::new(shared.options.pipe_size, shared.options.pipes.div_ceil(shared.options.workers));
        Ok(Self {
            shared,
            mailbox,
            epoll,
            listener: Some(listener),
            links: Registry::default(),
            turns: VecDeque::new(),
            timers: Timers::default(),
            pipes,
            buffer: Vec::new(),
            paused: None,
            end: None,
        })
    }

    pub fn run(mut self) {
        self.buffer.resize(BUFFER, 0);
        let mut events = [EpollEvent::empty(); 256];
        loop {
            let count = self.epoll.wait(&mut events, self.wait_time()).unwrap_or_default();
            for event in &events[..count] {
                match event.data() {
                    WAKER => self.mailbox.waker().clear(),
                    LISTENER => self.accept(),
                    data => self.wake(data >> 1, data & 1 == 1, event.events()),
                }
            }
            for Message::Drain(end) in self.mailbox.take() {
                self.accept();
                self.listener = None;
                self.paused = None;
                self.end = Some(end);
            }
            for _ in 0..self.turns.len() {
                if let Some(token) = self.turns.pop_front() {
                    if let Some(link) = self.links.get_mut(token) {
                        link.queued = false;
                    }
                    self.drive(token);
                }
            }
            self.check_timers();
            if self.end.is_some_and(|end| self.links.is_empty() || Instant::now() >= end) {
                break;
            }
        }
        for token in self.links.tokens().collect::<Vec<_>>() {
            self.shared.stats.cut.add(1);
            self.close(token, true);
        }
    }

    fn wait_time(&self) -> EpollTimeout {
        if !self.turns.is_empty() {
            return EpollTimeout::ZERO;
        }
        let now = Instant::now();
        let moments = [self.paused, self.end].into_iter().flatten().map(|at| at.saturating_duration_since(now));
        match self.timers.until_next(now).into_iter().chain(moments).min() {
            Some(wait) => EpollTimeout::try_from(wait + Duration::from_micros(999)).unwrap_or(EpollTimeout::MAX),
            None => EpollTimeout::NONE,
        }
    }

    fn accept(&mut self) {
        for _ in 0..MOST_ACCEPTS {
            let Some(listener) = &self.listener else { return };
            match listener::accept(listener) {
                Ok((socket, peer)) => self.admit(socket, peer),
                Err(Errno::EAGAIN) => return,
                Err(_) => {
                    self.shared.stats.refused.add(1);
                    let _ = self.epoll.delete(listener);
                    self.paused = Some(Instant::now() + PAUSE);
                    return;
                }
            }
        }
    }

    fn admit(&mut self, socket: OwnedFd, peer: Option<SocketAddr>) {
        let shared = self.shared.clone();
        shared.stats.accepted.add(1);
        if shared.connections.load(Ordering::Relaxed) >= shared.options.connections {
            shared.stats.refused.add(1);
            return;
        }
        if peer.is_some() {
            let _ = crate::sys::socket::set_no_delay(socket.as_fd(), true);
        }
        let link = Link::new(socket, peer, shared.targets.is_none(), Instant::now());
        let Ok(token) = self.links.insert(link) else { return };
        shared.connections.fetch_add(1, Ordering::Relaxed);
        let Some(link) = self.links.get_mut(token) else { return };
        if self.epoll.add(&link.client.socket, EpollEvent::new(EVENTS, token << 1)).is_err() {
            return self.close(token, true);
        }
        if shared.targets.is_some() {
            self.connect(token);
        } else {
            self.arm(token);
            self.drive(token);
        }
    }

    /// Connects to the next target that has not been tried; without one the link is over.
    fn connect(&mut self, token: Token) {
        let shared = self.shared.clone();
        let Some(targets) = &shared.targets else { return };
        loop {
            let Some(link) = self.links.get_mut(token) else { return };
            let State::Connecting { since, tried } = &mut link.state else { return };
            let may_try = tried.len() <= shared.options.retries as usize;
            let Some(index) = may_try.then(|| targets.pick(tried)).flatten() else {
                shared.stats.unreachable.add(1);
                return self.close(token, true);
            };
            if !tried.is_empty() {
                shared.stats.retries.add(1);
            }
            tried.push(index);
            *since = Instant::now();
            match targets.connect(index) {
                Ok(socket) => {
                    let added = self.epoll.add(&socket, EpollEvent::new(EVENTS, token << 1 | 1));
                    link.target = Some(Side::new(socket));
                    link.target_index = Some(index);
                    if added.is_err() {
                        return self.close(token, true);
                    }
                    return self.arm(token);
                }
                Err(_) => {
                    targets.leave(index);
                    targets.fail(index);
                }
            }
        }
    }

    /// The target did not answer as it should.
    fn refused(&mut self, token: Token) {
        let Some(link) = self.links.get_mut(token) else { return };
        link.target = None;
        if let (Some(targets), Some(index)) = (&self.shared.targets, link.target_index.take()) {
            targets.leave(index);
            targets.fail(index);
        }
        self.connect(token);
    }

    fn wake(&mut self, token: Token, is_target: bool, events: EpollFlags) {
        let Some(link) = self.links.get_mut(token) else { return };
        let failed = link.note(is_target, events);
        match &link.state {
            State::Connecting { .. } if is_target => {
                let Some(target) = &link.target else { return };
                // A socket that has not begun to connect says HUP as well; only the answer counts.
                match connected(&target.socket) {
                    Ok(()) if events.contains(EpollFlags::EPOLLOUT) && !failed => {
                        link.state = State::Joined;
                        let _ = crate::sys::socket::set_no_delay(target.socket.as_fd(), true);
                        if let (Some(targets), Some(index)) = (&self.shared.targets, link.target_index) {
                            targets.succeed(index);
                        }
                        if let Some(protocol) = self.shared.options.proxy_protocol {
                            link.introduce(protocol);
                        }
                        link.progressed = Instant::now();
                        link.deadline = None;
                        self.arm(token);
                        self.drive(token);
                    }
                    Ok(()) => {}
                    Err(_) => self.refused(token),
                }
            }
            // A client that is gone before its target has answered.
            State::Connecting { .. } => {
                if failed {
                    self.close(token, true);
                }
            }
            State::Joined if failed => {
                // What is still in a receive buffer goes with it, as in a connection without a relay.
                self.shared.stats.failed.add(1);
                self.close(token, true);
            }
            State::Joined if !link.queued => self.drive(token),
            State::Joined => {}
        }
    }

    fn drive(&mut self, token: Token) {
        let Some(link) = self.links.get_mut(token) else { return };
        if !matches!(link.state, State::Joined) {
            return;
        }
        let mut means = Means {
            pipes: &mut self.pipes,
            buffer: &mut self.buffer,
            method: self.shared.options.method,
            budget: BUDGET,
        };
        let outcome = catch_unwind(AssertUnwindSafe(|| link.pump(&mut means)));
        let asked = link.refusing().all(|(socket, is_target)| {
            let mut event = EpollEvent::new(EVENTS, token << 1 | u64::from(is_target));
            self.epoll.modify(socket, &mut event).is_ok()
        });
        if !asked {
            return self.close(token, true);
        }
        match outcome {
            Ok(Ok(true)) if !link.queued => {
                link.queued = true;
                self.turns.push_back(token);
            }
            Ok(Ok(_)) => {}
            Ok(Err(End::Complete)) => self.close(token, false),
            Ok(Err(End::Failed)) => {
                self.shared.stats.failed.add(1);
                self.close(token, false);
            }
            Err(_) => self.close(token, true),
        }
    }

    /// Sets the deadline of what the link is at, and a timer for it unless one comes before.
    fn arm(&mut self, token: Token) {
        let Some(link) = self.links.get_mut(token) else { return };
        let options = &self.shared.options;
        let (since, limit) = match &link.state {
            State::Connecting { since, .. } => (*since, options.connect_timeout),
            State::Joined => (link.progressed, options.idle_timeout),
        };
        link.deadline = (!limit.is_zero()).then(|| since + limit);
        if let Some(deadline) = link.deadline
            && link.timer.is_none_or(|timer| deadline < timer)
        {
            link.timer = Some(deadline);
            self.timers.set(deadline, token);
        }
    }

    fn check_timers(&mut self) {
        let now = Instant::now();
        while let Some((at, token)) = self.timers.pop_due(now) {
            let Some(link) = self.links.get_mut(token) else { continue };
            if link.timer != Some(at) {
                continue;
            }
            link.timer = None;
            self.arm(token);
            let Some(link) = self.links.get_mut(token) else { continue };
            if link.deadline.is_none_or(|deadline| deadline > now) {
                continue;
            }
            match link.state {
                State::Connecting { .. } => {
                    self.shared.stats.connect_timeouts.add(1);
                    self.refused(token);
                }
                State::Joined => {
                    self.shared.stats.idle_timeouts.add(1);
                    self.close(token, false);
                }
            }
        }
        if self.paused.is_some_and(|until| until <= now) {
            self.paused = None;
            if let Some(listener) = &self.listener {
                let _ = self.epoll.add(listener, EpollEvent::new(EpollFlags::EPOLLIN, LISTENER));
            }
        }
    }

    fn close(&mut self, token: Token, reset: bool) {
        let Some(mut link) = self.links.remove(token) else { return };
        if reset {
            link.reset();
        }
        for flow in &mut link.flows {
            flow.abandon(&mut self.pipes);
        }
        let [up, down] = &link.flows;
        self.shared.stats.end(up.bytes, down.bytes, up.degraded || down.degraded);
        self.shared.connections.fetch_sub(1, Ordering::Relaxed);
        if let (Some(targets), Some(index)) = (&self.shared.targets, link.target_index) {
            targets.leave(index);
        }
    }
}
