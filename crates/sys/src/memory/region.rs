//! A range of address space, and spans of it for the kernel.

use std::fmt;
use std::marker::PhantomData;
use std::ptr::NonNull;

use nix::sys::mman::munmap;

/// An address range of a region, valid during `'a`. Only the kernel accesses its bytes.
#[derive(Clone, Copy)]
pub struct Span<'a> {
    start: NonNull<u8>,
    length: usize,
    owner: PhantomData<&'a Region>,
}

impl Span<'_> {
    /// Bytes in it.
    pub fn len(&self) -> usize {
        self.length
    }

    /// Whether it has no bytes.
    pub fn is_empty(&self) -> bool {
        self.length == 0
    }

    /// The first `length` bytes of it, or all when it is shorter.
    #[must_use]
    pub fn first(self, length: usize) -> Self {
        Self { length: self.length.min(length), ..self }
    }

    pub(super) fn start(&self) -> NonNull<u8> {
        self.start
    }

    pub(crate) fn as_iovec(&self) -> libc::iovec {
        libc::iovec { iov_base: self.start.as_ptr().cast(), iov_len: self.length }
    }
}

/// A range of address space that this process has mapped, unmapped on drop. The owner of all its bytes.
pub(super) struct Region {
    start: NonNull<u8>,
    length: usize,
}

// SAFETY: a `Region` is an address and a length, and no thread-local state belongs to a mapping: munmap(2) and all accesses
// work from any thread.
unsafe impl Send for Region {}

// SAFETY: `&Region` gives access to an address and a length only. Every access to the bytes is made by a type of this module,
// and none of them makes a reference to plain bytes:
// - `Mapping` lets the kernel alone read and write them.
// - `Pages` writes them through `&mut self`.
// - `SharedPages` hands out a raw pointer; code that dereferences it is responsible for the access.
// - `SealedPages` only reads them, and its constructors require that nothing writes them any more.
// - `RingMapping` accesses them by atomic operations only.
unsafe impl Sync for Region {}

impl Region {
    /// Takes ownership of a mapping.
    ///
    /// # Safety
    ///
    /// `length` bytes from `start` on are mapped, `start` is aligned to a page, and nothing else unmaps or remaps any of them.
    pub(super) unsafe fn from_raw(start: NonNull<u8>, length: usize) -> Self {
        Self { start, length }
    }

    pub(super) fn start(&self) -> NonNull<u8> {
        self.start
    }

    pub(super) fn len(&self) -> usize {
        self.length
    }

    /// `length` bytes from `from` on, without those beyond the end of the region.
    pub(super) fn span(&self, from: usize, length: usize) -> Span<'_> {
        let from = from.min(self.length);
        // SAFETY: `from <= self.length`, so the result is within the mapping or just behind it, and a mapping is never longer
        // than `isize::MAX` bytes.
        let start = unsafe { self.start.add(from) };
        Span { start, length: length.min(self.length - from), owner: PhantomData }
    }
}

impl fmt::Debug for Region {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Region").field("length", &self.length).finish_non_exhaustive()
    }
}

impl Drop for Region {
    fn drop(&mut self) {
        // SAFETY: the range is mapped and owned by `self` (see `from_raw`). Spans borrow the region, so none exists now, and no
        // type of this module hands out references to its bytes. Pages that the kernel still reads (a pipe after vmsplice(2))
        // are pinned one by one and survive the unmapping.
        let _ = unsafe { munmap(self.start.cast(), self.length) };
    }
}
