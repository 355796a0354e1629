//! Accepting connections: reserving descriptors, pausing while there are none, draining the backlog.
//!
//! With TCP each worker has a listening socket. A socket that all workers share is watched by the first worker, which
//! distributes the connections in turn.

use std::net::SocketAddr;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::sys::epoll::{EpollEvent, EpollFlags};

use super::descriptors::DescriptorReserve;
use super::link::Link;
use super::message::Message;
use super::mirror::Mirror;
use super::mirror_file::LinkName;
use super::mirror_sink::MirrorSink;
use super::options::{Destination, Direction, MirrorDestination, RelayOptions};
use super::side::Side;
use super::worker::{LISTENER, Worker};
use crate::net::listener;

/// Maximum number of connections accepted in one turn.
const MAX_ACCEPTS: usize = 64;
/// Time without accepting when descriptors are missing, unless a link is closed before.
const PAUSE: Duration = Duration::from_millis(50);

/// Descriptors that a connection needs besides its socket: for the target and for mirrors that are servers.
fn reserve_size(options: &RelayOptions) -> usize {
    let servers = options.mirrors.iter().filter(|mirror| matches!(mirror.to, MirrorDestination::Server(_))).count();
    servers + usize::from(!matches!(options.destination, Destination::Echo))
}

impl Worker {
    /// Accepts connections: one per event initially, so that a single connection costs a single accept4(2), and twice as many
    /// after each event that filled its batch.
    pub(super) fn accept(&mut self) {
        let mut left = self.batch;
        while left > 0 {
            if self.listener.is_none() {
                return;
            }
            // The first worker of the queue has its turn when its pause ends.
            let is_next = std::mem::take(&mut self.is_next);
            let others_wait = || !is_next && self.shared.descriptor_queue.others_wait(self.number);
            if self.shared.waiting.load(Ordering::Relaxed) > 0 || others_wait() {
                self.reserve = None;
                return self.pause();
            }
            let Some(reserve) = self.take_reserve() else { return self.pause() };
            let Some(listener) = &self.listener else { return };
            match listener::accept(listener) {
                Ok((socket, client_address)) => {
                    left -= 1;
                    self.distribute(socket, client_address, reserve);
                    if self.draining {
                        self.backlog_left = self.backlog_left.saturating_sub(1);
                        if self.backlog_left == 0 {
                            return self.stop_listening();
                        }
                    }
                }
                Err(errno @ (Errno::EAGAIN | Errno::EINTR)) => {
                    self.reserve = Some(reserve);
                    self.batch = 1;
                    if self.draining && errno == Errno::EAGAIN {
                        self.stop_listening();
                    }
                    return;
                }
                Err(_) => {
                    self.reserve = Some(reserve);
                    return self.pause();
                }
            }
        }
        self.batch = (self.batch * 2).min(MAX_ACCEPTS);
    }

    /// The descriptors for one more connection; `None` if there are not enough, even without idle pipes.
    fn take_reserve(&mut self) -> Option<DescriptorReserve> {
        let Self { pipes, mirror_pipes, .. } = self;
        self.reserve.take().or_else(|| {
            DescriptorReserve::acquire(reserve_size(&self.shared.options), self.mailbox.waker().as_fd(), || {
                pipes.close_idle();
                mirror_pipes.close_idle();
            })
        })
    }

    /// Passes a new connection to the next worker in turn.
    fn distribute(&mut self, socket: OwnedFd, client_address: Option<SocketAddr>, reserve: DescriptorReserve) {
        if !self.peers.is_empty() && !self.draining {
            self.next_peer = (self.next_peer + 1) % (self.peers.len() + 1);
            if let Some(mailbox) = self.peers.get(self.next_peer) {
                return mailbox.send(Message::Accepted(socket, client_address, reserve));
            }
        }
        self.start_link(socket, client_address, reserve);
    }

    pub(super) fn start_link(
        &mut self,
        socket: OwnedFd,
        client_address: Option<SocketAddr>,
        reserve: DescriptorReserve,
    ) {
        let shared = self.shared.clone();
        crate::failpoint::failpoint!("relay::accept");
        self.counters.accepted.add(1);
        if shared.connections.load(Ordering::Relaxed) >= shared.options.connections {
            self.counters.refused.add(1);
            return;
        }
        let client = Side::socket(socket);
        if client_address.is_some() {
            client.set_no_delay();
        }
        let echo = matches!(shared.options.destination, Destination::Echo);
        let mut link = Link::accepted(client, client_address, echo, Instant::now());
        link.reserve = Some(reserve);
        self.add_mirrors(&mut link);
        let Some(token) = self.insert(link) else { return };
        self.contain(Some(token), |worker| {
            for index in 0..worker.shared.options.mirrors.len() {
                worker.dial_mirror(token, index);
            }
            if echo {
                worker.arm(token);
                worker.drive(token);
            } else {
                worker.connect(token);
            }
        });
    }

    fn add_mirrors(&self, link: &mut Link) {
        let of = |direction| self.shared.options.mirrors.iter().filter(move |mirror| mirror.direction == direction);
        let mut name = None;
        for (index, mirror) in of(Direction::Up).chain(of(Direction::Down)).enumerate() {
            let link_name = || Arc::new(LinkName::new(&self.shared.numbers, link.client_address));
            let sink = MirrorSink::open(&mirror.to, || name.get_or_insert_with(link_name).clone());
            link.flows[mirror.direction as usize].mirrors.push(Mirror::new(sink, mirror.policy, index));
        }
    }

    /// Stops accepting once the backlog is empty. The worker exits at `end` at the latest.
    pub(super) fn drain(&mut self, end: Instant) {
        self.end = Some(self.end.map_or(end, |before| before.min(end)));
        // Sent after all connections that were passed to them.
        for peer in &self.peers {
            peer.send(Message::Drain(end));
        }
        if !self.draining {
            self.draining = true;
            // Clients may connect all the time: connections beyond the length of the backlog came later.
            self.backlog_left = usize::try_from(self.shared.options.backlog).unwrap_or(0).max(1) + 1;
            self.batch = MAX_ACCEPTS;
        }
    }

    /// Whether a draining relay has to accept connections from its backlog now.
    pub(super) fn has_backlog(&self) -> bool {
        self.draining && self.listener.is_some() && self.paused.is_none()
    }

    fn stop_listening(&mut self) {
        self.listener = None;
        self.paused = None;
        self.shared.descriptor_queue.remove(self.number);
        self.reserve = None;
    }

    /// Stops accepting for [`PAUSE`].
    fn pause(&mut self) {
        self.counters.refused.add(1);
        if let Some(listener) = &self.listener {
            let _ = self.epoll.delete(listener);
            self.paused = Some(Instant::now() + PAUSE);
            self.shared.descriptor_queue.add(self.number);
        }
    }

    /// A link was closed: its descriptors are for the worker that has waited longest.
    pub(super) fn pass_on_descriptors(&mut self) {
        match self.shared.descriptor_queue.take_first() {
            Some(number) if number == self.number => self.resume(),
            Some(number) => {
                if let Some(mailbox) = self.shared.mailboxes.get().and_then(|mailboxes| mailboxes.get(number)) {
                    mailbox.send(Message::Resume);
                }
            }
            None => {}
        }
    }

    /// Ends the pause at the end of this turn.
    pub(super) fn resume(&mut self) {
        self.paused = self.paused.map(|until| until.min(Instant::now()));
    }

    pub(super) fn end_pause(&mut self, now: Instant) {
        if self.paused.is_some_and(|until| until <= now) {
            self.paused = None;
            self.is_next = true;
            self.shared.descriptor_queue.remove(self.number);
            self.watch_listener();
        }
    }

    pub(super) fn watch_listener(&mut self) {
        let Some(listener) = &self.listener else { return };
        match self.epoll.add(listener, EpollEvent::new(EpollFlags::EPOLLIN, LISTENER)) {
            Ok(()) | Err(Errno::EEXIST) => {}
            Err(_) => self.paused = Some(Instant::now() + PAUSE),
        }
    }
}
