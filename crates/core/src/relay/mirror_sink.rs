//! What a mirror writes to: a server, a FIFO or terminal, or a file.

use std::sync::Arc;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::sys::epoll::EpollFlags;

use super::addresses::Addresses;
use super::append::AppendTarget;
use super::dial::{ConnectContext, ConnectStatus, Dial, Expired, Step};
use super::link_file::{LinkFile, LinkName};
use super::options::MirrorDestination;
use super::session::SessionMirror;
use super::side::Side;
use crate::io::NonBlocking;
use zerosend_sys::SysResult;

/// Reads of a server's responses in one turn.
const MAX_READS: usize = 16;

pub(super) enum MirrorSink {
    /// A server that is being connected to. `side` is `None` before a retry.
    Connecting { dial: Dial, side: Option<Side>, addresses: Arc<Addresses> },
    /// A socket, FIFO or terminal. `is_private`: a connection of this link only, which is shut down at the end of the stream and
    /// whose responses are discarded.
    Stream { side: Side, is_private: bool },
    /// A file. `appending`: bytes that another thread appends now.
    File { target: AppendTarget, appending: usize },
    /// Could not be opened.
    Closed,
}

impl MirrorSink {
    /// Opens the sink of an accepted connection. `name` returns the values for the names of its files.
    pub fn open(destination: &MirrorDestination, name: impl FnOnce() -> Arc<LinkName>) -> SysResult<Self> {
        let file = |target| Self::File { target, appending: 0 };
        Ok(match destination {
            MirrorDestination::File(shared) => match shared.stream() {
                None => file(AppendTarget::Shared(shared.clone())),
                Some(fd) => {
                    let fd = NonBlocking::new(fd?).map_err(|error| error.errno().unwrap_or(Errno::EIO))?;
                    Self::Stream { side: Side::new(fd), is_private: false }
                }
            },
            MirrorDestination::Files(files) => {
                file(AppendTarget::PerLink(Arc::new(LinkFile::new(files.clone(), name()))))
            }
            MirrorDestination::Server(addresses) => {
                let dial = Dial::new(addresses.get(), Instant::now());
                Self::Connecting { dial, side: None, addresses: addresses.clone() }
            }
        })
    }

    /// The sink of a mirror of a session.
    pub fn for_session(mirror: SessionMirror) -> Self {
        match mirror {
            SessionMirror::Stream(fd) => Self::Stream { side: Side::new(fd), is_private: false },
            SessionMirror::File(file) => {
                Self::File { target: AppendTarget::Session(file, Arc::default()), appending: 0 }
            }
        }
    }

    /// The descriptor to register with epoll.
    pub fn side(&self) -> Option<&Side> {
        match self {
            Self::Connecting { side, .. } => side.as_ref(),
            Self::Stream { side, .. } => Some(side).filter(|side| side.is_pollable()),
            Self::File { .. } | Self::Closed => None,
        }
    }

    /// The connection, if it belongs to this link only.
    pub fn private_side(&self) -> Option<&Side> {
        match self {
            Self::Stream { side, is_private: true } => Some(side),
            Self::Connecting { side, .. } => side.as_ref(),
            _ => None,
        }
    }

    pub fn is_connecting(&self) -> bool {
        matches!(self, Self::Connecting { .. })
    }

    /// Whether [`MirrorSink::dial`] has to be called.
    pub fn is_disconnected(&self) -> bool {
        matches!(self, Self::Connecting { side: None, .. })
    }

    /// Whether bytes come back over it, and the end of the stream is passed on.
    pub fn is_private_stream(&self) -> bool {
        matches!(self, Self::Stream { is_private: true, .. })
    }

    /// Bytes that another thread appends to the file.
    pub fn appending(&self) -> usize {
        if let Self::File { appending, .. } = self { *appending } else { 0 }
    }

    /// When [`MirrorSink::expire`] is due while it connects. `timeout`: the connect timeout.
    pub fn connect_deadline(&self, timeout: Duration) -> Option<Instant> {
        if let Self::Connecting { dial, .. } = self { dial.deadline(timeout) } else { None }
    }

    /// Handles a deadline. Returns true if a try to connect is over, `ETIMEDOUT` if the connect timeout has passed.
    pub fn expire(&mut self, timeout: Duration, now: Instant) -> SysResult<bool> {
        let Self::Connecting { dial, side, .. } = self else { return Ok(false) };
        match dial.expire(timeout, now) {
            Expired::All => Err(Errno::ETIMEDOUT),
            Expired::Step => {
                *side = None;
                Ok(true)
            }
            Expired::None => Ok(false),
        }
    }

    /// Starts to connect to the next address, if no socket is connecting. The new socket is not registered with epoll yet.
    pub fn dial(&mut self, context: &mut ConnectContext<'_>) -> SysResult<()> {
        if let Self::Connecting { dial, side: side @ None, .. } = self {
            match dial.next(context) {
                Step::Connecting(socket) => *side = Some(Side::socket(socket)),
                Step::Wait => {}
                Step::Failed(errno) => return Err(errno),
            }
        }
        Ok(())
    }

    /// Handles an event. Returns true if [`MirrorSink::dial`] has to be called.
    pub fn on_event(&mut self, events: EpollFlags) -> SysResult<bool> {
        match self {
            Self::Connecting { dial, side, addresses } => {
                let Some(connecting) = side else { return Ok(false) };
                match dial.on_event(connecting, events) {
                    ConnectStatus::Pending => return Ok(false),
                    ConnectStatus::Failed => {
                        *side = None;
                        return Ok(true);
                    }
                    ConnectStatus::Connected => {}
                }
                if let Some(address) = dial.address() {
                    addresses.prefer(address);
                }
                if let Some(side) = side.take() {
                    *self = Self::Stream { side, is_private: true };
                }
            }
            Self::Stream { side, .. } => {
                if side.set_ready(events) {
                    return Err(side.take_error().err().unwrap_or(Errno::EPIPE));
                }
            }
            Self::File { .. } | Self::Closed => {}
        }
        Ok(false)
    }

    /// Closes the socket that is connecting.
    pub fn disconnect(&mut self) {
        if let Self::Connecting { side, .. } = self {
            *side = None;
        }
    }

    /// Stops waiting for descriptors, so that others get them.
    pub fn stop_waiting(&mut self) {
        if let Self::Connecting { dial, .. } = self {
            dial.stop_waiting();
        }
    }

    /// Shuts down a connection of this link.
    pub fn shut_down(&self) {
        if let Self::Stream { side, is_private: true } = self {
            let _ = side.shut_down();
        }
    }
}

/// Reads the responses of a server and discards them: otherwise it may stop reading. Returns true at their end.
pub(super) fn discard_responses(side: &Side, scratch: &mut [u8]) -> bool {
    for _ in 0..MAX_READS {
        if !side.readable.get() {
            break;
        }
        match side.read(scratch) {
            Ok(0) => return true,
            Ok(_) | Err(Errno::EINTR) => {}
            Err(_) => side.readable.set(false),
        }
    }
    false
}
