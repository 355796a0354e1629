//! [`SharedBuffer`]: bytes that processes read and write.
//!
//! They are read and written by `pread(2)` and `pwrite(2)`, which for memory are copies and nothing else: so a segment that
//! somebody makes shorter is a short count and not a signal.

use std::os::fd::{AsFd, BorrowedFd};

use nix::errno::Errno;
use nix::sys::uio::pwrite;

use super::segment::{Seals, Segment, SegmentName};
use crate::error::{Code, Error, Result};
use crate::io::read_full::read_full_at;

/// Shared bytes. Nothing orders what several of its users do: a reader may see a part of what is being written.
#[derive(Debug)]
pub struct SharedBuffer {
    segment: Segment,
    size: u64,
}

impl SharedBuffer {
    /// Makes one of `size` zeros (1 byte at least), with a name (`shm_open(3)`) or without one (`memfd_create(2)`); `mode` is
    /// who may open it. `EEXIST`: the name is taken.
    pub fn create(name: Option<&SegmentName>, size: u64, mode: u32) -> Result<Self> {
        if size == 0 {
            return Err(Error::new(Code::InvalidArgument, "size is 0, but must be 1 byte at least"));
        }
        Ok(Self { segment: Segment::create(name, size, mode)?, size })
    }

    /// Opens the one of this name. `ENOENT`, `EACCES`.
    pub fn open(name: &SegmentName) -> Result<Self> {
        let segment = Segment::open(name)?;
        Ok(Self { size: segment.size()?, segment })
    }

    /// Opens the one behind a descriptor, which stays the caller's.
    pub fn from_fd(fd: BorrowedFd<'_>) -> Result<Self> {
        let segment = Segment::from_fd(fd)?;
        Ok(Self { size: segment.size()?, segment })
    }

    /// Bytes, as many as when it was made or opened.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// Its name, when it has one.
    pub fn name(&self) -> Option<&SegmentName> {
        self.segment.name()
    }

    /// Copies bytes from `offset` on to all of `into`. [`Code::OutOfRange`], [`Code::Truncated`].
    pub fn read_at(&self, offset: u64, into: &mut [u8]) -> Result<()> {
        self.check(offset, into.len())?;
        match read_full_at(&self.segment, offset, into) {
            Ok(count) if count == into.len() => Ok(()),
            Ok(_) => Err(Error::new(Code::Truncated, "the shared memory is shorter now than when it was opened")),
            Err(errno) => Err(self.segment.failed("pread", errno)),
        }
    }

    /// Copies `bytes` to `offset`. [`Code::OutOfRange`]; `EPERM` when it is sealed against writing; `ENOSPC` without memory.
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

    /// Forbids things for ever. See [`Seals`].
    pub fn seal(&self, seals: Seals) -> Result<()> {
        self.segment.seal(seals)
    }

    fn check(&self, offset: u64, length: usize) -> Result<()> {
        if offset.checked_add(length as u64).is_some_and(|end| end <= self.size) {
            return Ok(());
        }
        let message = format!("offset {offset} and length {length} reach beyond the {} bytes of it", self.size);
        Err(Error::new(Code::OutOfRange, message))
    }
}

impl AsFd for SharedBuffer {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.segment.as_fd()
    }
}
