//! A worker of a relay: one thread with its event loop and its links.
//!
//! Its methods are in files by subject: `admission`, `connecting`, `mirroring`, `deadlines` and `closing`.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Instant;

use nix::errno::Errno;
use nix::sys::epoll::{Epoll, EpollEvent, EpollFlags};

use super::append::AppendReporter;
use super::descriptors::DescriptorReserve;
use super::endpoint::{ENDPOINT_BITS, Endpoint};
use super::flow::{Flow, StopReason};
use super::link::Link;
use super::link_state::LinkState;
use super::message::Message;
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
use crate::event_loop::slab::Token;
use crate::event_loop::{self, EventLoop, Handler, Scheduler, contain};
use crate::io::pipe_pool::PipePool;
use crate::net::acceptor::{Accept, Acceptor};
use zerosend_sys::SysResult;

/// Maximum bytes of one read into user space.
const SCRATCH_SIZE: usize = 256 * 1024;
/// Maximum bytes that one direction moves in a turn.
const TURN_BUDGET: u64 = 4 * 1024 * 1024;
/// Minimum bytes of the pipe of a mirror: a larger pipe than that of a flow absorbs short delays of the mirror.
const MIRROR_PIPE_SIZE: usize = 256 * 1024;
const EVENTS: EpollFlags = EpollFlags::EPOLLIN
    .union(EpollFlags::EPOLLPRI)
    .union(EpollFlags::EPOLLOUT)
    .union(EpollFlags::EPOLLRDHUP)
    .union(EpollFlags::EPOLLET);

pub(super) struct Worker {
    pub number: usize,
    pub shared: Arc<Shared>,
    pub counters: Arc<RelayCounters>,
    pub event_loop: EventLoop<Message>,
    pub acceptor: Acceptor<Message>,
    pub links: Scheduler<Link>,
    /// Tokens of links, by session id.
    pub sessions: HashMap<u64, Token>,
    /// Descriptors for the next connection.
    pub reserve: Option<DescriptorReserve>,
    /// Its pause has ended: it accepts one connection although other workers wait for descriptors.
    pub is_next: bool,
    pub pipes: PipePool,
    pub mirror_pipes: PipePool,
    pub append_reporter: AppendReporter,
    /// Bytes of appends whose result has arrived.
    pub settled_bytes: u64,
    scratch: Vec<u8>,
}

impl Worker {
    pub fn new(
        number: usize,
        shared: Arc<Shared>,
        mut acceptor: Acceptor<Message>,
        mailbox: Arc<Mailbox<Message>>,
    ) -> Result<Self> {
        let event_loop = EventLoop::new(mailbox.clone())?;
        acceptor.update_interest(event_loop.epoll()).map_err(|errno| Error::system("epoll_ctl", errno))?;
        let max_pipes = shared.options.pipes.div_ceil(shared.options.workers);
        let pipe_size = shared.options.pipe_size;
        Ok(Self {
            number,
            counters: shared.counters[number].clone(),
            shared,
            event_loop,
            acceptor,
            links: Scheduler::default(),
            sessions: HashMap::new(),
            reserve: None,
            is_next: false,
            pipes: PipePool::new(pipe_size, max_pipes),
            mirror_pipes: PipePool::new(pipe_size.max(MIRROR_PIPE_SIZE), max_pipes),
            append_reporter: AppendReporter { mailbox, queued_bytes: Arc::default() },
            settled_bytes: 0,
            scratch: vec![0; SCRATCH_SIZE],
        })
    }

    /// Relays until the relay has been drained.
    pub fn run(mut self) {
        event_loop::run(&mut self);
        for token in self.links.tokens() {
            contain(&mut self, None, |worker| {
                worker.counters.forced_closes.add(1);
                worker.close(token, Outcome::Aborted, true);
            });
        }
        self.flush_mirrors();
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
        contain(self, Some(token), |worker| {
            worker.update_deadline(token);
            worker.drive(token);
        });
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
        let epoll = self.event_loop.epoll();
        let failed = link
            .sides()
            .find_map(|(side, endpoint)| watch(epoll, side, token, endpoint).err().map(|errno| (endpoint, errno)));
        if let Some((endpoint, errno)) = failed {
            self.close(token, Outcome::Failed(endpoint, errno), true);
            return None;
        }
        Some(token)
    }

    /// Moves bytes in both directions.
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
            self.event_loop.epoll().modify(side, &mut EpollEvent::new(EVENTS, data(token, endpoint)))
        });
        let needs_deadline = link.is_lingering() || link.mirrors().any(Mirror::waits_for_pipe);
        match (outcome, rearmed) {
            (Ok(_), Err(errno)) => self.close(token, Outcome::Failed(Endpoint::Client, errno), true),
            (Ok(has_more), Ok(())) => {
                if has_more {
                    self.links.enqueue(token);
                }
                if needs_deadline {
                    self.update_deadline(token);
                }
            }
            (Err(outcome), _) => self.finish(token, outcome),
        }
    }

    /// Counts the bytes of an append whose result has arrived.
    pub fn settle_append(&mut self, message: &Message) {
        if let Message::Appended { result, .. } = message {
            self.settled_bytes += (result.written + result.lost) as u64;
        }
    }
}

impl Handler for Worker {
    type Message = Message;
    type Entry = Link;

    fn event_loop(&mut self) -> &mut EventLoop<Message> {
        &mut self.event_loop
    }

    fn scheduler(&mut self) -> &mut Scheduler<Link> {
        &mut self.links
    }

    fn token_of_event(data: u64) -> Token {
        data >> ENDPOINT_BITS
    }

    fn token_of_message(&self, message: &Message) -> Option<Token> {
        match message {
            Message::Drain(_) | Message::Resume | Message::Accepted(_) | Message::StartSession(..) => None,
            Message::CancelSession(id) => self.sessions.get(id).copied(),
            Message::TargetResolved(id, _) => Some(id.link),
            Message::Appended { token, .. } => Some(*token),
        }
    }

    fn on_event(&mut self, data: u64, events: EpollFlags) {
        let (token, endpoint) = (Self::token_of_event(data), Endpoint::from_number(data));
        let Some(link) = self.links.get_mut(token) else { return };
        if link.on_event(endpoint, events)
            && let Endpoint::Mirror(index) = endpoint
        {
            self.dial_mirror(token, index);
            self.update_deadline(token);
        }
        let is_queued = self.links.is_queued(token);
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
            LinkState::Relaying if is_queued => {}
            LinkState::Relaying => self.drive(token),
            LinkState::Closing(_) => self.check_closing(token),
        }
    }

    fn on_listener(&mut self) {
        self.accept_batch();
    }

    fn on_message(&mut self, message: Message) {
        self.settle_append(&message);
        // Before the failpoint: a drain must not be lost to an injected panic.
        if let Message::Drain(deadline) = message {
            if self.event_loop.drain(deadline) {
                self.drain_listener();
            }
            return;
        }
        crate::failpoint::failpoint!("relay::message");
        match message {
            Message::Drain(_) => {}
            Message::Resume => self.acceptor.end_pause(self.event_loop.now()),
            Message::Accepted(connection) => self.on_accept(connection),
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

    fn before_turns(&mut self) {
        if self.acceptor.has_backlog() {
            self.accept_batch();
        }
    }

    fn on_turn(&mut self, token: Token) {
        self.drive(token);
    }

    fn on_deadline(&mut self, token: Token) {
        self.check_deadline(token);
    }

    fn on_round_end(&mut self) {
        self.resume_accepting();
    }

    fn on_panic(&mut self, token: Option<Token>) {
        self.counters.panics.add(1);
        if let Some(token) = token {
            self.close(token, Outcome::Failed(Endpoint::Client, Errno::EIO), true);
        }
    }

    fn next_round_at(&self, now: Instant) -> Option<Instant> {
        self.acceptor.next_round_at(now)
    }

    fn is_done(&mut self) -> bool {
        let event_loop = &self.event_loop;
        event_loop.is_drained(|| self.links.is_empty() && self.acceptor.is_finished(event_loop.mailbox()))
    }
}

/// Registers a side with epoll, if epoll supports it.
pub(super) fn watch(epoll: &Epoll, side: &Side, token: Token, endpoint: Endpoint) -> SysResult<()> {
    if !side.is_pollable() {
        return Ok(());
    }
    match epoll.add(side, EpollEvent::new(EVENTS, data(token, endpoint))) {
        // Devices such as /dev/null are always ready.
        Err(Errno::EPERM) => Ok(()),
        result => result,
    }
}

/// The epoll data of an endpoint of a link.
fn data(token: Token, endpoint: Endpoint) -> u64 {
    token << ENDPOINT_BITS | endpoint.number()
}

#[cfg(test)]
mod tests {
    use super::super::options::{Policy, RelayOptions};
    use super::*;
    use std::time::Duration;

    #[test]
    fn a_closed_link_leaves_no_timer() {
        let mut options = RelayOptions::for_sessions();
        options.idle_timeout = Duration::from_secs(60);
        let mailboxes = [Arc::new(Mailbox::new().expect("a mailbox"))];
        let acceptor = Acceptor::for_workers(Vec::new(), &mailboxes, 1).remove(0);
        let [mailbox] = mailboxes;
        let mut worker = Worker::new(0, Arc::new(Shared::new(options)), acceptor, mailbox).expect("a worker");
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
                    policy: Policy::Block,
                    on_finished: Box::new(|_| {}),
                },
            );
        }
        assert!(worker.links.is_empty());
        assert_eq!(worker.links.timers(), 0);
    }
}
