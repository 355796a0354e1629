//! The way of a link to its target: which one, its addresses in turn, and what to do when one does not answer.

use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use nix::errno::Errno;

use super::join::{Outcome, Party};
use super::link::{End, State};
use super::options::{Destination, Question, QuestionId};
use super::side::Side;
use super::targets;
use super::worker::{Worker, watch};
use crate::reactor::registry::Token;
use crate::server::Address;

/// Before another try where there is nothing to wait for: at first, doubled each time, and at most.
const PAUSES: [Duration; 2] = [Duration::from_millis(5), Duration::from_millis(100)];
/// Before another try where there was no descriptor.
const DESCRIPTOR_PAUSE: Duration = Duration::from_millis(10);
/// An address of several has this long, as far as the connect timeout allows it, or its share of the timeout if that is more.
const MIN_SHARE: Duration = Duration::from_secs(2);
/// Connections to itself that a link may meet at one address.
const MAX_SELF_CONNECTS: u32 = 3;

/// How far a link has come on its way to a target.
pub(super) struct Connecting {
    /// Targets that were tried.
    tried: Vec<usize>,
    /// How many, or how often the user was asked.
    attempts: u32,
    /// Addresses of the current target; `None` while the user is asked for them.
    addresses: Option<Arc<[Address]>>,
    /// Which of them is next, or being connected to.
    at: usize,
    /// When the time for this target, or for the answer, began.
    since: Instant,
    /// When the time for this address began.
    address_since: Instant,
    /// When to try again.
    retry: Option<Instant>,
    pause: Duration,
    /// In this round one address has failed for want of something that may come back.
    shortage: Option<Errno>,
    /// It is counted in [`Shared::waiting`](super::worker::Shared::waiting).
    pub is_waiting: bool,
    self_connects: u32,
}

impl Connecting {
    pub fn new(now: Instant) -> Self {
        Self {
            tried: Vec::new(),
            attempts: 0,
            addresses: None,
            at: 0,
            since: now,
            address_since: now,
            retry: None,
            pause: PAUSES[0],
            shortage: None,
            is_waiting: false,
            self_connects: 0,
        }
    }

    fn begin(&mut self, addresses: Arc<[Address]>, now: Instant) {
        let Self { tried, attempts, .. } = std::mem::replace(self, Self::new(now));
        (self.tried, self.attempts) = (tried, attempts);
        self.addresses = Some(addresses);
    }

    /// When something is to be done unless the target has answered before.
    pub fn deadline(&self, limit: Duration) -> Option<Instant> {
        if self.shortage.is_some_and(targets::is_out_of_descriptors) {
            return self.retry;
        }
        let all = (!limit.is_zero()).then(|| self.since + limit);
        let left = self.addresses.as_ref().map_or(0, |addresses| addresses.len().saturating_sub(self.at));
        let address = all.filter(|_| left > 1 && self.retry.is_none()).map(|end| {
            let rest = end.saturating_duration_since(self.address_since);
            let share = (rest / left as u32).max(MIN_SHARE.min(rest / 2));
            self.address_since + share
        });
        [all, address, self.retry].into_iter().flatten().min()
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
            (Destination::Asked(asked), _) => {
                connecting.addresses = None;
                (connecting.since, connecting.retry, connecting.shortage) = (now, None, None);
                asked(Question { id: QuestionId { worker: self.number, link: token, attempt }, peer, own });
                shared.stats.retries.add(u64::from(attempt > 0));
                return self.arm(token);
            }
            (_, Some(targets)) => targets.pick(&connecting.tried).map(|index| (targets, index)),
            _ => None,
        };
        let Some((targets, index)) = picked else { return self.unreachable(token) };
        shared.stats.retries.add(u64::from(attempt > 0));
        connecting.tried.push(index);
        connecting.begin(targets.addresses(index), now);
        link.target_index = Some(index);
        self.dial(token);
    }

    /// The user has said where a connection goes to; no address: nowhere.
    pub(super) fn answered(&mut self, id: QuestionId, addresses: Vec<Address>) {
        let Some(link) = self.links.get_mut(id.link) else { return };
        let State::Connecting(connecting) = &mut link.state else { return };
        if connecting.attempts != id.attempt.saturating_add(1) || connecting.addresses.is_some() {
            return;
        }
        if addresses.is_empty() {
            return self.unreachable(id.link);
        }
        connecting.begin(addresses.into(), Instant::now());
        self.dial(id.link);
    }

    /// Connects to the next address that does not refuse at once.
    fn dial(&mut self, token: Token) {
        let keep_alive = self.shared.options.keep_alive;
        loop {
            let Some(link) = self.links.get_mut(token) else { return };
            link.target = None;
            let State::Connecting(connecting) = &mut link.state else { return };
            connecting.retry = None;
            if std::mem::take(&mut connecting.is_waiting) {
                self.shared.waiting.fetch_sub(1, Ordering::Relaxed);
            }
            let address = connecting.addresses.as_ref().and_then(|addresses| addresses.get(connecting.at)).cloned();
            let now = Instant::now();
            let Some(address) = address else {
                if connecting.shortage.is_none() {
                    return self.target_failed(token, true);
                }
                connecting.at = 0;
                if connecting.shortage.is_some_and(targets::is_out_of_descriptors) {
                    // Before others are accepted, this one gets what is given up.
                    connecting.is_waiting = true;
                    self.shared.waiting.fetch_add(1, Ordering::Relaxed);
                    connecting.retry = Some(now + DESCRIPTOR_PAUSE);
                    return self.arm(token);
                }
                connecting.retry = Some(now + connecting.pause);
                connecting.pause = (connecting.pause * 2).min(PAUSES[1]);
                return self.arm(token);
            };
            if connecting.at == 0 {
                // How long descriptors are missing is not the target's time.
                if connecting.shortage.take().is_some_and(targets::is_out_of_descriptors) {
                    connecting.since = now;
                }
            }
            connecting.address_since = now;
            if let Some(reserve) = &mut link.reserve {
                reserve.release_one();
            }
            match targets::connect_to(&address, keep_alive) {
                Ok(socket) => return self.await_answer(token, socket),
                Err(errno) => {
                    connecting.at += 1;
                    if targets::is_shortage(errno) {
                        connecting.shortage = Some(errno);
                    }
                    if targets::is_out_of_descriptors(errno) {
                        self.pipes.close_idle();
                        self.tap_pipes.close_idle();
                    }
                }
            }
        }
    }

    fn await_answer(&mut self, token: Token, socket: OwnedFd) {
        let Some(link) = self.links.get_mut(token) else { return };
        link.reserve = None;
        let side = link.target.insert(Side::socket(socket));
        if let Err(errno) = watch(&self.epoll, side, token, End::Target) {
            return self.close(token, Outcome::Failed(Party::Target, errno), true);
        }
        self.arm(token);
    }

    /// The target has accepted the connection.
    pub(super) fn connected(&mut self, token: Token) {
        let Some(link) = self.links.get_mut(token) else { return };
        let State::Connecting(connecting) = &mut link.state else { return };
        let address = connecting.addresses.as_ref().and_then(|addresses| addresses.get(connecting.at)).cloned();
        let Some(target) = &link.target else { return };
        if let Some(Address::Tcp(address)) = &address
            && target.own_address() == Some(*address)
        {
            // Nothing listens there, and the port that the kernel chose for this end was the very one: TCP's simultaneous open
            // with itself. A reset frees the port at once.
            target.reset();
            connecting.self_connects += 1;
            if connecting.self_connects < MAX_SELF_CONNECTS {
                return self.dial(token);
            }
            return self.address_failed(token);
        }
        link.state = State::Joined;
        target.set_no_delay();
        if let (Some(targets), Some(index), Some(address)) = (&self.shared.targets, link.target_index, &address) {
            targets.mark_up(index, address);
        }
        if let Some(protocol) = self.shared.options.proxy_protocol {
            link.introduce(protocol);
        }
        link.progressed = Instant::now();
        link.deadline = None;
        self.arm(token);
        self.drive(token);
    }

    /// An address did not answer as it should.
    pub(super) fn address_failed(&mut self, token: Token) {
        let Some(link) = self.links.get_mut(token) else { return };
        let State::Connecting(connecting) = &mut link.state else { return };
        connecting.at += 1;
        connecting.self_connects = 0;
        self.dial(token);
    }

    /// A moment has come that [`Connecting::deadline`] named.
    pub(super) fn connecting_expired(&mut self, token: Token, now: Instant) {
        let limit = self.shared.options.connect_timeout;
        let Some(link) = self.links.get_mut(token) else { return };
        let State::Connecting(connecting) = &mut link.state else { return };
        let waits = connecting.shortage.is_some_and(targets::is_out_of_descriptors);
        if !waits && !limit.is_zero() && connecting.since + limit <= now {
            let is_down = connecting.shortage.is_none();
            self.shared.stats.connect_timeouts.add(1);
            self.target_failed(token, is_down);
        } else if connecting.retry.is_some() {
            self.dial(token);
        } else {
            self.address_failed(token);
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
        self.close(token, Outcome::Failed(Party::Target, Errno::ECONNREFUSED), true);
    }
}
