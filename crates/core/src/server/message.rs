//! Messages to a worker from other threads.

use std::time::Instant;

use crate::error::Result;
use crate::event_loop::slab::Token;
use crate::fs::directory::Listing;
use crate::net::acceptor::Accepted;
use crate::static_site::Outcome;
use crate::transfer::Prefetched;

/// The result of a lookup on a pool thread.
pub(super) struct LookupResult {
    pub outcome: Result<Outcome>,
    pub listing: Option<Listing>,
}

impl LookupResult {
    /// A result without a listing.
    pub fn new(outcome: Result<Outcome>) -> Self {
        Self { outcome, listing: None }
    }
}

pub(super) enum Message {
    /// A connection that another worker accepted from a shared socket.
    Accepted(Accepted<()>),
    Prefetched(Token, Result<Prefetched>),
    LookedUp(Token, Box<LookupResult>),
    /// Accept only the connections that are in the backlog now, and end at this time at the latest.
    Drain(Instant),
    /// Close idle connections.
    CloseIdle,
    /// Close all connections.
    CloseAll,
    /// The handoff queue has room again.
    QueueHasRoom,
}
