//! What of a file is in the page cache, bringing it there, and getting it out.

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

/// Bytes that are read, and told of, at once.
const PIECE: u64 = 8 << 20;
/// Bytes of the buffer that warming reads into, and throws away.
const BUFFER: usize = 256 << 10;
/// Bytes of one read when the speed is measured, and what `O_DIRECT` asks for at once.
const MEASURED: usize = 1 << 20;
/// Bytes that are mapped at once to be asked about.
const WINDOW: u64 = 1 << 30;
/// Pages that were just read wait in a list of their processor, where the first call does not find them.
const EVICTIONS: usize = 5;

/// Pages that are all in the page cache or all not, one after another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Run {
    /// They are.
    pub resident: bool,
    /// How many.
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
    /// How many of them are in the page cache.
    pub resident: u64,
    /// Which, from the beginning of the file to its end.
    pub runs: Vec<Run>,
    /// The call that was asked: `cachestat`, or `mincore` where that is not to be had. `mincore(2)` says of files that the caller
    /// neither owns nor may write to that all of them is there.
    pub by: &'static str,
}

/// What [`warm`] has done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WarmReport {
    /// Pages of the file.
    pub pages: u64,
    /// How many were there before.
    pub resident_before: u64,
    /// How many were there afterwards: fewer than all of them when memory is short.
    pub resident: u64,
    /// Bytes read.
    pub bytes_read: u64,
}

/// How fast a file could be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pace {
    /// Bytes.
    pub bytes: u64,
    /// In this time.
    pub time: Duration,
    /// Pages that were in the page cache before.
    pub resident_before: u64,
}

/// What [`measure`] has found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Measurement {
    /// Bytes of the file.
    pub size: u64,
    /// Pages of the file.
    pub pages: u64,
    /// As it was found.
    pub first: Pace,
    /// Once more.
    pub second: Pace,
    /// After it was evicted.
    pub evicted: Pace,
    /// Past the page cache, `O_DIRECT`; the errno where the filesystem refuses that.
    pub direct: std::result::Result<Pace, Errno>,
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
    let by = if has_own_pages(&file) && by_cachestat(&file, 0, pages, &mut runs).is_ok() {
        "cachestat"
    } else {
        runs.clear();
        by_mincore(&file, size, &mut runs).map_err(system("mincore", path))?;
        "mincore"
    };
    let resident = runs.iter().filter(|run| run.resident).map(|run| run.pages).sum();
    Ok(PageResidency { size, page_size: page_size(), pages, resident, runs, by })
}

/// Whether `cachestat(2)` can be asked. Files of overlayfs have no pages of their own, and it would say that none is there: those of the
/// file behind can only be seen through a mapping.
fn has_own_pages(file: &impl AsFd) -> bool {
    !fstatfs(file).is_ok_and(|found| found.filesystem_type() == OVERLAYFS_SUPER_MAGIC)
}

fn push(runs: &mut Vec<Run>, resident: bool, pages: u64) {
    match runs.last_mut() {
        Some(last) if last.resident == resident => last.pages += pages,
        _ => runs.push(Run { resident, pages }),
    }
}

/// By halves, until a half is all there or all not.
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

/// How many pages of a stretch are in the page cache.
fn count(file: &impl AsFd, offset: u64, length: u64, path: &Path) -> Result<u64> {
    if length == 0 {
        return Ok(0);
    }
    match cached_pages(file.as_fd(), offset, length) {
        Ok(pages) if has_own_pages(file) => Ok(pages),
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
        pages += count(file, at, length, path)?;
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

/// Reads what is not in the page cache, so that it is. `progress` hears of the bytes that are done with. Waits for the disk.
pub fn warm(path: &Path, stop: &AtomicBool, mut progress: impl FnMut(u64)) -> Result<WarmReport> {
    let (file, size) = open(path)?;
    let page = page_size();
    let mut buffer = vec![0; BUFFER];
    let (mut resident_before, mut bytes_read, mut at) = (0, 0, 0);
    while at < size {
        cancelled(stop, path)?;
        let length = PIECE.min(size - at);
        let there = count(&file, at, length, path)?;
        resident_before += there;
        if there < length.div_ceil(page) {
            // The device reads the next piece while this one is copied.
            let _ = posix_fadvise(&file, at as i64, 2 * PIECE as i64, PosixFadviseAdvice::POSIX_FADV_WILLNEED);
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

/// Writes what is changed to the disk and takes the file out of the page cache; see `posix_fadvise(2)`,
/// `POSIX_FADV_DONTNEED`. What somebody has mapped or locked stays, and so does all of a file that lives in memory (tmpfs).
/// Returns what is left.
pub fn evict(path: &Path) -> Result<PageResidency> {
    let (file, size) = open(path)?;
    drop_pages(&file, size, path)?;
    residency(path)
}

fn drop_pages(file: &impl AsFd, size: u64, path: &Path) -> Result<()> {
    match fdatasync(file.as_fd()) {
        // A filesystem that is read only has nothing to write.
        Ok(()) | Err(Errno::EINVAL | Errno::EROFS) => {}
        Err(errno) => return Err(system("fdatasync", path)(errno)),
    }
    for _ in 0..EVICTIONS {
        posix_fadvise(file, 0, 0, PosixFadviseAdvice::POSIX_FADV_DONTNEED).map_err(system("posix_fadvise", path))?;
        if count_all(file, size, path)? == 0 {
            break;
        }
    }
    Ok(())
}

/// Reads the file as it is found, once more, after evicting it, and past the page cache. `progress` hears of the bytes of all
/// four. Waits for the disk. Afterwards the file is in the page cache.
pub fn measure(path: &Path, stop: &AtomicBool, mut progress: impl FnMut(u64)) -> Result<Measurement> {
    let (file, size) = open(path)?;
    if size == 0 {
        let message = "the file is empty: there is nothing to measure";
        return Err(Error::new(Code::InvalidArgument, message).with_path(path));
    }
    let mut buffer = Pages::new(MEASURED).map_err(system("mmap", path))?;
    let mut done = 0;
    let mut pass = |file: &OwnedFd| -> Result<Pace> {
        let resident_before = count_all(file, size, path)?;
        let begun = Instant::now();
        let (mut at, mut told) = (0, 0);
        while at < size {
            cancelled(stop, path)?;
            match buffer.read_from(file.as_fd(), at) {
                Ok(0) => break,
                Ok(count) => at += count as u64,
                Err(Errno::EINTR) => {}
                Err(errno) => return Err(system("pread", path)(errno)),
            }
            // Not too often: to tell takes time, too.
            if at >= told + PIECE {
                told = at;
                progress(done + at);
            }
        }
        done += size;
        progress(done);
        Ok(Pace { bytes: at, time: begun.elapsed(), resident_before })
    };
    let descriptor = file.as_fd().try_clone_to_owned().map_err(|_| system("dup", path)(Errno::EMFILE))?;
    let first = pass(&descriptor)?;
    let second = pass(&descriptor)?;
    drop_pages(&descriptor, size, path)?;
    let evicted = pass(&descriptor)?;
    drop_pages(&descriptor, size, path)?;
    let direct = match File::options().read(true).custom_flags(libc::O_DIRECT | libc::O_CLOEXEC).open(path) {
        Ok(file) => match pass(&file.into()) {
            Ok(pace) => Ok(pace),
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
