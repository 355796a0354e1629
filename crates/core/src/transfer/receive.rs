//! The other direction: from a socket or pipe into a file, through a pipe, without a trip through user space.
//!
//! `splice(2)` into the pipe never waits. `splice(2)` into the file may wait for the disk, so the whole belongs on a
//! thread that may: a reactor only waits for the source, see `Work::Receive` there.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use nix::errno::Errno;

use super::{Budget, DEFAULT_BUFFER, INTERRUPTED, Method, Progress, Report};
use crate::error::{Code, Error, Result};
use crate::pipe::Pooled;
use crate::pool::Volume;
use crate::sys::pipe::{SpliceFlags, splice};

/// Bytes on their way from a descriptor into a file.
pub struct Receive {
    file: OwnedFd,
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
    /// `length` bytes, or all until the source ends, to the position of `file`, a regular file that is open for writing
    /// and not for appending.
    pub fn new(file: OwnedFd, length: Option<u64>) -> Self {
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
            write_all(&self.file, &before, &mut self.syscalls)?;
            self.count(before.len());
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
                Ok(count) => {
                    self.count(count);
                    budget.spend(count);
                }
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
        let file = self.file.as_fd();
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
                let count = splice(pipe.read_end(), None, file, None, pipe.filled(), flags)
                    .map_err(|errno| Error::system("splice", errno))?;
                pipe.subtract(count);
                Ok(count)
            }
            Road::Buffer(buffer) => {
                let length = wanted.min(buffer.len());
                self.syscalls += 1;
                let count =
                    nix::unistd::read(source, &mut buffer[..length]).map_err(|errno| Error::system("read", errno))?;
                write_all(&self.file, &buffer[..count], &mut self.syscalls)?;
                Ok(count)
            }
        }
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

fn write_all(file: &OwnedFd, mut bytes: &[u8], syscalls: &mut u64) -> Result<()> {
    while !bytes.is_empty() {
        *syscalls += 1;
        match nix::unistd::write(file, bytes) {
            Ok(step) => bytes = &bytes[step..],
            Err(Errno::EINTR) => {}
            Err(errno) => return Err(Error::system("write", errno)),
        }
    }
    Ok(())
}

fn buffer() -> Road {
    Road::Buffer(vec![0; DEFAULT_BUFFER])
}
