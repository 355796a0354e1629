//! Where connections come from: accepting, limits, the end of accepting.
//!
//! On TCP each worker accepts from a socket of its own. A socket that all workers share is watched by the first of them, which
//! deals the connections out in turn: each of several epoll instances that watch one socket would be woken for every
//! connection while its thread is busy.

use std::net::SocketAddr;
use std::os::fd::{AsFd, AsRawFd, OwnedFd, RawFd};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::sys::epoll::{Epoll, EpollEvent, EpollFlags};
use nix::sys::resource::{Resource, getrlimit};
use nix::sys::socket::{MsgFlags, send};

use super::connection::{Connection, EVENTS};
use super::handoff::{Handoff, Reason};
use super::listener::{self, Listener};
use super::message::Message;
use super::reply::Reply;
use super::stats::Limit;
use super::worker::{LISTENER, Worker};

/// Connections accepted before others have their turn.
const MAX_ACCEPTS: usize = 64;
/// Connections closed at once for want of descriptors, and those that are looked at for it.
const SHED: usize = 32;
const MAX_SHED_CANDIDATES: usize = 256;
/// How long nothing is accepted when there is nothing to shed.
const PAUSE: Duration = Duration::from_millis(50);
/// Descriptors that connections leave to files; a quarter of all where that is less.
const RESERVED_DESCRIPTORS: u64 = 16;
/// Connections beyond the limits that are being turned away with an answer; those beyond this are closed without waiting for it
/// to arrive.
const MAX_TURNED_AWAY: usize = 256;

/// The first of the last descriptors that the process may have.
pub fn scarce_from() -> RawFd {
    let limit = getrlimit(Resource::RLIMIT_NOFILE).map_or(RESERVED_DESCRIPTORS * 4, |(soft, _)| soft);
    RawFd::try_from(limit - RESERVED_DESCRIPTORS.min(limit / 4)).unwrap_or(RawFd::MAX)
}

impl Worker {
    /// Accepts from the listener: at first one connection for each event, so that a single one costs a single call, and more while
    /// they come faster than that.
    pub fn accept(&mut self) {
        let mut left = self.batch;
        while left > 0 {
            let Some(listener) = self.listener.as_ref().filter(|_| self.pending_handoffs.is_empty()) else { return };
            match listener::accept(listener) {
                Ok((socket, client)) => {
                    left -= 1;
                    let number = socket.as_raw_fd();
                    self.deal(socket, client);
                    if self.cx.draining {
                        self.backlog_left = self.backlog_left.saturating_sub(1);
                        if self.backlog_left == 0 {
                            return self.stop_listening();
                        }
                    }
                    if self.is_scarce(number) {
                        self.cx.stats.limit(Limit::Descriptors);
                        if self.shed() == 0 {
                            return self.pause();
                        }
                    }
                }
                Err(Errno::EAGAIN) => {
                    self.batch = 1;
                    if self.cx.draining {
                        self.stop_listening();
                    }
                    return;
                }
                Err(Errno::EINTR) => return,
                Err(Errno::EMFILE | Errno::ENFILE | Errno::ENOBUFS | Errno::ENOMEM) => {
                    self.cx.stats.limit(Limit::Descriptors);
                    left -= 1;
                    if self.shed() == 0 {
                        return self.pause();
                    }
                }
                // EBADF, EINVAL: the socket is not what it was. Not to be spun upon.
                Err(_) => return self.pause(),
            }
        }
        self.batch = (self.batch * 2).min(MAX_ACCEPTS);
    }

    /// Whether `number`, which was the lowest free one, is among the last descriptors of the process: those are for the files that
    /// the connections ask for.
    fn is_scarce(&mut self, number: RawFd) -> bool {
        if number < self.scarce_from {
            return false;
        }
        // The limit may have been raised since; see prlimit(2).
        self.scarce_from = scarce_from();
        number >= self.scarce_from
    }

    /// Gives a new connection to the worker whose turn it is.
    fn deal(&mut self, socket: OwnedFd, client: Option<SocketAddr>) {
        if self.peers.is_empty() || self.cx.draining {
            return self.admit(socket, client);
        }
        self.next_peer = (self.next_peer + 1) % (self.peers.len() + 1);
        match self.peers.get(self.next_peer) {
            Some(peer) => peer.send(Message::Accepted(socket, client)),
            None => self.admit(socket, client),
        }
    }

    pub fn admit(&mut self, socket: OwnedFd, client: Option<SocketAddr>) {
        crate::failpoint::failpoint!("server::accept");
        self.cx.stats.accepted.add(1);
        if let Some(queue) = &self.cx.shared.options.handoff
            && queue.is_full(self.cx.shared.connections())
        {
            self.cx.stats.limit(Limit::Connections);
            // With a full queue it is closed here: the application would close it too.
            if queue.reserve(&self.cx.mailbox) {
                self.cx.stats.handed_off.add(1);
                queue.hand_off(Handoff { socket, received: Vec::new(), reason: Reason::TooMany });
            } else {
                self.cx.stats.closed.add(1);
            }
            return;
        }
        let admitted = self.cx.shared.admit(client);
        if let Err(limit) = admitted {
            self.cx.stats.limit(limit);
            if self.turned_away >= MAX_TURNED_AWAY {
                self.cx.stats.closed.add(1);
                self.cx.stats.status(503);
                let _ =
                    send(socket.as_raw_fd(), &Reply::refusal(503, self.cx.date.line()).head, MsgFlags::MSG_NOSIGNAL);
                return;
            }
        }
        if client.is_some() {
            let _ = zerosend_sys::socket::set_no_delay(socket.as_fd(), true);
        }
        let mut connection = Connection::new(socket, client, self.cx.now);
        connection.counted = admitted.is_ok();
        let token = match self.connections.insert(connection) {
            Ok(token) => token,
            Err(_) => {
                self.cx.stats.closed.add(1);
                if admitted.is_ok() {
                    self.cx.shared.release(client);
                }
                return;
            }
        };
        if admitted.is_err() {
            self.turned_away += 1;
        }
        if let Some(connection) = self.connections.get_mut(token) {
            if self.cx.epoll.add(connection.socket(), EpollEvent::new(EVENTS, token)).is_err() {
                return self.close(token);
            }
            let options = &self.cx.shared.options;
            // An application counts the time for a head from here on, not from its first byte.
            let limit =
                if options.handoff.is_some() { options.limits.head_timeout } else { options.limits.idle_timeout };
            connection.deadline = (!limit.is_zero()).then(|| self.cx.now + limit);
        }
        if admitted.is_ok() {
            self.drive(token);
        } else {
            self.step(token, |connection, cx| connection.reject(token, 503, cx));
        }
    }

    /// From now on no more than what is in the backlog is accepted, in turns, and the worker ends at `end` at the latest.
    pub fn drain(&mut self, end: Instant) {
        self.end = Some(self.end.map_or(end, |before| before.min(end)));
        if self.cx.draining {
            return;
        }
        self.cx.draining = true;
        // Others may connect all the time: what is more than the backlog can hold has come afterwards.
        self.backlog_left = usize::try_from(self.cx.shared.options.backlog).unwrap_or(0).max(1) + 1;
        self.batch = MAX_ACCEPTS;
        for token in self.tokens() {
            self.enqueue(token);
        }
    }

    /// Closes the listener.
    pub fn stop_listening(&mut self) {
        self.listener = None;
        self.paused = None;
        if !self.peers.is_empty() {
            self.cx.shared.stop_accepting();
            for peer in &self.peers {
                peer.send(Message::StoppedAccepting);
            }
        }
    }

    /// Closes connections that wait for a request and have received all that was sent to them, the longest waiting first;
    /// returns how many.
    pub fn shed(&mut self) -> usize {
        let idle = self.connections.iter().filter_map(|(token, connection)| Some((connection.idle_since()?, token)));
        let mut idle: Vec<_> = idle.collect();
        idle.sort_unstable();
        let now = self.cx.now;
        let mut count = 0;
        for (_, token) in idle.into_iter().take(MAX_SHED_CANDIDATES) {
            if self.connections.get_mut(token).is_some_and(|connection| connection.can_be_shed(now)) {
                self.close(token);
                count += 1;
            }
            if count == SHED {
                break;
            }
        }
        count
    }

    pub fn pause(&mut self) {
        if self.listener.is_some() && self.paused.is_none() {
            self.stop_watching();
            self.paused = Some(self.cx.now + PAUSE);
        }
    }

    /// Ends the pause when its time is over.
    pub fn end_pause(&mut self) {
        if self.paused.is_some_and(|until| until <= self.cx.now) {
            self.paused = None;
            if self.pending_handoffs.is_empty() {
                self.watch_again();
            }
        }
    }

    pub fn stop_watching(&mut self) {
        if let Some(listener) = &self.listener {
            let _ = self.cx.epoll.delete(listener);
        }
    }

    pub fn watch_again(&mut self) {
        if let Some(listener) = &self.listener {
            match watch(&self.cx.epoll, listener) {
                Ok(()) | Err(Errno::EEXIST) => {}
                Err(_) => self.paused = Some(self.cx.now + PAUSE),
            }
        }
    }

    /// Whether there are connections in the backlog that a draining server still has to accept now.
    pub fn has_backlog(&self) -> bool {
        self.cx.draining && self.listener.is_some() && self.paused.is_none() && self.pending_handoffs.is_empty()
    }
}

/// Has `epoll` watch a listener. Exclusive, for other processes may have it too: one connection wakes one of them; see
/// epoll_ctl(2).
pub(super) fn watch(epoll: &Epoll, listener: &Listener) -> std::result::Result<(), Errno> {
    epoll.add(listener, EpollEvent::new(EpollFlags::EPOLLIN | EpollFlags::EPOLLEXCLUSIVE, LISTENER))
}
