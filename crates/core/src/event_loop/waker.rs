//! Ends an `epoll_wait` from another thread, by an `eventfd(2)`.

use std::os::fd::{AsFd, BorrowedFd};

use nix::errno::Errno;
use nix::sys::eventfd::{EfdFlags, EventFd};

/// An eventfd in non-blocking mode.
pub struct Waker(EventFd);

impl Waker {
    /// A waker that has not been woken.
    pub fn new() -> Result<Self, Errno> {
        EventFd::from_flags(EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK).map(Self)
    }

    /// Wakes the one who waits. Fails never: a full counter is a wake-up that is still to come.
    pub fn wake(&self) {
        let _ = self.0.write(1);
    }

    /// Forgets all wake-ups so far.
    pub fn clear(&self) {
        let _ = self.0.read();
    }
}

impl AsFd for Waker {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}
