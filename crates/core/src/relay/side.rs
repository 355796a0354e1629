//! One end of a link, usually a socket: its descriptor and the readiness that epoll has reported.
//!
//! A socket that was reset still holds the bytes that arrived before the reset, and read(2) returns them before the error.
//! So an error event only marks the side as readable: the error is found by reading. send(2) and `SO_ERROR` return the
//! pending error once and clear it, after which read(2) reports a clean end; [`Side::lost`] remembers it.

use std::cell::Cell;
use std::net::SocketAddr;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use nix::errno::Errno;
use nix::sys::epoll::EpollFlags;
use nix::sys::socket::{MsgFlags, Shutdown, SockaddrStorage, getsockname, recv, send, setsockopt, shutdown, sockopt};

use crate::io::NonBlocking;
use zerosend_sys::SysResult;
use zerosend_sys::io::Target;

pub(super) struct Side {
    fd: NonBlocking,
    pub readable: Cell<bool>,
    pub writable: Cell<bool>,
    /// Urgent data has arrived at some time: splice(2) reads no byte from there on, recv(2) does.
    urgent: Cell<bool>,
    /// Why it accepts no more bytes.
    broken: Cell<Option<Errno>>,
}

impl AsFd for Side {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

impl Side {
    /// A socket that is in non-blocking mode.
    pub fn socket(fd: OwnedFd) -> Self {
        Self::new(NonBlocking::socket(fd))
    }

    pub fn new(fd: NonBlocking) -> Self {
        let unset = || Cell::new(false);
        Self { fd, readable: Cell::new(true), writable: Cell::new(true), urgent: unset(), broken: Cell::new(None) }
    }

    pub fn is_socket(&self) -> bool {
        self.fd.target() == Target::Socket
    }

    /// True for what epoll can wait for; all else is always ready.
    pub fn is_pollable(&self) -> bool {
        self.fd.is_pollable()
    }

    /// Records the readiness that epoll reports. Returns true for an error condition.
    pub fn note(&self, events: EpollFlags) -> bool {
        let failed = EpollFlags::EPOLLHUP | EpollFlags::EPOLLERR;
        if events.intersects(EpollFlags::EPOLLIN | EpollFlags::EPOLLPRI | EpollFlags::EPOLLRDHUP | failed) {
            self.readable.set(true);
        }
        if events.intersects(EpollFlags::EPOLLOUT | failed) {
            self.writable.set(true);
        }
        if events.contains(EpollFlags::EPOLLPRI) {
            self.urgent.set(true);
        }
        events.contains(EpollFlags::EPOLLERR)
    }

    /// Whether splice(2) may have stopped at urgent data; see `tcp(7)`.
    pub fn is_urgent(&self) -> bool {
        self.urgent.get()
    }

    /// Takes the pending error of the socket: the result of connecting, or what has failed since.
    pub fn failure(&self) -> SysResult<()> {
        if !self.is_socket() {
            // The error of a pipe is that nobody reads it.
            return Err(Errno::EPIPE);
        }
        match nix::sys::socket::getsockopt(&self.fd, sockopt::SocketError)? {
            0 => Ok(()),
            errno => Err(Errno::from_raw(errno)),
        }
    }

    /// It accepts no more bytes; those that it has sent can still be read.
    pub fn fail(&self, errno: Errno) {
        if self.broken.get().is_none() {
            self.broken.set(Some(errno));
        }
        self.readable.set(true);
    }

    /// Why it accepts no more bytes.
    pub fn broken(&self) -> Option<Errno> {
        self.broken.get()
    }

    /// The error that a read would have returned instead of an end, had a write not taken it before. After `EPIPE` the end
    /// is real: the peer had ended its direction before it refused ours.
    pub fn lost(&self) -> Option<Errno> {
        self.broken.get().filter(|errno| *errno != Errno::EPIPE)
    }

    pub fn read(&self, buffer: &mut [u8]) -> SysResult<usize> {
        if self.is_socket() {
            recv(self.fd.as_fd().as_raw_fd(), buffer, MsgFlags::empty())
        } else {
            nix::unistd::read(&self.fd, buffer)
        }
    }

    pub fn write(&self, bytes: &[u8]) -> SysResult<usize> {
        if self.is_socket() {
            send(self.fd.as_fd().as_raw_fd(), bytes, MsgFlags::MSG_NOSIGNAL)
        } else {
            nix::unistd::write(&self.fd, bytes)
        }
    }

    /// Ends the direction towards it.
    pub fn end(&self) -> SysResult<()> {
        match shutdown(self.fd.as_fd().as_raw_fd(), Shutdown::Write) {
            Ok(()) | Err(Errno::ENOTCONN | Errno::ENOTSOCK) => Ok(()),
            Err(errno) => Err(errno),
        }
    }

    /// Makes the next close a reset, so that the peer does not take a part for the whole. TCP only: a Unix socket has no
    /// such option.
    pub fn reset(&self) {
        let _ = setsockopt(&self.fd, sockopt::Linger, &libc::linger { l_onoff: 1, l_linger: 0 });
    }

    /// Bytes that were sent to it and not taken by the peer: not acknowledged (TCP), or not read (Unix sockets, pipes).
    pub fn in_flight(&self) -> u64 {
        let count = if self.is_socket() {
            zerosend_sys::socket::unacknowledged(self.fd.as_fd())
        } else {
            zerosend_sys::pipe::unread(self.fd.as_fd()).map(|count| count as u64)
        };
        count.unwrap_or(0)
    }

    /// Bytes that a reset would discard: those that a TCP peer has not acknowledged. What is sent on a Unix socket is with
    /// the peer at once.
    pub fn at_risk(&self) -> u64 {
        let is_tcp = || matches!(zerosend_sys::socket::domain(self.fd.as_fd()), Ok(libc::AF_INET | libc::AF_INET6));
        if self.broken.get().is_some() || !self.is_socket() || !is_tcp() { 0 } else { self.in_flight() }
    }

    /// Whether bytes that it has sent wait to be read.
    pub fn has_unread(&self) -> bool {
        zerosend_sys::pipe::unread(self.fd.as_fd()).is_ok_and(|count| count > 0)
    }

    /// The address that its peer has connected to.
    pub fn own_address(&self) -> Option<SocketAddr> {
        let name: SockaddrStorage = getsockname(self.fd.as_fd().as_raw_fd()).ok()?;
        crate::net::to_std(&name)
    }

    pub fn set_no_delay(&self) {
        let _ = zerosend_sys::socket::set_no_delay(self.fd.as_fd(), true);
    }
}
