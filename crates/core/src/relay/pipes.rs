//! The pipes of a worker. A pipe that still has bytes in it is closed and never given to another.

use crate::pipe::Pipe;

/// Empty pipes kept.
const MOST_IDLE: usize = 64;

pub(super) struct PipePool {
    size: usize,
    most: usize,
    in_use: usize,
    idle: Vec<Pipe>,
}

impl PipePool {
    /// A pool of at most `most` pipes of `size` bytes.
    pub fn new(size: usize, most: usize) -> Self {
        Self { size, most, in_use: 0, idle: Vec::new() }
    }

    /// A pipe; `None` when there are as many in use as may be, or no descriptors.
    pub fn take(&mut self) -> Option<Pipe> {
        if self.in_use >= self.most {
            return None;
        }
        let pipe = match self.idle.pop() {
            Some(pipe) => pipe,
            None => Pipe::new(self.size).ok()?,
        };
        self.in_use += 1;
        Some(pipe)
    }

    /// Takes an empty pipe back.
    pub fn put(&mut self, pipe: Pipe) {
        self.in_use -= 1;
        if self.idle.len() < MOST_IDLE && pipe.capacity() >= self.size {
            self.idle.push(pipe);
        }
    }

    /// A pipe was closed with bytes in it.
    pub fn lose(&mut self) {
        self.in_use -= 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bounded_number_of_pipes_and_none_with_bytes_in_it() {
        let mut pool = PipePool::new(64 * 1024, 2);
        let (one, two) = (pool.take().expect("one"), pool.take().expect("two"));
        assert!(pool.take().is_none());
        nix::unistd::write(two.write_end(), b"left over").expect("room");
        drop(two);
        pool.lose();
        pool.put(one);
        for _ in 0..2 {
            assert_eq!(pool.take().expect("a pipe").available(), Ok(0));
        }
    }
}
