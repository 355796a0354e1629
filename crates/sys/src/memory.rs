//! Memory that the kernel reads and user space does not: mapped files, and pages that are given away.
//!
//! Neither type hands out a slice. A file that is truncated underneath makes an access of user space SIGBUS; of the
//! kernel, in `sendmsg(2)` or `vmsplice(2)`, it is `EFAULT`. So all that can be had of them is a [`Span`], an address and
//! a length for a syscall.

use std::io::{IoSlice, IoSliceMut};
use std::marker::PhantomData;
use std::num::NonZeroUsize;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::ptr::NonNull;

use nix::errno::Errno;
use nix::sys::mman::{MapFlags, MmapAdvise, MsFlags, ProtFlags, madvise, mmap, mmap_anonymous, msync, munmap};
use nix::sys::uio::{RemoteIoVec, process_vm_readv, process_vm_writev};

use super::SysResult;

/// A stretch of a [`Mapping`] or of [`Pages`] that is good while `'a` lasts. It can be read by the kernel only.
#[derive(Clone, Copy)]
pub struct Span<'a> {
    start: NonNull<u8>,
    length: usize,
    owner: PhantomData<&'a ()>,
}

impl Span<'_> {
    pub(super) fn of(start: NonNull<u8>, length: usize) -> Self {
        Self { start, length, owner: PhantomData }
    }

    /// Bytes in it.
    pub fn len(&self) -> usize {
        self.length
    }

    /// True without a byte.
    pub fn is_empty(&self) -> bool {
        self.length == 0
    }

    /// The same span, `length` bytes long at most.
    #[must_use]
    pub fn first(self, length: usize) -> Self {
        Self { length: self.length.min(length), ..self }
    }

    pub(super) fn as_iovec(&self) -> libc::iovec {
        libc::iovec { iov_base: self.start.as_ptr().cast(), iov_len: self.length }
    }
}

/// What is said to the kernel about a mapping; see `madvise(2)`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Advice {
    /// Nothing.
    #[default]
    Normal,
    /// It will be read from beginning to end.
    Sequential,
    /// It will be read here and there.
    Random,
    /// It will be read soon.
    WillNeed,
}

/// An owned region of address space.
pub(super) struct Region {
    start: NonNull<u8>,
    length: usize,
}

// SAFETY: a region is an address and a length; nothing in this module reads or writes it but through `&mut`, or under
// the promise named at `Pages::copy_out`.
unsafe impl Send for Region {}
// SAFETY: as above.
unsafe impl Sync for Region {}

impl Region {
    /// Takes over a mapping as a whole.
    pub(super) fn of(start: NonNull<u8>, length: usize) -> Self {
        Self { start, length }
    }

    pub(super) fn start(&self) -> NonNull<u8> {
        self.start
    }

    fn span(&self, from: usize, length: usize) -> Span<'_> {
        let from = from.min(self.length);
        // SAFETY: `from` is not beyond the end of the region.
        let start = unsafe { self.start.add(from) };
        Span { start, length: length.min(self.length - from), owner: PhantomData }
    }
}

impl Drop for Region {
    fn drop(&mut self) {
        // SAFETY: the region is ours as a whole and no span of it is alive. What the kernel holds it has pinned by page.
        let _ = unsafe { munmap(self.start.cast(), self.length) };
    }
}

/// A read-only shared mapping of a part of a file.
pub struct Mapping(Region);

impl Mapping {
    /// Maps `length` bytes of `file` from `offset` on, which must be a multiple of the page size; see `mmap(2)`.
    /// It may reach beyond the end of the file: pages there are `EFAULT` to the kernel.
    pub fn new(file: BorrowedFd<'_>, offset: u64, length: usize) -> SysResult<Self> {
        let size = NonZeroUsize::new(length).ok_or(Errno::EINVAL)?;
        let offset = i64::try_from(offset).map_err(|_| Errno::EOVERFLOW)?;
        // SAFETY: a new mapping at an address of the kernel's choice touches nothing that exists.
        let start = unsafe { mmap(None, size, ProtFlags::PROT_READ, MapFlags::MAP_SHARED, file, offset)? };
        Ok(Self(Region { start: start.cast(), length }))
    }

    /// Bytes mapped.
    pub fn len(&self) -> usize {
        self.0.length
    }

    /// Never true: an empty mapping cannot be made.
    pub fn is_empty(&self) -> bool {
        self.0.length == 0
    }

    /// Says that it will be read once, in order; see `madvise(2)`, `MADV_SEQUENTIAL`.
    pub fn advise_sequential(&self) -> SysResult<()> {
        self.madvise(MmapAdvise::MADV_SEQUENTIAL)
    }

    /// Says how it will be read; see `madvise(2)`.
    pub fn advise(&self, advice: Advice) -> SysResult<()> {
        match advice {
            Advice::Normal => Ok(()),
            Advice::Sequential => self.madvise(MmapAdvise::MADV_SEQUENTIAL),
            Advice::Random => self.madvise(MmapAdvise::MADV_RANDOM),
            Advice::WillNeed => self.madvise(MmapAdvise::MADV_WILLNEED),
        }
    }

    /// Waits until its pages are in memory and mapped; see `madvise(2)`, `MADV_POPULATE_READ` (Linux 5.14).
    pub fn populate(&self) -> SysResult<()> {
        self.madvise(MmapAdvise::MADV_POPULATE_READ)
    }

    fn madvise(&self, advice: MmapAdvise) -> SysResult<()> {
        // SAFETY: the range is a live mapping of ours; none of the advice given here changes contents.
        unsafe { madvise(self.0.start.cast(), self.0.length, advice) }
    }

    /// `length` bytes from `from` on, less what would lie beyond its end.
    pub fn span(&self, from: usize, length: usize) -> Span<'_> {
        self.0.span(from, length)
    }
}

/// Private, zeroed, page-aligned memory whose pages can be given to the kernel.
///
/// It is never returned to an allocator but unmapped, so that pages which the kernel still reads cannot become anybody
/// else's memory: they are freed when the kernel lets go of them.
pub struct Pages(Region);

impl Pages {
    /// `length` bytes, rounded up to whole pages; see `mmap(2)`, `MAP_ANONYMOUS`.
    pub fn new(length: usize) -> SysResult<Self> {
        let page = super::page::page_size() as usize;
        let length = length.max(1).checked_next_multiple_of(page).ok_or(Errno::ENOMEM)?;
        let size = NonZeroUsize::new(length).ok_or(Errno::EINVAL)?;
        let protection = ProtFlags::PROT_READ | ProtFlags::PROT_WRITE;
        // SAFETY: a new mapping at an address of the kernel's choice touches nothing that exists.
        let start = unsafe { mmap_anonymous(None, size, protection, MapFlags::MAP_PRIVATE)? };
        Ok(Self(Region { start: start.cast(), length }))
    }

    /// Bytes, a multiple of the page size.
    pub fn len(&self) -> usize {
        self.0.length
    }

    /// Never true: there is one page at least.
    pub fn is_empty(&self) -> bool {
        self.0.length == 0
    }

    /// Where it begins, for one who lends it to somebody that writes to it. Who does so must stop before the pages go
    /// into a transfer.
    pub fn address(&self) -> NonNull<u8> {
        self.0.start
    }

    /// Fills it from `offset` of a file on, as far as that goes. One `pread(2)`; page-aligned, as `O_DIRECT` wants it.
    pub fn read_from(&mut self, file: BorrowedFd<'_>, offset: u64) -> SysResult<usize> {
        let offset = i64::try_from(offset).map_err(|_| Errno::EOVERFLOW)?;
        // SAFETY: the kernel writes to memory of ours, no more than its length, and `&mut self` keeps others away.
        let count = unsafe {
            libc::pread64(file.as_raw_fd(), self.0.start.as_ptr().cast(), self.0.length, offset as libc::off64_t)
        };
        Errno::result(count).map(|count| count as usize)
    }

    /// Copies `bytes` to its beginning, as many as it holds; returns how many.
    pub fn copy_in(&mut self, at: usize, bytes: &[u8]) -> usize {
        let span = self.0.span(at, bytes.len());
        // SAFETY: the span is writable memory of ours, `bytes` is as long at least, and `&mut self` keeps them apart.
        unsafe { std::ptr::copy_nonoverlapping(bytes.as_ptr(), span.start.as_ptr(), span.length) };
        span.length
    }

    /// Copies from `at` on into `buffer`; returns how many bytes.
    ///
    /// The pages are in a transfer by then, so nobody writes to them any more (see [`Pages::address`]).
    pub fn copy_out(&self, at: usize, buffer: &mut [u8]) -> usize {
        let span = self.0.span(at, buffer.len());
        // SAFETY: the span is readable memory of ours, anonymous and so never truncated; `buffer` is as long at least.
        unsafe { std::ptr::copy_nonoverlapping(span.start.as_ptr(), buffer.as_mut_ptr(), span.length) };
        span.length
    }

    /// `length` bytes from `from` on, less what would lie beyond its end.
    pub fn span(&self, from: usize, length: usize) -> Span<'_> {
        self.0.span(from, length)
    }
}

/// Who sees what is written to a mapping.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MapMode {
    /// Nothing can be written.
    Read,
    /// Nobody else: pages are copied when they are written to, and never reach the file.
    Private,
    /// Everybody: it is the file.
    Shared,
}

/// What is said to the kernel about a [`MappedRegion`]; see `madvise(2)`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RegionAdvice {
    /// It will be used from beginning to end.
    Sequential,
    /// It will be used here and there.
    Random,
    /// It will be used soon.
    WillNeed,
    /// It will not be used soon. Forgets what was written to a private mapping.
    DontNeed,
    /// Use huge pages where that is possible.
    HugePage,
}

/// A mapping of the beginning of a file that is read and written by copies which the kernel makes.
#[derive(Debug)]
pub struct MappedRegion(Region);

impl std::fmt::Debug for Region {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Region").field("length", &self.length).finish_non_exhaustive()
    }
}

impl MappedRegion {
    /// Maps the first `length` bytes of `file`; see `mmap(2)`.
    pub fn new(file: impl AsFd, length: usize, mode: MapMode, populate: bool) -> SysResult<Self> {
        Self::part(file, 0, length, mode, populate)
    }

    /// Maps `length` bytes of `file` from `offset` on, which must be a multiple of the page size.
    pub fn part(file: impl AsFd, offset: u64, length: usize, mode: MapMode, populate: bool) -> SysResult<Self> {
        let size = NonZeroUsize::new(length).ok_or(Errno::EINVAL)?;
        let (protection, mut flags) = match mode {
            MapMode::Read => (ProtFlags::PROT_READ, MapFlags::MAP_SHARED),
            MapMode::Private => (ProtFlags::PROT_READ | ProtFlags::PROT_WRITE, MapFlags::MAP_PRIVATE),
            MapMode::Shared => (ProtFlags::PROT_READ | ProtFlags::PROT_WRITE, MapFlags::MAP_SHARED),
        };
        if populate {
            flags |= MapFlags::MAP_POPULATE;
        }
        let offset = i64::try_from(offset).map_err(|_| Errno::EOVERFLOW)?;
        // SAFETY: a new mapping at an address of the kernel's choice touches nothing that exists.
        let start = unsafe { mmap(None, size, protection, flags, file, offset)? };
        Ok(Self(Region { start: start.cast(), length }))
    }

    /// Bytes mapped.
    pub fn len(&self) -> usize {
        self.0.length
    }

    /// Never true: an empty mapping cannot be made.
    pub fn is_empty(&self) -> bool {
        self.0.length == 0
    }

    /// Copies bytes from `at` on; see `process_vm_readv(2)`. `EFAULT`: the file has no such page any more.
    pub fn read(&self, at: usize, buffer: &mut [u8]) -> SysResult<usize> {
        let span = self.0.span(at, buffer.len());
        let remote = RemoteIoVec { base: span.start.as_ptr() as usize, len: span.length };
        process_vm_readv(nix::unistd::getpid(), &mut [IoSliceMut::new(buffer)], &[remote])
    }

    /// Copies bytes to `at`; see `process_vm_writev(2)`. `EFAULT`: the file has no such page any more, or the mapping is not
    /// to be written to.
    pub fn write(&self, at: usize, bytes: &[u8]) -> SysResult<usize> {
        let span = self.0.span(at, bytes.len());
        let remote = RemoteIoVec { base: span.start.as_ptr() as usize, len: span.length };
        process_vm_writev(nix::unistd::getpid(), &[IoSlice::new(bytes)], &[remote])
    }

    /// Writes changed pages to the file; see `msync(2)`.
    pub fn sync(&self, wait: bool) -> SysResult<()> {
        let flags = if wait { MsFlags::MS_SYNC } else { MsFlags::MS_ASYNC };
        // SAFETY: the range is a live mapping of ours.
        unsafe { msync(self.0.start.cast(), self.0.length, flags) }
    }

    /// Says how it will be used; see `madvise(2)`.
    pub fn advise(&self, advice: RegionAdvice) -> SysResult<()> {
        let advice = match advice {
            RegionAdvice::Sequential => MmapAdvise::MADV_SEQUENTIAL,
            RegionAdvice::Random => MmapAdvise::MADV_RANDOM,
            RegionAdvice::WillNeed => MmapAdvise::MADV_WILLNEED,
            RegionAdvice::DontNeed => MmapAdvise::MADV_DONTNEED,
            RegionAdvice::HugePage => MmapAdvise::MADV_HUGEPAGE,
        };
        // SAFETY: the range is a live mapping of ours, to which nobody has a reference: what the advice forgets, only copies
        // of the kernel's could have shown.
        unsafe { madvise(self.0.start.cast(), self.0.length, advice) }
    }

    /// For each page, whether it is in memory; see `mincore(2)`.
    pub fn resident(&self) -> SysResult<Vec<bool>> {
        let pages = self.0.length.div_ceil(super::page::page_size() as usize);
        let mut vector = vec![0_u8; pages];
        // SAFETY: the range is a live mapping of ours, and the vector has a byte for each of its pages.
        let result = unsafe { libc::mincore(self.0.start.as_ptr().cast(), self.0.length, vector.as_mut_ptr()) };
        Errno::result(result)?;
        Ok(vector.into_iter().map(|page| page & 1 == 1).collect())
    }
}
