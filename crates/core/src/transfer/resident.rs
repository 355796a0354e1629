//! The question every method without a flag for it asks first: may these bytes be moved without waiting for the disk?

use std::os::fd::BorrowedFd;

use nix::errno::Errno;
use nix::sys::statfs::{FsType, OVERLAYFS_SUPER_MAGIC, TMPFS_MAGIC, fstatfs};

use super::{Attempt, Disk};
use zerosend_sys::residency::Residency;
use zerosend_sys::{Kernel, SysResult};

/// Bytes asked about at once, when so many are left: an attempt moves a part of them, and the answer does for those after
/// it in the same turn.
const WINDOW: u64 = 8 * 1024 * 1024;

/// File systems whose pages are as resident as this process itself, and which do not support `RWF_NOWAIT`: `tmpfs`
/// (memfd too), and `ramfs` by its number in `<linux/magic.h>`.
const IN_MEMORY: [FsType; 2] = [TMPFS_MAGIC, FsType(0x8584_58f6)];

/// What is known of where the bytes of the current file part are.
#[derive(Debug, Default)]
pub(super) struct Resident {
    /// The kernel said in this turn that the bytes below are resident. In the next turn they may have been evicted.
    until: u64,
    /// The pool has brought the bytes below into the page cache.
    prefetched: u64,
    medium: Medium,
    /// The next prefetch has to bring the bytes themselves.
    pub wants_bytes: bool,
    /// Prefetches so far.
    pub prefetches: u32,
}

/// What kind of file system it is, as far as it matters here.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
enum Medium {
    /// The kernel says what is resident.
    #[default]
    Telling,
    /// A file system in memory, like `tmpfs`: as resident as this process itself.
    Memory,
    /// The kernel does not say.
    Silent,
    /// `overlayfs`: the pages are those of another file, on a local disk as a rule, and asking says "not resident" always. What
    /// the pool has brought counts as resident.
    Overlay,
}

impl Resident {
    /// A turn begins.
    pub fn begin_turn(&mut self) {
        self.until = 0;
    }

    /// The pool has brought what is below `until` into the page cache.
    pub fn brought(&mut self, until: u64) {
        self.prefetched = self.prefetched.max(until);
    }

    /// The bytes at `offset` are not resident, or (`silent`) the kernel does not say.
    pub fn refused(&mut self, offset: u64, silent: bool) {
        if silent {
            self.medium = Medium::Silent;
        }
        // Evicted since they were brought in: the same again would not be progress.
        self.wants_bytes = silent || offset < self.prefetched;
    }

    /// The file turned out to lie in memory.
    pub fn found_in_memory(&mut self) {
        self.medium = Medium::Memory;
    }

    /// The file turned out to lie on `overlayfs`.
    pub fn found_on_overlay(&mut self) {
        self.medium = Medium::Overlay;
    }

    /// On `overlayfs`: how many bytes from `offset` on the pool has brought. For those that follow it has to be asked.
    pub fn brought_on_overlay(&mut self, offset: u64) -> Option<usize> {
        if self.medium != Medium::Overlay {
            return None;
        }
        self.wants_bytes = false;
        Some(usize::try_from(self.prefetched.saturating_sub(offset)).unwrap_or(usize::MAX))
    }

    /// Whether the file lies in memory anyway.
    pub fn is_memory(&self) -> bool {
        self.medium == Medium::Memory
    }

    /// Whether asking the kernel can give an answer.
    pub fn is_silent(&self) -> bool {
        self.medium == Medium::Silent
    }
}

/// `ENODEV` for a file whose pages a mapping must not be sent from: on a file system that does not say what is resident
/// (FUSE), the size in the kernel may be an old one until a page has been read, and what is beyond the end of the file
/// reads as zeros up to that size.
pub(super) fn check_mappable<K: Kernel>(
    kernel: &mut K,
    attempt: &mut Attempt<'_>,
    file: BorrowedFd<'_>,
) -> SysResult<()> {
    if attempt.disk == Disk::MayBlock && attempt.resident.medium == Medium::Telling {
        *attempt.syscalls += 1;
        if kernel.resident(file, attempt.offset, 1) == Residency::Unknown {
            attempt.resident.medium = if is_in_memory(file) { Medium::Memory } else { Medium::Silent };
        }
    }
    let silent = attempt.disk == Disk::MayBlock && attempt.resident.is_silent();
    if silent { Err(Errno::ENODEV) } else { Ok(()) }
}

/// Whether the file system keeps its files in memory. May wait for a FUSE daemon.
pub(super) fn is_in_memory(file: BorrowedFd<'_>) -> bool {
    fstatfs(file).is_ok_and(|file_system| IN_MEMORY.contains(&file_system.filesystem_type()))
}

/// Whether the file lies on `overlayfs`, as those of container images do. May wait for a FUSE daemon.
pub(super) fn is_on_overlay(file: BorrowedFd<'_>) -> bool {
    fstatfs(file).is_ok_and(|file_system| file_system.filesystem_type() == OVERLAYFS_SUPER_MAGIC)
}

/// How many of the next `wanted` bytes of `file` may be moved now; `None`: not one.
///
/// A page that was resident may be evicted before it is moved: then the call waits for the disk, as the exception.
pub(super) fn movable<K: Kernel>(
    kernel: &mut K,
    attempt: &mut Attempt<'_>,
    file: BorrowedFd<'_>,
    wanted: usize,
) -> Option<usize> {
    let end = attempt.offset.saturating_add(wanted as u64);
    let resident = &mut *attempt.resident;
    if attempt.disk == Disk::MayBlock || resident.medium == Medium::Memory || end <= resident.until {
        return Some(wanted);
    }
    if resident.is_silent() {
        resident.wants_bytes = true;
        return None;
    }
    if let Some(brought) = resident.brought_on_overlay(attempt.offset) {
        return (brought > 0).then_some(brought.min(wanted));
    }
    let window = attempt.left.min(WINDOW);
    if window > wanted as u64 {
        *attempt.syscalls += 1;
        if kernel.resident(file, attempt.offset, window) == Residency::Resident {
            resident.until = attempt.offset.saturating_add(window);
            return Some(wanted);
        }
    }
    *attempt.syscalls += 1;
    let answer = kernel.resident(file, attempt.offset, wanted as u64);
    if answer == Residency::Resident {
        return Some(wanted);
    }
    if attempt.offset < resident.until {
        return Some((resident.until - attempt.offset) as usize);
    }
    // What the pool has brought is less than was wanted here, and only that is to be moved.
    let brought = resident.prefetched.saturating_sub(attempt.offset).min(wanted as u64);
    if answer == Residency::Cold && 0 < brought && brought < wanted as u64 {
        *attempt.syscalls += 1;
        if kernel.resident(file, attempt.offset, brought) == Residency::Resident {
            return Some(brought as usize);
        }
    }
    resident.refused(attempt.offset, answer == Residency::Unknown);
    None
}
