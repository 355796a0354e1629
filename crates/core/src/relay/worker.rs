//! A worker of a relay: one thread, one epoll, and the links of the connections it has accepted.

use std::collections::{HashMap, VecDeque};
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};

use super::accepting::{DescriptorQueue, DescriptorReserve};
use super::append::{AppendReporter, AppendResult, AppendTarget};
use super::endpoint::{ENDPOINT_BITS, Endpoint};
use super::flow::{Flow, PumpContext, StopReason};
use super::link::{Closing, Link, State};
use super::mirror::{Mirror, MirrorSink};
use super::mirror_file::{MirrorFiles, Numbers};
use super::options::{Destination, MirrorDestination, RelayOptions, TargetRequestId};
use super::session::{Outcome, Session, Sink};
use super::side::Side;
use super::socket_options;
use super::stats::RelayStats;
use super::targets::Targets;
use crate::error::{Error, Result};
use crate::event_loop::mailbox::Mailbox;
use crate::event_loop::slab::{Slab, Token};
use crate::event_loop::timers::Timers;
use crate::io::pipe_pool::PipePool;
use crate::net::Address;
use crate::net::listener::Listener;
use zerosend_sys::SysResult;

/// Epoll data that is never a token of a slab. Others are a link's token, shifted, and which of its ends it is.
const WAKER: u64 = u64::MAX;
pub(super) const LISTENER: u64 = u64::MAX - 1;
/// What one read takes at most where bytes go through user space.
const SCRATCH_SIZE: usize = 256 * 1024;
/// What one direction may move before others have their turn.
const TURN_BUDGET: u64 = 4 * 1024 * 1024;
/// How long mirrors that may miss bytes have for the last of them.
const MIRROR_LINGER: Duration = Duration::from_secs(5);
/// How long a worker that ends waits for files of mirrors at least.
const MIN_FLUSH_TIME: Duration = Duration::from_secs(1);
/// Bytes of the pipe of a mirror, at least. More than a main pipe's: it makes up for mirrors that are slow for a moment.
const MIRROR_PIPE_SIZE: usize = 256 * 1024;
/// How long a side that is reset may acknowledge nothing of what was sent to it before.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(30);
/// Between two looks at what such a side has acknowledged: at first, doubled each time, and at most.
const CLOSE_PAUSES: [Duration; 2] = [Duration::from_millis(1), Duration::from_millis(50)];
const EVENTS: EpollFlags = EpollFlags::EPOLLIN
    .union(EpollFlags::EPOLLPRI)
    .union(EpollFlags::EPOLLOUT)
    .union(EpollFlags::EPOLLRDHUP)
    .union(EpollFlags::EPOLLET);

/// A message to a worker.
pub(super) enum Message {
    /// Accept no more, and end at this moment at the latest.
    Drain(Instant),
    /// There may be descriptors.
    Resume,
    /// A connection that another worker has accepted, and descriptors for what it needs.
    Accepted(OwnedFd, Option<SocketAddr>, DescriptorReserve),
    /// Relay between these descriptors; the session gets this id.
    StartSession(u64, Box<Session>),
    /// End the session with this id.
    CancelSession(u64),
    /// The addresses of the target that a connection goes to; none: nowhere.
    TargetResolved(TargetRequestId, Vec<Address>),
    /// A piece of a mirror was written to its file, or lost.
    Appended { token: Token, index: usize, result: AppendResult },
}

/// What the workers of a relay share.
pub(super) struct Shared {
    pub options: RelayOptions,
    pub targets: Option<Targets>,
    pub stats: RelayStats,
    pub connections: AtomicUsize,
    pub descriptor_queue: DescriptorQueue,
    /// Connections and mirrors that wait for descriptors; meanwhile no other is accepted.
    pub waiting: Arc<AtomicUsize>,
    pub mailboxes: OnceLock<Vec<Arc<Mailbox<Message>>>>,
    /// For the names of mirrors.
    pub numbers: Arc<Numbers>,
}

impl Shared {
    pub fn new(mut options: RelayOptions) -> Self {
        let mut files = Vec::new();
        for mirror in &mut options.mirrors {
            let MirrorDestination::Files(to) = &mut mirror.to else { continue };
            // Directions that go to the same files share them.
            match files.iter().find(|other: &&Arc<MirrorFiles>| other.is_same_as(to)) {
                Some(other) => *to = other.clone(),
                None => files.push(to.clone()),
            }
        }
        let numbers = Arc::new(Numbers::from(files.iter().map(|files| files.first_free()).max().unwrap_or(1)));
        let targets = match &options.destination {
            Destination::Targets(list, balance) => Some(Targets::new(list, *balance, options.down_time)),
            Destination::Echo | Destination::Resolver(_) | Destination::External => None,
        };
        Self {
            options,
            targets,
            stats: RelayStats::default(),
            connections: AtomicUsize::new(0),
            descriptor_queue: DescriptorQueue::default(),
            waiting: Arc::default(),
            mailboxes: OnceLock::new(),
            numbers,
        }
    }
}

pub(super) struct Worker {
    pub number: usize,
    pub shared: Arc<Shared>,
    pub mailbox: Arc<Mailbox<Message>>,
    pub epoll: Epoll,
    pub listener: Option<Listener>,
    /// The other workers, where this one accepts for all; and whose turn it is.
    pub peers: Vec<Arc<Mailbox<Message>>>,
    pub next_peer: usize,
    /// Connections to accept for the next event of the listener.
    pub batch: usize,
    /// Descriptors for the next connection.
    pub reserve: Option<DescriptorReserve>,
    pub links: Slab<Link>,
    /// Links of sessions, by session id.
    sessions: HashMap<u64, Token>,
    turns: VecDeque<Token>,
    timers: Timers,
    pub pipes: PipePool,
    pub mirror_pipes: PipePool,
    append_reporter: AppendReporter,
    /// Bytes of pieces whose outcome is known.
    appended: u64,
    scratch: Vec<u8>,
    /// Nothing is accepted before this.
    pub paused: Option<Instant>,
    /// The pause is over: it accepts a connection although others wait for descriptors too.
    pub is_next: bool,
    pub end: Option<Instant>,
    pub draining: bool,
    /// Connections that may still be accepted while the relay drains.
    pub backlog_left: usize,
}

impl Worker {
    /// `peers`: the other workers, when this one accepts for all.
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
        let max = shared.options.pipes.div_ceil(shared.options.workers);
        let pipe_size = shared.options.pipe_size;
        Ok(Self {
            number,
            shared,
            append_reporter: AppendReporter { mailbox: mailbox.clone(), issued: Arc::default() },
            appended: 0,
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
            pipes: PipePool::new(pipe_size, max),
            mirror_pipes: PipePool::new(pipe_size.max(MIRROR_PIPE_SIZE), max),
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
                            worker.wake(token, Endpoint::from_number(data), event.events())
                        });
                    }
                }
            }
            for message in self.mailbox.take() {
                self.count_appended(&message);
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
                worker.shared.stats.forced_closes.add(1);
                worker.close(token, Outcome::Aborted, true);
            });
        }
        self.flush_mirrors();
    }

    /// Runs one turn. A panic ends the link that it was for, and is counted; no other link notices.
    pub fn contain(&mut self, token: Option<Token>, turn: impl FnOnce(&mut Self)) {
        if crate::stats::contain(|| turn(self)).is_some() {
            return;
        }
        self.shared.stats.panics.add(1);
        let Some(token) = token else { return };
        let close = || self.close(token, Outcome::Failed(Endpoint::Client, Errno::EIO), true);
        if crate::stats::contain(close).is_none() {
            self.shared.stats.panics.add(1);
        }
    }

    /// The link that a message is for.
    fn token_of(&self, message: &Message) -> Option<Token> {
        match message {
            Message::Drain(_) | Message::Resume | Message::Accepted(..) | Message::StartSession(..) => None,
            Message::CancelSession(id) => self.sessions.get(id).copied(),
            Message::TargetResolved(id, _) => Some(id.link),
            Message::Appended { token, .. } => Some(*token),
        }
    }

    /// Counts the bytes of a piece whose outcome is known.
    fn count_appended(&mut self, message: &Message) {
        if let Message::Appended { result, .. } = message {
            self.appended += (result.written + result.lost) as u64;
        }
    }

    /// Waits for the files that still get bytes of links that have ended: until the end of the drain, and not for a disk that hangs.
    fn flush_mirrors(&mut self) {
        let start = Instant::now();
        let end = self.end.unwrap_or(start).max(start + MIN_FLUSH_TIME);
        let mut progress = (start, self.appended);
        loop {
            self.mailbox.waker().clear();
            for message in self.mailbox.take() {
                self.count_appended(&message);
                if let Message::Appended { token, index, result } = message {
                    self.written(token, index, result);
                }
            }
            let now = Instant::now();
            if self.appended > progress.1 {
                progress = (now, self.appended);
            }
            let outstanding = self.append_reporter.issued.load(Ordering::Relaxed) - self.appended;
            let left = end.min(progress.0 + MIRROR_LINGER).saturating_duration_since(now);
            if outstanding == 0 || left.is_zero() {
                // Whether they are written later is not known: they count as lost.
                self.shared.stats.dropped.add(outstanding);
                return;
            }
            let wait = EpollTimeout::try_from(left + Duration::from_millis(1)).unwrap_or(EpollTimeout::MAX);
            let _ = self.epoll.wait(&mut [EpollEvent::empty()], wait);
        }
    }

    /// A piece was written to a file, or lost.
    fn written(&mut self, token: Token, index: usize, result: AppendResult) {
        if let Some(mirror) = self.links.get_mut(token).and_then(|link| link.mirrors_mut().nth(index)) {
            mirror.written(result, &mut self.mirror_pipes);
            return self.drive(token);
        }
        self.shared.stats.mirrored.add(result.written as u64);
        self.shared.stats.dropped.add(result.lost as u64);
        match result.pipe {
            Some(pipe) => self.mirror_pipes.release(pipe),
            None => self.mirror_pipes.discard(),
        }
    }

    fn receive(&mut self, message: Message) {
        // A panic must not take this one.
        if let Message::Drain(end) = message {
            return self.drain(end);
        }
        crate::failpoint::failpoint!("relay::message");
        match message {
            Message::Drain(_) => {}
            Message::Resume => self.resume(),
            Message::Accepted(socket, peer, reserve) => self.admit(socket, peer, reserve),
            Message::StartSession(id, session) => self.start_session(id, *session),
            Message::CancelSession(id) => {
                if let Some(token) = self.sessions.get(&id) {
                    self.close(*token, Outcome::Aborted, true);
                }
            }
            Message::TargetResolved(id, addresses) => self.target_resolved(id, addresses),
            Message::Appended { token, index, result } => self.written(token, index, result),
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
        let Session { client, target, first, one_way, sinks, policy, on_finished } = session;
        let Some(target) = target else { return };
        let [mut up, mut down] = first.map(Flow::with_initial_bytes);
        down.over = one_way.then_some(StopReason::Ended);
        up.mirrors = sinks
            .into_iter()
            .enumerate()
            .map(|(index, sink)| {
                let sink = match sink {
                    Sink::Stream(fd) => MirrorSink::Stream { side: Side::new(fd), own: false },
                    Sink::File(file) => MirrorSink::File { file: AppendTarget::Sink(file, Arc::default()), writing: 0 },
                };
                Mirror::new(sink, policy, index)
            })
            .collect();
        let keep_alive = self.shared.options.keep_alive;
        socket_options::set_session_socket_options(&client, keep_alive);
        socket_options::set_session_socket_options(&target, keep_alive);
        let mut link = Link::for_session(Side::new(client), Side::new(target), [up, down], !one_way, on_finished);
        link.session = Some(id);
        let Some(token) = self.insert(link) else { return };
        self.sessions.insert(id, token);
        self.arm(token);
        self.drive(token);
    }

    /// Takes a link in and has epoll wait for its sides.
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
        let failed =
            link.sides().find_map(|(side, end)| watch(&self.epoll, side, token, end).err().map(|errno| (end, errno)));
        if let Some((end, errno)) = failed {
            self.close(token, Outcome::Failed(end, errno), true);
            return None;
        }
        Some(token)
    }

    fn wake(&mut self, token: Token, end: Endpoint, events: EpollFlags) {
        let Some(link) = self.links.get_mut(token) else { return };
        if link.note(end, events)
            && let Endpoint::Mirror(index) = end
        {
            self.dial_mirror(token, index);
            self.arm(token);
        }
        let Some(link) = self.links.get_mut(token) else { return };
        match &link.state {
            State::Connecting(_) if end == Endpoint::Target => self.target_event(token, events),
            // What a client has sent before it was reset is for the target.
            State::Connecting(_) => {
                let failed = end == Endpoint::Client && events.contains(EpollFlags::EPOLLERR);
                if failed && !link.client.has_unread() {
                    self.close(token, Outcome::Failed(Endpoint::Client, Errno::ECONNRESET), true);
                }
            }
            State::Relaying if link.queued => {}
            State::Relaying => self.drive(token),
            State::Closing(_) => self.check_closing(token),
        }
    }

    pub fn drive(&mut self, token: Token) {
        let Some(link) = self.links.get_mut(token) else { return };
        if !matches!(link.state, State::Relaying) {
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
        self.shared.stats.count(link);
        let asked = link.sides_to_rearm().try_for_each(|(side, end)| {
            if !side.is_pollable() {
                return Ok(());
            }
            self.epoll.modify(side, &mut EpollEvent::new(EVENTS, token << ENDPOINT_BITS | end.number()))
        });
        match (outcome, asked) {
            (Ok(_), Err(errno)) => self.close(token, Outcome::Failed(Endpoint::Client, errno), true),
            (Ok(more), Ok(())) => {
                if more && !link.queued {
                    link.queued = true;
                    self.turns.push_back(token);
                }
                if link.is_lingering() || link.mirrors().any(Mirror::lacks_pipe) {
                    self.arm(token);
                }
            }
            (Err(outcome), _) => self.finish(token, outcome),
        }
    }

    /// The link is over. After a failure its sides are reset, once their peers have what was sent to them.
    fn finish(&mut self, token: Token, outcome: Outcome) {
        let Some(link) = self.links.get_mut(token) else { return };
        if outcome == Outcome::Complete {
            return self.close(token, outcome, false);
        }
        let closing = Closing { outcome, at_risk: link.at_risk(), progressed: Instant::now(), pause: CLOSE_PAUSES[0] };
        link.state = State::Closing(closing);
        self.shared.stats.count(link);
        for flow in &mut link.flows {
            flow.buffer.release(&mut self.pipes);
            flow.mirrors.iter_mut().for_each(Mirror::stop_waiting);
        }
        self.check_closing(token);
    }

    fn check_closing(&mut self, token: Token) {
        let Some(link) = self.links.get_mut(token) else { return };
        let at_risk = link.at_risk();
        let State::Closing(closing) = &mut link.state else { return };
        let now = Instant::now();
        if at_risk < closing.at_risk {
            (closing.at_risk, closing.progressed) = (at_risk, now);
        }
        let outcome = closing.outcome;
        if at_risk == 0 || now >= closing.progressed + CLOSE_TIMEOUT {
            self.close(token, outcome, true);
        } else {
            self.arm(token);
        }
    }

    /// Sets the deadline of what the link is at, and a timer for it unless one comes before.
    pub fn arm(&mut self, token: Token) {
        let Some(link) = self.links.get_mut(token) else { return };
        let options = &self.shared.options;
        let bound = |since: Instant, limit: Duration| (!limit.is_zero()).then(|| since + limit);
        let own = match &link.state {
            State::Connecting(connecting) => connecting.deadline(options.connect_timeout),
            State::Relaying if link.may_miss() => bound(link.progressed, MIRROR_LINGER),
            State::Relaying => bound(link.progressed, options.idle_timeout),
            State::Closing(closing) => Some(Instant::now() + closing.pause),
        };
        let is_closing = matches!(link.state, State::Closing(_));
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
            && let State::Closing(closing) = &mut link.state
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
            State::Connecting(_) => self.connecting_expired(token, now),
            State::Relaying if link.may_miss() => {
                let outcome = link.outcome();
                self.finish(token, outcome);
            }
            State::Relaying => {
                if link.has_peer_progress() {
                    link.progressed = now;
                    return self.arm(token);
                }
                link.reset_incomplete();
                self.shared.stats.idle_timeouts.add(1);
                self.close(token, Outcome::Idle, false);
            }
            State::Closing(_) => {}
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
            link.reset();
        }
        for flow in &mut link.flows {
            flow.buffer.release(&mut self.pipes);
            for mirror in &mut flow.mirrors {
                // A join says what became of its bytes now, so that none may be written later.
                mirror.abandon(&mut self.mirror_pipes, link.session.is_none().then_some(&self.append_reporter));
            }
        }
        self.shared.stats.count(&mut link);
        self.shared.stats.end(&link, outcome);
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
            // Its descriptors are closed before anybody hears of it.
            drop(link);
            on_finished(report);
        }
    }
}

/// Has epoll wait for a side, if it can.
pub(super) fn watch(epoll: &Epoll, side: &Side, token: Token, end: Endpoint) -> SysResult<()> {
    if !side.is_pollable() {
        return Ok(());
    }
    match epoll.add(side, EpollEvent::new(EVENTS, token << ENDPOINT_BITS | end.number())) {
        // Devices like /dev/null are always ready.
        Err(Errno::EPERM) => Ok(()),
        result => result,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_link_that_ends_leaves_no_timer() {
        let mut options = RelayOptions::for_sessions();
        options.idle_timeout = Duration::from_secs(60);
        let mailbox = Arc::new(Mailbox::new().expect("a mailbox"));
        let mut worker = Worker::new(0, Arc::new(Shared::new(options)), None, mailbox, Vec::new()).expect("a worker");
        for name in 0..100 {
            let side = || {
                let (one, _) = std::os::unix::net::UnixStream::pair().expect("a pair");
                crate::io::NonBlocking::new(one.into()).expect("a socket")
            };
            // Their peers are gone: both flows end in the first turn.
            worker.start_session(
                name,
                Session {
                    client: side(),
                    target: Some(side()),
                    first: [Vec::new(), Vec::new()],
                    one_way: false,
                    sinks: Vec::new(),
                    policy: super::super::options::Policy::Block,
                    on_finished: Box::new(|_| {}),
                },
            );
        }
        assert!(worker.links.is_empty());
        assert!(worker.timers.is_empty(), "{} entries", worker.timers.len());
    }
}
