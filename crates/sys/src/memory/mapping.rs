//! Mapped files.

use std::io::{IoSlice, IoSliceMut};
use std::num::NonZeroUsize;
use std::os::fd::AsFd;

use nix::errno::Errno;
use nix::sys::mman::{MapFlags, MmapAdvise, MsFlags, ProtFlags, madvise, mmap, msync};
use nix::sys::uio::{RemoteIoVec, process_vm_readv, process_vm_writev};

use super::region::{Region, Span};
use crate::SysResult;
use crate::page::page_size;

/// The visibility of writes to a mapping.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MapMode {
    /// The mapping is read-only.
    Read,
    /// Writes copy the page (`MAP_PRIVATE`) and never reach the file.
    Private,
    /// Writes go to the file.
    Shared,
}

/// How a mapping will be accessed; see `madvise(2)`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Advice {
    /// No advice.
    #[default]
    Normal,
    /// From beginning to end.
    Sequential,
    /// In no order.
    Random,
    /// Soon.
    WillNeed,
    /// Not soon. Discards what was written to a [`MapMode::Private`] mapping.
    DontNeed,
    /// With huge pages where possible.
    HugePage,
}

/// A mapping of a range of a file. Only the kernel accesses its bytes.
#[derive(Debug)]
pub struct Mapping(Region);

impl Mapping {
    /// Maps `length` bytes of `file`, at least 1, from `offset` on, a multiple of the page size; see `mmap(2)`. The range may
    /// extend beyond the end of the file: the kernel reports `EFAULT` there. `populate` is `MAP_POPULATE`.
    pub fn new(file: impl AsFd, offset: u64, length: usize, mode: MapMode, populate: bool) -> SysResult<Self> {
        let size = NonZeroUsize::new(length).ok_or(Errno::EINVAL)?;
        let offset = i64::try_from(offset).map_err(|_| Errno::EOVERFLOW)?;
        let (protection, mut flags) = match mode {
            MapMode::Read => (ProtFlags::PROT_READ, MapFlags::MAP_SHARED),
            MapMode::Private => (ProtFlags::PROT_READ | ProtFlags::PROT_WRITE, MapFlags::MAP_PRIVATE),
            MapMode::Shared => (ProtFlags::PROT_READ | ProtFlags::PROT_WRITE, MapFlags::MAP_SHARED),
        };
        flags.set(MapFlags::MAP_POPULATE, populate);
        // SAFETY: without MAP_FIXED the kernel chooses an unused range, so no existing mapping changes.
        let start = unsafe { mmap(None, size, protection, flags, file, offset)? };
        // SAFETY: the call has just mapped these `length` bytes, and no other code has their address.
        Ok(Self(unsafe { Region::from_raw(start.cast(), length) }))
    }

    /// A read-only mapping.
    pub fn read_only(file: impl AsFd, offset: u64, length: usize) -> SysResult<Self> {
        Self::new(file, offset, length, MapMode::Read, false)
    }

    /// Bytes mapped, at least 1.
    #[expect(clippy::len_without_is_empty, reason = "never empty")]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// `length` bytes from `from` on, without those beyond the end.
    pub fn span(&self, from: usize, length: usize) -> Span<'_> {
        self.0.span(from, length)
    }

    /// Copies bytes from position `at` to `buffer`; see `process_vm_readv(2)`. `EFAULT`: the file no longer has the page.
    pub fn read(&self, at: usize, buffer: &mut [u8]) -> SysResult<usize> {
        let remote = self.remote(at, buffer.len());
        process_vm_readv(nix::unistd::getpid(), &mut [IoSliceMut::new(buffer)], &[remote])
    }

    /// Copies `bytes` to position `at`; see `process_vm_writev(2)`. `EFAULT`: the file no longer has the page, or the mapping
    /// is read-only.
    pub fn write(&self, at: usize, bytes: &[u8]) -> SysResult<usize> {
        let remote = self.remote(at, bytes.len());
        process_vm_writev(nix::unistd::getpid(), &[IoSlice::new(bytes)], &[remote])
    }

    fn remote(&self, at: usize, length: usize) -> RemoteIoVec {
        let span = self.0.span(at, length);
        RemoteIoVec { base: span.start().as_ptr() as usize, len: span.len() }
    }

    /// Writes changed pages to the file and, with `wait`, waits until they are on the disk; see `msync(2)`.
    pub fn sync(&self, wait: bool) -> SysResult<()> {
        let flags = if wait { MsFlags::MS_SYNC } else { MsFlags::MS_ASYNC };
        // SAFETY: the range is mapped while `self` exists, and the flags (no MS_INVALIDATE) change no byte of it.
        unsafe { msync(self.0.start().cast(), self.0.len(), flags) }
    }

    /// Advises the kernel how the mapping will be accessed; see `madvise(2)`. `EINVAL`: the kernel or the file system does not
    /// know the advice.
    pub fn advise(&self, advice: Advice) -> SysResult<()> {
        match advice {
            Advice::Normal => Ok(()),
            Advice::Sequential => self.madvise(MmapAdvise::MADV_SEQUENTIAL),
            Advice::Random => self.madvise(MmapAdvise::MADV_RANDOM),
            Advice::WillNeed => self.madvise(MmapAdvise::MADV_WILLNEED),
            Advice::DontNeed => self.madvise(MmapAdvise::MADV_DONTNEED),
            Advice::HugePage => self.madvise(MmapAdvise::MADV_HUGEPAGE),
        }
    }

    /// Maps all pages and waits until they are in memory; see `madvise(2)`, `MADV_POPULATE_READ` (Linux 5.14).
    pub fn populate(&self) -> SysResult<()> {
        self.madvise(MmapAdvise::MADV_POPULATE_READ)
    }

    fn madvise(&self, advice: MmapAdvise) -> SysResult<()> {
        // SAFETY: the range is mapped while `self` exists. Of the advice given here only MADV_DONTNEED changes bytes, those of a
        // private mapping; no reference to them exists, so that only later copies made by the kernel differ.
        unsafe { madvise(self.0.start().cast(), self.0.len(), advice) }
    }

    /// For each page, whether it is in memory; see `mincore(2)`.
    pub fn resident(&self) -> SysResult<Vec<bool>> {
        let mut pages = vec![0_u8; self.0.len().div_ceil(page_size() as usize)];
        // SAFETY: the range is mapped while `self` exists. The kernel writes one byte for each page of it, rounded up, which is
        // the length of the vector.
        let result = unsafe { libc::mincore(self.0.start().as_ptr().cast(), self.0.len(), pages.as_mut_ptr()) };
        Errno::result(result)?;
        Ok(pages.into_iter().map(|page| page & 1 == 1).collect())
    }
}
