//! One end of a link: a socket as a rule, and what epoll has said of it that is still true.

use std::cell::Cell;
use std::net::SocketAddr;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use nix::errno::Errno;
use nix::sys::epoll::EpollFlags;
use nix::sys::socket::{MsgFlags, Shutdown, SockaddrStorage, getsockname, recv, send, setsockopt, shutdown, sockopt};

use crate::reactor::NonBlocking;
use crate::sys::SysResult;
use crate::transfer::Target;

pub(super) struct Side {
    fd: NonBlocking,
    pub readable: Cell<bool>,
    pub writable: Cell<bool>,
    /// It has said that it ends, or failed: it has to be read to its end.
    ending: Cell<bool>,
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
        Self { fd, readable: Cell::new(true), writable: Cell::new(true), ending: Cell::new(false) }
    }

    pub fn is_socket(&self) -> bool {
        self.fd.target() == Target::Socket
    }

    /// True for what epoll can wait for; all else is always ready.
    pub fn is_pollable(&self) -> bool {
        self.fd.is_pollable()
    }

    /// Takes note of what epoll says. True: a failure.
    pub fn note(&self, events: EpollFlags) -> bool {
        if events.intersects(EpollFlags::EPOLLIN | EpollFlags::EPOLLRDHUP | EpollFlags::EPOLLHUP) {
            self.readable.set(true);
        }
        if events.intersects(EpollFlags::EPOLLRDHUP | EpollFlags::EPOLLHUP | EpollFlags::EPOLLERR) {
            self.ending.set(true);
        }
        if events.contains(EpollFlags::EPOLLOUT) {
            self.writable.set(true);
        }
        events.contains(EpollFlags::EPOLLERR)
    }

    /// A read has come back short: what comes after it is a new edge, `epoll(7)`, and so is an end that was not there yet.
    pub fn drained(&self) {
        if self.is_socket() && !self.ending.get() {
            self.readable.set(false);
        }
    }

    /// What became of connecting, and what has failed since.
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

    /// The next close is a reset, so that the peer knows that something was lost.
    pub fn reset(&self) {
        let _ = setsockopt(&self.fd, sockopt::Linger, &libc::linger { l_onoff: 1, l_linger: 0 });
    }

    /// The address that its peer has connected to.
    pub fn own_address(&self) -> Option<SocketAddr> {
        let name: SockaddrStorage = getsockname(self.fd.as_fd().as_raw_fd()).ok()?;
        crate::server::to_std(&name)
    }

    pub fn set_no_delay(&self) {
        let _ = crate::sys::socket::set_no_delay(self.fd.as_fd(), true);
    }
}
