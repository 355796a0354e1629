//! Joining what is open already, and what becomes of links.

use std::sync::Arc;

use nix::errno::Errno;

use super::options::Policy;
use super::tap::TapReport;
use crate::output::FileWriter;
use crate::reactor::NonBlocking;

/// Two sides to be joined, or one source and its sinks.
pub struct Join {
    /// Where bytes come from, and go to unless [`Join::one_way`].
    pub client: NonBlocking,
    /// The other side, or a sink that holds back the source; absent: the sinks get all.
    pub target: Option<NonBlocking>,
    /// Bytes that were read from client and target before.
    pub first: [Vec<u8>; 2],
    /// Nothing goes back, and ends are not passed on.
    pub one_way: bool,
    /// Further sinks of what comes from the client; at most [`MOST_TAPS`].
    pub sinks: Vec<Sink>,
    /// What becomes of bytes that a sink does not take in time.
    pub policy: Policy,
    /// Told when it is over.
    pub ended: Ended,
}

/// A sink of a [`Join`].
pub enum Sink {
    /// A socket or pipe.
    Stream(NonBlocking),
    /// A regular file.
    File(Arc<FileWriter>),
}

/// Told what became of a link.
pub type Ended = Box<dyn FnOnce(LinkReport) + Send>;

/// What became of a link.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LinkReport {
    /// Bytes from client to target.
    pub up: u64,
    /// Bytes from target to client.
    pub down: u64,
    /// Of each mirror or sink: those of the client's bytes first.
    pub taps: Vec<TapReport>,
    /// Why it is over.
    pub outcome: Outcome,
}

/// Why a link is over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// Both directions have ended.
    Complete,
    /// There was no byte in either direction for too long.
    Idle,
    /// By [`Relay::close`](super::Relay::close) or [`Relay::cancel`](super::Relay::cancel).
    Cut,
    /// A side was reset or failed.
    Failed(Party, Errno),
}

/// Who has failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Party {
    /// Who has connected, or the source.
    Client,
    /// Who was connected to.
    Target,
    /// A mirror or sink, in the order of [`LinkReport::taps`].
    Tap(usize),
}
