//! Anonymous pages, in three states of ownership.
//!
//! ```text
//! Pages (exclusive) --share--> SharedPages (others write through a pointer) --seal--> SealedPages (read only)
//! Pages ------------------------------------------------seal------------------------> SealedPages
//! ```
//!
//! The kernel may read pages that vmsplice(2) gave to a pipe long after the call. So they must not change any more, and the
//! memory must not return to an allocator, which would let other code write to it: it is unmapped instead, and the kernel
//! frees each page when it no longer needs it.

use std::num::NonZeroUsize;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::ptr::NonNull;
use std::sync::{Arc, Weak};

use nix::errno::Errno;
use nix::sys::mman::{MapFlags, ProtFlags, mmap_anonymous};

use super::region::{Region, Span};
use crate::SysResult;
use crate::page::page_size;

/// Private, zeroed, page-aligned memory of one owner.
#[derive(Debug)]
pub struct Pages(Region);

impl Pages {
    /// `length` bytes, rounded up to whole pages, at least one; see `mmap(2)`, `MAP_ANONYMOUS`.
    pub fn new(length: usize) -> SysResult<Self> {
        let length = length.max(1).checked_next_multiple_of(page_size() as usize).ok_or(Errno::ENOMEM)?;
        let size = NonZeroUsize::new(length).ok_or(Errno::EINVAL)?;
        let protection = ProtFlags::PROT_READ | ProtFlags::PROT_WRITE;
        // SAFETY: without MAP_FIXED the kernel chooses an unused range, so no existing mapping changes.
        let start = unsafe { mmap_anonymous(None, size, protection, MapFlags::MAP_PRIVATE)? };
        // SAFETY: the call has just mapped these `length` bytes, and no other code has their address.
        Ok(Self(unsafe { Region::from_raw(start.cast(), length) }))
    }

    /// Bytes, a multiple of the page size, at least one page.
    #[expect(clippy::len_without_is_empty, reason = "never empty")]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Reads from `offset` of a file up to the length of the pages. One `pread(2)`; the memory is aligned as `O_DIRECT`
    /// requires.
    pub fn read_from(&mut self, file: BorrowedFd<'_>, offset: u64) -> SysResult<usize> {
        let offset = i64::try_from(offset).map_err(|_| Errno::EOVERFLOW)?;
        let (start, length) = (self.0.start().as_ptr().cast(), self.0.len());
        // SAFETY: the kernel writes at most `length` bytes from `start` on, all of which are mapped and writable. `&mut self`
        // excludes other accesses: exclusive pages have no `SharedPages` or `SealedPages`.
        let count = unsafe { libc::pread64(file.as_raw_fd(), start, length, offset as libc::off64_t) };
        Errno::result(count).map(|count| count as usize)
    }

    /// Copies `bytes` to position `at`, without those beyond the end; returns how many were copied.
    pub fn copy_in(&mut self, at: usize, bytes: &[u8]) -> usize {
        let span = self.0.span(at, bytes.len());
        // SAFETY: the destination is `span.len()` bytes of mapped, writable memory, and `bytes` has at least as many. They do
        // not overlap: no reference to the pages exists, so `bytes` is other memory. `&mut self` excludes other accesses.
        unsafe { std::ptr::copy_nonoverlapping(bytes.as_ptr(), span.start().as_ptr(), span.len()) };
        span.len()
    }

    /// `length` bytes from `from` on, without those beyond the end.
    pub fn span(&self, from: usize, length: usize) -> Span<'_> {
        self.0.span(from, length)
    }

    /// Makes them accessible through a pointer.
    pub fn share(self) -> SharedPages {
        SharedPages(Arc::new(self.0))
    }

    /// Makes them read-only.
    pub fn seal(self) -> SealedPages {
        SealedPages(Arc::new(self.0))
    }
}

/// Pages that foreign code reads and writes through a pointer, such as the memory of an ArrayBuffer. Clones refer to the same
/// memory.
#[derive(Debug, Clone)]
pub struct SharedPages(Arc<Region>);

impl SharedPages {
    /// Bytes, a multiple of the page size, at least one page.
    #[expect(clippy::len_without_is_empty, reason = "never empty")]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// The first byte. Valid for reads and writes of [`SharedPages::len`] bytes while the value, or another `SharedPages`
    /// of the same memory, exists, and until [`SharedPages::seal`].
    pub fn as_mut_ptr(&self) -> NonNull<u8> {
        self.0.start()
    }

    /// A reference that does not keep the pages.
    pub fn downgrade(&self) -> WeakPages {
        WeakPages(Arc::downgrade(&self.0))
    }

    /// Makes them read-only, so that they can be given to the kernel. Other `SharedPages` of the same memory only keep it
    /// mapped from now on.
    ///
    /// # Safety
    ///
    /// Nothing writes through a pointer of [`SharedPages::as_mut_ptr`] any more, now or later.
    pub unsafe fn seal(self) -> SealedPages {
        SealedPages(self.0)
    }
}

/// A weak reference to [`SharedPages`].
#[derive(Debug)]
pub struct WeakPages(Weak<Region>);

impl WeakPages {
    /// The pages, unless they were unmapped.
    pub fn upgrade(&self) -> Option<SharedPages> {
        self.0.upgrade().map(SharedPages)
    }

    /// Whether the pages are still mapped.
    pub fn is_live(&self) -> bool {
        self.0.strong_count() > 0
    }
}

/// Pages that nothing writes to any more. Clones refer to the same memory.
#[derive(Debug, Clone)]
pub struct SealedPages(Arc<Region>);

impl SealedPages {
    /// Copies bytes from position `at` to `buffer`; returns how many.
    pub fn copy_out(&self, at: usize, buffer: &mut [u8]) -> usize {
        let span = self.0.span(at, buffer.len());
        // SAFETY: the source is `span.len()` bytes of mapped, readable memory. It is anonymous, so no truncation takes pages
        // away, and sealed, so nothing writes to it meanwhile (`Pages::seal` consumes the one owner; the callers of
        // `SharedPages::seal` promise it). `buffer` has at least as many bytes, and as a `&mut` does not overlap.
        unsafe { std::ptr::copy_nonoverlapping(span.start().as_ptr(), buffer.as_mut_ptr(), span.len()) };
        span.len()
    }

    /// `length` bytes from `from` on, without those beyond the end.
    pub fn span(&self, from: usize, length: usize) -> Span<'_> {
        self.0.span(from, length)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn copies_stop_at_the_end_of_the_pages() {
        let mut pages = Pages::new(1).expect("memory");
        let length = pages.len();
        assert_eq!(length, page_size() as usize);
        assert_eq!(pages.copy_in(length - 2, b"abc"), 2);
        assert_eq!(pages.copy_in(length + 5, b"abc"), 0);
        assert_eq!(pages.span(length - 1, 10).len(), 1);
        let sealed = pages.seal();
        let mut bytes = [0; 4];
        assert_eq!(sealed.clone().copy_out(length - 2, &mut bytes), 2);
        assert_eq!(&bytes, b"ab\0\0");
    }

    #[test]
    fn shared_pages_are_unmapped_with_the_last_owner() {
        let shared = Pages::new(10).expect("memory").share();
        let weak = shared.downgrade();
        let other = weak.upgrade().expect("mapped");
        drop(shared);
        assert!(weak.is_live());
        drop(other);
        assert!(!weak.is_live() && weak.upgrade().is_none());
    }
}
