//! [`Receive`]: from a socket or pipe into a file, through a pipe, without a copy in user space.
//!
//! `splice(2)` from the source never waits. `splice(2)` into the file may wait for the disk, so a turn runs on a thread that
//! may block.

use std::os::fd::{AsFd, BorrowedFd};

use nix::errno::Errno;

use super::progress::{Account, Step, run_turn};
use super::{Budget, DEFAULT_BUFFER, Method, Progress, Report, TargetFile};
use crate::error::{Code, Error, Result};
use crate::io::pipe_pool::PooledPipe;
use crate::io::pool::Volume;
use zerosend_sys::pipe::{SpliceFlags, splice};

/// Bytes to receive from a descriptor into a file, and how far that is.
pub struct Receive {
    file: TargetFile,
    account: Account,
    buffer: Buffer,
    /// Bytes that were read from the source earlier; they are written first.
    initial_bytes: Vec<u8>,
}

/// Where bytes are between source and file.
enum Buffer {
    /// Not chosen yet.
    None,
    Pipe(PooledPipe),
    /// Where the source refuses `splice(2)`, or no pipe can be made.
    Memory(Vec<u8>),
}

impl Buffer {
    fn memory() -> Self {
        Buffer::Memory(vec![0; DEFAULT_BUFFER])
    }
}

impl Receive {
    /// Receives `length` bytes into `file`; `None`: until the source ends.
    pub fn new(file: TargetFile, length: Option<u64>) -> Self {
        Self { file, account: Account::new(length), buffer: Buffer::None, initial_bytes: Vec::new() }
    }

    /// Adds bytes that were read from the source already. They are written first and count.
    #[must_use]
    pub fn with_initial_bytes(mut self, bytes: Vec<u8>) -> Self {
        self.initial_bytes = bytes;
        self
    }

    /// The file system that is written to.
    pub fn volume(&self) -> Volume {
        Volume::of(&self.file)
    }

    /// Bytes received so far, and how.
    pub fn report(&self) -> Report {
        let method = if matches!(self.buffer, Buffer::Memory(_)) { Method::ReadWrite } else { Method::Splice };
        Report { bytes: self.account.moved, method, syscalls: self.account.syscalls }
    }

    /// Receives until every byte is written, `source` would block ([`Progress::Blocked`]), or the budget is spent. Waits
    /// for the disk, never for the source, which must be in non-blocking mode.
    ///
    /// [`Code::Truncated`]: the source ended before `length` bytes.
    pub fn advance(&mut self, source: impl AsFd, budget: &mut Budget) -> Result<Progress> {
        let source = source.as_fd();
        if let Buffer::None = self.buffer {
            self.buffer = PooledPipe::acquire().map_or_else(|_| Buffer::memory(), Buffer::Pipe);
        }
        if !self.initial_bytes.is_empty() {
            let bytes = std::mem::take(&mut self.initial_bytes);
            self.write_all(&bytes)?;
        }
        run_turn(self, budget, |receive| &receive.account, |receive, max| receive.step(source, max))
    }

    fn step(&mut self, source: BorrowedFd<'_>, max: u64) -> Result<Step> {
        let wanted = self.account.remaining.unwrap_or(u64::MAX).min(max);
        match self.attempt(source, usize::try_from(wanted).unwrap_or(usize::MAX)) {
            Ok(0) => self.source_ended().map(Step::Ended),
            Ok(count) => Ok(Step::Moved(count)),
            Err(error) => match (error.errno(), &self.buffer) {
                (Some(Errno::EINTR), _) => Ok(Step::Interrupted),
                (Some(Errno::EAGAIN), _) => Ok(Step::Blocked(0)),
                (Some(Errno::EINVAL | Errno::ENOSYS | Errno::EPERM), Buffer::Pipe(pipe)) if pipe.filled() == 0 => {
                    self.buffer = Buffer::memory();
                    Ok(Step::Moved(0))
                }
                _ => Err(error),
            },
        }
    }

    fn attempt(&mut self, source: BorrowedFd<'_>, wanted: usize) -> Result<usize> {
        match &mut self.buffer {
            Buffer::None => unreachable!("`advance` chooses the buffer first"),
            Buffer::Pipe(pipe) => {
                if pipe.filled() == 0 {
                    self.account.syscalls += 1;
                    let length = wanted.min(pipe.capacity());
                    let count = splice(source, None, pipe.write_end(), None, length, SpliceFlags::default())
                        .map_err(|errno| Error::system("splice", errno))?;
                    pipe.add(count);
                }
                if pipe.filled() == 0 {
                    return Ok(0);
                }
                let flags = SpliceFlags { moving: true, more: false };
                self.account.syscalls += 1;
                let count = splice(pipe.read_end(), None, self.file.as_fd(), self.file.offset(), pipe.filled(), flags)
                    .map_err(|errno| Error::system("splice", errno))?;
                pipe.subtract(count);
                self.file.advance(count);
                self.account.add(count);
                Ok(count)
            }
            Buffer::Memory(buffer) => {
                let mut buffer = std::mem::take(buffer);
                let length = wanted.min(buffer.len());
                self.account.syscalls += 1;
                let read =
                    nix::unistd::read(source, &mut buffer[..length]).map_err(|errno| Error::system("read", errno));
                let result = read.and_then(|count| self.write_all(&buffer[..count]).map(|()| count));
                self.buffer = Buffer::Memory(buffer);
                result
            }
        }
    }

    /// Counts after each write, so that the count is exact after an error.
    fn write_all(&mut self, mut bytes: &[u8]) -> Result<()> {
        while !bytes.is_empty() {
            self.account.syscalls += 1;
            match self.file.write(bytes) {
                Ok(0) => return Err(Error::system("write", Errno::EIO)),
                Ok(count) => {
                    self.account.add(count);
                    bytes = &bytes[count..];
                }
                Err(Errno::EINTR) => {}
                Err(errno) => return Err(Error::system("write", errno)),
            }
        }
        Ok(())
    }

    fn source_ended(&self) -> Result<Progress> {
        match self.account.remaining {
            None => Ok(Progress::Done),
            Some(missing) => Err(Error::new(
                Code::Truncated,
                format!("the sender closed the connection {missing} bytes early; the file is incomplete"),
            )),
        }
    }
}
