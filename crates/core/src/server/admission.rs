//! Which connections a worker accepts: limits, refusals, and closing idle connections when descriptors run out.

use std::os::fd::{AsFd, AsRawFd, RawFd};

use nix::sys::epoll::EpollEvent;
use nix::sys::socket::{MsgFlags, send};

use super::connection::{Connection, EVENTS};
use super::handoff::{Handoff, Reason};
use super::message::Message;
use super::reply::Reply;
use super::stats::Limit;
use super::worker::Worker;
use crate::event_loop::{EventLoop, contain};
use crate::net::acceptor::{Accept, Accepted, Acceptor};

/// Idle connections that are closed at once when descriptors run out, and that are examined for it.
const MAX_CLOSED: usize = 32;
const MAX_EXAMINED: usize = 256;
/// Connections over a limit that are kept until the response has arrived. Further ones are closed at once.
const MAX_REFUSED: usize = 256;

impl Accept for Worker {
    /// Nothing: descriptors for files are left free by [`Accept::is_scarce`].
    type Reserve = ();

    fn accept_parts(&mut self) -> (&mut Acceptor<Message>, &EventLoop<Message>) {
        (&mut self.acceptor, &self.cx.event_loop)
    }

    fn reserve(&mut self) -> Option<()> {
        Some(())
    }

    fn unreserve(&mut self, (): ()) {}

    fn message(connection: Accepted<()>) -> Message {
        Message::Accepted(connection)
    }

    fn on_accept(&mut self, connection: Accepted<()>) {
        crate::failpoint::failpoint!("server::accept");
        let Accepted { socket, client, .. } = connection;
        self.cx.stats.accepted.add(1);
        if let Some(queue) = &self.cx.shared.options.handoff
            && queue.is_full(self.cx.shared.connections())
        {
            self.cx.stats.limit(Limit::Connections);
            // With a full queue it is closed here: the application would close it too.
            if queue.reserve(self.cx.event_loop.mailbox()) {
                self.cx.stats.handed_off.add(1);
                queue.hand_off(Handoff { socket, received: Vec::new(), reason: Reason::TooMany });
            } else {
                self.cx.stats.closed.add(1);
            }
            return;
        }
        let accepted = self.cx.shared.accept(client);
        if let Err(limit) = accepted {
            self.cx.stats.limit(limit);
            if self.refused >= MAX_REFUSED {
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
        let now = self.cx.event_loop.now();
        let mut connection = Connection::new(socket, client, now);
        connection.counted = accepted.is_ok();
        let Ok(token) = self.connections.insert(connection) else {
            self.cx.stats.closed.add(1);
            if accepted.is_ok() {
                self.cx.shared.release(client);
            }
            return;
        };
        if accepted.is_err() {
            self.refused += 1;
        }
        if let Some(connection) = self.connections.get_mut(token) {
            if self.cx.event_loop.epoll().add(connection.socket(), EpollEvent::new(EVENTS, token)).is_err() {
                return self.close(token);
            }
            let options = &self.cx.shared.options;
            // As in Node, the time for a head counts from the start of the connection where an application is behind the server.
            let limit =
                if options.handoff.is_some() { options.limits.head_timeout } else { options.limits.idle_timeout };
            connection.deadline = (!limit.is_zero()).then(|| now + limit);
        }
        contain(self, Some(token), |worker| {
            if accepted.is_ok() {
                worker.drive(token);
            } else {
                worker.step(token, |connection, cx| connection.reject(token, 503, cx));
            }
        });
    }

    fn is_scarce(&mut self, descriptor: RawFd) -> bool {
        self.reserved_descriptors.contains(descriptor)
    }

    /// Closes idle connections that have received all that was sent to them, the longest idle first.
    fn free_descriptors(&mut self) -> bool {
        self.cx.stats.limit(Limit::Descriptors);
        let idle = self.connections.iter().filter_map(|(token, connection)| Some((connection.idle_since()?, token)));
        let mut idle: Vec<_> = idle.collect();
        idle.sort_unstable();
        let now = self.cx.event_loop.now();
        let mut closed = 0;
        for (_, token) in idle.into_iter().take(MAX_EXAMINED) {
            if self.connections.get_mut(token).is_some_and(|connection| connection.closes_without_loss(now)) {
                self.close(token);
                closed += 1;
            }
            if closed == MAX_CLOSED {
                break;
            }
        }
        closed > 0
    }
}
