//! The memory of a ring: a header of atomic words, and the data, which several processes access at once.
//!
//! All bounds are checked against lengths that this process knows, never against values in the memory. A peer that breaks the
//! protocol can make the copied bytes wrong, but has no influence on which memory of this process is accessed.

use std::num::NonZeroUsize;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::atomic::{AtomicU32, AtomicU64};

use nix::errno::Errno;
use nix::sys::mman::{MapFlags, ProtFlags, mmap, mmap_anonymous};

use super::atomic_copy;
use super::region::{Region, Span};
use crate::SysResult;

/// Bytes before the data: one page of the largest page size in use (64 KiB), so that the data starts at a page boundary on
/// every system.
pub const HEADER_BYTES: usize = 65_536;

/// The beginning of a ring's memory.
///
/// The fields of each side have separate cache lines, so that a side only reads a line of its peer to see its progress.
#[repr(C, align(128))]
pub struct Header {
    /// Marks the memory as a ring.
    pub magic: AtomicU64,
    /// Version of this layout.
    pub version: AtomicU32,
    /// Whether the data is a stream of bytes or of messages.
    pub framing: AtomicU32,
    /// Bytes of data.
    pub capacity: AtomicU64,
    /// Fields of the writer.
    pub writer: Side,
    /// Fields of the reader.
    pub reader: Side,
}

/// The fields that one side writes.
#[repr(C, align(128))]
pub struct Side {
    /// Bytes written or read since the ring was created.
    pub position: AtomicU64,
    /// The state of the side.
    pub state: AtomicU32,
    /// The process id of the side, for error messages.
    pub process: AtomicU32,
    /// 0 while the side is awake, otherwise the number of bytes it waits for. A futex.
    pub sleeps: AtomicU32,
}

/// A mapping of a ring: the header, then the data twice in a row, so that a range that wraps at the end of the data is
/// contiguous.
pub struct RingMapping {
    region: Region,
    capacity: usize,
}

impl RingMapping {
    /// Maps a segment of `HEADER_BYTES + capacity` bytes; `capacity` is a multiple of the page size. See `mmap(2)`.
    ///
    /// An access beyond the end of the segment ends the process with `SIGBUS`, as does an access to a page for which there is
    /// no memory. So the caller makes sure first that the segment is that long, that it cannot be truncated (`F_SEAL_SHRINK`)
    /// or only by trusted processes, and that its memory is allocated (`fallocate(2)`).
    pub fn new(file: impl AsFd, capacity: usize) -> SysResult<Self> {
        let once = HEADER_BYTES.checked_add(capacity).ok_or(Errno::ENOMEM)?;
        let all = once.checked_add(capacity).and_then(NonZeroUsize::new).ok_or(Errno::ENOMEM)?;
        // SAFETY: without MAP_FIXED the kernel chooses an unused range, so no existing mapping changes. The mapping reserves the
        // address range for the two calls below.
        let start = unsafe { mmap_anonymous(None, all, ProtFlags::PROT_NONE, MapFlags::MAP_PRIVATE)? };
        // SAFETY: the call has just mapped these `all` bytes, and no other code has their address. The calls below replace parts
        // of the range and leave all of it mapped, also when one of them fails.
        let region = unsafe { Region::from_raw(start.cast(), all.get()) };
        let map = |from: usize, length: usize, offset: usize, file: BorrowedFd<'_>| {
            let length = NonZeroUsize::new(length).ok_or(Errno::EINVAL)?;
            let at = NonZeroUsize::new(start.addr().get() + from).ok_or(Errno::EINVAL)?;
            let (protection, flags) = (ProtFlags::PROT_READ | ProtFlags::PROT_WRITE, MapFlags::MAP_SHARED);
            // SAFETY: MAP_FIXED replaces `length` bytes from `at` on. They are within the range reserved above, since both calls
            // below stay within `all` bytes, and no pointer to them was handed out yet.
            unsafe { mmap(Some(at), length, protection, flags | MapFlags::MAP_FIXED, file, offset as i64) }.map(drop)
        };
        map(0, once, 0, file.as_fd())?;
        map(once, capacity, HEADER_BYTES, file.as_fd())?;
        Ok(Self { region, capacity })
    }

    /// The header.
    pub fn header(&self) -> &Header {
        // SAFETY: the region starts at a page boundary, which satisfies the alignment of 128, is longer than a header
        // (`HEADER_BYTES`), and stays mapped and writable while `self` exists. Every bit pattern is a valid `Header`, and all its
        // fields are atomics: what threads and other processes do to them at the same time is not a data race. No code makes a
        // `&mut` to it. That the pages exist is the caller's duty, see `new`: an access to a missing one is SIGBUS.
        unsafe { self.region.start().cast::<Header>().as_ref() }
    }

    /// Bytes of data.
    pub fn capacity(&self) -> usize {
        self.capacity
    }

    /// `length` bytes of the data, at most the capacity, from a position on. Panics when there are more.
    pub fn span(&self, position: u64, length: usize) -> Span<'_> {
        assert!(length <= self.capacity, "{length} bytes of a ring of {}", self.capacity);
        // Before the end of the first copy of the data. The second copy follows, so that all of `length` is in the region.
        let from = HEADER_BYTES + (position % self.capacity as u64) as usize;
        self.region.span(from, length)
    }

    /// Copies `bytes`, at most the capacity, to a position. Panics when there are more.
    pub fn copy_in(&self, position: u64, bytes: &[u8]) {
        let span = self.span(position, bytes.len());
        // SAFETY: a span lies within the region, which is mapped and writable while `self` exists, and has the length of `bytes`:
        // `span` asserts that it is not cut off. The capacity that it checks is a field of `self`, which other processes cannot
        // change. This process accesses the data only by these atomic copies and, through spans, by the kernel.
        unsafe { atomic_copy::store(span.start(), bytes) };
    }

    /// The `N` bytes at a position. Panics when the capacity is less than `N`.
    pub fn read_array<const N: usize>(&self, position: u64) -> [u8; N] {
        let span = self.span(position, N);
        // SAFETY: a span lies within the region, which is mapped, readable and writable while `self` exists, and has `N` bytes:
        // `span` asserts that it is not cut off. This process accesses the data only by atomic operations and, through spans, by
        // the kernel.
        unsafe { atomic_copy::load_array(span.start()) }
    }

    /// Copies bytes of the data, at most the capacity, from a position on. Panics when there are more.
    pub fn copy_out(&self, position: u64, buffer: &mut [u8]) {
        let span = self.span(position, buffer.len());
        // SAFETY: a span lies within the region, which is mapped, readable and writable while `self` exists, and has the length of
        // `buffer`: `span` asserts that it is not cut off. The capacity that it checks is a field of `self`, which other processes
        // cannot change. This process accesses the data only by these atomic copies and, through spans, by the kernel.
        unsafe { atomic_copy::load(span.start(), buffer) };
    }
}
