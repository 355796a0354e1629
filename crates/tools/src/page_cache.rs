//! Shows which pages of a file are in the page cache, reads them into it, and evicts them.

use std::fs::File;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::fcntl::{PosixFadviseAdvice, posix_fadvise};
use nix::sys::statfs::{OVERLAYFS_SUPER_MAGIC, fstatfs};
use nix::unistd::fdatasync;

use zerosend_core::error::{Code, Error, Result};
use zerosend_core::fs::OpenFile;
use zerosend_core::io::read_full::read_full_at;
use zerosend_sys::memory::{Mapping, Pages};
use zerosend_sys::page::page_size;
use zerosend_sys::residency::cached_pages;

/// Bytes between two reports of progress.
const STEP: u64 = 8 << 20;
/// Bytes of the buffer for reads whose bytes are discarded.
const BUFFER: usize = 256 << 10;
/// Bytes of one read when the throughput is measured, and of one `O_DIRECT` read.
const READ_SIZE: usize = 1 << 20;
/// Bytes of a mapping for `mincore(2)`.
const WINDOW: u64 = 1 << 30;
/// Pages that were just read are in a list of their CPU, where the first `posix_fadvise(2)` does not find them.
const EVICT_ATTEMPTS: usize = 5;

/// Consecutive pages that are all in the page cache, or all not.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Run {
    /// Whether they are in the page cache.
    pub resident: bool,
    /// The number of pages.
    pub pages: u64,
}

/// How much of a file is in the page cache.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PageResidency {
    /// Bytes of the file.
    pub size: u64,
    /// Bytes of a page.
    pub page_size: u64,
    /// Pages of the file.
    pub pages: u64,
    /// Pages in the page cache.
    pub resident: u64,
    /// All pages of the file, in order.
    pub runs: Vec<Run>,
    /// The system call used: `cachestat`, or `mincore` where that is not available. `mincore(2)` reports all pages as
    /// resident for files that the caller neither owns nor may write to.
    pub by: &'static str,
}

/// The result of [`warm`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WarmReport {
    /// Pages of the file.
    pub pages: u64,
    /// Pages in the page cache before.
    pub resident_before: u64,
    /// Pages in the page cache afterwards: fewer than `pages` when memory is short.
    pub resident: u64,
    /// Bytes read.
    pub bytes_read: u64,
}

/// The throughput of reading a file once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Throughput {
    /// Bytes read.
    pub bytes: u64,
    /// The duration.
    pub time: Duration,
    /// Pages in the page cache before.
    pub resident_before: u64,
}

/// The result of [`measure`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Measurement {
    /// Bytes of the file.
    pub size: u64,
    /// Pages of the file.
    pub pages: u64,
    /// The first time, with the page cache unchanged.
    pub first: Throughput,
    /// The second time.
    pub second: Throughput,
    /// After eviction.
    pub evicted: Throughput,
    /// With `O_DIRECT`, bypassing the page cache; the errno where the file system refuses it.
    pub direct: std::result::Result<Throughput, Errno>,
}

fn open(path: &Path) -> Result<(OpenFile, u64)> {
    let file = OpenFile::open(path)?;
    let size = file.meta().size;
    Ok((file, size))
}

fn system(syscall: &'static str, path: &Path) -> impl Fn(Errno) -> Error {
    move |errno| Error::system(syscall, errno).with_path(path)
}

/// Which pages of a file are in the page cache; see `cachestat(2)`, `mincore(2)`. The errors of `open(2)`;
/// [`Code::NotRegularFile`].
pub fn residency(path: &Path) -> Result<PageResidency> {
    let (file, size) = open(path)?;
    let pages = size.div_ceil(page_size());
    let mut runs = Vec::new();
    let by = if supports_cachestat(&file) && by_cachestat(&file, 0, pages, &mut runs).is_ok() {
        "cachestat"
    } else {
        runs.clear();
        by_mincore(&file, size, &mut runs).map_err(system("mincore", path))?;
        "mincore"
    };
    let resident = runs.iter().filter(|run| run.resident).map(|run| run.pages).sum();
    Ok(PageResidency { size, page_size: page_size(), pages, resident, runs, by })
}

/// Whether `cachestat(2)` reports the pages of a file. On overlayfs they belong to the file of the layer below: `cachestat(2)`
/// reports none, and only `mincore(2)` of a mapping finds them.
fn supports_cachestat(file: &impl AsFd) -> bool {
    !fstatfs(file).is_ok_and(|found| found.filesystem_type() == OVERLAYFS_SUPER_MAGIC)
}

fn push(runs: &mut Vec<Run>, resident: bool, pages: u64) {
    match runs.last_mut() {
        Some(last) if last.resident == resident => last.pages += pages,
        _ => runs.push(Run { resident, pages }),
    }
}

/// Divides the range into halves until all pages of a half are in the page cache, or none.
fn by_cachestat(file: &impl AsFd, first: u64, pages: u64, runs: &mut Vec<Run>) -> std::result::Result<(), Errno> {
    if pages == 0 {
        return Ok(());
    }
    let page = page_size();
    let cached = cached_pages(file.as_fd(), first * page, pages * page)?;
    if cached == 0 || cached >= pages {
        push(runs, cached > 0, pages);
        return Ok(());
    }
    by_cachestat(file, first, pages / 2, runs)?;
    by_cachestat(file, first + pages / 2, pages - pages / 2, runs)
}

fn by_mincore(file: &impl AsFd, size: u64, runs: &mut Vec<Run>) -> std::result::Result<(), Errno> {
    let mut at = 0;
    while at < size {
        let length = WINDOW.min(size - at) as usize;
        for resident in Mapping::read_only(file, at, length)?.resident()? {
            push(runs, resident, 1);
        }
        at += length as u64;
    }
    Ok(())
}

/// The number of pages of a range that are in the page cache.
fn count_range(file: &impl AsFd, offset: u64, length: u64, path: &Path) -> Result<u64> {
    if length == 0 {
        return Ok(0);
    }
    match cached_pages(file.as_fd(), offset, length) {
        Ok(pages) if supports_cachestat(file) => Ok(pages),
        _ => {
            let region = Mapping::read_only(file, offset, length as usize);
            let pages = region.and_then(|region| region.resident()).map_err(system("mincore", path))?;
            Ok(pages.into_iter().filter(|resident| *resident).count() as u64)
        }
    }
}

fn count_all(file: &impl AsFd, size: u64, path: &Path) -> Result<u64> {
    let mut pages = 0;
    let mut at = 0;
    while at < size {
        let length = WINDOW.min(size - at);
        pages += count_range(file, at, length, path)?;
        at += length;
    }
    Ok(pages)
}

fn cancelled(stop: &AtomicBool, path: &Path) -> Result<()> {
    if stop.load(Ordering::Relaxed) {
        return Err(Error::new(Code::Aborted, "The operation was aborted").with_path(path));
    }
    Ok(())
}

/// Reads the pages that are not in the page cache into it. Calls `progress` with the bytes processed so far. Waits for the
/// disk.
pub fn warm(path: &Path, stop: &AtomicBool, mut progress: impl FnMut(u64)) -> Result<WarmReport> {
    let (file, size) = open(path)?;
    let page = page_size();
    let mut buffer = vec![0; BUFFER];
    let (mut resident_before, mut bytes_read, mut at) = (0, 0, 0);
    while at < size {
        cancelled(stop, path)?;
        let length = STEP.min(size - at);
        let cached = count_range(&file, at, length, path)?;
        resident_before += cached;
        if cached < length.div_ceil(page) {
            // The device reads the next step while this one is copied.
            let _ = posix_fadvise(&file, at as i64, 2 * STEP as i64, PosixFadviseAdvice::POSIX_FADV_WILLNEED);
            bytes_read += read(&file, at, length, &mut buffer, path)?;
        }
        at += length;
        progress(at);
    }
    let resident = count_all(&file, size, path)?;
    Ok(WarmReport { pages: size.div_ceil(page), resident_before, resident, bytes_read })
}

/// Reads a range and returns the number of bytes read: fewer than `length` when the file has become shorter.
fn read(file: &impl AsFd, from: u64, length: u64, buffer: &mut [u8], path: &Path) -> Result<u64> {
    let mut done = 0;
    while done < length {
        let wanted = (length - done).min(buffer.len() as u64) as usize;
        let count = read_full_at(file, from + done, &mut buffer[..wanted]).map_err(system("pread", path))?;
        done += count as u64;
        if count < wanted {
            break;
        }
    }
    Ok(done)
}

/// Writes modified pages to the disk and removes the file from the page cache; see `posix_fadvise(2)`,
/// `POSIX_FADV_DONTNEED`. Mapped and locked pages stay, and all pages of a file in memory (tmpfs). Returns the pages left.
pub fn evict(path: &Path) -> Result<PageResidency> {
    let (file, size) = open(path)?;
    drop_pages(&file, size, path)?;
    residency(path)
}

fn drop_pages(file: &impl AsFd, size: u64, path: &Path) -> Result<()> {
    match fdatasync(file.as_fd()) {
        // A read-only file system has nothing to write.
        Ok(()) | Err(Errno::EINVAL | Errno::EROFS) => {}
        Err(errno) => return Err(system("fdatasync", path)(errno)),
    }
    for _ in 0..EVICT_ATTEMPTS {
        posix_fadvise(file, 0, 0, PosixFadviseAdvice::POSIX_FADV_DONTNEED).map_err(system("posix_fadvise", path))?;
        if count_all(file, size, path)? == 0 {
            break;
        }
    }
    Ok(())
}

/// Measures four reads of a file: with the page cache unchanged, again, after eviction, and with `O_DIRECT`. Calls `progress`
/// with the bytes of all four so far. Waits for the disk. Afterwards the file is in the page cache.
pub fn measure(path: &Path, stop: &AtomicBool, mut progress: impl FnMut(u64)) -> Result<Measurement> {
    let (file, size) = open(path)?;
    if size == 0 {
        let message = "cannot measure an empty file";
        return Err(Error::new(Code::InvalidArgument, message).with_path(path));
    }
    let mut buffer = Pages::new(READ_SIZE).map_err(system("mmap", path))?;
    let mut done = 0;
    let mut pass = |file: &OwnedFd| -> Result<Throughput> {
        let resident_before = count_all(file, size, path)?;
        let begun = Instant::now();
        let (mut at, mut reported) = (0, 0);
        while at < size {
            cancelled(stop, path)?;
            match buffer.read_from(file.as_fd(), at) {
                Ok(0) => break,
                Ok(count) => at += count as u64,
                Err(Errno::EINTR) => {}
                Err(errno) => return Err(system("pread", path)(errno)),
            }
            // A report takes time, so not after each read.
            if at >= reported + STEP {
                reported = at;
                progress(done + at);
            }
        }
        done += size;
        progress(done);
        Ok(Throughput { bytes: at, time: begun.elapsed(), resident_before })
    };
    let descriptor = file.as_fd().try_clone_to_owned().map_err(|_| system("dup", path)(Errno::EMFILE))?;
    let first = pass(&descriptor)?;
    let second = pass(&descriptor)?;
    drop_pages(&descriptor, size, path)?;
    let evicted = pass(&descriptor)?;
    drop_pages(&descriptor, size, path)?;
    let direct = match File::options().read(true).custom_flags(libc::O_DIRECT | libc::O_CLOEXEC).open(path) {
        Ok(file) => match pass(&file.into()) {
            Ok(throughput) => Ok(throughput),
            Err(error) => match error.errno() {
                Some(errno @ (Errno::EINVAL | Errno::EOPNOTSUPP)) => Err(errno),
                _ => return Err(error),
            },
        },
        Err(error) => Err(error.raw_os_error().map_or(Errno::EIO, Errno::from_raw)),
    };
    let mut buffer = vec![0; BUFFER];
    read(&file, 0, size, &mut buffer, path)?;
    Ok(Measurement { size, pages: size.div_ceil(page_size()), first, second, evicted, direct })
}
