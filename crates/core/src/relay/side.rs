//! A descriptor of a link, usually a socket, with the readiness that epoll has reported.
//!
//! A socket that was reset still holds the bytes that arrived before the reset, and read(2) returns them before the error.
//! So an error event only marks the side as readable: the error is found by reading. send(2) and `SO_ERROR` return the
//! pending error once and clear it, after which read(2) reports a clean end; [`Side::read_error`] remembers it.

use std::cell::Cell;
use std::net::SocketAddr;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use nix::errno::Errno;
use nix::sys::epoll::EpollFlags;
use nix::sys::socket::{MsgFlags, Shutdown, SockaddrStorage, getsockname, recv, send, setsockopt, shutdown, sockopt};

use crate::io::NonBlocking;
use zerosend_sys::SysResult;

pub(super) struct Side {
    fd: NonBlocking,
    pub readable: Cell<bool>,
    pub writable: Cell<bool>,
    /// Urgent data has arrived: splice(2) reads nothing from there on, recv(2) does.
    urgent: Cell<bool>,
    write_error: Cell<Option<Errno>>,
}

impl AsFd for Side {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

impl Side {
    /// A socket in non-blocking mode.
    pub fn socket(fd: OwnedFd) -> Self {
        Self::new(NonBlocking::socket(fd))
    }

    pub fn new(fd: NonBlocking) -> Self {
        let unset = || Cell::new(false);
        Self { fd, readable: Cell::new(true), writable: Cell::new(true), urgent: unset(), write_error: Cell::new(None) }
    }

    pub fn is_socket(&self) -> bool {
        self.fd.is_socket()
    }

    /// Whether epoll supports it; other descriptors are always ready.
    pub fn is_pollable(&self) -> bool {
        self.fd.is_pollable()
    }

    /// Sets the readiness that epoll reports. Returns true for an error condition.
    pub fn set_ready(&self, events: EpollFlags) -> bool {
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

    /// Takes the pending error of the socket: the result of connect(2), or a later failure.
    pub fn take_error(&self) -> SysResult<()> {
        if !self.is_socket() {
            // The only error condition of a pipe: all its readers are closed.
            return Err(Errno::EPIPE);
        }
        match nix::sys::socket::getsockopt(&self.fd, sockopt::SocketError)? {
            0 => Ok(()),
            errno => Err(Errno::from_raw(errno)),
        }
    }

    /// Records that it accepts no more bytes. Bytes that it has sent can still be read.
    pub fn fail(&self, errno: Errno) {
        if self.write_error.get().is_none() {
            self.write_error.set(Some(errno));
        }
        self.readable.set(true);
    }

    /// Why it accepts no more bytes.
    pub fn write_error(&self) -> Option<Errno> {
        self.write_error.get()
    }

    /// The error that a read would have returned instead of the end of the stream, if a write had not taken it. After `EPIPE`
    /// the end is real: the peer shut down its direction before it refused ours.
    pub fn read_error(&self) -> Option<Errno> {
        self.write_error.get().filter(|errno| *errno != Errno::EPIPE)
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

    /// Shuts down the direction towards it.
    pub fn shut_down(&self) -> SysResult<()> {
        match shutdown(self.fd.as_fd().as_raw_fd(), Shutdown::Write) {
            Ok(()) | Err(Errno::ENOTCONN | Errno::ENOTSOCK) => Ok(()),
            Err(errno) => Err(errno),
        }
    }

    /// Makes close(2) send a reset, so that the peer does not mistake a truncated stream for a complete one. TCP only: Unix
    /// sockets have no reset.
    pub fn reset_on_close(&self) {
        let _ = setsockopt(&self.fd, sockopt::Linger, &libc::linger { l_onoff: 1, l_linger: 0 });
    }

    /// Bytes that were written and that the peer has not acknowledged (TCP) or read (Unix sockets, pipes).
    pub fn unacknowledged(&self) -> u64 {
        let count = if self.is_socket() {
            zerosend_sys::socket::unacknowledged(self.fd.as_fd())
        } else {
            zerosend_sys::pipe::unread(self.fd.as_fd()).map(|count| count as u64)
        };
        count.unwrap_or(0)
    }

    /// Bytes that a reset would discard: those that a TCP peer has not acknowledged. Bytes written to a Unix socket are in the
    /// receive queue of the peer at once.
    pub fn discarded_by_reset(&self) -> u64 {
        let is_tcp = || matches!(zerosend_sys::socket::domain(self.fd.as_fd()), Ok(libc::AF_INET | libc::AF_INET6));
        if self.write_error.get().is_some() || !self.is_socket() || !is_tcp() { 0 } else { self.unacknowledged() }
    }

    /// Whether received bytes wait to be read.
    pub fn has_unread(&self) -> bool {
        zerosend_sys::pipe::unread(self.fd.as_fd()).is_ok_and(|count| count > 0)
    }

    /// The local address of the socket, to which its peer has connected. Calls getsockname(2).
    pub fn local_address(&self) -> Option<SocketAddr> {
        let name: SockaddrStorage = getsockname(self.fd.as_fd().as_raw_fd()).ok()?;
        crate::net::to_std(&name)
    }

    pub fn set_no_delay(&self) {
        let _ = zerosend_sys::socket::set_no_delay(self.fd.as_fd(), true);
    }
}
