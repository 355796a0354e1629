//! The way of a link to its target: which one, and what to do when it does not answer; and that of its mirrors to their servers.

use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::sys::epoll::EpollFlags;

use super::dial::{ConnectContext, ConnectStatus, Dial, Expired, Step};
use super::endpoint::Endpoint;
use super::link::State;
use super::options::{Destination, TargetRequest, TargetRequestId};
use super::session::Outcome;
use super::side::Side;
use super::worker::{Worker, watch};
use crate::event_loop::slab::Token;
use crate::net::Address;

/// How far a link has come on its way to a target.
pub(super) struct Connecting {
    /// Targets that were tried.
    tried: Vec<usize>,
    /// How many, or how often the user was asked.
    attempts: u32,
    /// To the current target; `None` while the user is asked for it.
    dial: Option<Dial>,
    /// When the time for the answer of the user began.
    since: Instant,
}

impl Connecting {
    pub fn new(now: Instant) -> Self {
        Self { tried: Vec::new(), attempts: 0, dial: None, since: now }
    }

    /// When something is to be done unless the target has answered before.
    pub fn deadline(&self, limit: Duration) -> Option<Instant> {
        match &self.dial {
            Some(dial) => dial.deadline(limit),
            None => (!limit.is_zero()).then(|| self.since + limit),
        }
    }
}

impl Worker {
    /// Connects to the next target that has not been tried, or asks which it is; without one the link is over.
    pub(super) fn connect(&mut self, token: Token) {
        let shared = self.shared.clone();
        let Some(link) = self.links.get_mut(token) else { return };
        let (peer, own) = (link.peer, link.own_address());
        let State::Connecting(connecting) = &mut link.state else { return };
        let attempt = connecting.attempts;
        if attempt > shared.options.retries {
            return self.unreachable(token);
        }
        connecting.attempts += 1;
        let now = Instant::now();
        let picked = match (&shared.options.destination, &shared.targets) {
            (Destination::Resolver(asked), _) => {
                (connecting.since, connecting.dial) = (now, None);
                asked(TargetRequest { id: TargetRequestId { worker: self.number, link: token, attempt }, peer, own });
                shared.stats.retries.add(u64::from(attempt > 0));
                return self.arm(token);
            }
            (_, Some(targets)) => targets.pick(&connecting.tried).map(|index| (targets, index)),
            _ => None,
        };
        let Some((targets, index)) = picked else { return self.unreachable(token) };
        shared.stats.retries.add(u64::from(attempt > 0));
        connecting.tried.push(index);
        connecting.dial = Some(Dial::new(targets.addresses(index), now));
        link.target_index = Some(index);
        self.dial(token);
    }

    /// The user has said where a connection goes to; no address: nowhere.
    pub(super) fn target_resolved(&mut self, id: TargetRequestId, addresses: Vec<Address>) {
        let Some(link) = self.links.get_mut(id.link) else { return };
        let State::Connecting(connecting) = &mut link.state else { return };
        if connecting.attempts != id.attempt.saturating_add(1) || connecting.dial.is_some() {
            return;
        }
        if addresses.is_empty() {
            return self.unreachable(id.link);
        }
        connecting.dial = Some(Dial::new(addresses.into(), Instant::now()));
        self.dial(id.link);
    }

    /// Connects to the next address of the target.
    fn dial(&mut self, token: Token) {
        let Some(link) = self.links.get_mut(token) else { return };
        link.target = None;
        let State::Connecting(Connecting { dial: Some(dial), .. }) = &mut link.state else { return };
        let step = dial.next(&mut ConnectContext {
            keep_alive: self.shared.options.keep_alive,
            reserve: &mut link.reserve,
            pools: [&mut self.pipes, &mut self.mirror_pipes],
            waiting: &self.shared.waiting,
        });
        match step {
            Step::Connecting(socket) => self.wait_for_connect(token, socket),
            Step::Wait => self.arm(token),
            Step::Failed(_) => self.target_failed(token, true),
        }
    }

    fn wait_for_connect(&mut self, token: Token, socket: OwnedFd) {
        let Some(link) = self.links.get_mut(token) else { return };
        link.reserve = None;
        let side = link.target.insert(Side::socket(socket));
        if let Err(errno) = watch(&self.epoll, side, token, Endpoint::Target) {
            return self.close(token, Outcome::Failed(Endpoint::Target, errno), true);
        }
        self.arm(token);
    }

    /// An event of the socket that is connecting to the target.
    pub(super) fn target_event(&mut self, token: Token, events: EpollFlags) {
        let Some(link) = self.links.get_mut(token) else { return };
        let State::Connecting(Connecting { dial: Some(dial), .. }) = &mut link.state else { return };
        let Some(target) = &link.target else { return };
        match dial.check(target, events) {
            ConnectStatus::Connected => {
                let address = dial.address().cloned();
                self.connected(token, address);
            }
            ConnectStatus::Failed => self.dial(token),
            ConnectStatus::Pending => {}
        }
    }

    /// The target has accepted the connection.
    fn connected(&mut self, token: Token, address: Option<Address>) {
        let Some(link) = self.links.get_mut(token) else { return };
        let Some(target) = &link.target else { return };
        link.state = State::Relaying;
        target.set_no_delay();
        if let (Some(targets), Some(index), Some(address)) = (&self.shared.targets, link.target_index, &address) {
            targets.mark_up(index, address);
        }
        if let Some(protocol) = self.shared.options.proxy_protocol {
            link.write_proxy_header(protocol);
        }
        link.progressed = Instant::now();
        link.deadline = None;
        self.arm(token);
        self.drive(token);
    }

    /// A moment has come that [`Connecting::deadline`] named.
    pub(super) fn connecting_expired(&mut self, token: Token, now: Instant) {
        let limit = self.shared.options.connect_timeout;
        let Some(link) = self.links.get_mut(token) else { return };
        let State::Connecting(connecting) = &mut link.state else { return };
        match connecting.dial.as_mut().map(|dial| (dial.expire(limit, now), dial.is_short())) {
            Some((Expired::Nothing, _)) => {}
            Some((Expired::Step, _)) => self.dial(token),
            Some((Expired::All, is_short)) => {
                self.shared.stats.connect_timeouts.add(1);
                self.target_failed(token, !is_short);
            }
            None => {
                self.shared.stats.connect_timeouts.add(1);
                self.target_failed(token, true);
            }
        }
    }

    /// No address of the target has answered. `is_down`: that is the target's fault, and it is left alone for a while.
    fn target_failed(&mut self, token: Token, is_down: bool) {
        let Some(link) = self.links.get_mut(token) else { return };
        link.target = None;
        if let (Some(targets), Some(index)) = (&self.shared.targets, link.target_index.take()) {
            targets.release(index);
            if is_down {
                targets.mark_down(index);
            }
        }
        self.connect(token);
    }

    fn unreachable(&mut self, token: Token) {
        self.shared.stats.unreachable.add(1);
        self.close(token, Outcome::Failed(Endpoint::Target, Errno::ECONNREFUSED), true);
    }

    /// Connects a mirror to the next address of its server.
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
            && let Err(errno) = watch(&self.epoll, side, token, Endpoint::Mirror(index))
        {
            mirror.fail(errno);
        }
    }

    /// Looks at mirrors whose time is over, to connect or until they try to get a pipe again. True: there was one.
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
}
