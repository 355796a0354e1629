//! A worker of a relay: one thread, one epoll, and the links of the connections it has accepted.

use std::collections::{HashMap, VecDeque};
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};

use super::accepting::{Reserve, Starving};
use super::flow::{Flow, Means, Over};
use super::join::{Join, Outcome, Party, Sink};
use super::link::{Closing, END_BITS, End, Link, State};
use super::mirror_file::{MirrorFiles, Numbers};
use super::options::{Destination, MirrorTo, QuestionId, RelayOptions};
use super::piece::{FileOutlet, Receipt, Receipts};
use super::side::Side;
use super::stats::RelayStats;
use super::tap::{Outlet, Tap};
use super::targets::Targets;
use super::tuning;
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
const BUFFER: usize = 256 * 1024;
/// What one direction may move before others have their turn.
const BUDGET: u64 = 4 * 1024 * 1024;
/// How long mirrors that may miss bytes have for the last of them.
const LINGER: Duration = Duration::from_secs(5);
/// How long a worker that ends waits for files of mirrors at least.
const LAST_WRITES: Duration = Duration::from_secs(1);
/// Bytes of the pipe of a mirror, at least. More than a main pipe's: it makes up for mirrors that are slow for a moment.
const TAP_PIPE: usize = 256 * 1024;
/// How long a side that is reset may acknowledge nothing of what was sent to it before.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(30);
/// Between two looks at what such a side has acknowledged: at first, doubled each time, and at most.
const CLOSE_PAUSES: [Duration; 2] = [Duration::from_millis(1), Duration::from_millis(50)];
const EVENTS: EpollFlags = EpollFlags::EPOLLIN
    .union(EpollFlags::EPOLLPRI)
    .union(EpollFlags::EPOLLOUT)
    .union(EpollFlags::EPOLLRDHUP)
    .union(EpollFlags::EPOLLET);

/// News for a worker.
pub(super) enum Message {
    /// Accept no more, and end at this moment at the latest.
    Drain(Instant),
    /// There may be descriptors.
    Resume,
    /// A connection that another worker has accepted, and descriptors for what it needs.
    Accepted(OwnedFd, Option<SocketAddr>, Reserve),
    /// Join these, under this name.
    Join(u64, Box<Join>),
    /// End what was joined under this name.
    Cancel(u64),
    /// The addresses of the target that a connection goes to; none: nowhere.
    Answer(QuestionId, Vec<Address>),
    /// A piece of a tap was written to its file, or lost.
    Written { token: Token, index: usize, receipt: Receipt },
}

/// What the workers of a relay share.
pub(super) struct Shared {
    pub options: RelayOptions,
    pub targets: Option<Targets>,
    pub stats: RelayStats,
    pub connections: AtomicUsize,
    pub starving: Starving,
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
            let MirrorTo::Files(to) = &mut mirror.to else { continue };
            // Directions that go to the same files share them.
            match files.iter().find(|other: &&Arc<MirrorFiles>| other.is_same_as(to)) {
                Some(other) => *to = other.clone(),
                None => files.push(to.clone()),
            }
        }
        let numbers = Arc::new(Numbers::from(files.iter().map(|files| files.first_free()).max().unwrap_or(1)));
        let targets = match &options.destination {
            Destination::Targets(list, balance) => Some(Targets::new(list, *balance, options.down_time)),
            Destination::Echo | Destination::Asked(_) | Destination::Given => None,
        };
        Self {
            options,
            targets,
            stats: RelayStats::default(),
            connections: AtomicUsize::new(0),
            starving: Starving::default(),
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
    pub reserve: Option<Reserve>,
    pub links: Slab<Link>,
    /// Links by the names under which they were joined.
    joined: HashMap<u64, Token>,
    turns: VecDeque<Token>,
    timers: Timers,
    pub pipes: PipePool,
    pub tap_pipes: PipePool,
    receipts: Receipts,
    /// Bytes of pieces whose outcome is known.
    settled: u64,
    buffer: Vec<u8>,
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
        let most = shared.options.pipes.div_ceil(shared.options.workers);
        let pipe_size = shared.options.pipe_size;
        Ok(Self {
            number,
            shared,
            receipts: Receipts { mailbox: mailbox.clone(), issued: Arc::default() },
            settled: 0,
            mailbox,
            epoll,
            listener,
            peers,
            next_peer: 0,
            batch: 1,
            reserve: None,
            links: Slab::default(),
            joined: HashMap::new(),
            turns: VecDeque::new(),
            timers: Timers::default(),
            pipes: PipePool::new(pipe_size, most),
            tap_pipes: PipePool::new(pipe_size.max(TAP_PIPE), most),
            buffer: Vec::new(),
            paused: None,
            is_next: false,
            end: None,
            draining: false,
            backlog_left: 0,
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
                    LISTENER => self.contain(None, Self::accept),
                    data => {
                        let token = data >> END_BITS;
                        self.contain(Some(token), |worker| worker.wake(token, End::from_number(data), event.events()));
                    }
                }
            }
            for message in self.mailbox.take() {
                self.note_settled(&message);
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
                worker.shared.stats.cut.add(1);
                worker.close(token, Outcome::Cut, true);
            });
        }
        self.finish_mirrors();
    }

    /// Runs one turn. A panic ends the link that it was for, and is counted; no other link notices.
    pub fn contain(&mut self, token: Option<Token>, turn: impl FnOnce(&mut Self)) {
        if crate::stats::contain(|| turn(self)).is_some() {
            return;
        }
        self.shared.stats.panics.add(1);
        let Some(token) = token else { return };
        let close = || self.close(token, Outcome::Failed(Party::Client, Errno::EIO), true);
        if crate::stats::contain(close).is_none() {
            self.shared.stats.panics.add(1);
        }
    }

    /// The link that a message is for.
    fn token_of(&self, message: &Message) -> Option<Token> {
        match message {
            Message::Drain(_) | Message::Resume | Message::Accepted(..) | Message::Join(..) => None,
            Message::Cancel(name) => self.joined.get(name).copied(),
            Message::Answer(id, _) => Some(id.link),
            Message::Written { token, .. } => Some(*token),
        }
    }

    /// Counts the bytes of a piece whose outcome is known.
    fn note_settled(&mut self, message: &Message) {
        if let Message::Written { receipt, .. } = message {
            self.settled += (receipt.written + receipt.lost) as u64;
        }
    }

    /// Waits for the files that still get bytes of links that have ended: until the end of the drain, and not for a disk that hangs.
    fn finish_mirrors(&mut self) {
        let start = Instant::now();
        let end = self.end.unwrap_or(start).max(start + LAST_WRITES);
        let mut progress = (start, self.settled);
        loop {
            self.mailbox.waker().clear();
            for message in self.mailbox.take() {
                self.note_settled(&message);
                if let Message::Written { token, index, receipt } = message {
                    self.written(token, index, receipt);
                }
            }
            let now = Instant::now();
            if self.settled > progress.1 {
                progress = (now, self.settled);
            }
            let outstanding = self.receipts.issued.load(Ordering::Relaxed) - self.settled;
            let left = end.min(progress.0 + LINGER).saturating_duration_since(now);
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
    fn written(&mut self, token: Token, index: usize, receipt: Receipt) {
        if let Some(tap) = self.links.get_mut(token).and_then(|link| link.taps_mut().nth(index)) {
            tap.written(receipt, &mut self.tap_pipes);
            return self.drive(token);
        }
        self.shared.stats.mirrored.add(receipt.written as u64);
        self.shared.stats.dropped.add(receipt.lost as u64);
        match receipt.pipe {
            Some(pipe) => self.tap_pipes.put(pipe),
            None => self.tap_pipes.lose(),
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
            Message::Join(name, join) => self.join(name, *join),
            Message::Cancel(name) => {
                if let Some(token) = self.joined.get(&name) {
                    self.close(*token, Outcome::Cut, true);
                }
            }
            Message::Answer(id, addresses) => self.answered(id, addresses),
            Message::Written { token, index, receipt } => self.written(token, index, receipt),
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

    fn join(&mut self, name: u64, join: Join) {
        let Join { client, target, first, one_way, sinks, policy, ended } = join;
        let Some(target) = target else { return };
        let [mut up, mut down] = first.map(Flow::after);
        down.over = one_way.then_some(Over::Ended);
        up.taps = sinks
            .into_iter()
            .enumerate()
            .map(|(index, sink)| {
                let outlet = match sink {
                    Sink::Stream(fd) => Outlet::Stream { side: Side::new(fd), own: false },
                    Sink::File(file) => Outlet::File { file: FileOutlet::Sink(file, Arc::default()), writing: 0 },
                };
                Tap::new(outlet, policy, index)
            })
            .collect();
        let keep_alive = self.shared.options.keep_alive;
        tuning::prepare_joined(&client, keep_alive);
        tuning::prepare_joined(&target, keep_alive);
        let mut link = Link::joined(Side::new(client), Side::new(target), [up, down], !one_way, ended);
        link.name = Some(name);
        let Some(token) = self.insert(link) else { return };
        self.joined.insert(name, token);
        self.arm(token);
        self.drive(token);
    }

    /// Takes a link in and has epoll wait for its sides.
    pub fn insert(&mut self, link: Link) -> Option<Token> {
        self.shared.connections.fetch_add(1, Ordering::Relaxed);
        let token = match self.links.insert(link) {
            Ok(token) => token,
            Err(link) => {
                self.end(link, Outcome::Failed(Party::Client, Errno::EMFILE), true);
                return None;
            }
        };
        let link = self.links.get_mut(token)?;
        let failed =
            link.sides().find_map(|(side, end)| watch(&self.epoll, side, token, end).err().map(|errno| (end, errno)));
        if let Some((end, errno)) = failed {
            self.close(token, Outcome::Failed(party(end), errno), true);
            return None;
        }
        Some(token)
    }

    fn wake(&mut self, token: Token, end: End, events: EpollFlags) {
        let Some(link) = self.links.get_mut(token) else { return };
        if link.note(end, events)
            && let End::Tap(index) = end
        {
            self.dial_mirror(token, index);
            self.arm(token);
        }
        let Some(link) = self.links.get_mut(token) else { return };
        match &link.state {
            State::Connecting(_) if end == End::Target => self.target_event(token, events),
            // What a client has sent before it was reset is for the target.
            State::Connecting(_) => {
                let failed = end == End::Client && events.contains(EpollFlags::EPOLLERR);
                if failed && !link.client.has_unread() {
                    self.close(token, Outcome::Failed(Party::Client, Errno::ECONNRESET), true);
                }
            }
            State::Joined if link.queued => {}
            State::Joined => self.drive(token),
            State::Closing(_) => self.check_closing(token),
        }
    }

    pub fn drive(&mut self, token: Token) {
        let Some(link) = self.links.get_mut(token) else { return };
        if !matches!(link.state, State::Joined) {
            return;
        }
        crate::failpoint::failpoint!("relay::turn");
        let mut means = Means {
            pipes: &mut self.pipes,
            tap_pipes: &mut self.tap_pipes,
            buffer: &mut self.buffer,
            method: self.shared.options.method,
            budget: BUDGET,
            token,
            receipts: &self.receipts,
            waiting: &self.shared.waiting,
        };
        let outcome = link.pump(&mut means);
        self.shared.stats.count(link);
        let asked = link.refusing().try_for_each(|(side, end)| {
            if !side.is_pollable() {
                return Ok(());
            }
            self.epoll.modify(side, &mut EpollEvent::new(EVENTS, token << END_BITS | end.number()))
        });
        match (outcome, asked) {
            (Ok(_), Err(errno)) => self.close(token, Outcome::Failed(Party::Client, errno), true),
            (Ok(more), Ok(())) => {
                if more && !link.queued {
                    link.queued = true;
                    self.turns.push_back(token);
                }
                if link.is_lingering() || link.taps().any(Tap::lacks_pipe) {
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
            flow.load.release(&mut self.pipes);
            flow.taps.iter_mut().for_each(Tap::stop_waiting);
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
            State::Joined if link.may_miss() => bound(link.progressed, LINGER),
            State::Joined => bound(link.progressed, options.idle_timeout),
            State::Closing(closing) => Some(Instant::now() + closing.pause),
        };
        let is_closing = matches!(link.state, State::Closing(_));
        let mirrors = link.taps().filter(|_| !is_closing).filter_map(|tap| tap.deadline(options.connect_timeout));
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
            State::Joined if link.may_miss() => {
                let outcome = link.outcome();
                self.finish(token, outcome);
            }
            State::Joined => {
                if link.is_moving() {
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
            flow.load.release(&mut self.pipes);
            for tap in &mut flow.taps {
                // A join says what became of its bytes now, so that none may be written later.
                tap.abandon(&mut self.tap_pipes, link.name.is_none().then_some(&self.receipts));
            }
        }
        self.shared.stats.count(&mut link);
        self.shared.stats.end(&link, outcome);
        self.shared.connections.fetch_sub(1, Ordering::Relaxed);
        self.pass_on_descriptors();
        if let (Some(targets), Some(index)) = (&self.shared.targets, link.target_index) {
            targets.release(index);
        }
        if let Some(name) = link.name {
            self.joined.remove(&name);
        }
        if let Some(ended) = link.ended.take() {
            let report = link.report(outcome);
            // Its descriptors are closed before anybody hears of it.
            drop(link);
            ended(report);
        }
    }
}

/// Has epoll wait for a side, if it can.
pub(super) fn watch(epoll: &Epoll, side: &Side, token: Token, end: End) -> SysResult<()> {
    if !side.is_pollable() {
        return Ok(());
    }
    match epoll.add(side, EpollEvent::new(EVENTS, token << END_BITS | end.number())) {
        // Devices like /dev/null are always ready.
        Err(Errno::EPERM) => Ok(()),
        result => result,
    }
}

fn party(end: End) -> Party {
    match end {
        End::Client => Party::Client,
        End::Target => Party::Target,
        End::Tap(at) => Party::Tap(at),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_link_that_ends_leaves_no_timer() {
        let mut options = RelayOptions::joining();
        options.idle_timeout = Duration::from_secs(60);
        let mailbox = Arc::new(Mailbox::new().expect("a mailbox"));
        let mut worker = Worker::new(0, Arc::new(Shared::new(options)), None, mailbox, Vec::new()).expect("a worker");
        for name in 0..100 {
            let side = || {
                let (one, _) = std::os::unix::net::UnixStream::pair().expect("a pair");
                crate::io::NonBlocking::new(one.into()).expect("a socket")
            };
            // Their peers are gone: both flows end in the first turn.
            worker.join(
                name,
                Join {
                    client: side(),
                    target: Some(side()),
                    first: [Vec::new(), Vec::new()],
                    one_way: false,
                    sinks: Vec::new(),
                    policy: super::super::options::Policy::Block,
                    ended: Box::new(|_| {}),
                },
            );
        }
        assert!(worker.links.is_empty());
        assert!(worker.timers.is_empty(), "{} entries", worker.timers.len());
    }
}
