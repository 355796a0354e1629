//! A worker of a relay: one thread with an epoll instance, its links and their timers.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};

use super::append::AppendReporter;
use super::descriptors::DescriptorReserve;
use super::endpoint::{ENDPOINT_BITS, Endpoint};
use super::flow::{Flow, StopReason};
use super::link::Link;
use super::link_state::{Closing, LinkState};
use super::message::{AppendResult, Message};
use super::mirror::Mirror;
use super::mirror_sink::MirrorSink;
use super::pump::PumpContext;
use super::session::{Outcome, Session};
use super::shared::Shared;
use super::side::Side;
use super::socket_options;
use super::stats::RelayCounters;
use crate::error::{Error, Result};
use crate::event_loop::mailbox::Mailbox;
use crate::event_loop::slab::{Slab, Token};
use crate::event_loop::timers::Timers;
use crate::io::pipe_pool::PipePool;
use crate::net::listener::Listener;
use zerosend_sys::SysResult;

/// Epoll data that are not the token of a link. The data of a link are its token, shifted, and the number of an endpoint.
const WAKER: u64 = u64::MAX;
pub(super) const LISTENER: u64 = u64::MAX - 1;
/// Maximum bytes of one read into user space.
const SCRATCH_SIZE: usize = 256 * 1024;
/// Maximum bytes that one direction moves in a turn.
const TURN_BUDGET: u64 = 4 * 1024 * 1024;
/// Time that mirrors with droppable bytes get after the flows have finished.
const MIRROR_LINGER: Duration = Duration::from_secs(5);
/// Minimum time that a worker waits for appends before it exits.
const MIN_FLUSH_TIME: Duration = Duration::from_secs(1);
/// Minimum bytes of the pipe of a mirror: a larger pipe than that of a flow absorbs short delays of the mirror.
const MIRROR_PIPE_SIZE: usize = 256 * 1024;
/// Time without acknowledgements after which a side is reset although bytes are outstanding.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(30);
/// Time between checks for acknowledgements: initially and, doubled each time, at most.
const CLOSE_PAUSES: [Duration; 2] = [Duration::from_millis(1), Duration::from_millis(50)];
const EVENTS: EpollFlags = EpollFlags::EPOLLIN
    .union(EpollFlags::EPOLLPRI)
    .union(EpollFlags::EPOLLOUT)
    .union(EpollFlags::EPOLLRDHUP)
    .union(EpollFlags::EPOLLET);

pub(super) struct Worker {
    pub number: usize,
    pub shared: Arc<Shared>,
    pub counters: Arc<RelayCounters>,
    pub mailbox: Arc<Mailbox<Message>>,
    pub epoll: Epoll,
    pub listener: Option<Listener>,
    /// The other workers, if this one accepts for all of them.
    pub peers: Vec<Arc<Mailbox<Message>>>,
    /// Index of the worker that gets the next connection.
    pub next_peer: usize,
    /// Maximum connections to accept at the next event of the listener.
    pub batch: usize,
    /// Descriptors for the next connection.
    pub reserve: Option<DescriptorReserve>,
    pub links: Slab<Link>,
    /// Tokens of links, by session id.
    sessions: HashMap<u64, Token>,
    /// Links that need another turn.
    turns: VecDeque<Token>,
    timers: Timers,
    pub pipes: PipePool,
    pub mirror_pipes: PipePool,
    append_reporter: AppendReporter,
    /// Bytes of appends whose result has arrived.
    settled_bytes: u64,
    scratch: Vec<u8>,
    /// Until when nothing is accepted.
    pub paused: Option<Instant>,
    /// Its pause has ended: it accepts one connection although other workers wait for descriptors.
    pub is_next: bool,
    /// When a draining worker exits.
    pub end: Option<Instant>,
    pub draining: bool,
    /// Connections that may still be accepted while the relay drains.
    pub backlog_left: usize,
}

impl Worker {
    /// `peers`: the other workers, if this one accepts for all of them.
    pub fn new(
        number: usize,
        shared: Arc<Shared>,
        listener: Option<Listener>,
        mailbox: Arc<Mailbox<Message>>,
        peers: Vec<Arc<Mailbox<Message>>>,
    ) -> Result<Self> {
        let failed = |syscall| move |errno| Error::system(syscall, errno);
        let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC).map_err(failed("epoll_create1"))?;
        epoll.add(mailbox.waker(), EpollEvent::new(EpollFlags::EPOLLIN, WAKER)).map_err(failed("epoll_ctl"))?;
        if let Some(listener) = &listener {
            epoll.add(listener, EpollEvent::new(EpollFlags::EPOLLIN, LISTENER)).map_err(failed("epoll_ctl"))?;
        }
        let max_pipes = shared.options.pipes.div_ceil(shared.options.workers);
        let pipe_size = shared.options.pipe_size;
        Ok(Self {
            number,
            counters: shared.counters[number].clone(),
            shared,
            append_reporter: AppendReporter { mailbox: mailbox.clone(), queued_bytes: Arc::default() },
            settled_bytes: 0,
            mailbox,
            epoll,
            listener,
            peers,
            next_peer: 0,
            batch: 1,
            reserve: None,
            links: Slab::default(),
            sessions: HashMap::new(),
            turns: VecDeque::new(),
            timers: Timers::default(),
            pipes: PipePool::new(pipe_size, max_pipes),
            mirror_pipes: PipePool::new(pipe_size.max(MIRROR_PIPE_SIZE), max_pipes),
            scratch: Vec::new(),
            paused: None,
            is_next: false,
            end: None,
            draining: false,
            backlog_left: 0,
        })
    }

    pub fn run(mut self) {
        self.scratch.resize(SCRATCH_SIZE, 0);
        let mut events = [EpollEvent::empty(); 256];
        loop {
            let count = self.epoll.wait(&mut events, self.wait_time()).unwrap_or_default();
            for event in &events[..count] {
                match event.data() {
                    WAKER => self.mailbox.waker().clear(),
                    LISTENER => self.contain(None, Self::accept),
                    data => {
                        let token = data >> ENDPOINT_BITS;
                        self.contain(Some(token), |worker| {
                            worker.on_event(token, Endpoint::from_number(data), event.events())
                        });
                    }
                }
            }
            for message in self.mailbox.take() {
                self.note_append(&message);
                self.contain(self.token_of(&message), |worker| worker.receive(message));
            }
            if self.has_backlog() {
                self.contain(None, Self::accept);
            }
            for _ in 0..self.turns.len() {
                if let Some(token) = self.turns.pop_front() {
                    if let Some(link) = self.links.get_mut(token) {
                        link.queued = false;
                    }
                    self.contain(Some(token), |worker| worker.drive(token));
                }
            }
            self.check_timers();
            let is_done = self.links.is_empty() && self.listener.is_none();
            if self.end.is_some_and(|end| is_done || Instant::now() >= end) {
                break;
            }
        }
        for token in self.links.tokens().collect::<Vec<_>>() {
            self.contain(None, |worker| {
                worker.counters.forced_closes.add(1);
                worker.close(token, Outcome::Aborted, true);
            });
        }
        self.flush_mirrors();
    }

    /// Runs a turn. A panic is counted and closes the link of the turn only.
    pub fn contain(&mut self, token: Option<Token>, turn: impl FnOnce(&mut Self)) {
        if crate::stats::contain(|| turn(self)).is_some() {
            return;
        }
        self.counters.panics.add(1);
        let Some(token) = token else { return };
        let close = || self.close(token, Outcome::Failed(Endpoint::Client, Errno::EIO), true);
        if crate::stats::contain(close).is_none() {
            self.counters.panics.add(1);
        }
    }

    /// The link that a message concerns.
    fn token_of(&self, message: &Message) -> Option<Token> {
        match message {
            Message::Drain(_) | Message::Resume | Message::Accepted(..) | Message::StartSession(..) => None,
            Message::CancelSession(id) => self.sessions.get(id).copied(),
            Message::TargetResolved(id, _) => Some(id.link),
            Message::Appended { token, .. } => Some(*token),
        }
    }

    /// Counts the bytes of an append whose result has arrived.
    fn note_append(&mut self, message: &Message) {
        if let Message::Appended { result, .. } = message {
            self.settled_bytes += (result.written + result.lost) as u64;
        }
    }

    /// Waits for the appends of closed links: until the drain ends, and while appends make progress.
    fn flush_mirrors(&mut self) {
        let start = Instant::now();
        let end = self.end.unwrap_or(start).max(start + MIN_FLUSH_TIME);
        let mut progress = (start, self.settled_bytes);
        loop {
            self.mailbox.waker().clear();
            for message in self.mailbox.take() {
                self.note_append(&message);
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
            let _ = self.epoll.wait(&mut [EpollEvent::empty()], wait);
        }
    }

    fn appended(&mut self, token: Token, mirror: usize, result: AppendResult) {
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

    fn receive(&mut self, message: Message) {
        // Handled before the failpoint: a drain must not be lost to an injected panic.
        if let Message::Drain(end) = message {
            return self.drain(end);
        }
        crate::failpoint::failpoint!("relay::message");
        match message {
            Message::Drain(_) => {}
            Message::Resume => self.resume(),
            Message::Accepted(socket, client_address, reserve) => {
                self.start_link(socket, client_address, reserve);
            }
            Message::StartSession(id, session) => self.start_session(id, *session),
            Message::CancelSession(id) => {
                if let Some(token) = self.sessions.get(&id) {
                    self.close(*token, Outcome::Aborted, true);
                }
            }
            Message::TargetResolved(id, addresses) => self.target_resolved(id, addresses),
            Message::Appended { token, mirror, result } => self.appended(token, mirror, result),
        }
    }

    fn wait_time(&self) -> EpollTimeout {
        if !self.turns.is_empty() || self.has_backlog() {
            return EpollTimeout::ZERO;
        }
        let now = Instant::now();
        let moments = [self.paused, self.end].into_iter().flatten().map(|at| at.saturating_duration_since(now));
        match self.timers.until_next(now).into_iter().chain(moments).min() {
            Some(wait) => EpollTimeout::try_from(wait + Duration::from_micros(999)).unwrap_or(EpollTimeout::MAX),
            None => EpollTimeout::NONE,
        }
    }

    fn start_session(&mut self, id: u64, session: Session) {
        let Session { client, target, initial_bytes, one_way, mirrors, policy, on_finished } = session;
        let Some(target) = target else { return };
        let [mut up, mut down] = initial_bytes.map(Flow::with_initial_bytes);
        down.stopped = one_way.then_some(StopReason::Ended);
        let sinks = mirrors.into_iter().map(MirrorSink::for_session).enumerate();
        up.mirrors = sinks.map(|(index, sink)| Mirror::new(Ok(sink), policy, index)).collect();
        let sides = [client, target].map(|fd| {
            socket_options::set_for_session(&fd, self.shared.options.keep_alive);
            Side::new(fd)
        });
        let link = Link::for_session(id, sides, [up, down], !one_way, on_finished);
        let Some(token) = self.insert(link) else { return };
        self.sessions.insert(id, token);
        self.arm(token);
        self.drive(token);
    }

    /// Stores a link and registers its sides with epoll.
    pub fn insert(&mut self, link: Link) -> Option<Token> {
        self.shared.connections.fetch_add(1, Ordering::Relaxed);
        let token = match self.links.insert(link) {
            Ok(token) => token,
            Err(link) => {
                self.end(link, Outcome::Failed(Endpoint::Client, Errno::EMFILE), true);
                return None;
            }
        };
        let link = self.links.get_mut(token)?;
        let failed = link.sides().find_map(|(side, endpoint)| {
            watch(&self.epoll, side, token, endpoint).err().map(|errno| (endpoint, errno))
        });
        if let Some((endpoint, errno)) = failed {
            self.close(token, Outcome::Failed(endpoint, errno), true);
            return None;
        }
        Some(token)
    }

    fn on_event(&mut self, token: Token, endpoint: Endpoint, events: EpollFlags) {
        let Some(link) = self.links.get_mut(token) else { return };
        if link.on_event(endpoint, events)
            && let Endpoint::Mirror(index) = endpoint
        {
            self.dial_mirror(token, index);
            self.arm(token);
        }
        let Some(link) = self.links.get_mut(token) else { return };
        match &link.state {
            LinkState::Connecting(_) if endpoint == Endpoint::Target => self.target_event(token, events),
            // Bytes that the client sent before its reset are relayed first.
            LinkState::Connecting(_) => {
                let failed = endpoint == Endpoint::Client && events.contains(EpollFlags::EPOLLERR);
                if failed && !link.client.has_unread() {
                    self.close(token, Outcome::Failed(Endpoint::Client, Errno::ECONNRESET), true);
                }
            }
            LinkState::Relaying if link.queued => {}
            LinkState::Relaying => self.drive(token),
            LinkState::Closing(_) => self.check_closing(token),
        }
    }

    pub fn drive(&mut self, token: Token) {
        let Some(link) = self.links.get_mut(token) else { return };
        if !matches!(link.state, LinkState::Relaying) {
            return;
        }
        crate::failpoint::failpoint!("relay::turn");
        let mut context = PumpContext {
            pipes: &mut self.pipes,
            mirror_pipes: &mut self.mirror_pipes,
            scratch: &mut self.scratch,
            method: self.shared.options.method,
            budget: TURN_BUDGET,
            token,
            append_reporter: &self.append_reporter,
            waiting: &self.shared.waiting,
        };
        let outcome = link.pump(&mut context);
        self.counters.add_progress(link);
        let rearmed = link.sides_to_rearm().try_for_each(|(side, endpoint)| {
            if !side.is_pollable() {
                return Ok(());
            }
            self.epoll.modify(side, &mut EpollEvent::new(EVENTS, token << ENDPOINT_BITS | endpoint.number()))
        });
        match (outcome, rearmed) {
            (Ok(_), Err(errno)) => self.close(token, Outcome::Failed(Endpoint::Client, errno), true),
            (Ok(more), Ok(())) => {
                if more && !link.queued {
                    link.queued = true;
                    self.turns.push_back(token);
                }
                if link.is_lingering() || link.mirrors().any(Mirror::waits_for_pipe) {
                    self.arm(token);
                }
            }
            (Err(outcome), _) => self.finish(token, outcome),
        }
    }

    /// The link has finished. After a failure its sides are reset, once their peers have acknowledged all bytes.
    fn finish(&mut self, token: Token, outcome: Outcome) {
        let Some(link) = self.links.get_mut(token) else { return };
        if outcome == Outcome::Complete {
            return self.close(token, outcome, false);
        }
        let unacknowledged = link.discarded_by_reset();
        let closing = Closing { outcome, unacknowledged, progressed: Instant::now(), pause: CLOSE_PAUSES[0] };
        link.state = LinkState::Closing(closing);
        self.counters.add_progress(link);
        for flow in &mut link.flows {
            flow.buffer.release(&mut self.pipes);
            flow.mirrors.iter_mut().for_each(Mirror::stop_waiting);
        }
        self.check_closing(token);
    }

    fn check_closing(&mut self, token: Token) {
        let Some(link) = self.links.get_mut(token) else { return };
        let unacknowledged = link.discarded_by_reset();
        let LinkState::Closing(closing) = &mut link.state else { return };
        let now = Instant::now();
        if unacknowledged < closing.unacknowledged {
            (closing.unacknowledged, closing.progressed) = (unacknowledged, now);
        }
        let outcome = closing.outcome;
        if unacknowledged == 0 || now >= closing.progressed + CLOSE_TIMEOUT {
            self.close(token, outcome, true);
        } else {
            self.arm(token);
        }
    }

    /// Sets the deadline of the link, and a timer for it unless an earlier one is set.
    pub fn arm(&mut self, token: Token) {
        let Some(link) = self.links.get_mut(token) else { return };
        let options = &self.shared.options;
        let bound = |since: Instant, limit: Duration| (!limit.is_zero()).then(|| since + limit);
        let own = match &link.state {
            LinkState::Connecting(connecting) => connecting.deadline(options.connect_timeout),
            LinkState::Relaying if link.may_be_dropped() => bound(link.progressed, MIRROR_LINGER),
            LinkState::Relaying => bound(link.progressed, options.idle_timeout),
            LinkState::Closing(closing) => Some(Instant::now() + closing.pause),
        };
        let is_closing = matches!(link.state, LinkState::Closing(_));
        let mirrors =
            link.mirrors().filter(|_| !is_closing).filter_map(|mirror| mirror.deadline(options.connect_timeout));
        link.deadline = mirrors.chain(own).min();
        if let Some(deadline) = link.deadline
            && link.timer.is_none_or(|timer| deadline < timer)
        {
            if let Some(later) = link.timer.replace(deadline) {
                self.timers.cancel(later, token);
            }
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
            self.contain(Some(token), |worker| worker.check_deadline(token, now));
        }
        self.end_pause(now);
    }

    fn check_deadline(&mut self, token: Token, now: Instant) {
        let Some(link) = self.links.get_mut(token) else { return };
        if link.deadline.is_some_and(|deadline| deadline <= now)
            && let LinkState::Closing(closing) = &mut link.state
        {
            closing.pause = (closing.pause * 2).min(CLOSE_PAUSES[1]);
            return self.check_closing(token);
        }
        self.arm(token);
        let Some(link) = self.links.get_mut(token) else { return };
        if link.deadline.is_none_or(|deadline| deadline > now) {
            return;
        }
        if self.check_mirrors(token, now) {
            self.arm(token);
            return self.drive(token);
        }
        let Some(link) = self.links.get_mut(token) else { return };
        match link.state {
            LinkState::Connecting(_) => self.connecting_expired(token, now),
            LinkState::Relaying if link.may_be_dropped() => {
                let outcome = link.outcome();
                self.finish(token, outcome);
            }
            LinkState::Relaying => {
                if link.has_peer_progress() {
                    link.progressed = now;
                    return self.arm(token);
                }
                link.reset_incomplete_on_close();
                self.counters.idle_timeouts.add(1);
                self.close(token, Outcome::Idle, false);
            }
            LinkState::Closing(_) => {}
        }
    }

    pub fn close(&mut self, token: Token, outcome: Outcome, reset: bool) {
        if let Some(link) = self.links.remove(token) {
            if let Some(timer) = link.timer {
                self.timers.cancel(timer, token);
            }
            self.end(link, outcome, reset);
        }
    }

    fn end(&mut self, mut link: Link, outcome: Outcome, reset: bool) {
        if reset {
            link.reset_on_close();
        }
        for flow in &mut link.flows {
            flow.buffer.release(&mut self.pipes);
            for mirror in &mut flow.mirrors {
                // The report of a session is made now, so its files get no bytes later.
                mirror.abandon(&mut self.mirror_pipes, link.session.is_none().then_some(&self.append_reporter));
            }
        }
        self.counters.add_progress(&mut link);
        self.counters.add_outcome(&link, outcome);
        self.shared.connections.fetch_sub(1, Ordering::Relaxed);
        self.pass_on_descriptors();
        if let (Some(targets), Some(index)) = (&self.shared.targets, link.target_index) {
            targets.release(index);
        }
        if let Some(id) = link.session {
            self.sessions.remove(&id);
        }
        if let Some(on_finished) = link.on_finished.take() {
            let report = link.report(outcome);
            // Closes its descriptors before the report.
            drop(link);
            on_finished(report);
        }
    }
}

/// Registers a side with epoll, if epoll supports it.
pub(super) fn watch(epoll: &Epoll, side: &Side, token: Token, endpoint: Endpoint) -> SysResult<()> {
    if !side.is_pollable() {
        return Ok(());
    }
    match epoll.add(side, EpollEvent::new(EVENTS, token << ENDPOINT_BITS | endpoint.number())) {
        // Devices such as /dev/null are always ready.
        Err(Errno::EPERM) => Ok(()),
        result => result,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_closed_link_leaves_no_timer() {
        let mut options = super::super::options::RelayOptions::for_sessions();
        options.idle_timeout = Duration::from_secs(60);
        let mailbox = Arc::new(Mailbox::new().expect("a mailbox"));
        let mut worker = Worker::new(0, Arc::new(Shared::new(options)), None, mailbox, Vec::new()).expect("a worker");
        for id in 0..100 {
            let side = || {
                let (one, _) = std::os::unix::net::UnixStream::pair().expect("a pair");
                crate::io::NonBlocking::new(one.into()).expect("a socket")
            };
            // Their peers are closed: both flows end in the first turn.
            worker.start_session(
                id,
                Session {
                    client: side(),
                    target: Some(side()),
                    initial_bytes: [Vec::new(), Vec::new()],
                    one_way: false,
                    mirrors: Vec::new(),
                    policy: super::super::options::Policy::Block,
                    on_finished: Box::new(|_| {}),
                },
            );
        }
        assert!(worker.links.is_empty());
        assert!(worker.timers.is_empty(), "{} entries", worker.timers.len());
    }
}
