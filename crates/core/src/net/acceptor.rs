//! Accepting connections on the event loop of a worker: in batches, with pauses while the process has no descriptors.
//!
//! On TCP each worker has a listener. A listener that all workers share (a Unix socket, an adopted socket) is watched by the
//! first of them, which distributes the connections in turn: if each worker watched it, every connection would wake all
//! of them.

use std::net::SocketAddr;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::sys::epoll::{Epoll, EpollEvent, EpollFlags};

use super::listener::{self, Listener};
use crate::event_loop::mailbox::Mailbox;
use crate::event_loop::{EventLoop, Handler, LISTENER, contain};
use zerosend_sys::SysResult;

/// Connections per round, so that a burst of them does not delay the others.
const MAX_BATCH: usize = 64;
/// How long nothing is accepted after descriptors have run out.
const PAUSE: Duration = Duration::from_millis(50);

/// The listener of a worker, or its part in a shared one.
pub(crate) struct Acceptor<M> {
    /// `None` after it was closed, and where another worker accepts.
    listener: Option<Listener>,
    /// The other workers, if this one accepts for all.
    peers: Vec<Arc<Mailbox<M>>>,
    next_peer: usize,
    /// Whether a worker that accepts for all may still send connections to the others.
    is_dealing: Arc<AtomicBool>,
    /// Connections to accept in the next round: one at first, so that a single connection costs a single call, and more while
    /// they arrive faster than that.
    batch: usize,
    is_watched: bool,
    is_blocked: bool,
    paused_until: Option<Instant>,
    /// The length of the backlog. More connections than this must have arrived after draining started.
    backlog: usize,
    /// While draining: connections that are still accepted.
    backlog_left: Option<usize>,
}

/// A new connection.
pub(crate) struct Accepted<R> {
    pub socket: OwnedFd,
    /// The address of the client, on TCP.
    pub client: Option<SocketAddr>,
    /// See [`Accept::reserve`].
    pub reserve: R,
}

impl<M> Acceptor<M> {
    /// The acceptors of workers with these mailboxes. `listeners`: one for each worker, or none at all.
    pub fn for_workers(listeners: Vec<Listener>, mailboxes: &[Arc<Mailbox<M>>], backlog: i32) -> Vec<Self> {
        let is_shared = listeners.len() > 1 && listeners.iter().any(Listener::is_shared);
        let is_dealing = Arc::new(AtomicBool::new(is_shared));
        let mut listeners = listeners.into_iter();
        let acceptor = |index| Self {
            listener: listeners.next().filter(|_| index == 0 || !is_shared),
            peers: if is_shared && index == 0 { mailboxes[1..].to_vec() } else { Vec::new() },
            next_peer: 0,
            is_dealing: is_dealing.clone(),
            batch: 1,
            is_watched: false,
            is_blocked: false,
            paused_until: None,
            backlog: usize::try_from(backlog).unwrap_or(0).max(1),
            backlog_left: None,
        };
        (0..mailboxes.len()).map(acceptor).collect()
    }

    /// Registers the listener with `epoll`, unless the acceptor is paused or blocked; removes it otherwise.
    pub fn update_interest(&mut self, epoll: &Epoll) -> SysResult<()> {
        let Some(listener) = &self.listener else { return Ok(()) };
        let is_wanted = !self.is_blocked && self.paused_until.is_none();
        if is_wanted && !self.is_watched {
            // Exclusive, because other processes may watch the socket too: a connection wakes one of them, see epoll_ctl(2).
            epoll.add(listener, EpollEvent::new(EpollFlags::EPOLLIN | EpollFlags::EPOLLEXCLUSIVE, LISTENER))?;
        } else if !is_wanted && self.is_watched {
            let _ = epoll.delete(listener);
        }
        self.is_watched = is_wanted;
        Ok(())
    }

    /// Whether connections in the backlog are to be accepted before the worker ends.
    pub fn has_backlog(&self) -> bool {
        self.backlog_left.is_some() && self.is_open()
    }

    /// The time at which the worker needs a round for this.
    pub fn next_round_at(&self, now: Instant) -> Option<Instant> {
        if self.has_backlog() { Some(now) } else { self.paused_until }
    }

    /// Ends a pause in this round.
    pub fn end_pause(&mut self, now: Instant) {
        self.paused_until = self.paused_until.map(|until| until.min(now));
    }

    /// Whether this worker gets no further connections. `mailbox` is that of the worker.
    pub fn is_finished(&self, mailbox: &Mailbox<M>) -> bool {
        // In this order: once nothing is dealt out, all connections are in the mailbox or were taken from it.
        self.listener.is_none() && !self.is_dealing.load(Ordering::Acquire) && mailbox.lock_if_empty().is_some()
    }

    fn is_open(&self) -> bool {
        self.listener.is_some() && !self.is_blocked && self.paused_until.is_none()
    }
}

/// A worker that accepts connections.
pub(crate) trait Accept: Handler {
    /// Descriptors or other resources that a connection needs, reserved before it is accepted.
    type Reserve;

    fn accept_parts(&mut self) -> (&mut Acceptor<Self::Message>, &EventLoop<Self::Message>);

    /// Reserves what the next connection needs. `None`: not available, so the acceptor pauses.
    fn reserve(&mut self) -> Option<Self::Reserve>;

    /// Takes back a reserve that was not used.
    fn unreserve(&mut self, reserve: Self::Reserve);

    /// Serves a connection on this worker. A panic closes that connection only.
    fn on_accept(&mut self, connection: Accepted<Self::Reserve>);

    /// The message that makes another worker call [`Accept::on_accept`].
    fn message(connection: Accepted<Self::Reserve>) -> Self::Message;

    /// Whether `descriptor`, which was the lowest free one, is among the last of the process.
    fn is_scarce(&mut self, _descriptor: RawFd) -> bool {
        false
    }

    /// Closes what can be closed because descriptors are scarce or have run out. Returns false if there was nothing.
    fn free_descriptors(&mut self) -> bool;

    /// A pause has begun.
    fn on_pause(&mut self) {}

    /// A pause has ended.
    fn on_resume(&mut self) {}

    /// The listener was closed.
    fn on_listener_closed(&mut self) {}

    fn acceptor(&mut self) -> &mut Acceptor<Self::Message> {
        self.accept_parts().0
    }

    /// Accepts a batch of connections.
    fn accept_batch(&mut self) {
        accept_batch(self, listener::accept);
    }

    /// Accepts nothing for a while.
    fn pause_accepting(&mut self) {
        let (acceptor, event_loop) = self.accept_parts();
        if acceptor.listener.is_some() && acceptor.paused_until.is_none() {
            acceptor.paused_until = Some(event_loop.now() + PAUSE);
            update_interest(self);
            self.on_pause();
        }
    }

    /// Accepts again after a pause.
    fn resume_accepting(&mut self) {
        let (acceptor, event_loop) = self.accept_parts();
        if acceptor.paused_until.is_some_and(|until| until <= event_loop.now()) {
            acceptor.paused_until = None;
            update_interest(self);
            self.on_resume();
        }
    }

    /// Accepts nothing until called with `false`.
    fn block_accepting(&mut self, is_blocked: bool) {
        self.acceptor().is_blocked = is_blocked;
        update_interest(self);
    }

    /// Starts draining: the connections in the backlog are accepted, in several rounds, and served by this worker.
    fn drain_listener(&mut self) {
        let acceptor = self.acceptor();
        // A backlog of n holds n + 1 connections, see listen(2) and sk_acceptq_is_full() in the kernel.
        acceptor.backlog_left = Some(acceptor.backlog + 1);
        acceptor.batch = MAX_BATCH;
        if !acceptor.peers.is_empty() {
            acceptor.is_dealing.store(false, Ordering::Release);
            for peer in &acceptor.peers {
                peer.waker().wake();
            }
        }
    }

    /// Closes the listener.
    fn close_listener(&mut self) {
        let (acceptor, event_loop) = self.accept_parts();
        acceptor.paused_until = None;
        if let Some(listener) = acceptor.listener.take()
            && acceptor.is_watched
        {
            // close(2) would not remove it: the entry lives as long as any duplicate of the descriptor, see epoll(7).
            let _ = event_loop.epoll().delete(&listener);
        }
        self.on_listener_closed();
    }
}

fn accept_batch<H, A>(handler: &mut H, mut accept: A)
where
    H: Accept,
    A: FnMut(&Listener) -> SysResult<(OwnedFd, Option<SocketAddr>)>,
{
    let mut left = handler.acceptor().batch;
    while left > 0 && handler.acceptor().is_open() {
        let Some(reserve) = handler.reserve() else { return handler.pause_accepting() };
        let Some(listener) = &handler.acceptor().listener else { return handler.unreserve(reserve) };
        match accept(listener) {
            Ok((socket, client)) => {
                left -= 1;
                let is_scarce = handler.is_scarce(socket.as_raw_fd());
                let is_last = handler.acceptor().backlog_left.as_mut().is_some_and(|left| {
                    *left = left.saturating_sub(1);
                    *left == 0
                });
                contain(handler, None, |handler| deal(handler, Accepted { socket, client, reserve }));
                if is_last {
                    return handler.close_listener();
                }
                if is_scarce && !handler.free_descriptors() {
                    return handler.pause_accepting();
                }
            }
            Err(errno) => {
                handler.unreserve(reserve);
                match errno {
                    Errno::EAGAIN if handler.acceptor().backlog_left.is_some() => return handler.close_listener(),
                    Errno::EAGAIN => {
                        handler.acceptor().batch = 1;
                        return;
                    }
                    Errno::EINTR => return,
                    Errno::EMFILE | Errno::ENFILE | Errno::ENOBUFS | Errno::ENOMEM => {
                        left -= 1;
                        if !handler.free_descriptors() {
                            return handler.pause_accepting();
                        }
                    }
                    // EBADF, EINVAL: not a listening socket any more. The loop would spin, because epoll is level-triggered here.
                    _ => return handler.pause_accepting(),
                }
            }
        }
    }
    if left == 0 {
        let acceptor = handler.acceptor();
        acceptor.batch = (acceptor.batch * 2).min(MAX_BATCH);
    }
}

/// Serves a connection here, or sends it to the worker whose turn it is.
fn deal<H: Accept>(handler: &mut H, connection: Accepted<H::Reserve>) {
    let acceptor = handler.acceptor();
    if !acceptor.peers.is_empty() && acceptor.backlog_left.is_none() {
        acceptor.next_peer = (acceptor.next_peer + 1) % (acceptor.peers.len() + 1);
        if let Some(peer) = acceptor.peers.get(acceptor.next_peer) {
            return peer.send(H::message(connection));
        }
    }
    handler.on_accept(connection);
}

/// Registers or removes the listener. If epoll has no memory for it, that is tried again after a pause.
fn update_interest<H: Accept>(handler: &mut H) {
    let (acceptor, event_loop) = handler.accept_parts();
    if acceptor.update_interest(event_loop.epoll()).is_err() {
        acceptor.paused_until = Some(event_loop.now() + PAUSE);
    }
}

#[cfg(test)]
mod tests;
