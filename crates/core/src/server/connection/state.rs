//! The states of a connection, and what each of them holds.

use std::net::SocketAddr;
use std::ops::ControlFlow;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::response::{Body, Response};
use super::send_rate::SendRate;
use crate::io::pool::Task;
use crate::server::handoff::Reason;
use zerosend_http::request::HeadScanner;

/// Bytes that one connection may receive per turn.
pub(super) const MAX_RECEIVED_PER_TURN: u64 = 256 * 1024;

/// What a worker does with a connection after a turn.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::server) enum Next {
    /// Drive it after the next event, result or timeout.
    Wait,
    /// Drive it again after a turn of each other connection that is ready.
    Turn,
    Close,
    HandOff,
}

/// The result of a step within a turn: continue with the next step, or end the turn.
pub(super) type Step = ControlFlow<Next>;

/// `Step::Continue(())`.
pub(super) const CONTINUE: Step = ControlFlow::Continue(());

pub(super) enum State {
    /// Waiting for a request, or reading its head.
    Reading,
    /// A pool thread opens the file for the request with the head `raw`.
    LookingUp {
        raw: Arc<[u8]>,
        task: Task,
    },
    Sending(Box<Response>),
    /// Discarding the body of a request that has been answered.
    SkippingBody(Body),
    /// Nothing more is sent; received bytes are discarded.
    Lingering(Box<Lingering>),
    /// To be handed off as soon as the queue has room.
    PendingHandoff(Reason),
}

/// A connection on which nothing more is sent.
pub(super) struct Lingering {
    pub rate: SendRate,
    /// Bytes in the send buffer that were not acknowledged when this state began.
    pub queued: u64,
    pub discarded: u64,
    /// The last response is incomplete, so the connection ends in a reset.
    pub reset: bool,
    /// Time until the next check.
    pub tick: Duration,
}

pub(in crate::server) struct Connection {
    pub(super) socket: OwnedFd,
    pub(super) client: Option<SocketAddr>,
    pub(super) state: State,
    /// Received bytes; those before `consumed` are processed.
    pub(super) pending: Vec<u8>,
    pub(super) consumed: usize,
    pub(super) scanner: HeadScanner,
    /// `pending` starts with an incomplete head.
    pub(super) head_started: bool,
    /// The socket may have bytes to read: no recv(2) has returned EAGAIN since the last event.
    pub(super) readable: bool,
    /// The client has shut down its write side.
    pub(super) half_closed: bool,
    /// The client has sent urgent data; a recv(2) stops before it.
    pub(super) urgent: bool,
    /// The connection stays open after the current response.
    pub(super) keep_alive: bool,
    /// Requests begun on this connection.
    pub(super) requests: u32,
    /// Start of the current wait for a request.
    pub(super) idle_since: Instant,
    /// It counts towards `limits.connections`.
    pub counted: bool,
    /// When [`Connection::expired`] is due.
    pub deadline: Option<Instant>,
}

impl Connection {
    pub fn new(socket: OwnedFd, client: Option<SocketAddr>, now: Instant) -> Self {
        Self {
            socket,
            client,
            state: State::Reading,
            pending: Vec::new(),
            consumed: 0,
            scanner: HeadScanner::default(),
            head_started: false,
            // A request often arrives with the connection, so reading is worth an attempt before the first event.
            readable: true,
            half_closed: false,
            urgent: false,
            keep_alive: true,
            requests: 0,
            idle_since: now,
            counted: true,
            deadline: None,
        }
    }

    pub fn socket(&self) -> &OwnedFd {
        &self.socket
    }

    /// `None` on a Unix socket.
    pub fn client(&self) -> Option<SocketAddr> {
        self.client
    }

    /// Sets the deadline to `timeout` from `now`; zero means none.
    pub(super) fn set_timeout(&mut self, timeout: Duration, now: Instant) {
        self.deadline = (!timeout.is_zero()).then(|| now + timeout);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_idle_connection_is_small() {
        // Buffers belong to the worker and large states are boxed.
        assert!(size_of::<Connection>() <= 320, "{} bytes", size_of::<Connection>());
    }
}
