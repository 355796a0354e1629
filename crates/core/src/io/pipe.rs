//! Pipes: buffers of the kernel through which `splice(2)` moves pages.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use nix::errno::Errno;

use crate::stats::Counter;
use zerosend_sys::{SysResult, pipe};

/// Smaller capacities in bytes to try when the user's quota does not allow the requested one.
const SMALLER: [usize; 2] = [128 * 1024, 64 * 1024];

static STATISTICS: PipeStatistics =
    PipeStatistics { made: Counter::new(), reused: Counter::new(), small: Counter::new(), refused: Counter::new() };

/// Counters of the pipes of the process.
#[derive(Debug)]
pub struct PipeStatistics {
    /// Pipes made.
    pub made: Counter,
    /// Transfers that got an idle pipe.
    pub reused: Counter,
    /// Pipes smaller than requested, because of the user's quota (`/proc/sys/fs/pipe-user-pages-soft`) or
    /// `/proc/sys/fs/pipe-max-size`.
    pub small: Counter,
    /// Transfers that got no pipe, because 256 were in use or descriptors were missing.
    pub refused: Counter,
}

/// The counters of the process.
pub fn statistics() -> &'static PipeStatistics {
    &STATISTICS
}

/// A pipe with both ends in non-blocking mode.
#[derive(Debug)]
pub struct Pipe {
    read: OwnedFd,
    write: OwnedFd,
    capacity: usize,
}

impl Pipe {
    /// A pipe of `capacity` bytes, or of less if the kernel refuses that; see `pipe(7)`.
    pub fn new(capacity: usize) -> SysResult<Self> {
        let (read, write) = pipe::new()?;
        STATISTICS.made.add(1);
        let mut made = Self { capacity: pipe::capacity(write.as_fd())?, read, write };
        for wanted in std::iter::once(capacity).chain(SMALLER.into_iter().filter(|smaller| *smaller < capacity)) {
            if made.resize(wanted) != Err(Errno::EPERM) {
                break;
            }
        }
        if made.capacity < capacity {
            STATISTICS.small.add(1);
        }
        Ok(made)
    }

    /// Changes the capacity; returns the new one, in bytes. Errors of fcntl(2), `F_SETPIPE_SZ`: `EPERM`, `EBUSY`.
    pub fn resize(&mut self, capacity: usize) -> SysResult<usize> {
        self.capacity = pipe::set_capacity(self.write.as_fd(), capacity)?;
        Ok(self.capacity)
    }

    /// Capacity in bytes, if every page in it is full.
    pub fn capacity(&self) -> usize {
        self.capacity
    }

    /// Bytes in it.
    pub fn available(&self) -> SysResult<usize> {
        pipe::unread(self.read.as_fd())
    }

    /// The end to read from.
    pub fn read_end(&self) -> BorrowedFd<'_> {
        self.read.as_fd()
    }

    /// The end to write to.
    pub fn write_end(&self) -> BorrowedFd<'_> {
        self.write.as_fd()
    }

    /// The ends: to read from, to write to.
    pub fn into_ends(self) -> (OwnedFd, OwnedFd) {
        (self.read, self.write)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_size_above_the_maximum_is_refused() {
        let mut pipe = Pipe::new(64 * 1024).expect("a pipe");
        assert_eq!(pipe.capacity(), 64 * 1024);
        assert!(pipe.resize(usize::MAX).is_err());
        assert_eq!(pipe.capacity(), 64 * 1024);
    }
}
