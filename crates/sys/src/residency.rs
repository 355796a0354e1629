//! Whether a range of a file is in the page cache: by `cachestat(2)` (Linux 6.5), else by probes with
//! `preadv2(RWF_NOWAIT)`.
//!
//! `cachestat` also counts pages that read-ahead has allocated and not filled yet. So a positive result is confirmed by reading
//! one byte of the last page with `RWF_NOWAIT`, which fails with `EAGAIN` unless that page is up to date: read-ahead fills
//! pages in order.

use std::io::IoSliceMut;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::sync::atomic::{AtomicBool, Ordering};

use nix::errno::Errno;

use crate::SysResult;
use crate::page::page_size;

/// The answer of the kernel about a range of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Residency {
    /// Every byte can be read without waiting for a disk.
    Resident,
    /// At least one byte has to be read from the disk.
    Cold,
    /// The file system does not support the question (FUSE, 9p, overlayfs, some network file systems).
    Unknown,
}

/// Bytes between probes where `cachestat` is missing: less than the smallest read-ahead window in use (128 KiB).
const PROBE_STRIDE: u64 = 64 * 1024;

/// The number of `cachestat` on every architecture: it is newer than the unification of the tables (424).
const SYS_CACHESTAT: libc::c_long = 451;

static NO_CACHESTAT: AtomicBool = AtomicBool::new(false);

/// Whether `length` bytes of `file` from `offset` on are in the page cache. Beyond the largest possible file size all bytes
/// count as resident: there is nothing to wait for.
pub fn residency(file: BorrowedFd<'_>, offset: u64, length: u64) -> Residency {
    // No file is longer than i64::MAX bytes (`off_t`). With this bound nothing below overflows.
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
        Ok(_) => Residency::Resident, // 0: beyond the end, which the transfer itself detects
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

/// Number of pages of the range that are in the page cache. One `cachestat(2)`.
pub fn cached_pages(file: BorrowedFd<'_>, offset: u64, length: u64) -> SysResult<u64> {
    let range = CachestatRange { offset, length };
    let mut stat = Cachestat::default();
    // SAFETY: `range` and `stat` are live and have the layout of `struct cachestat_range` and `struct cachestat` of
    // <linux/mman.h>. The kernel reads the first and writes the second, whose fields accept every value.
    let result =
        unsafe { libc::syscall(SYS_CACHESTAT, file.as_raw_fd(), &raw const range, &raw mut stat, 0 as libc::c_uint) };
    Errno::result(result).map(|_| stat.cached)
}

/// Reads bytes at `offset` that are in the page cache, without waiting for a disk.
///
/// `preadv2(2)` with `RWF_NOWAIT` (Linux 4.14). `EAGAIN`: the first byte is not in the page cache. `EOPNOTSUPP`, `ENOSYS`: the
/// file system or the kernel does not support the flag. Called by number, because glibc has the function only since 2.26.
pub fn pread_resident(file: BorrowedFd<'_>, buffer: &mut [u8], offset: u64) -> SysResult<usize> {
    let mut slices = [IoSliceMut::new(buffer)];
    let (low, high) = split_offset(offset)?;
    // SAFETY: `slices` is one `IoSliceMut`, which has the layout of `struct iovec` (documented by the standard library). The
    // kernel writes at most its length to it, and the buffer behind it is borrowed exclusively for the call.
    let count = unsafe {
        libc::syscall(
            libc::SYS_preadv2,
            file.as_raw_fd(),
            slices.as_mut_ptr().cast::<libc::iovec>(),
            1usize,
            low,
            high,
            libc::RWF_NOWAIT,
        )
    };
    Errno::result(count).map(|count| count as usize)
}

/// The two arguments of `preadv2` for the offset: on 64-bit systems the first has all of it, on 32-bit systems each a half.
fn split_offset(offset: u64) -> SysResult<(libc::c_long, libc::c_long)> {
    let offset = i64::try_from(offset).map_err(|_| Errno::EOVERFLOW)?;
    if size_of::<libc::c_long>() == 8 {
        Ok((offset as libc::c_long, 0))
    } else {
        Ok((offset as libc::c_long, (offset >> 32) as libc::c_long))
    }
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd;

    use super::*;

    #[test]
    fn offsets_up_to_the_largest_are_answered_without_overflow() {
        let file = std::fs::File::open("/proc/self/exe").expect("a file");
        for offset in [0, i64::MAX as u64 - 1, i64::MAX as u64, i64::MAX as u64 + 1, u64::MAX] {
            for length in [0, 1, u64::MAX] {
                let answer = residency(file.as_fd(), offset, length);
                let beyond = length == 0 || offset > i64::MAX as u64;
                assert!(!beyond || answer == Residency::Resident, "{offset} {length}: {answer:?}");
            }
        }
        assert_eq!(pread_resident(file.as_fd(), &mut [0], i64::MAX as u64 + 1), Err(Errno::EOVERFLOW));
    }
}
