//! Pipes: buffers of the kernel, through which `splice(2)` moves pages.
//!
//! The pool keeps empty pipes for the next transfer, because making and sizing one costs three syscalls. A pipe with bytes
//! in it is closed instead: the next user would send them. The number of pipes in use is limited, because each is two
//! descriptors; beyond the limit a transfer falls back to a method without a pipe.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use nix::errno::Errno;

use crate::stats::Counter;
use zerosend_sys::{SysResult, pipe};

/// Bytes asked for a pooled pipe. Twice a socket's usual room: a pipe that holds what a socket takes is filled and drained
/// once each per readiness.
const CAPACITY: usize = 256 * 1024;
/// What is asked for where the user's quota does not allow that.
const SMALLER: [usize; 2] = [128 * 1024, 64 * 1024];
/// Pipes in use by pooled users at most.
const MAX_IN_USE: usize = 256;
/// Empty pipes kept.
const MAX_IDLE: usize = 16;

static IDLE: Mutex<Vec<Pipe>> = Mutex::new(Vec::new());
static IN_USE: AtomicUsize = AtomicUsize::new(0);
static STATISTICS: Statistics =
    Statistics { made: Counter::new(), reused: Counter::new(), small: Counter::new(), refused: Counter::new() };

/// Counters of requests for pipes.
#[derive(Debug)]
pub struct Statistics {
    /// Pipes made.
    pub made: Counter,
    /// Requests served from the pool.
    pub reused: Counter,
    /// Pipes smaller than asked for, because of the user's quota (`/proc/sys/fs/pipe-user-pages-soft`) or
    /// `/proc/sys/fs/pipe-max-size`.
    pub small: Counter,
    /// Requests that got none, because 256 were in use or descriptors ran out.
    pub refused: Counter,
}

/// The counters of the process.
pub fn statistics() -> &'static Statistics {
    &STATISTICS
}

/// A pipe, both ends ours and non-blocking.
#[derive(Debug)]
pub struct Pipe {
    read: OwnedFd,
    write: OwnedFd,
    capacity: usize,
}

impl Pipe {
    /// A pipe of `capacity` bytes, or of less where the kernel refuses that much; see `pipe(7)`.
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

    /// Changes the capacity; returns what it is then, in bytes. Errors of `fcntl(2)`, `F_SETPIPE_SZ`: `EPERM`, `EBUSY`.
    pub fn resize(&mut self, capacity: usize) -> SysResult<usize> {
        self.capacity = pipe::set_capacity(self.write.as_fd(), capacity)?;
        Ok(self.capacity)
    }

    /// Bytes it holds when every page in it is full.
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

    /// The ends themselves: to read from, to write to.
    pub fn into_ends(self) -> (OwnedFd, OwnedFd) {
        (self.read, self.write)
    }
}

/// A pipe of the pool, and how many bytes are in it.
#[derive(Debug)]
pub struct Pooled {
    pipe: Option<Pipe>,
    filled: usize,
}

impl Pooled {
    /// Takes a pipe. `EMFILE` when 256 are in use.
    pub fn take() -> SysResult<Self> {
        if IN_USE.fetch_add(1, Ordering::Relaxed) >= MAX_IN_USE {
            IN_USE.fetch_sub(1, Ordering::Relaxed);
            STATISTICS.refused.add(1);
            return Err(Errno::EMFILE);
        }
        let idle = idle().pop();
        let pipe = match idle {
            Some(pipe) => {
                STATISTICS.reused.add(1);
                Ok(pipe)
            }
            None => Pipe::new(CAPACITY),
        };
        match pipe {
            Ok(pipe) => Ok(Self { pipe: Some(pipe), filled: 0 }),
            Err(errno) => {
                IN_USE.fetch_sub(1, Ordering::Relaxed);
                STATISTICS.refused.add(1);
                Err(errno)
            }
        }
    }

    /// The end to read from.
    pub fn read_end(&self) -> BorrowedFd<'_> {
        self.pipe().read_end()
    }

    /// The end to write to.
    pub fn write_end(&self) -> BorrowedFd<'_> {
        self.pipe().write_end()
    }

    /// Bytes it can hold.
    pub fn capacity(&self) -> usize {
        self.pipe().capacity()
    }

    /// Bytes in it.
    pub fn filled(&self) -> usize {
        self.filled
    }

    /// Takes note of bytes put in.
    pub fn add(&mut self, count: usize) {
        self.filled += count;
    }

    /// Takes note of bytes taken out.
    pub fn subtract(&mut self, count: usize) {
        self.filled -= count;
    }

    fn pipe(&self) -> &Pipe {
        self.pipe.as_ref().expect("a pipe until it is dropped")
    }
}

impl Drop for Pooled {
    fn drop(&mut self) {
        IN_USE.fetch_sub(1, Ordering::Relaxed);
        let Some(pipe) = self.pipe.take() else { return };
        let mut idle = idle();
        if self.filled == 0 && pipe.capacity() >= CAPACITY && idle.len() < MAX_IDLE {
            idle.push(pipe);
        }
    }
}

fn idle() -> MutexGuard<'static, Vec<Pipe>> {
    IDLE.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pipe_with_bytes_in_it_is_closed() {
        let mut pooled = Pooled::take().expect("a pipe");
        nix::unistd::write(pooled.write_end(), b"secret").expect("room");
        pooled.add(6);
        drop(pooled);
        let taken: Vec<_> = (0..MAX_IDLE + 1).map(|_| Pooled::take().expect("a pipe")).collect();
        for pooled in &taken {
            assert_eq!(pooled.pipe().available(), Ok(0));
        }
    }

    #[test]
    fn a_size_over_the_maximum_is_refused_and_a_smaller_pipe_is_counted() {
        let mut pipe = Pipe::new(64 * 1024).expect("a pipe");
        assert_eq!(pipe.capacity(), 64 * 1024);
        assert!(pipe.resize(usize::MAX).is_err());
        assert_eq!(pipe.capacity(), 64 * 1024);
    }
}
