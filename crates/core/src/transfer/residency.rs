//! Which bytes of a file can be moved without waiting for a disk.

use std::os::fd::BorrowedFd;

use nix::sys::statfs::{FsType, OVERLAYFS_SUPER_MAGIC, TMPFS_MAGIC, fstatfs};

use zerosend_sys::Kernel;
use zerosend_sys::residency::Residency;

/// Bytes checked in one call when as many are left. One answer then serves several attempts of a turn.
const WINDOW: u64 = 8 * 1024 * 1024;

/// File systems that keep their pages in memory and do not support `RWF_NOWAIT`: `tmpfs` (memfd too), and `ramfs` by its
/// number in `<linux/magic.h>`.
const IN_MEMORY: [FsType; 2] = [TMPFS_MAGIC, FsType(0x8584_58f6)];

/// What is known about the page cache for the current file part.
#[derive(Debug, Default)]
pub(super) struct FileResidency {
    /// In this turn the kernel reported the bytes below this offset as resident. By the next turn they may be evicted.
    until: u64,
    /// The pool has read the bytes below this offset into the page cache.
    prefetched: u64,
    medium: Medium,
    /// The next prefetch must return the bytes themselves.
    pub wants_bytes: bool,
    /// Prefetches so far.
    pub prefetches: u32,
}

/// Where the pages of the file are, and whether the kernel reports it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
enum Medium {
    /// The kernel reports which bytes are resident.
    #[default]
    Reported,
    /// A file system in memory, for example `tmpfs`: every byte is resident.
    Memory,
    /// The kernel does not report it (FUSE and some network file systems).
    Unreported,
    /// `overlayfs`: the pages belong to a file of the layer below, usually on a local disk, and the kernel reports "not
    /// resident" always. Bytes that the pool has read count as resident.
    Overlay,
}

impl FileResidency {
    /// Starts a turn.
    pub fn begin_turn(&mut self) {
        self.until = 0;
    }

    /// Records that the pool has read the bytes below `until` into the page cache.
    pub fn set_prefetched(&mut self, until: u64) {
        self.prefetched = self.prefetched.max(until);
    }

    /// Records that the bytes at `offset` are not resident, or (`unreported`) that the kernel does not report it.
    pub fn set_cold(&mut self, offset: u64, unreported: bool) {
        if unreported {
            self.medium = Medium::Unreported;
        }
        // Pages evicted after a prefetch: another one like it would make no progress.
        self.wants_bytes = unreported || offset < self.prefetched;
    }

    /// Records that the file system keeps its files in memory.
    pub fn set_in_memory(&mut self) {
        self.medium = Medium::Memory;
    }

    /// Records that the file is on `overlayfs`.
    pub fn set_overlay(&mut self) {
        self.medium = Medium::Overlay;
    }

    /// On `overlayfs`: the number of bytes from `offset` on that the pool has read.
    pub fn prefetched_on_overlay(&mut self, offset: u64) -> Option<usize> {
        if self.medium != Medium::Overlay {
            return None;
        }
        self.wants_bytes = false;
        Some(usize::try_from(self.prefetched.saturating_sub(offset)).unwrap_or(usize::MAX))
    }

    /// Whether the file system keeps its files in memory.
    pub fn is_in_memory(&self) -> bool {
        self.medium == Medium::Memory
    }

    /// Whether the kernel does not report residency for this file.
    pub fn is_unreported(&self) -> bool {
        self.medium == Medium::Unreported
    }

    /// False for a file that must not be sent from a mapping: on a file system that does not report residency (FUSE), the
    /// kernel's size may be outdated until a page has been read, and bytes between the real end and that size read as zeros.
    pub fn is_mappable<K: Kernel>(
        &mut self,
        kernel: &mut K,
        file: BorrowedFd<'_>,
        offset: u64,
        syscalls: &mut u64,
    ) -> bool {
        if self.medium == Medium::Reported {
            *syscalls += 1;
            if kernel.resident(file, offset, 1) == Residency::Unknown {
                self.medium = if is_in_memory(file) { Medium::Memory } else { Medium::Unreported };
            }
        }
        !self.is_unreported()
    }

    /// See [`super::attempt::Attempt::resident_len`]. `left`: bytes left of the part.
    pub fn resident_len<K: Kernel>(
        &mut self,
        kernel: &mut K,
        file: BorrowedFd<'_>,
        offset: u64,
        left: u64,
        wanted: usize,
        syscalls: &mut u64,
    ) -> Option<usize> {
        let end = offset.saturating_add(wanted as u64);
        if self.is_in_memory() || end <= self.until {
            return Some(wanted);
        }
        if self.is_unreported() {
            self.wants_bytes = true;
            return None;
        }
        if let Some(prefetched) = self.prefetched_on_overlay(offset) {
            return (prefetched > 0).then_some(prefetched.min(wanted));
        }
        let window = left.min(WINDOW);
        if window > wanted as u64 {
            *syscalls += 1;
            if kernel.resident(file, offset, window) == Residency::Resident {
                self.until = offset.saturating_add(window);
                return Some(wanted);
            }
        }
        *syscalls += 1;
        let answer = kernel.resident(file, offset, wanted as u64);
        if answer == Residency::Resident {
            return Some(wanted);
        }
        if offset < self.until {
            return Some((self.until - offset) as usize);
        }
        // The pool may have read fewer bytes than are wanted here.
        let prefetched = self.prefetched.saturating_sub(offset).min(wanted as u64);
        if answer == Residency::Cold && 0 < prefetched && prefetched < wanted as u64 {
            *syscalls += 1;
            if kernel.resident(file, offset, prefetched) == Residency::Resident {
                return Some(prefetched as usize);
            }
        }
        self.set_cold(offset, answer == Residency::Unknown);
        None
    }
}

/// Whether the file system keeps its files in memory. May wait for a FUSE daemon.
pub(super) fn is_in_memory(file: BorrowedFd<'_>) -> bool {
    fstatfs(file).is_ok_and(|file_system| IN_MEMORY.contains(&file_system.filesystem_type()))
}

/// Whether the file is on `overlayfs`, as the files of container images are. May wait for a FUSE daemon.
pub(super) fn is_on_overlay(file: BorrowedFd<'_>) -> bool {
    fstatfs(file).is_ok_and(|file_system| file_system.filesystem_type() == OVERLAYFS_SUPER_MAGIC)
}
