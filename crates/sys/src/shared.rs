//! Memory that several processes write to at once: a ring's header and its bytes, and the futexes in it.
//!
//! Nobody gets a reference to the bytes: they are copied in and out, or handed to the kernel as a [`Span`]. What a peer that
//! breaks the rules writes meanwhile makes the copy wrong, never the memory of this process. All bounds are checked
//! against lengths that this process knows, not against what is in the memory.

use std::num::NonZeroUsize;
use std::os::fd::{AsFd, BorrowedFd};
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU32, AtomicU64};
use std::time::Duration;

use nix::errno::Errno;
use nix::sys::mman::{MapFlags, ProtFlags, mmap, mmap_anonymous};

use super::SysResult;
use super::memory::{Region, Span};

/// Bytes before the data: a page of the largest size in use, so that the data begins at a page everywhere.
pub const HEADER_BYTES: usize = 65_536;

/// What is at the beginning of a ring: only words that may be read and written by anybody at any time.
///
/// Each side's words have a cache line of their own, so that writer and reader do not take lines from each other but to learn
/// of progress.
#[repr(C, align(128))]
pub struct Header {
    /// Says what it is.
    pub magic: AtomicU64,
    /// Of the layout.
    pub version: AtomicU32,
    /// How bytes are to be read.
    pub framing: AtomicU32,
    /// Bytes of data.
    pub capacity: AtomicU64,
    /// The writer's words.
    pub writer: Side,
    /// The reader's words.
    pub reader: Side,
}

/// The words that one side writes, and on which it sleeps.
#[repr(C, align(128))]
pub struct Side {
    /// Bytes written or read since the ring was made.
    pub position: AtomicU64,
    /// A state; see `shm::ring`.
    pub state: AtomicU32,
    /// The process, to be named in errors.
    pub process: AtomicU32,
    /// Not 0 while the side sleeps: what it waits for. A futex.
    pub sleeps: AtomicU32,
}

/// A header, and the data twice, one copy behind the other: a stretch that goes over the end is in one piece.
pub struct SharedMapping {
    region: Region,
    capacity: usize,
}

impl SharedMapping {
    /// Maps a segment of `HEADER_BYTES + capacity` bytes; `capacity` is a multiple of the page size. See `mmap(2)`.
    pub fn new(file: impl AsFd, capacity: usize) -> SysResult<Self> {
        let once = HEADER_BYTES.checked_add(capacity).ok_or(Errno::ENOMEM)?;
        let all = once.checked_add(capacity).and_then(NonZeroUsize::new).ok_or(Errno::ENOMEM)?;
        // SAFETY: a new mapping at an address of the kernel's choice touches nothing that exists. It keeps the place.
        let start = unsafe { mmap_anonymous(None, all, ProtFlags::PROT_NONE, MapFlags::MAP_PRIVATE)? };
        let region = Region::of(start.cast(), all.get());
        let map = |from: usize, length: usize, offset: usize, file: BorrowedFd<'_>| {
            let length = NonZeroUsize::new(length).ok_or(Errno::EINVAL)?;
            let at = NonZeroUsize::new(start.as_ptr() as usize + from).ok_or(Errno::EINVAL)?;
            let (protection, flags) = (ProtFlags::PROT_READ | ProtFlags::PROT_WRITE, MapFlags::MAP_SHARED);
            // SAFETY: what is replaced is a part of the place kept above, to which nobody has a reference.
            unsafe { mmap(Some(at), length, protection, flags | MapFlags::MAP_FIXED, file, offset as i64) }.map(drop)
        };
        map(0, once, 0, file.as_fd())?;
        map(once, capacity, HEADER_BYTES, file.as_fd())?;
        Ok(Self { region, capacity })
    }

    /// The words at the beginning.
    pub fn header(&self) -> &Header {
        // SAFETY: the region is page-aligned, longer than a header, writable, and lives as long as `self`. Every bit pattern
        // is a header, and all of it is atomic: what other processes do to it is no data race.
        unsafe { self.region.start().cast::<Header>().as_ref() }
    }

    /// Bytes of data.
    pub fn capacity(&self) -> usize {
        self.capacity
    }

    fn data(&self, position: u64, length: usize) -> NonNull<u8> {
        assert!(length <= self.capacity, "a stretch of a ring is as long as the ring at most");
        let from = HEADER_BYTES + (position % self.capacity as u64) as usize;
        // SAFETY: `from` is within the first copy of the data, and the second is as long as the longest stretch.
        unsafe { self.region.start().add(from) }
    }

    /// Copies `bytes` to the data at a position, which goes round.
    pub fn copy_in(&self, position: u64, bytes: &[u8]) {
        let to = self.data(position, bytes.len());
        // SAFETY: `data` has checked the length; `bytes` is memory of this process alone, so the two do not overlap.
        unsafe { std::ptr::copy_nonoverlapping(bytes.as_ptr(), to.as_ptr(), bytes.len()) };
    }

    /// Copies bytes of the data, from a position on, which goes round.
    pub fn copy_out(&self, position: u64, buffer: &mut [u8]) {
        let from = self.data(position, buffer.len());
        // SAFETY: as above.
        unsafe { std::ptr::copy_nonoverlapping(from.as_ptr(), buffer.as_mut_ptr(), buffer.len()) };
    }

    /// Bytes of the data, for the kernel.
    pub fn span(&self, position: u64, length: usize) -> Span<'_> {
        Span::of(self.data(position, length), length)
    }
}

/// Sleeps while `word` is `expected`, for `timeout` at most; see `futex(2)`, `FUTEX_WAIT`. May wake without a reason.
/// `EAGAIN`: it is not; `ETIMEDOUT`, `EINTR`.
pub fn futex_wait(word: &AtomicU32, expected: u32, timeout: Duration) -> SysResult<()> {
    let timeout = libc::timespec { tv_sec: timeout.as_secs() as _, tv_nsec: timeout.subsec_nanos() as _ };
    // SAFETY: the word and the timeout are live; the kernel reads both. Not private: the word is other processes' too.
    let result =
        unsafe { libc::syscall(libc::SYS_futex, word.as_ptr(), libc::FUTEX_WAIT, expected, &raw const timeout) };
    Errno::result(result).map(drop)
}

/// Wakes who sleeps on `word`, in any process; see `futex(2)`, `FUTEX_WAKE`.
pub fn futex_wake(word: &AtomicU32) -> SysResult<()> {
    // SAFETY: the word is live; the kernel uses its address only.
    let result = unsafe { libc::syscall(libc::SYS_futex, word.as_ptr(), libc::FUTEX_WAKE, i32::MAX) };
    Errno::result(result).map(drop)
}
