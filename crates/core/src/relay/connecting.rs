//! Connecting links to their targets.

use std::os::fd::OwnedFd;
use std::time::Instant;

use nix::errno::Errno;
use nix::sys::epoll::EpollFlags;

use super::dial::{ConnectContext, ConnectStatus, Dial, Expired, Step};
use super::endpoint::Endpoint;
use super::link_state::{Connecting, LinkState};
use super::options::{Destination, TargetRequest, TargetRequestId};
use super::session::Outcome;
use super::side::Side;
use super::worker::{Worker, watch};
use crate::event_loop::slab::Token;
use crate::net::Address;

impl Worker {
    /// Connects to the next target that has not been tried, or calls the target function. Closes the link if there is none.
    pub(super) fn connect(&mut self, token: Token) {
        let shared = self.shared.clone();
        let Some(link) = self.links.get_mut(token) else { return };
        let LinkState::Connecting(connecting) = &mut link.state else { return };
        let attempt = connecting.attempts;
        if attempt > shared.options.retries {
            return self.unreachable(token);
        }
        connecting.attempts += 1;
        let now = Instant::now();
        let picked = match (&shared.options.destination, &shared.targets) {
            (Destination::Resolver(request_target), _) => {
                (connecting.requested, connecting.dial) = (now, None);
                let id = TargetRequestId { worker: self.number, link: token, attempt };
                request_target(TargetRequest { id, client: link.client_address, local: link.client.local_address() });
                self.counters.retries.add(u64::from(attempt > 0));
                return self.update_deadline(token);
            }
            (_, Some(targets)) => targets.pick(&connecting.tried).map(|index| (targets, index)),
            _ => None,
        };
        let Some((targets, index)) = picked else { return self.unreachable(token) };
        self.counters.retries.add(u64::from(attempt > 0));
        connecting.tried.push(index);
        connecting.dial = Some(Dial::new(targets.addresses(index), now));
        link.target_index = Some(index);
        self.dial(token);
    }

    /// The target function has returned the addresses of the target. Without an address the link is closed.
    pub(super) fn target_resolved(&mut self, id: TargetRequestId, addresses: Vec<Address>) {
        let Some(link) = self.links.get_mut(id.link) else { return };
        let LinkState::Connecting(connecting) = &mut link.state else { return };
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
        let LinkState::Connecting(Connecting { dial: Some(dial), .. }) = &mut link.state else { return };
        let step = dial.next(&mut ConnectContext {
            keep_alive: self.shared.options.keep_alive,
            reserve: &mut link.reserve,
            pools: [&mut self.pipes, &mut self.mirror_pipes],
            waiting: &self.shared.waiting,
        });
        match step {
            Step::Connecting(socket) => self.wait_for_connect(token, socket),
            Step::Wait => self.update_deadline(token),
            Step::Failed(_) => self.target_failed(token, true),
        }
    }

    fn wait_for_connect(&mut self, token: Token, socket: OwnedFd) {
        let Some(link) = self.links.get_mut(token) else { return };
        link.reserve = None;
        let side = link.target.insert(Side::socket(socket));
        if let Err(errno) = watch(self.event_loop.epoll(), side, token, Endpoint::Target) {
            return self.close(token, Outcome::Failed(Endpoint::Target, errno), true);
        }
        self.update_deadline(token);
    }

    /// Handles an event of the socket that is connecting to the target.
    pub(super) fn target_event(&mut self, token: Token, events: EpollFlags) {
        let Some(link) = self.links.get_mut(token) else { return };
        let LinkState::Connecting(Connecting { dial: Some(dial), .. }) = &mut link.state else { return };
        let Some(target) = &link.target else { return };
        match dial.on_event(target, events) {
            ConnectStatus::Connected => {
                let address = dial.address().cloned();
                self.connected(token, address);
            }
            ConnectStatus::Failed => self.dial(token),
            ConnectStatus::Pending => {}
        }
    }

    /// The connection to the target is established.
    fn connected(&mut self, token: Token, address: Option<Address>) {
        let Some(link) = self.links.get_mut(token) else { return };
        let Some(target) = &link.target else { return };
        link.state = LinkState::Relaying;
        target.set_no_delay();
        if let (Some(targets), Some(index), Some(address)) = (&self.shared.targets, link.target_index, &address) {
            targets.mark_up(index, address);
        }
        if let Some(protocol) = self.shared.options.proxy_protocol {
            link.write_proxy_header(protocol);
        }
        link.progressed = Instant::now();
        self.update_deadline(token);
        self.drive(token);
    }

    /// Handles the deadline of [`Connecting`].
    pub(super) fn connecting_expired(&mut self, token: Token, now: Instant) {
        let limit = self.shared.options.connect_timeout;
        let Some(link) = self.links.get_mut(token) else { return };
        let LinkState::Connecting(connecting) = &mut link.state else { return };
        match connecting.dial.as_mut().map(|dial| (dial.expire(limit, now), dial.has_shortage())) {
            Some((Expired::None, _)) => self.update_deadline(token),
            Some((Expired::Step, _)) => self.dial(token),
            Some((Expired::All, has_shortage)) => {
                self.counters.connect_timeouts.add(1);
                self.target_failed(token, !has_shortage);
            }
            None => {
                self.counters.connect_timeouts.add(1);
                self.target_failed(token, true);
            }
        }
    }

    /// No address of the target could be connected to. `is_down`: because of the target rather than a shortage here.
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
        self.counters.unreachable.add(1);
        self.close(token, Outcome::Failed(Endpoint::Target, Errno::ECONNREFUSED), true);
    }
}
