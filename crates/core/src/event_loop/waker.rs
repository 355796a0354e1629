//! Ends an `epoll_wait` of another thread, by an `eventfd(2)`.

use std::os::fd::{AsFd, BorrowedFd};

use nix::errno::Errno;
use nix::sys::eventfd::{EfdFlags, EventFd};

/// An eventfd in non-blocking mode.
pub struct Waker(EventFd);

impl Waker {
    /// A waker that is not readable yet.
    pub fn new() -> Result<Self, Errno> {
        EventFd::from_flags(EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK).map(Self)
    }

    /// Wakes the thread blocked in `epoll_wait`. Cannot fail: EAGAIN means that a wake-up is already pending.
    pub fn wake(&self) {
        let _ = self.0.write(1);
    }

    /// Discards the pending wake-ups.
    pub fn clear(&self) {
        let _ = self.0.read();
    }
}

impl AsFd for Waker {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}
