//! The bytes that one direction has read and not yet written: in a pipe, or in user space.

use std::os::fd::AsFd;

use nix::errno::Errno;

use super::options::RelayMethod;
use super::side::Side;
use crate::io::pipe::Pipe;
use crate::io::pipe_pool::PipePool;
use zerosend_sys::SysResult;
use zerosend_sys::pipe::{SpliceFlags, splice, tee};

/// With [`RelayMethod::Auto`], a read of fewer bytes is a message rather than a part of a stream, and costs less without a pipe
/// (`cd bench && npm run relays`: a tenth less CPU time for 1 KiB and its echo).
const MESSAGE_SIZE: usize = 16 * 1024;

/// Result of [`FlowBuffer::read_from`].
pub(super) struct ReadResult {
    /// Bytes read; 0 at the end of the stream.
    pub count: usize,
    /// Bytes that were written at once, or the error of that write.
    pub written: SysResult<usize>,
}

#[derive(Default)]
pub(super) struct FlowBuffer {
    /// The pipe, and the number of bytes in it.
    pipe: Option<(Pipe, usize)>,
    /// Bytes in user space; those before `start` are written.
    memory: Vec<u8>,
    start: usize,
    /// The last read was of [`MESSAGE_SIZE`] or more.
    is_stream: bool,
    /// Bytes went through user space for lack of a pipe.
    pub degraded: bool,
    /// The kernel does not support splice(2) for this source.
    splice_refused: bool,
}

impl FlowBuffer {
    /// A buffer with bytes that were read elsewhere.
    pub fn with_bytes(memory: Vec<u8>) -> Self {
        Self { memory, ..Self::default() }
    }

    pub fn len(&self) -> usize {
        self.memory.len() - self.start + self.pipe.as_ref().map_or(0, |(_, filled)| *filled)
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Reads what is available into the empty buffer. Bytes that go through user space are written to `direct_to` at once; `None`
    /// if there are mirrors.
    pub fn read_from(
        &mut self,
        from: &Side,
        direct_to: Option<&Side>,
        method: RelayMethod,
        pipes: &mut PipePool,
        scratch: &mut [u8],
    ) -> SysResult<ReadResult> {
        let auto = method == RelayMethod::Auto;
        // Mirrors need a pipe, for tee(2).
        let wants_pipe = method == RelayMethod::Splice || auto && (self.is_stream || direct_to.is_none());
        let splices = wants_pipe && !self.splice_refused;
        if splices && self.pipe.is_none() {
            match pipes.acquire() {
                Ok(pipe) => self.pipe = Some((pipe, 0)),
                Err(_) => self.degraded = true,
            }
        }
        if let Some((pipe, filled)) = self.pipe.as_mut().filter(|_| splices) {
            match splice(from.as_fd(), None, pipe.write_end(), None, pipe.capacity(), SpliceFlags::default()) {
                // A type of socket that cannot be spliced, or a sandbox that forbids the call.
                Err(Errno::EINVAL | Errno::ENOSYS | Errno::EPERM) => {
                    (self.degraded, self.splice_refused) = (true, true)
                }
                // At urgent data splice(2) reports EAGAIN or the end, even if more bytes follow (`tcp_read_sock` in the
                // kernel's net/ipv4/tcp.c). recv(2) reads past it.
                Ok(0) if from.is_socket() => {}
                Err(Errno::EAGAIN) if from.is_urgent() => {}
                result => {
                    *filled += result?;
                    self.is_stream = *filled >= MESSAGE_SIZE;
                    return Ok(ReadResult { count: *filled, written: Ok(0) });
                }
            }
        }
        let max = if auto && !wants_pipe { MESSAGE_SIZE.min(scratch.len()) } else { scratch.len() };
        // A short read does not mean that the socket is empty: recv(2) also stops at descriptors (`SCM_RIGHTS`) and at urgent
        // data. Only EAGAIN does.
        let count = from.read(&mut scratch[..max])?;
        self.is_stream = count >= MESSAGE_SIZE;
        let written = match direct_to {
            Some(to) if count > 0 && to.writable.get() => to.write(&scratch[..count]),
            _ => Ok(0),
        };
        self.memory.extend_from_slice(&scratch[*written.as_ref().unwrap_or(&0)..count]);
        Ok(ReadResult { count, written })
    }

    /// Writes up to `max` bytes. Returns how many `to` accepted.
    pub fn write_to(&mut self, to: &Side, max: usize) -> SysResult<usize> {
        if self.start < self.memory.len() {
            let rest = &self.memory[self.start..];
            let count = to.write(&rest[..rest.len().min(max)])?;
            self.start += count;
            if self.start == self.memory.len() {
                self.memory.clear();
                self.start = 0;
            }
            return Ok(count);
        }
        let Some((pipe, filled)) = &mut self.pipe else { return Ok(0) };
        let count = splice(pipe.read_end(), None, to.as_fd(), None, max.min(*filled), SpliceFlags::default())?;
        *filled -= count;
        Ok(count)
    }

    /// Copies the first bytes into a pipe without removing them. Fails with `EAGAIN` when the pipe is full.
    pub fn tee_to(&self, to: &Pipe) -> SysResult<usize> {
        if self.start < self.memory.len() {
            return nix::unistd::write(to.write_end(), &self.memory[self.start..]);
        }
        match &self.pipe {
            Some((pipe, filled)) if *filled > 0 => tee(pipe.read_end(), to.write_end(), *filled),
            _ => Ok(0),
        }
    }

    /// Moves the bytes of the pipe to user space and releases the pipe.
    pub fn move_to_memory(&mut self, pipes: &mut PipePool) -> SysResult<()> {
        let Some((pipe, filled)) = &mut self.pipe else { return Ok(()) };
        // Bytes in user space come first.
        let mut end = self.memory.len();
        self.memory.resize(end + *filled, 0);
        let mut result = Ok(());
        while *filled > 0 {
            match nix::unistd::read(pipe.read_end(), &mut self.memory[end..]) {
                Ok(0) => result = Err(Errno::EIO),
                Ok(count) => (*filled, end) = (*filled - count, end + count),
                Err(Errno::EINTR) => {}
                Err(errno) => result = Err(errno),
            }
            if result.is_err() {
                break;
            }
        }
        self.memory.truncate(end);
        if let Some((pipe, _)) = self.pipe.take_if(|(_, filled)| *filled == 0) {
            self.degraded = true;
            pipes.release(pipe);
        }
        result
    }

    /// Releases the pipe and the memory. Bytes in them are discarded.
    pub fn release(&mut self, pipes: &mut PipePool) {
        self.memory = Vec::new();
        self.start = 0;
        match self.pipe.take() {
            Some((pipe, 0)) => pipes.release(pipe),
            Some(_) => pipes.discard(),
            None => {}
        }
    }
}
