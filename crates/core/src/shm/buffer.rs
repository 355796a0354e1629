//! [`SharedBuffer`]: bytes that several processes read and write.
//!
//! It uses `pread(2)` and `pwrite(2)`, which only copy memory here, instead of a mapping: a segment that was truncated gives a
//! short count, where a mapping would raise `SIGBUS`.

use std::os::fd::{AsFd, BorrowedFd};

use nix::errno::Errno;
use nix::sys::uio::pwrite;

use super::segment::{Seals, Segment, SegmentName};
use crate::error::{Code, Error, Result};
use crate::io::read_full::read_full_at;

/// Shared bytes. Accesses are not ordered or atomic: a reader may see a part of a write.
#[derive(Debug)]
pub struct SharedBuffer {
    segment: Segment,
    size: u64,
}

impl SharedBuffer {
    /// Creates a buffer of `size` zero bytes, at least 1, with a name (`shm_open(3)`) or without (`memfd_create(2)`). `mode` are
    /// the permissions of a buffer with a name. `EEXIST`: the name is in use.
    pub fn create(name: Option<&SegmentName>, size: u64, mode: u32) -> Result<Self> {
        if size == 0 {
            return Err(Error::new(Code::InvalidArgument, "invalid size 0: use at least 1 byte"));
        }
        Ok(Self { segment: Segment::create(name, size, mode)?, size })
    }

    /// Opens the buffer with this name. `ENOENT`, `EACCES`.
    pub fn open(name: &SegmentName) -> Result<Self> {
        let segment = Segment::open(name)?;
        Ok(Self { size: segment.size()?, segment })
    }

    /// Opens the buffer behind a descriptor, which stays open.
    pub fn from_fd(fd: BorrowedFd<'_>) -> Result<Self> {
        let segment = Segment::from_fd(fd)?;
        Ok(Self { size: segment.size()?, segment })
    }

    /// Size in bytes when it was created or opened.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// Its name, if it has one.
    pub fn name(&self) -> Option<&SegmentName> {
        self.segment.name()
    }

    /// Copies bytes from `offset` on to all of `into`. [`Code::OutOfRange`]; [`Code::Truncated`].
    pub fn read_at(&self, offset: u64, into: &mut [u8]) -> Result<()> {
        self.check(offset, into.len())?;
        match read_full_at(&self.segment, offset, into) {
            Ok(count) if count == into.len() => Ok(()),
            Ok(_) => Err(Error::new(Code::Truncated, "the shared memory was truncated after it was opened")),
            Err(errno) => Err(self.segment.failed("pread", errno)),
        }
    }

    /// Copies `bytes` to `offset`. [`Code::OutOfRange`]; `EPERM`: it is sealed against writing; `ENOSPC`: not enough memory.
    pub fn write_at(&self, offset: u64, bytes: &[u8]) -> Result<()> {
        self.check(offset, bytes.len())?;
        let mut done = 0;
        while done < bytes.len() {
            match pwrite(&self.segment, &bytes[done..], (offset + done as u64) as i64) {
                Ok(count) => done += count,
                Err(Errno::EINTR) => {}
                Err(errno) => return Err(self.segment.failed("pwrite", errno)),
            }
        }
        Ok(())
    }

    /// Adds seals, which cannot be removed. [`Code::Unsupported`] for a buffer with a name.
    pub fn seal(&self, seals: Seals) -> Result<()> {
        self.segment.seal(seals)
    }

    fn check(&self, offset: u64, length: usize) -> Result<()> {
        if offset.checked_add(length as u64).is_some_and(|end| end <= self.size) {
            return Ok(());
        }
        let message = format!("offset {offset} and length {length} exceed the size of {} bytes", self.size);
        Err(Error::new(Code::OutOfRange, message))
    }
}

impl AsFd for SharedBuffer {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.segment.as_fd()
    }
}
