//! What a flow has taken and not yet given: bytes in a pipe, or in user space where there is no pipe.

use nix::errno::Errno;

use super::options::RelayMethod;
use super::side::Side;
use crate::io::pipe::Pipe;
use crate::io::pipe_pool::PipePool;
use std::os::fd::AsFd;
use zerosend_sys::SysResult;
use zerosend_sys::pipe::{SpliceFlags, splice, tee};

/// Of [`RelayMethod::Auto`]: what does not fill a buffer of so many bytes is a message, and is cheaper without a pipe
/// (`npm run relays` in `bench/`: 1 KiB there and back, a tenth less CPU time).
const MESSAGE_SIZE: usize = 16 * 1024;

/// What was taken, and what of it was given at once.
pub(super) struct Taken {
    /// 0: the end.
    pub count: usize,
    /// Bytes, or why not all were given.
    pub given: SysResult<usize>,
}

#[derive(Default)]
pub(super) struct FlowBuffer {
    pipe: Option<(Pipe, usize)>,
    /// From `given` on.
    stash: Vec<u8>,
    given: usize,
    /// The last bytes were of a stream, and not a message.
    bulk: bool,
    /// It wanted a pipe and had none.
    pub degraded: bool,
    /// The kernel splices nothing here.
    refused: bool,
}

impl FlowBuffer {
    /// Bytes that were taken by somebody else.
    pub fn with_bytes(stash: Vec<u8>) -> Self {
        Self { stash, ..Self::default() }
    }

    pub fn len(&self) -> usize {
        self.stash.len() - self.given + self.pipe.as_ref().map_or(0, |(_, filled)| *filled)
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Takes what there is, into an empty load. What comes by the buffer goes on to `straight` at once, when there is one.
    pub fn take(
        &mut self,
        from: &Side,
        straight: Option<&Side>,
        method: RelayMethod,
        pipes: &mut PipePool,
        buffer: &mut [u8],
    ) -> SysResult<Taken> {
        let auto = method == RelayMethod::Auto;
        // Mirrors are made from pipes.
        let wanted = method == RelayMethod::Splice || auto && (self.bulk || straight.is_none());
        let splices = wanted && !self.refused;
        if splices && self.pipe.is_none() {
            match pipes.acquire() {
                Some(pipe) => self.pipe = Some((pipe, 0)),
                None => self.degraded = true,
            }
        }
        if let Some((pipe, filled)) = self.pipe.as_mut().filter(|_| splices) {
            match splice(from.as_fd(), None, pipe.write_end(), None, pipe.capacity(), SpliceFlags::default()) {
                // A socket of a kind that cannot be spliced, or a sandbox that forbids it.
                Err(Errno::EINVAL | Errno::ENOSYS | Errno::EPERM) => (self.degraded, self.refused) = (true, true),
                // At urgent data splice(2) says that there is nothing, or that this is the end, however much follows
                // (`tcp_read_sock` in the kernel's net/ipv4/tcp.c). recv(2) reads past it.
                Ok(0) if from.is_socket() => {}
                Err(Errno::EAGAIN) if from.is_urgent() => {}
                result => {
                    *filled += result?;
                    self.bulk = *filled >= MESSAGE_SIZE;
                    return Ok(Taken { count: *filled, given: Ok(0) });
                }
            }
        }
        let max = if auto && !wanted { MESSAGE_SIZE.min(buffer.len()) } else { buffer.len() };
        // A short count does not say that the socket is empty: recv(2) also stops at descriptors (`SCM_RIGHTS`) and at
        // urgent data. Only EAGAIN does.
        let count = from.read(&mut buffer[..max])?;
        self.bulk = count >= MESSAGE_SIZE;
        let given = match straight {
            Some(to) if count > 0 && to.writable.get() => to.write(&buffer[..count]),
            _ => Ok(0),
        };
        self.stash.extend_from_slice(&buffer[*given.as_ref().unwrap_or(&0)..count]);
        Ok(Taken { count, given })
    }

    /// Gives the first `most` bytes, or as many of them as `to` takes.
    pub fn give(&mut self, to: &Side, max: usize) -> SysResult<usize> {
        if self.given < self.stash.len() {
            let rest = &self.stash[self.given..];
            let count = to.write(&rest[..rest.len().min(max)])?;
            self.given += count;
            if self.given == self.stash.len() {
                self.stash.clear();
                self.given = 0;
            }
            return Ok(count);
        }
        let Some((pipe, filled)) = &mut self.pipe else { return Ok(0) };
        let count = splice(pipe.read_end(), None, to.as_fd(), None, max.min(*filled), SpliceFlags::default())?;
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

    /// Gives its pipe back, and keeps in user space what was in it.
    pub fn spill(&mut self, pipes: &mut PipePool) -> SysResult<()> {
        let Some((pipe, filled)) = &mut self.pipe else { return Ok(()) };
        // What is in user space came first.
        let mut end = self.stash.len();
        self.stash.resize(end + *filled, 0);
        let mut result = Ok(());
        while *filled > 0 {
            match nix::unistd::read(pipe.read_end(), &mut self.stash[end..]) {
                Ok(0) => result = Err(Errno::EIO),
                Ok(count) => (*filled, end) = (*filled - count, end + count),
                Err(Errno::EINTR) => {}
                Err(errno) => result = Err(errno),
            }
            if result.is_err() {
                break;
            }
        }
        self.stash.truncate(end);
        if let Some((pipe, _)) = self.pipe.take_if(|(_, filled)| *filled == 0) {
            self.degraded = true;
            pipes.release(pipe);
        }
        result
    }

    /// Who has nothing under way holds nothing. What is in it is given up.
    pub fn release(&mut self, pipes: &mut PipePool) {
        self.stash = Vec::new();
        self.given = 0;
        match self.pipe.take() {
            Some((pipe, 0)) => pipes.release(pipe),
            Some(_) => pipes.discard(),
            None => {}
        }
    }
}
