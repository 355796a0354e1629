//! `splice(2)`, `tee(2)`, `vmsplice(2)` and `sendfile(2)` for those who build their own: one call, which never waits.
//!
//! The rules that the kernel answers with a bare `EINVAL` are checked before the call, and the error says which one it
//! was. `Ok(None)` is `EAGAIN`: the source has nothing now, the target takes nothing now, or the bytes of a file are not in
//! the page cache; then the kernel has been told to read them, and a later call finds them.

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

/// Bytes of a file that one call moves at most when they are not all in the page cache.
const COLD_STEP: usize = 64 * 1024;

/// A descriptor that was lent, and what must be known of it.
struct End<'a> {
    name: &'static str,
    fd: BorrowedFd<'a>,
    stat: FileStat,
    flags: OFlag,
}

impl<'a> End<'a> {
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

    fn must_be_pipe(&self) -> Result<()> {
        if self.is_pipe() { Ok(()) } else { Err(self.wrong("must be a pipe")) }
    }

    fn must_read(&self) -> Result<()> {
        if self.flags & OFlag::O_ACCMODE == OFlag::O_WRONLY {
            return Err(self.wrong("must be open for reading; for a pipe give its `readFd`"));
        }
        Ok(())
    }

    fn must_write(&self) -> Result<()> {
        if self.flags & OFlag::O_ACCMODE == OFlag::O_RDONLY {
            return Err(self.wrong("must be open for writing; for a pipe give its `writeFd`"));
        }
        if self.is_file() && self.flags.contains(OFlag::O_APPEND) {
            return Err(self.wrong("must not be open for appending (O_APPEND): the kernel refuses it; open it without"));
        }
        Ok(())
    }

    fn may_have_offset(&self, offset: Option<u64>) -> Result<()> {
        if offset.is_some() && !self.is_file() {
            return Err(self.wrong("has no position: an offset is for files; leave it out"));
        }
        Ok(())
    }

    fn is_same_as(&self, other: &End<'_>) -> bool {
        (self.stat.st_dev, self.stat.st_ino) == (other.stat.st_dev, other.stat.st_ino)
    }

    fn wrong(&self, rule: &str) -> Error {
        Error::new(Code::InvalidArgument, format!("`{}` is {}, but {rule}", self.name, self.describe()))
    }

    /// Non-blocking for the call: the mode belongs to the open file, which others share.
    fn non_blocking(&self) -> Result<Option<SharedMode>> {
        if self.is_file() { Ok(None) } else { SharedMode::acquire(self.fd, &self.stat) }
    }

    /// How many of `length` bytes can be moved from here without waiting for the disk. 0: none, and they are being read.
    fn movable(&self, offset: Option<u64>, length: usize) -> Result<usize> {
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

/// One `splice(2)`. One end must be a pipe. `Some(0)`: the source has ended.
pub fn splice(
    from: BorrowedFd<'_>,
    from_offset: Option<u64>,
    to: BorrowedFd<'_>,
    to_offset: Option<u64>,
    length: usize,
    flags: SpliceFlags,
) -> Result<Option<usize>> {
    let (from, to) = (End::new("from", from)?, End::new("to", to)?);
    if !from.is_pipe() && !to.is_pipe() {
        return Err(Error::new(
            Code::InvalidArgument,
            format!(
                "`from` is {} and `to` is {}, but one of them must be a pipe; go through a Pipe, or use sendfile",
                from.describe(),
                to.describe()
            ),
        ));
    }
    from.must_read()?;
    to.must_write()?;
    from.may_have_offset(from_offset)?;
    to.may_have_offset(to_offset)?;
    if from.is_same_as(&to) {
        return Err(Error::new(Code::InvalidArgument, "`from` and `to` are ends of the same pipe, but must be of two"));
    }
    let length = match from.movable(from_offset, length)? {
        0 if length > 0 => return Ok(None),
        length => length,
    };
    let _modes = (from.non_blocking()?, to.non_blocking()?);
    outcome("splice", pipe::splice(from.fd, from_offset, to.fd, to_offset, length, flags))
}

/// One `tee(2)`, from pipe to pipe. `Some(0)`: the source has ended.
pub fn tee(from: BorrowedFd<'_>, to: BorrowedFd<'_>, length: usize) -> Result<Option<usize>> {
    let (from, to) = (End::new("from", from)?, End::new("to", to)?);
    from.must_be_pipe()?;
    to.must_be_pipe()?;
    from.must_read()?;
    to.must_write()?;
    if from.is_same_as(&to) {
        return Err(Error::new(Code::InvalidArgument, "`from` and `to` are ends of the same pipe, but must be of two"));
    }
    outcome("tee", pipe::tee(from.fd, to.fd, length))
}

/// One `vmsplice(2)` of memory that nobody writes to any more, at most [`pipe::MAX_SPANS`] pieces of it.
pub fn vmsplice(pipe: BorrowedFd<'_>, spans: &[Span<'_>]) -> Result<Option<usize>> {
    let end = End::new("pipe", pipe)?;
    end.must_be_pipe()?;
    end.must_write()?;
    outcome("vmsplice", pipe::vmsplice(end.fd, spans, true))
}

/// How much an empty pipe takes, in bytes; `None` for one that is not empty. `pipe` is its end to write to.
pub fn empty_room(pipe: BorrowedFd<'_>) -> Result<Option<usize>> {
    let end = End::new("pipe", pipe)?;
    end.must_be_pipe()?;
    end.must_write()?;
    if pipe::unread(pipe).map_err(|errno| Error::system("ioctl", errno))? > 0 {
        return Ok(None);
    }
    pipe::capacity(pipe).map(Some).map_err(|errno| Error::system("fcntl", errno))
}

/// One `sendfile(2)` of a file from `offset` on. `Some(0)`: the file has no byte there.
pub fn sendfile(out: BorrowedFd<'_>, file: BorrowedFd<'_>, offset: u64, length: usize) -> Result<Option<usize>> {
    let (out, file) = (End::new("out", out)?, End::new("in", file)?);
    if !file.is_file() {
        return Err(file.wrong("must be a regular file; from a pipe or socket use splice"));
    }
    file.must_read()?;
    out.must_write()?;
    let length = match file.movable(Some(offset), length)? {
        0 if length > 0 => return Ok(None),
        length => length,
    };
    let _mode = out.non_blocking()?;
    outcome("sendfile", Linux.sendfile(out.fd, file.fd, offset, length))
}

/// Whether a call would have to wait for the disk. Where the kernel does not say what can be read at once (FUSE, tmpfs), the
/// number of pages in the page cache decides, if it can be had.
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
