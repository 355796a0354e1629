//! Pools of empty pipes: making and sizing a pipe costs three syscalls.
//!
//! A pipe with bytes in it is closed and never pooled: its next user would send them. The number of pipes in use is limited, as
//! each takes two descriptors and its capacity counts towards the user's quota (`/proc/sys/fs/pipe-user-pages-soft`). A relay has
//! a pool for each worker; all transfers of the process share one.

use std::os::fd::BorrowedFd;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use nix::errno::Errno;

use super::pipe::{Pipe, statistics};
use zerosend_sys::SysResult;

/// After a pipe could not be made, [`PipePool::acquire`] makes none for this time.
pub(crate) const RETRY_INTERVAL: Duration = Duration::from_millis(100);
/// Idle pipes of a pool that has one user.
const MAX_IDLE: usize = 64;
/// Smallest capacity in bytes that is worth its cost. Above the quota of an unprivileged user the kernel makes pipes of one or
/// two pages (`pipe(7)`).
const MIN_CAPACITY: usize = 64 * 1024;

/// Capacity in bytes of the pipes of transfers. Twice what a socket usually accepts at once: a pipe that holds that is filled and
/// drained once each per readiness.
const TRANSFER_CAPACITY: usize = 256 * 1024;
/// Pipes of transfers in use.
const MAX_TRANSFER_PIPES: usize = 256;
/// Idle pipes of transfers.
const MAX_IDLE_TRANSFER_PIPES: usize = 16;

static TRANSFER_PIPES: Mutex<PipePool> =
    Mutex::new(PipePool::with_max_idle(TRANSFER_CAPACITY, MAX_TRANSFER_PIPES, MAX_IDLE_TRANSFER_PIPES));

/// A limited number of pipes, of which the idle ones are kept.
#[derive(Debug)]
pub(crate) struct PipePool {
    capacity: usize,
    max_in_use: usize,
    max_idle: usize,
    in_use: usize,
    idle: Vec<Pipe>,
    /// When a pipe could last not be made, and why.
    shortage: Option<(Instant, Errno)>,
}

impl PipePool {
    /// A pool of `max_in_use` pipes at most, of `capacity` bytes each.
    pub fn new(capacity: usize, max_in_use: usize) -> Self {
        Self::with_max_idle(capacity, max_in_use, MAX_IDLE)
    }

    const fn with_max_idle(capacity: usize, max_in_use: usize, max_idle: usize) -> Self {
        Self { capacity, max_in_use, max_idle, in_use: 0, idle: Vec::new(), shortage: None }
    }

    /// An empty pipe. Fails with `EMFILE` when all are in use, and with the error of pipe(2) or fcntl(2).
    pub fn acquire(&mut self) -> SysResult<Pipe> {
        match self.reserve()? {
            Some(pipe) => Ok(pipe),
            None => self.make().inspect_err(|_| self.discard()),
        }
    }

    /// Whether all pipes are in use.
    pub fn is_full(&self) -> bool {
        self.in_use >= self.max_in_use
    }

    /// Counts one more pipe as in use. `None`: no pipe is idle, the caller has to make one.
    fn reserve(&mut self) -> SysResult<Option<Pipe>> {
        if self.is_full() {
            return Err(Errno::EMFILE);
        }
        self.in_use += 1;
        Ok(self.idle.pop())
    }

    fn make(&mut self) -> SysResult<Pipe> {
        if let Some((at, errno)) = self.shortage
            && at.elapsed() < RETRY_INTERVAL
        {
            return Err(errno);
        }
        let min = self.capacity.min(MIN_CAPACITY);
        let made = Pipe::new(self.capacity)
            .and_then(|pipe| if pipe.capacity() >= min { Ok(pipe) } else { Err(Errno::ENOBUFS) });
        self.shortage = made.as_ref().err().map(|errno| (Instant::now(), *errno));
        made
    }

    /// Takes back an empty pipe.
    pub fn release(&mut self, pipe: Pipe) {
        self.in_use -= 1;
        if self.idle.len() < self.max_idle {
            self.idle.push(pipe);
        }
    }

    /// Counts a pipe as closed that was in use.
    pub fn discard(&mut self) {
        self.in_use -= 1;
    }

    /// Closes the idle pipes, for their descriptors. Returns false if there were none.
    pub fn close_idle(&mut self) -> bool {
        let had_idle = !self.idle.is_empty();
        self.idle.clear();
        had_idle
    }
}

/// A pipe of a transfer, with the number of bytes in it. Returns to the pool of transfers when it is dropped.
#[derive(Debug)]
pub struct PooledPipe {
    /// `None` only while it is dropped.
    pipe: Option<Pipe>,
    filled: usize,
}

impl PooledPipe {
    /// An empty pipe. Fails with `EMFILE` when 256 are in use.
    pub fn acquire() -> SysResult<Self> {
        let reserved = transfer_pipes().reserve();
        let pipe = match reserved {
            Ok(Some(pipe)) => {
                statistics().reused.add(1);
                Ok(pipe)
            }
            // Made without the lock of the pool.
            Ok(None) => Pipe::new(TRANSFER_CAPACITY).inspect_err(|_| transfer_pipes().discard()),
            Err(errno) => Err(errno),
        };
        match pipe {
            Ok(pipe) => Ok(Self { pipe: Some(pipe), filled: 0 }),
            Err(errno) => {
                statistics().refused.add(1);
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

    /// Capacity in bytes.
    pub fn capacity(&self) -> usize {
        self.pipe().capacity()
    }

    /// Bytes in it.
    pub fn filled(&self) -> usize {
        self.filled
    }

    /// Counts bytes that were written to it.
    pub fn add(&mut self, count: usize) {
        self.filled += count;
    }

    /// Counts bytes that were read from it.
    pub fn subtract(&mut self, count: usize) {
        self.filled -= count;
    }

    fn pipe(&self) -> &Pipe {
        self.pipe.as_ref().expect("only dropping takes the pipe")
    }
}

impl Drop for PooledPipe {
    fn drop(&mut self) {
        // A pipe that the quota made small is closed: a later one may get the full size.
        let reusable = self.pipe.take().filter(|pipe| self.filled == 0 && pipe.capacity() >= TRANSFER_CAPACITY);
        match reusable {
            Some(pipe) => transfer_pipes().release(pipe),
            None => transfer_pipes().discard(),
        }
    }
}

fn transfer_pipes() -> MutexGuard<'static, PipePool> {
    TRANSFER_PIPES.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_number_of_pipes_is_limited_and_all_are_empty() {
        let mut pool = PipePool::new(64 * 1024, 2);
        let (one, two) = (pool.acquire().expect("one"), pool.acquire().expect("two"));
        assert_eq!(pool.acquire().map(drop), Err(Errno::EMFILE));
        nix::unistd::write(two.write_end(), b"left over").expect("room");
        drop(two);
        pool.discard();
        pool.release(one);
        for _ in 0..2 {
            assert_eq!(pool.acquire().expect("a pipe").available(), Ok(0));
        }
    }

    #[test]
    fn a_pipe_with_bytes_in_it_is_closed() {
        let mut pooled = PooledPipe::acquire().expect("a pipe");
        nix::unistd::write(pooled.write_end(), b"secret").expect("room");
        pooled.add(6);
        drop(pooled);
        let acquired: Vec<_> =
            (0..MAX_IDLE_TRANSFER_PIPES + 1).map(|_| PooledPipe::acquire().expect("a pipe")).collect();
        for pooled in &acquired {
            assert_eq!(pooled.pipe().available(), Ok(0));
        }
    }
}
