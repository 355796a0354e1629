//! Is it in the page cache? `cachestat(2)` (Linux 6.5), else probes with `preadv2(RWF_NOWAIT)`.
//!
//! `cachestat` counts pages; a page that read-ahead has only just allocated counts too, though its bytes are not
//! there yet. So its yes is confirmed by reading one byte of the last page with `RWF_NOWAIT`, which fails with `EAGAIN`
//! unless that page is up to date: read-ahead fills in order.

use std::os::fd::{AsRawFd, BorrowedFd};
use std::sync::atomic::{AtomicBool, Ordering};

use nix::errno::Errno;

use super::SysResult;
use super::io::pread_resident;
use super::page::page_size;

/// What the kernel says about a range of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Residency {
    /// Every byte can be had without waiting for a disk.
    Resident,
    /// Some byte would have to come from the disk.
    Cold,
    /// The filesystem does not say (FUSE, 9p, some network filesystems).
    Unknown,
}

/// Distance between probes where `cachestat` is missing: below the smallest read-ahead window in use (128 KiB).
const PROBE_STRIDE: u64 = 64 * 1024;

/// The number of `cachestat` on every architecture (it came after the tables were unified).
const SYS_CACHESTAT: libc::c_long = 451;

static NO_CACHESTAT: AtomicBool = AtomicBool::new(false);

/// Asks whether `length` bytes of `file` from `offset` on are in the page cache.
pub fn residency(file: BorrowedFd<'_>, offset: u64, length: u64) -> Residency {
    // Files end at i64::MAX at the latest. Past the end nothing has to be waited for.
    const LAST: u64 = i64::MAX as u64;
    if length == 0 || offset > LAST {
        return Residency::Resident;
    }
    let last = offset.saturating_add(length - 1).min(LAST);
    if !NO_CACHESTAT.load(Ordering::Relaxed) {
        let page = page_size();
        let first_page = offset / page * page;
        match cached_pages(file, first_page, last + 1 - first_page) {
            Ok(pages) if pages < (last - first_page) / page + 1 => return Residency::Cold,
            Ok(_) => return probe(file, last),
            Err(Errno::ENOSYS | Errno::EPERM) => NO_CACHESTAT.store(true, Ordering::Relaxed),
            Err(_) => {}
        }
    }
    let mut position = offset;
    while position < last {
        match probe(file, position) {
            Residency::Resident => position = position.saturating_add(PROBE_STRIDE),
            other => return other,
        }
    }
    probe(file, last)
}

fn probe(file: BorrowedFd<'_>, offset: u64) -> Residency {
    match pread_resident(file, &mut [0], offset) {
        Ok(_) => Residency::Resident, // 0: past the end; the transfer itself will find the file truncated
        Err(Errno::EAGAIN) => Residency::Cold,
        Err(_) => Residency::Unknown,
    }
}

#[repr(C)]
struct CachestatRange {
    offset: u64,
    length: u64,
}

/// `struct cachestat` of `<linux/mman.h>`.
#[repr(C)]
#[derive(Default)]
struct Cachestat {
    cached: u64,
    dirty: u64,
    writeback: u64,
    evicted: u64,
    recently_evicted: u64,
}

/// How many pages of the range are in the page cache. One `cachestat(2)`.
pub fn cached_pages(file: BorrowedFd<'_>, offset: u64, length: u64) -> SysResult<u64> {
    let range = CachestatRange { offset, length };
    let mut stat = Cachestat::default();
    // SAFETY: both structs are live, of the layout the kernel expects, and only the second is written to.
    let result =
        unsafe { libc::syscall(SYS_CACHESTAT, file.as_raw_fd(), &raw const range, &raw mut stat, 0 as libc::c_uint) };
    Errno::result(result).map(|_| stat.cached)
}
