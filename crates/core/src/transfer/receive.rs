//! The other direction: from a socket or pipe into a file, through a pipe, without a trip through user space.
//!
//! `splice(2)` into the pipe never waits. `splice(2)` into the file may wait for the disk, so the whole belongs on a
//! thread that may: a reactor only waits for the source, see `Work::Receive` there.

use std::os::fd::{AsFd, BorrowedFd};

use nix::errno::Errno;

use super::{Budget, DEFAULT_BUFFER, INTERRUPTED, Method, Progress, Report, Sink};
use crate::error::{Code, Error, Result};
use crate::io::pipe::Pooled;
use crate::io::pool::Volume;
use zerosend_sys::pipe::{SpliceFlags, splice};

/// Bytes on their way from a descriptor into a file.
pub struct Receive {
    file: Sink,
    /// `None`: to the end of the source.
    remaining: Option<u64>,
    received: u64,
    syscalls: u64,
    road: Road,
    /// Bytes that were read from the source before; they go first.
    before: Vec<u8>,
}

enum Road {
    /// Not begun.
    New,
    Pipe(Pooled),
    /// Where the source refuses `splice(2)`, or there is no pipe to be had.
    Buffer(Vec<u8>),
}

impl Receive {
    /// `length` bytes, or all until the source ends, into `file`.
    pub fn new(file: Sink, length: Option<u64>) -> Self {
        Self { file, remaining: length, received: 0, syscalls: 0, road: Road::New, before: Vec::new() }
    }

    /// Bytes that somebody has read from the source already; they go first and count.
    #[must_use]
    pub fn after(mut self, bytes: Vec<u8>) -> Self {
        self.before = bytes;
        self
    }

    /// The file system that it waits for.
    pub fn volume(&self) -> Volume {
        Volume::of(&self.file)
    }

    /// What has been received so far, and how.
    pub fn report(&self) -> Report {
        let method = if matches!(self.road, Road::Buffer(_)) { Method::ReadWrite } else { Method::Splice };
        Report { bytes: self.received, method, syscalls: self.syscalls }
    }

    /// Receives until all has come, `source` has nothing more now ([`Progress::Blocked`]), or the budget is spent. Waits
    /// for the disk, never for the source, which must be in non-blocking mode.
    ///
    /// [`Code::Truncated`]: the source ended before `length` bytes.
    pub fn advance(&mut self, source: impl AsFd, budget: &mut Budget) -> Result<Progress> {
        let source = source.as_fd();
        if let Road::New = self.road {
            self.road = Pooled::take().map_or_else(|_| buffer(), Road::Pipe);
        }
        if !self.before.is_empty() {
            let before = std::mem::take(&mut self.before);
            self.write_all(&before)?;
        }
        loop {
            if self.remaining == Some(0) {
                return Ok(Progress::Done);
            }
            if budget.left() == 0 {
                return Ok(Progress::Yield);
            }
            let wanted = self.remaining.unwrap_or(u64::MAX).min(budget.left());
            match self.attempt(source, usize::try_from(wanted).unwrap_or(usize::MAX)) {
                Ok(0) => return self.end(),
                Ok(count) => budget.spend(count),
                Err(error) => match (error.errno(), &self.road) {
                    (Some(Errno::EINTR), _) => budget.spend(INTERRUPTED),
                    (Some(Errno::EAGAIN), _) => return Ok(Progress::Blocked),
                    (Some(Errno::EINVAL | Errno::ENOSYS | Errno::EPERM), Road::Pipe(pipe)) if pipe.filled() == 0 => {
                        self.road = buffer()
                    }
                    _ => return Err(error),
                },
            }
        }
    }

    fn attempt(&mut self, source: BorrowedFd<'_>, wanted: usize) -> Result<usize> {
        match &mut self.road {
            Road::New => unreachable!("the road is chosen when it is first taken"),
            Road::Pipe(pipe) => {
                if pipe.filled() == 0 {
                    self.syscalls += 1;
                    let length = wanted.min(pipe.capacity());
                    let count = splice(source, None, pipe.write_end(), None, length, SpliceFlags::default())
                        .map_err(|errno| Error::system("splice", errno))?;
                    pipe.add(count);
                }
                if pipe.filled() == 0 {
                    return Ok(0);
                }
                let flags = SpliceFlags { moving: true, more: false };
                self.syscalls += 1;
                let count = splice(pipe.read_end(), None, self.file.as_fd(), self.file.offset(), pipe.filled(), flags)
                    .map_err(|errno| Error::system("splice", errno))?;
                pipe.subtract(count);
                self.file.advance(count);
                self.count(count);
                Ok(count)
            }
            Road::Buffer(buffer) => {
                let mut buffer = std::mem::take(buffer);
                let length = wanted.min(buffer.len());
                self.syscalls += 1;
                let read =
                    nix::unistd::read(source, &mut buffer[..length]).map_err(|errno| Error::system("read", errno));
                let result = read.and_then(|count| self.write_all(&buffer[..count]).map(|()| count));
                self.road = Road::Buffer(buffer);
                result
            }
        }
    }

    /// Counts each part as it is written, so that an error leaves the exact number.
    fn write_all(&mut self, mut bytes: &[u8]) -> Result<()> {
        while !bytes.is_empty() {
            self.syscalls += 1;
            match self.file.write(bytes) {
                Ok(0) => return Err(Error::system("write", Errno::EIO)),
                Ok(step) => {
                    self.count(step);
                    bytes = &bytes[step..];
                }
                Err(Errno::EINTR) => {}
                Err(errno) => return Err(Error::system("write", errno)),
            }
        }
        Ok(())
    }

    fn count(&mut self, bytes: usize) {
        self.received += bytes as u64;
        self.remaining = self.remaining.map(|remaining| remaining.saturating_sub(bytes as u64));
    }

    fn end(&self) -> Result<Progress> {
        match self.remaining {
            None => Ok(Progress::Done),
            Some(missing) => Err(Error::new(
                Code::Truncated,
                format!(
                    "the sender ended {missing} bytes before the length that was announced; the file is incomplete"
                ),
            )),
        }
    }
}

fn buffer() -> Road {
    Road::Buffer(vec![0; DEFAULT_BUFFER])
}
