//! One direction of a relay: what was taken from one socket and not yet given to the other.
//!
//! At most one pipe or one buffer is full at a time, so a reader that is slow holds back its sender and nothing else. A
//! flow holds a pipe only while bytes are in it.

use std::os::fd::{AsRawFd, BorrowedFd};

use nix::errno::Errno;
use nix::sys::socket::{MsgFlags, Shutdown, recv, send, shutdown};

use super::options::RelayMethod;
use super::pipes::PipePool;
use crate::pipe::Pipe;
use crate::sys::SysResult;
use crate::sys::pipe::{SpliceFlags, splice};

/// What became of a flow when it was pumped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Progress {
    /// Its source has nothing, or its target takes nothing.
    Blocked,
    /// It has had its share of the turn.
    Yield,
    /// All is through, and the target has been told of the end.
    Done,
}

/// Which side an error belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fault {
    Source(Errno),
    Target(Errno),
}

/// What a pump may use of its worker.
pub(super) struct Means<'a> {
    pub pipes: &'a mut PipePool,
    pub buffer: &'a mut [u8],
    pub method: RelayMethod,
    /// Bytes of one turn.
    pub budget: u64,
}

#[derive(Default)]
pub(super) struct Flow {
    pipe: Option<(Pipe, usize)>,
    /// Bytes in user space, from `sent` on.
    stash: Vec<u8>,
    sent: usize,
    ended: bool,
    done: bool,
    /// Bytes given to the target.
    pub bytes: u64,
    /// It wanted a pipe and had none.
    pub degraded: bool,
    /// Its target has refused bytes in the last pump: epoll has to be asked anew. A socket may take less than all without
    /// being full, and then nothing that happens later is an edge.
    pub refused: bool,
}

impl Flow {
    /// A flow that gives `first` before anything else.
    pub fn beginning_with(first: Vec<u8>) -> Self {
        Self { stash: first, ..Self::default() }
    }

    /// Moves what can be moved. `readable` and `writable` are what epoll has said; they are taken back at `EAGAIN`.
    pub fn pump(
        &mut self,
        from: BorrowedFd<'_>,
        readable: &mut bool,
        to: BorrowedFd<'_>,
        writable: &mut bool,
        means: &mut Means<'_>,
    ) -> Result<Progress, Fault> {
        let end = self.bytes + means.budget;
        self.refused = false;
        loop {
            if self.done {
                return Ok(Progress::Done);
            }
            if !self.is_empty() {
                if !*writable {
                    return Ok(Progress::Blocked);
                }
                match self.give(to) {
                    Ok(count) => self.bytes += count as u64,
                    Err(Errno::EINTR) => {}
                    Err(Errno::EAGAIN) => {
                        *writable = false;
                        self.refused = true;
                    }
                    Err(errno) => return Err(Fault::Target(errno)),
                }
                if self.is_empty() && self.bytes >= end {
                    self.release(means.pipes);
                    return Ok(Progress::Yield);
                }
                continue;
            }
            if self.ended {
                self.release(means.pipes);
                self.done = true;
                return match shutdown(to.as_raw_fd(), Shutdown::Write) {
                    Ok(()) | Err(Errno::ENOTCONN) => Ok(Progress::Done),
                    Err(errno) => Err(Fault::Target(errno)),
                };
            }
            if !*readable {
                self.release(means.pipes);
                return Ok(Progress::Blocked);
            }
            match self.take(from, means) {
                Ok(0) => self.ended = true,
                Ok(_) | Err(Errno::EINTR) => {}
                Err(Errno::EAGAIN) => *readable = false,
                Err(errno) => {
                    self.release(means.pipes);
                    return Err(Fault::Source(errno));
                }
            }
        }
    }

    fn is_empty(&self) -> bool {
        self.sent == self.stash.len() && self.pipe.as_ref().is_none_or(|(_, filled)| *filled == 0)
    }

    fn give(&mut self, to: BorrowedFd<'_>) -> SysResult<usize> {
        if self.sent < self.stash.len() {
            let count = send(to.as_raw_fd(), &self.stash[self.sent..], MsgFlags::MSG_NOSIGNAL)?;
            self.sent += count;
            if self.sent == self.stash.len() {
                self.stash.clear();
                self.sent = 0;
            }
            return Ok(count);
        }
        let Some((pipe, filled)) = &mut self.pipe else { return Ok(0) };
        let count = splice(pipe.read_end(), None, to, None, *filled, SpliceFlags::default())?;
        *filled -= count;
        Ok(count)
    }

    fn take(&mut self, from: BorrowedFd<'_>, means: &mut Means<'_>) -> SysResult<usize> {
        if means.method == RelayMethod::Splice && self.pipe.is_none() {
            match means.pipes.take() {
                Some(pipe) => self.pipe = Some((pipe, 0)),
                None => self.degraded = true,
            }
        }
        if let Some((pipe, filled)) = &mut self.pipe {
            match splice(from, None, pipe.write_end(), None, pipe.capacity(), SpliceFlags::default()) {
                // A socket of a kind that cannot be spliced.
                Err(Errno::EINVAL) => self.degraded = true,
                result => {
                    *filled += result?;
                    return Ok(*filled);
                }
            }
        }
        let count = recv(from.as_raw_fd(), means.buffer, MsgFlags::empty())?;
        self.stash.extend_from_slice(&means.buffer[..count]);
        Ok(count)
    }

    /// Who has nothing under way holds nothing.
    fn release(&mut self, pipes: &mut PipePool) {
        if self.sent == self.stash.len() {
            self.stash = Vec::new();
            self.sent = 0;
        }
        match self.pipe.take() {
            Some((pipe, 0)) => pipes.put(pipe),
            Some(_) => pipes.lose(),
            None => {}
        }
    }

    /// Gives up what is in it.
    pub fn abandon(&mut self, pipes: &mut PipePool) {
        self.release(pipes);
        self.stash = Vec::new();
        self.sent = 0;
    }
}
