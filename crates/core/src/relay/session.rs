//! Joining what is open already, and what becomes of links.

use std::sync::Arc;

use nix::errno::Errno;

use super::endpoint::Endpoint;
use super::mirror::MirrorReport;
use super::options::Policy;
use crate::error::{Code, Error, Result};
use crate::io::NonBlocking;
use crate::output::FileWriter;

/// Two sides to be joined, or one source and its sinks.
pub struct Session {
    /// Where bytes come from, and go to unless [`Session::one_way`].
    pub client: NonBlocking,
    /// The other side, or a sink that holds back the source; absent: the sinks get all.
    pub target: Option<NonBlocking>,
    /// Bytes that were read from client and target before.
    pub first: [Vec<u8>; 2],
    /// Nothing goes back, and ends are not passed on.
    pub one_way: bool,
    /// Further sinks of what comes from the client; at most [`MAX_MIRRORS`].
    pub sinks: Vec<Sink>,
    /// What becomes of bytes that a sink does not take in time.
    pub policy: Policy,
    /// Told when it is over.
    pub on_finished: OnFinished,
}

impl Session {
    /// Two sinks in one file would overwrite each other, unless they share a writer.
    pub(super) fn check_files(&self) -> Result<()> {
        let files = || {
            self.sinks.iter().enumerate().filter_map(|(at, sink)| match sink {
                Sink::File(writer) => Some((at, writer)),
                Sink::Stream(_) => None,
            })
        };
        for (at, file) in files() {
            let same = |other: &Arc<FileWriter>| !Arc::ptr_eq(file, other) && file.identity() == other.identity();
            if let Some((other, _)) = files().take_while(|(other, _)| *other < at).find(|(_, other)| same(other)) {
                let message = format!(
                    "sinks {other} and {at} are the same file and would overwrite each other; give its path to both, or one of them"
                );
                return Err(Error::new(Code::InvalidArgument, message));
            }
        }
        Ok(())
    }
}

/// A sink of a [`Session`].
pub enum Sink {
    /// A socket or pipe.
    Stream(NonBlocking),
    /// A regular file.
    File(Arc<FileWriter>),
}

/// Told what became of a link.
pub type OnFinished = Box<dyn FnOnce(LinkReport) + Send>;

/// What became of a link.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LinkReport {
    /// Bytes from client to target.
    pub up: u64,
    /// Bytes from target to client.
    pub down: u64,
    /// Of each mirror or sink: those of the client's bytes first.
    pub mirrors: Vec<MirrorReport>,
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
    /// By [`Relay::close`](super::Relay::close) or [`Relay::cancel_session`](super::Relay::cancel_session).
    Aborted,
    /// A side was reset or failed.
    Failed(Endpoint, Errno),
}
