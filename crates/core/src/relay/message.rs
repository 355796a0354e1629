//! Messages to the workers of a relay.

use std::time::Instant;

use nix::errno::Errno;

use super::descriptors::DescriptorReserve;
use super::options::TargetRequestId;
use super::session::Session;
use crate::event_loop::slab::Token;
use crate::io::pipe::Pipe;
use crate::net::Address;
use crate::net::acceptor::Accepted;

pub(super) enum Message {
    /// Stop accepting, and close what is still open at this time.
    Drain(Instant),
    /// Descriptors may be free: accept again.
    Resume,
    /// A connection that another worker accepted from a shared socket.
    Accepted(Accepted<DescriptorReserve>),
    /// Start a session with this id.
    StartSession(u64, Box<Session>),
    /// Close the session with this id.
    CancelSession(u64),
    /// The addresses that were found for a connection. An empty list closes the connection.
    TargetResolved(TargetRequestId, Vec<Address>),
    /// An append to the file of a mirror has finished. `mirror` is its index in the link.
    Appended { token: Token, mirror: usize, result: AppendResult },
}

/// Result of an append to the file of a mirror.
pub(super) struct AppendResult {
    /// The pipe that the bytes were in, unless some are left in it.
    pub pipe: Option<Pipe>,
    /// Bytes written.
    pub written: usize,
    /// Bytes not written.
    pub lost: usize,
    pub failure: Option<Errno>,
}
