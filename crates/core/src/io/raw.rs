//! Single calls of `splice(2)`, `tee(2)`, `vmsplice(2)` and `sendfile(2)` that do not wait.
//!
//! Combinations for which the kernel fails with a bare `EINVAL` are checked before the call, and the error names the rule.
//! `Ok(None)` is `EAGAIN`: the source is empty, the target is full, or the bytes of a file are not in the page cache. In the
//! last case read-ahead was started (`POSIX_FADV_WILLNEED`), and a later call finds them.

use std::os::fd::BorrowedFd;

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, PosixFadviseAdvice, fcntl, posix_fadvise};
use nix::sys::stat::{FileStat, SFlag, fstat};

use crate::error::{Code, Error, Result};
use crate::io::SharedMode;
use zerosend_sys::memory::Span;
use zerosend_sys::page::page_size;
use zerosend_sys::pipe::{self, SpliceFlags};
use zerosend_sys::residency::{Residency, cached_pages, residency};
use zerosend_sys::{Kernel, Linux, SysResult};

/// The maximum of bytes that one call moves of a file that is only partly in the page cache.
const COLD_STEP: usize = 64 * 1024;

/// A borrowed descriptor, its kind and its flags.
struct CheckedFd<'a> {
    name: &'static str,
    fd: BorrowedFd<'a>,
    stat: FileStat,
    flags: OFlag,
}

impl<'a> CheckedFd<'a> {
    fn new(name: &'static str, fd: BorrowedFd<'a>) -> Result<Self> {
        let stat = fstat(fd).map_err(|errno| Error::system("fstat", errno))?;
        let flags = fcntl(fd, FcntlArg::F_GETFL).map_err(|errno| Error::system("fcntl", errno))?;
        Ok(Self { name, fd, stat, flags: OFlag::from_bits_retain(flags) })
    }

    fn kind(&self) -> SFlag {
        SFlag::from_bits_truncate(self.stat.st_mode) & SFlag::S_IFMT
    }

    fn describe(&self) -> &'static str {
        match self.kind() {
            SFlag::S_IFIFO => "a pipe",
            SFlag::S_IFSOCK => "a socket",
            SFlag::S_IFREG => "a file",
            SFlag::S_IFDIR => "a directory",
            _ => "a device",
        }
    }

    fn is_pipe(&self) -> bool {
        self.kind() == SFlag::S_IFIFO
    }

    fn is_file(&self) -> bool {
        self.kind() == SFlag::S_IFREG
    }

    fn check_pipe(&self) -> Result<()> {
        if self.is_pipe() { Ok(()) } else { Err(self.wrong("use a pipe")) }
    }

    fn check_readable(&self) -> Result<()> {
        if self.flags & OFlag::O_ACCMODE == OFlag::O_WRONLY {
            return Err(self.wrong("open it for reading; of a Pipe, use `readFd`"));
        }
        Ok(())
    }

    fn check_writable(&self) -> Result<()> {
        if self.flags & OFlag::O_ACCMODE == OFlag::O_RDONLY {
            return Err(self.wrong("open it for writing; of a Pipe, use `writeFd`"));
        }
        if self.is_file() && self.flags.contains(OFlag::O_APPEND) {
            return Err(self.wrong("open it without O_APPEND, which the kernel refuses"));
        }
        Ok(())
    }

    fn check_offset(&self, offset: Option<u64>) -> Result<()> {
        if offset.is_some() && !self.is_file() {
            return Err(self.wrong("only files have a position; leave out the offset"));
        }
        Ok(())
    }

    fn is_same_as(&self, other: &CheckedFd<'_>) -> bool {
        (self.stat.st_dev, self.stat.st_ino) == (other.stat.st_dev, other.stat.st_ino)
    }

    fn wrong(&self, rule: &str) -> Error {
        Error::new(Code::InvalidArgument, format!("invalid `{}` ({}): {rule}", self.name, self.describe()))
    }

    /// Sets non-blocking mode for the call. The mode belongs to the open file description, which other processes may share.
    fn set_non_blocking(&self) -> Result<Option<SharedMode>> {
        if self.is_file() { Ok(None) } else { SharedMode::acquire(self.fd, &self.stat) }
    }

    /// The number of the next `length` bytes that can be moved without waiting for a disk. If it is 0, read-ahead was started.
    fn resident_len(&self, offset: Option<u64>, length: usize) -> Result<usize> {
        if !self.is_file() || length == 0 {
            return Ok(length);
        }
        let offset = match offset {
            Some(offset) => offset,
            None => nix::unistd::lseek(self.fd, 0, nix::unistd::Whence::SeekCur)
                .map_err(|errno| Error::system("lseek", errno))? as u64,
        };
        let left = (self.stat.st_size as u64).saturating_sub(offset);
        let wanted = left.min(length as u64);
        if wanted == 0 || !is_cold(self.fd, offset, wanted) {
            return Ok(length);
        }
        let wanted_bytes = i64::try_from(wanted).unwrap_or(i64::MAX);
        let _ = posix_fadvise(self.fd, offset as i64, wanted_bytes, PosixFadviseAdvice::POSIX_FADV_WILLNEED);
        let step = wanted.min(COLD_STEP as u64);
        Ok(if is_cold(self.fd, offset, step) { 0 } else { step as usize })
    }
}

/// One `splice(2)`. `from` or `to` must be a pipe. `Some(0)`: the source ended.
pub fn splice(
    from: BorrowedFd<'_>,
    from_offset: Option<u64>,
    to: BorrowedFd<'_>,
    to_offset: Option<u64>,
    length: usize,
    flags: SpliceFlags,
) -> Result<Option<usize>> {
    let (from, to) = (CheckedFd::new("from", from)?, CheckedFd::new("to", to)?);
    if !from.is_pipe() && !to.is_pipe() {
        return Err(Error::new(
            Code::InvalidArgument,
            format!(
                "neither `from` ({}) nor `to` ({}) is a pipe; go through a Pipe, or use sendfile",
                from.describe(),
                to.describe()
            ),
        ));
    }
    from.check_readable()?;
    to.check_writable()?;
    from.check_offset(from_offset)?;
    to.check_offset(to_offset)?;
    if from.is_same_as(&to) {
        return Err(Error::new(Code::InvalidArgument, "`from` and `to` are the same pipe; use two pipes"));
    }
    let length = match from.resident_len(from_offset, length)? {
        0 if length > 0 => return Ok(None),
        length => length,
    };
    let _modes = (from.set_non_blocking()?, to.set_non_blocking()?);
    outcome("splice", pipe::splice(from.fd, from_offset, to.fd, to_offset, length, flags))
}

/// One `tee(2)`, from pipe to pipe. `Some(0)`: the source ended.
pub fn tee(from: BorrowedFd<'_>, to: BorrowedFd<'_>, length: usize) -> Result<Option<usize>> {
    let (from, to) = (CheckedFd::new("from", from)?, CheckedFd::new("to", to)?);
    from.check_pipe()?;
    to.check_pipe()?;
    from.check_readable()?;
    to.check_writable()?;
    if from.is_same_as(&to) {
        return Err(Error::new(Code::InvalidArgument, "`from` and `to` are the same pipe; use two pipes"));
    }
    outcome("tee", pipe::tee(from.fd, to.fd, length))
}

/// One `vmsplice(2)` of at most [`pipe::MAX_SPANS`] spans of memory that is not written to any more.
pub fn vmsplice(pipe: BorrowedFd<'_>, spans: &[Span<'_>]) -> Result<Option<usize>> {
    let write_end = CheckedFd::new("pipe", pipe)?;
    write_end.check_pipe()?;
    write_end.check_writable()?;
    outcome("vmsplice", pipe::vmsplice(write_end.fd, spans, true))
}

/// The capacity of an empty pipe in bytes; `None` when it is not empty. `pipe` is its write end.
pub fn capacity_if_empty(pipe: BorrowedFd<'_>) -> Result<Option<usize>> {
    let write_end = CheckedFd::new("pipe", pipe)?;
    write_end.check_pipe()?;
    write_end.check_writable()?;
    if pipe::unread(pipe).map_err(|errno| Error::system("ioctl", errno))? > 0 {
        return Ok(None);
    }
    pipe::capacity(pipe).map(Some).map_err(|errno| Error::system("fcntl", errno))
}

/// One `sendfile(2)` of a file from `offset` on. `Some(0)`: `offset` is at or beyond the end of the file.
pub fn sendfile(out: BorrowedFd<'_>, file: BorrowedFd<'_>, offset: u64, length: usize) -> Result<Option<usize>> {
    let (out, file) = (CheckedFd::new("out", out)?, CheckedFd::new("in", file)?);
    if !file.is_file() {
        return Err(file.wrong("use a regular file; from a pipe or socket, use splice"));
    }
    file.check_readable()?;
    out.check_writable()?;
    let length = match file.resident_len(Some(offset), length)? {
        0 if length > 0 => return Ok(None),
        length => length,
    };
    let _mode = out.set_non_blocking()?;
    outcome("sendfile", Linux.sendfile(out.fd, file.fd, offset, length))
}

/// Whether a call would wait for a disk. Where `RWF_NOWAIT` is not supported (FUSE, tmpfs), the number of cached pages
/// decides, if the kernel reports it.
fn is_cold(file: BorrowedFd<'_>, offset: u64, length: u64) -> bool {
    match residency(file, offset, length) {
        Residency::Resident => false,
        Residency::Cold => true,
        Residency::Unknown => {
            let page = page_size();
            let first = offset / page * page;
            let end = offset.saturating_add(length);
            cached_pages(file, first, end - first).is_ok_and(|pages| pages < (end - first).div_ceil(page))
        }
    }
}

fn outcome(syscall: &'static str, result: SysResult<usize>) -> Result<Option<usize>> {
    match result {
        Ok(count) => Ok(Some(count)),
        Err(Errno::EAGAIN) => Ok(None),
        Err(errno) => Err(Error::system(syscall, errno)),
    }
}
