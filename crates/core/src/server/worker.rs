//! A worker: one thread, one epoll, and the connections it has accepted.

use std::collections::{HashMap, VecDeque};
use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};
use nix::sys::socket::{MsgFlags, Shutdown, recv, send, shutdown};

use super::answer;
use super::connection::{Connection, Next};
use super::date::DateLine;
use super::door::{HandedOver, Reason};
use super::listener::{self, Listener};
use super::log::Entry;
use super::options::ServerOptions;
use super::stats::{Limit, Snapshot, WorkerStats};
use crate::error::{Error, Result};
use crate::files::Outcome;
use crate::http::listing::Listing;
use crate::reactor::mailbox::Mailbox;
use crate::reactor::registry::{Registry, Token};
use crate::reactor::timers::Timers;
use crate::transfer::Prefetched;

/// Tokens that no registry gives out.
const WAKER: Token = u64::MAX;
const LISTENER: Token = u64::MAX - 1;
/// The worker's buffer, in bytes: what one `recv` takes at most.
const BUFFER: usize = 64 * 1024;
/// Connections accepted before others have their turn.
const MOST_ACCEPTS: usize = 64;
/// Connections closed at once for want of descriptors.
const SHED: usize = 32;
/// How long nothing is accepted when there is nothing to shed.
const PAUSE: Duration = Duration::from_millis(50);

/// What a pool thread found out.
pub(super) struct Answered {
    pub outcome: Result<Outcome>,
    pub listing: Option<Listing>,
}

impl Answered {
    pub fn failed(error: Error) -> Self {
        Self { outcome: Err(error), listing: None }
    }
}

/// News for a worker.
pub(super) enum Message {
    Prefetched(Token, Result<Prefetched>),
    Answered(Token, Box<Answered>),
    /// Accept no more, and end at this moment at the latest.
    Drain(Instant),
    /// Close who waits for a request.
    CloseIdle,
    /// Close all.
    CloseAll,
    /// Connections can be handed over again.
    Room,
}

/// What the workers of a server share.
pub(super) struct Shared {
    pub options: ServerOptions,
    /// The lines of [`ServerOptions::headers`].
    pub header_lines: Vec<u8>,
    /// What a response says that leaves its connection open.
    pub keep_alive_lines: Vec<u8>,
    pub stats: Vec<Arc<WorkerStats>>,
    connections: AtomicUsize,
    addresses: Mutex<HashMap<IpAddr, usize>>,
}

impl Shared {
    pub fn new(options: ServerOptions) -> Self {
        let lines = options.headers.iter().map(|(name, value)| format!("{}: {value}\r\n", name.to_ascii_lowercase()));
        let header_lines = lines.collect::<String>().into_bytes();
        let keep_alive_lines = keep_alive_lines(&options);
        let stats = (0..options.workers).map(|_| Arc::default()).collect();
        Self {
            options,
            header_lines,
            keep_alive_lines,
            stats,
            connections: AtomicUsize::new(0),
            addresses: Mutex::default(),
        }
    }

    pub fn snapshot(&self) -> Snapshot {
        let mut sum = Snapshot::sum(self.stats.iter().map(|stats| &**stats));
        sum.log_lost = self.options.log.as_ref().map_or(0, |log| log.lost());
        sum
    }

    /// Counts a connection in, unless it is one too many.
    fn admit(&self, client: Option<SocketAddr>) -> std::result::Result<(), Limit> {
        let limits = &self.options.limits;
        if limits.connections > 0 && self.connections.load(Ordering::Relaxed) >= limits.connections {
            return Err(Limit::Connections);
        }
        if limits.connections_per_address > 0
            && let Some(client) = client
        {
            let mut addresses = self.addresses.lock().unwrap_or_else(PoisonError::into_inner);
            let count = addresses.entry(client.ip().to_canonical()).or_default();
            if *count >= limits.connections_per_address {
                return Err(Limit::ConnectionsPerAddress);
            }
            *count += 1;
        }
        self.connections.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }

    fn dismiss(&self, client: Option<SocketAddr>) {
        self.connections.fetch_sub(1, Ordering::Relaxed);
        if self.options.limits.connections_per_address > 0
            && let Some(client) = client
        {
            let mut addresses = self.addresses.lock().unwrap_or_else(PoisonError::into_inner);
            let ip = client.ip().to_canonical();
            if let Some(count) = addresses.get_mut(&ip) {
                *count -= 1;
                if *count == 0 {
                    addresses.remove(&ip);
                }
            }
        }
    }
}

/// What a connection can reach of its worker.
pub(super) struct Context {
    pub shared: Arc<Shared>,
    pub mailbox: Arc<Mailbox<Message>>,
    pub stats: Arc<WorkerStats>,
    pub epoll: Epoll,
    pub buffer: Vec<u8>,
    pub date: DateLine,
    pub log: Vec<Entry>,
    /// The time when this round of events began.
    pub now: Instant,
    pub draining: bool,
    /// A descriptor was wanted, and there was none.
    pub exhausted: bool,
}

impl std::ops::Deref for Context {
    type Target = Shared;

    fn deref(&self) -> &Shared {
        &self.shared
    }
}

/// A worker before its thread runs.
pub(super) struct Worker {
    cx: Context,
    listener: Option<Listener>,
    connections: Registry<Connection>,
    turns: VecDeque<Token>,
    timers: Timers,
    /// Nothing is accepted before this.
    paused: Option<Instant>,
    /// Connections that wait to be handed over; while there are any, nothing is accepted.
    leaving: VecDeque<Token>,
    end: Option<Instant>,
}

impl Worker {
    pub fn new(shared: Arc<Shared>, index: usize, listener: Listener, mailbox: Arc<Mailbox<Message>>) -> Result<Self> {
        let failed = |errno| Error::system("epoll_create1", errno);
        let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC).map_err(failed)?;
        epoll.add(mailbox.waker(), EpollEvent::new(EpollFlags::EPOLLIN, WAKER)).map_err(failed)?;
        listen_on(&epoll, &listener).map_err(failed)?;
        let stats = shared.stats[index].clone();
        let cx = Context {
            shared,
            mailbox,
            stats,
            epoll,
            buffer: Vec::new(),
            date: DateLine::default(),
            log: Vec::new(),
            now: Instant::now(),
            draining: false,
            exhausted: false,
        };
        Ok(Self {
            cx,
            listener: Some(listener),
            connections: Registry::default(),
            turns: VecDeque::new(),
            timers: Timers::default(),
            paused: None,
            leaving: VecDeque::new(),
            end: None,
        })
    }

    /// Serves until it is told to drain and has.
    pub fn run(mut self) {
        let mut events = [EpollEvent::empty(); 256];
        loop {
            // EINTR, and nothing else: the descriptor and the buffer are this thread's own.
            let count = self.cx.epoll.wait(&mut events, self.wait_time()).unwrap_or_default();
            self.cx.now = Instant::now();
            for event in &events[..count] {
                match event.data() {
                    WAKER => self.cx.mailbox.waker().clear(),
                    LISTENER => self.accept(),
                    token => self.wake(token, event.events()),
                }
            }
            for message in self.cx.mailbox.take() {
                self.obey(message);
            }
            for _ in 0..self.turns.len() {
                if let Some(token) = self.turns.pop_front() {
                    if let Some(connection) = self.connections.get_mut(token) {
                        connection.queued = false;
                    }
                    self.drive(token);
                }
            }
            self.check_timers();
            if std::mem::take(&mut self.cx.exhausted) {
                self.cx.stats.limit(Limit::Descriptors);
                self.shed();
                self.pause();
            }
            if let Some(log) = &self.cx.shared.options.log
                && !self.cx.log.is_empty()
            {
                log.add(&mut self.cx.log);
            }
            if self.end.is_some_and(|end| self.connections.is_empty() || self.cx.now >= end) {
                break;
            }
        }
        self.leave();
    }

    fn leave(&mut self) {
        for token in self.tokens() {
            self.close(token);
        }
        if let Some(log) = &self.cx.shared.options.log {
            log.add(&mut self.cx.log);
        }
    }

    fn wait_time(&self) -> EpollTimeout {
        if !self.turns.is_empty() {
            return EpollTimeout::ZERO;
        }
        let now = Instant::now();
        let moments = [self.paused, self.end].into_iter().flatten().map(|at| at.saturating_duration_since(now));
        match self.timers.until_next(now).into_iter().chain(moments).min() {
            // Rounded up: waking a fraction of a millisecond early would spin until the deadline comes.
            Some(wait) => EpollTimeout::try_from(wait + Duration::from_micros(999)).unwrap_or(EpollTimeout::MAX),
            None => EpollTimeout::NONE,
        }
    }

    fn accept(&mut self) {
        for _ in 0..MOST_ACCEPTS {
            let Some(listener) = self.listener.as_ref().filter(|_| self.leaving.is_empty()) else { return };
            match listener::accept(listener) {
                Ok((socket, client)) => self.admit(socket, client),
                Err(Errno::EAGAIN) => return,
                Err(Errno::EMFILE | Errno::ENFILE | Errno::ENOBUFS | Errno::ENOMEM) => {
                    self.cx.stats.limit(Limit::Descriptors);
                    if self.shed() == 0 {
                        return self.pause();
                    }
                }
                // EBADF, EINVAL: the socket is not what it was. Not to be spun upon.
                Err(_) => return self.pause(),
            }
        }
    }

    fn admit(&mut self, socket: OwnedFd, client: Option<SocketAddr>) {
        crate::failpoint::failpoint!("server::accept");
        self.cx.stats.accepted.add(1);
        if let Some(door) = &self.cx.shared.options.door
            && door.is_full(self.cx.shared.connections.load(Ordering::Relaxed))
        {
            self.cx.stats.limit(Limit::Connections);
            // In a full queue too it is lost: whoever has it would close it.
            if door.reserve(&self.cx.mailbox) {
                self.cx.stats.handed_over.add(1);
                door.hand_over(HandedOver { socket, received: Vec::new(), reason: Reason::TooMany });
            } else {
                self.cx.stats.closed.add(1);
            }
            return;
        }
        if let Err(limit) = self.cx.shared.admit(client) {
            self.cx.stats.limit(limit);
            self.cx.stats.closed.add(1);
            self.cx.stats.status(503);
            // What is there is read first, for a socket closed with bytes unread resets the connection and the answer
            // with it.
            let _ = recv(socket.as_raw_fd(), self.cx.buffer.as_mut_slice(), MsgFlags::empty());
            let _ = send(socket.as_raw_fd(), &answer::refusal(503, &mut self.cx), MsgFlags::MSG_NOSIGNAL);
            let _ = shutdown(socket.as_raw_fd(), Shutdown::Write);
            return;
        }
        if client.is_some() {
            let _ = crate::sys::socket::set_no_delay(socket.as_fd(), true);
        }
        let connection = Connection::new(socket, client, self.cx.now);
        let events = EpollFlags::EPOLLIN | EpollFlags::EPOLLRDHUP | EpollFlags::EPOLLET;
        let token = match self.connections.insert(connection) {
            Ok(token) => token,
            Err(_) => {
                self.cx.stats.closed.add(1);
                return self.cx.shared.dismiss(client);
            }
        };
        if let Some(connection) = self.connections.get_mut(token) {
            if self.cx.epoll.add(connection.socket(), EpollEvent::new(events, token)).is_err() {
                return self.close(token);
            }
            let options = &self.cx.shared.options;
            // An application counts the time for a head from here on, not from its first byte.
            let limit = if options.door.is_some() { options.limits.head_timeout } else { options.limits.idle_timeout };
            connection.deadline = (!limit.is_zero()).then(|| self.cx.now + limit);
        }
        self.drive(token);
    }

    fn wake(&mut self, token: Token, events: EpollFlags) {
        let Some(connection) = self.connections.get_mut(token) else { return };
        if events.intersects(EpollFlags::EPOLLERR | EpollFlags::EPOLLHUP) {
            return self.close(token);
        }
        if connection.note(events) && !connection.queued {
            self.drive(token);
        }
    }

    fn drive(&mut self, token: Token) {
        self.step(token, |connection, cx| connection.drive(token, cx));
    }

    /// Lets a connection do something. A panic is that connection's end and nobody else's.
    fn step(&mut self, token: Token, act: impl FnOnce(&mut Connection, &mut Context) -> Next) {
        let Some(connection) = self.connections.get_mut(token) else { return };
        if self.cx.buffer.len() < BUFFER {
            self.cx.buffer.resize(BUFFER, 0);
        }
        let turn = || {
            crate::failpoint::failpoint!("server::turn");
            act(connection, &mut self.cx)
        };
        let next = catch_unwind(AssertUnwindSafe(turn)).unwrap_or_else(|_| {
            self.cx.stats.failures.add(1);
            Next::Close
        });
        match next {
            Next::Close => return self.close(token),
            Next::HandOver => return self.hand_over(token),
            Next::Turn if !connection.queued => {
                connection.queued = true;
                self.turns.push_back(token);
            }
            _ => {}
        }
        // An entry that comes too early finds out; one that would come too late needs another before it.
        if let Some(deadline) = connection.deadline
            && connection.timer.is_none_or(|timer| deadline < timer)
        {
            connection.timer = Some(deadline);
            self.timers.set(deadline, token);
        }
    }

    fn close(&mut self, token: Token) {
        if let Some(mut connection) = self.connections.remove(token) {
            connection.end(&mut self.cx);
            self.cx.stats.closed.add(1);
            self.cx.shared.dismiss(connection.client());
        }
    }

    fn hand_over(&mut self, token: Token) {
        let Some(door) = self.cx.shared.options.door.clone() else { return self.close(token) };
        if !door.reserve(&self.cx.mailbox) {
            self.cx.stats.limit(Limit::HandOver);
            if self.leaving.is_empty() {
                self.stop_accepting();
            }
            return self.leaving.push_back(token);
        }
        if let Some(connection) = self.connections.remove(token) {
            let _ = self.cx.epoll.delete(connection.socket());
            self.cx.stats.handed_over.add(1);
            self.cx.shared.dismiss(connection.client());
            door.hand_over(connection.into_handed_over());
        }
    }

    /// Hands over who waits for it, as many as there is room for.
    fn hand_over_waiting(&mut self) {
        for token in std::mem::take(&mut self.leaving) {
            if self.connections.get_mut(token).is_some() {
                self.hand_over(token);
            }
        }
        if self.leaving.is_empty() && self.paused.is_none() {
            self.accept_again();
        }
    }

    fn obey(&mut self, message: Message) {
        crate::failpoint::failpoint!("server::message");
        match message {
            Message::CloseIdle => {
                let idle = self.connections.iter().filter(|(_, connection)| connection.idle_since().is_some());
                for token in idle.map(|(token, _)| token).collect::<Vec<_>>() {
                    self.close(token);
                }
            }
            Message::CloseAll => {
                for token in self.tokens() {
                    self.close(token);
                }
            }
            Message::Room => self.hand_over_waiting(),
            Message::Prefetched(token, Ok(prefetched)) => self.step(token, |connection, cx| {
                connection.prefetched(prefetched);
                connection.drive(token, cx)
            }),
            Message::Prefetched(token, Err(_)) => self.step(token, |_, cx| {
                cx.stats.failures.add(1);
                Next::Close
            }),
            Message::Answered(token, answered) => self.step(token, |connection, cx| {
                connection.answered(*answered, cx);
                connection.drive(token, cx)
            }),
            Message::Drain(end) => {
                // Who is in the queue of the socket has connected and is served; the next is refused.
                self.accept();
                self.cx.draining = true;
                self.listener = None;
                self.paused = None;
                self.end = Some(end);
                for token in self.tokens() {
                    self.drive(token);
                }
            }
        }
    }

    fn tokens(&self) -> Vec<Token> {
        self.connections.tokens().collect()
    }

    fn check_timers(&mut self) {
        let now = self.cx.now;
        while let Some((at, token)) = self.timers.pop_due(now) {
            let Some(connection) = self.connections.get_mut(token) else { continue };
            if connection.timer != Some(at) {
                continue;
            }
            connection.timer = None;
            match connection.deadline {
                Some(deadline) if deadline <= now => {
                    connection.deadline = None;
                    self.step(token, |connection, cx| connection.expired(token, cx));
                }
                Some(deadline) => {
                    connection.timer = Some(deadline);
                    self.timers.set(deadline, token);
                }
                None => {}
            }
        }
        if self.paused.is_some_and(|until| until <= now) {
            self.paused = None;
            if self.leaving.is_empty() {
                self.accept_again();
            }
        }
    }

    /// Closes connections that wait for a request, the longest waiting first; gives how many.
    fn shed(&mut self) -> usize {
        let idle = self.connections.iter().filter_map(|(token, connection)| Some((connection.idle_since()?, token)));
        let mut idle: Vec<_> = idle.collect();
        idle.sort_unstable();
        idle.truncate(SHED);
        for (_, token) in &idle {
            self.close(*token);
        }
        idle.len()
    }

    fn pause(&mut self) {
        if self.listener.is_some() && self.paused.is_none() {
            self.stop_accepting();
            self.paused = Some(self.cx.now + PAUSE);
        }
    }

    fn stop_accepting(&mut self) {
        if let Some(listener) = &self.listener {
            let _ = self.cx.epoll.delete(listener);
        }
    }

    fn accept_again(&mut self) {
        if let Some(listener) = &self.listener {
            match listen_on(&self.cx.epoll, listener) {
                Ok(()) | Err(Errno::EEXIST) => {}
                Err(_) => self.paused = Some(self.cx.now + PAUSE),
            }
        }
    }
}

/// As Node words it.
fn keep_alive_lines(options: &ServerOptions) -> Vec<u8> {
    let mut lines = Vec::new();
    if options.announce_keep_alive {
        lines.extend_from_slice(b"connection: keep-alive\r\n");
        let seconds = options.limits.idle_timeout.as_secs();
        if seconds > 0 {
            lines.extend_from_slice(format!("keep-alive: timeout={seconds}\r\n").as_bytes());
        }
    }
    lines
}

fn listen_on(epoll: &Epoll, listener: &Listener) -> std::result::Result<(), Errno> {
    // Exclusive, for the socket that workers share: one connection wakes one of them. epoll_ctl(2)
    epoll.add(listener, EpollEvent::new(EpollFlags::EPOLLIN | EpollFlags::EPOLLEXCLUSIVE, LISTENER))
}
