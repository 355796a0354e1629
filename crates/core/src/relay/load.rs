//! What a flow has taken and not yet given: bytes in a pipe, or in user space where there is no pipe.

use nix::errno::Errno;

use super::options::RelayMethod;
use super::pipes::PipePool;
use super::side::Side;
use crate::pipe::Pipe;
use crate::sys::SysResult;
use crate::sys::pipe::{SpliceFlags, splice, tee};
use std::os::fd::AsFd;

#[derive(Default)]
pub(super) struct Load {
    pipe: Option<(Pipe, usize)>,
    /// From `given` on.
    stash: Vec<u8>,
    given: usize,
    /// It wanted a pipe and had none.
    pub degraded: bool,
}

impl Load {
    /// Bytes that were taken by somebody else.
    pub fn of(stash: Vec<u8>) -> Self {
        Self { stash, ..Self::default() }
    }

    pub fn len(&self) -> usize {
        self.stash.len() - self.given + self.pipe.as_ref().map_or(0, |(_, filled)| *filled)
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Takes what there is, into an empty load. 0: the end.
    pub fn take(
        &mut self,
        from: &Side,
        method: RelayMethod,
        pipes: &mut PipePool,
        buffer: &mut [u8],
    ) -> SysResult<usize> {
        if method == RelayMethod::Splice && self.pipe.is_none() {
            match pipes.take() {
                Some(pipe) => self.pipe = Some((pipe, 0)),
                None => self.degraded = true,
            }
        }
        if let Some((pipe, filled)) = &mut self.pipe {
            match splice(from.as_fd(), None, pipe.write_end(), None, pipe.capacity(), SpliceFlags::default()) {
                // A socket of a kind that cannot be spliced.
                Err(Errno::EINVAL) => self.degraded = true,
                result => {
                    *filled += result?;
                    return Ok(*filled);
                }
            }
        }
        let count = from.read(buffer)?;
        self.stash.extend_from_slice(&buffer[..count]);
        Ok(count)
    }

    /// Gives the first `most` bytes, or as many of them as `to` takes.
    pub fn give(&mut self, to: &Side, most: usize) -> SysResult<usize> {
        if self.given < self.stash.len() {
            let rest = &self.stash[self.given..];
            let count = to.write(&rest[..rest.len().min(most)])?;
            self.given += count;
            if self.given == self.stash.len() {
                self.stash.clear();
                self.given = 0;
            }
            return Ok(count);
        }
        let Some((pipe, filled)) = &mut self.pipe else { return Ok(0) };
        let count = splice(pipe.read_end(), None, to.as_fd(), None, most.min(*filled), SpliceFlags::default())?;
        *filled -= count;
        Ok(count)
    }

    /// Copies the first bytes into a pipe and keeps them. `EAGAIN`: it has no room.
    pub fn copy(&self, to: &Pipe) -> SysResult<usize> {
        if self.given < self.stash.len() {
            return nix::unistd::write(to.write_end(), &self.stash[self.given..]);
        }
        match &self.pipe {
            Some((pipe, filled)) if *filled > 0 => tee(pipe.read_end(), to.write_end(), *filled),
            _ => Ok(0),
        }
    }

    /// Who has nothing under way holds nothing. What is in it is given up.
    pub fn release(&mut self, pipes: &mut PipePool) {
        self.stash = Vec::new();
        self.given = 0;
        match self.pipe.take() {
            Some((pipe, 0)) => pipes.put(pipe),
            Some(_) => pipes.lose(),
            None => {}
        }
    }
}
