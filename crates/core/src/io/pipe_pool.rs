//! The pipes of a worker. A pipe that still has bytes in it is closed and never given to another.

use std::time::{Duration, Instant};

use crate::io::pipe::Pipe;

/// Empty pipes kept.
const MAX_IDLE: usize = 64;
/// Over the quota of an unprivileged user the kernel makes pipes of one or two pages (`pipe(7)`): a buffer is better than those.
const MIN_SIZE: usize = 64 * 1024;
/// When there was none to be had, the next is not asked for before this.
pub(crate) const RETRY_INTERVAL: Duration = Duration::from_millis(100);

pub(crate) struct PipePool {
    size: usize,
    max: usize,
    in_use: usize,
    idle: Vec<Pipe>,
    shortage: Option<Instant>,
}

impl PipePool {
    /// A pool of at most `max` pipes of `size` bytes.
    pub fn new(size: usize, max: usize) -> Self {
        Self { size, max, in_use: 0, idle: Vec::new(), shortage: None }
    }

    /// A pipe; `None` when there are as many in use as may be, no descriptors, or no pages for it.
    pub fn acquire(&mut self) -> Option<Pipe> {
        if self.is_full() {
            return None;
        }
        let pipe = match self.idle.pop() {
            Some(pipe) => pipe,
            None => self.make()?,
        };
        self.in_use += 1;
        Some(pipe)
    }

    /// Whether there are as many in use as may be.
    pub fn is_full(&self) -> bool {
        self.in_use >= self.max
    }

    fn make(&mut self) -> Option<Pipe> {
        if self.shortage.is_some_and(|since| since.elapsed() < RETRY_INTERVAL) {
            return None;
        }
        let pipe = Pipe::new(self.size).ok().filter(|pipe| pipe.capacity() >= self.size.min(MIN_SIZE));
        self.shortage = if pipe.is_none() { Some(Instant::now()) } else { None };
        pipe
    }

    /// Takes an empty pipe back.
    pub fn release(&mut self, pipe: Pipe) {
        self.in_use -= 1;
        if self.idle.len() < MAX_IDLE {
            self.idle.push(pipe);
        }
    }

    /// Gives up the descriptors of empty pipes.
    pub fn close_idle(&mut self) {
        self.idle.clear();
    }

    /// A pipe was closed with bytes in it.
    pub fn discard(&mut self) {
        self.in_use -= 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bounded_number_of_pipes_and_none_with_bytes_in_it() {
        let mut pool = PipePool::new(64 * 1024, 2);
        let (one, two) = (pool.acquire().expect("one"), pool.acquire().expect("two"));
        assert!(pool.acquire().is_none());
        nix::unistd::write(two.write_end(), b"left over").expect("room");
        drop(two);
        pool.discard();
        pool.release(one);
        for _ in 0..2 {
            assert_eq!(pool.acquire().expect("a pipe").available(), Ok(0));
        }
    }
}
