//! Sessions: relaying between descriptors that are already open, and the reports of links.

use std::sync::Arc;

use nix::errno::Errno;

use super::endpoint::Endpoint;
use super::options::Policy;
use crate::error::{Code, Error, Result};
use crate::io::NonBlocking;
use crate::output::FileWriter;

/// Two open sockets or pipes to relay between, or a source and its mirrors.
pub struct Session {
    /// The source of bytes, and their destination too unless [`Session::one_way`].
    pub client: NonBlocking,
    /// The other socket or pipe. `None`: the bytes go to the mirrors only.
    pub target: Option<NonBlocking>,
    /// Bytes that were already read from the client and from the target.
    pub initial_bytes: [Vec<u8>; 2],
    /// Nothing is relayed from the target to the client, and the end of the source is not passed on.
    pub one_way: bool,
    /// Receive copies of the bytes of the client; [`MAX_MIRRORS`](super::MAX_MIRRORS) at most.
    pub mirrors: Vec<SessionMirror>,
    /// What happens to bytes that a mirror does not accept in time.
    pub policy: Policy,
    /// Called with the report, after all descriptors are closed.
    pub on_finished: OnFinished,
}

impl Session {
    /// Refuses two mirrors that would overwrite each other: the same file without a shared writer.
    pub(super) fn check_files(&self) -> Result<()> {
        let files = || {
            self.mirrors.iter().enumerate().filter_map(|(at, mirror)| match mirror {
                SessionMirror::File(writer) => Some((at, writer)),
                SessionMirror::Stream(_) => None,
            })
        };
        for (at, file) in files() {
            let same = |other: &Arc<FileWriter>| !Arc::ptr_eq(file, other) && file.identity() == other.identity();
            if let Some((other, _)) = files().take_while(|(other, _)| *other < at).find(|(_, other)| same(other)) {
                let message = format!(
                    "sinks {other} and {at} write to the same file and would overwrite each other; pass its path for both, or remove one"
                );
                return Err(Error::new(Code::InvalidArgument, message));
            }
        }
        Ok(())
    }
}

/// A mirror of a [`Session`].
pub enum SessionMirror {
    /// A socket or pipe.
    Stream(NonBlocking),
    /// A regular file.
    File(Arc<FileWriter>),
}

/// Called with the report of a link.
pub type OnFinished = Box<dyn FnOnce(LinkReport) + Send>;

/// Report of a link that has finished.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LinkReport {
    /// Bytes from the client to the target.
    pub up: u64,
    /// Bytes from the target to the client.
    pub down: u64,
    /// Reports of the mirrors: those of the bytes from the client first.
    pub mirrors: Vec<MirrorReport>,
    /// Why the link has finished.
    pub outcome: Outcome,
}

/// Report of a mirror.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct MirrorReport {
    /// Bytes written.
    pub bytes: u64,
    /// Bytes not written.
    pub dropped: u64,
    /// The last error.
    pub failure: Option<Errno>,
}

/// Why a link has finished.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// Both directions have ended.
    Complete,
    /// The idle timeout has passed.
    Idle,
    /// [`Relay::close`](super::Relay::close) or [`Relay::cancel_session`](super::Relay::cancel_session).
    Aborted,
    /// An endpoint was reset or failed.
    Failed(Endpoint, Errno),
}
