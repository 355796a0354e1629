//! The file that bytes are received into, and the position of the next byte.

use std::collections::HashSet;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::sys::stat::{FileStat, Mode, SFlag, fstat};

use crate::error::{Code, Error, Result};

/// Where the first byte goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Start {
    /// A file opened by path is truncated; a descriptor is written to from its position, which moves.
    Default,
    /// At this offset in bytes, which must not be beyond the end of the file.
    At(u64),
    /// At the end of the file.
    End,
}

/// A regular file that is open for writing.
pub struct TargetFile {
    file: OwnedFd,
    /// Offset of the next byte; `None`: the position of the descriptor.
    offset: Option<u64>,
    _appending: Option<Appending>,
}

impl TargetFile {
    /// Opens or creates the file at `path`.
    pub fn open(path: &Path, start: Start) -> Result<Self> {
        // O_NONBLOCK: the open of a FIFO fails instead of waiting for a reader. No O_TRUNC: only a regular file is truncated,
        // below.
        let flags = OFlag::O_WRONLY | OFlag::O_CREAT | OFlag::O_CLOEXEC | OFlag::O_NOCTTY | OFlag::O_NONBLOCK;
        let file = nix::fcntl::open(path, flags, Mode::from_bits_retain(0o666))
            .map_err(|errno| Error::system("open", errno).with_path(path))?;
        let target = Self::from_fd(file, start).map_err(|error| error.with_path(path))?;
        if start == Start::Default {
            nix::unistd::ftruncate(&target.file, 0)
                .map_err(|errno| Error::system("ftruncate", errno).with_path(path))?;
        }
        Ok(target)
    }

    /// Takes the descriptor of a regular file that is open for writing and not for appending.
    pub fn from_fd(file: OwnedFd, start: Start) -> Result<Self> {
        let stat = fstat(&file).map_err(|errno| Error::system("fstat", errno))?;
        check(file.as_fd(), &stat)?;
        let size = stat.st_size as u64;
        let (offset, appending) = match start {
            Start::Default => (None, None),
            Start::At(offset) if offset > size => {
                let message = format!(
                    "offset {offset} is beyond the end of the file ({size} bytes); extend the file with truncate first"
                );
                return Err(Error::new(Code::OutOfRange, message));
            }
            Start::At(offset) => (Some(offset), None),
            Start::End => {
                let appending = Appending::begin(&stat)?;
                // Read again: another receive may have appended before `Appending::begin`.
                let size = fstat(&file).map_err(|errno| Error::system("fstat", errno))?.st_size as u64;
                (Some(size), Some(appending))
            }
        };
        Ok(Self { file, offset, _appending: appending })
    }

    /// The descriptor, for callers that keep the position themselves.
    pub fn into_file(self) -> OwnedFd {
        self.file
    }

    /// Offset of the next byte; `None`: the position of the descriptor.
    pub(super) fn offset(&self) -> Option<u64> {
        self.offset
    }

    /// Moves the offset after a write at [`TargetFile::offset`].
    pub(super) fn advance(&mut self, bytes: usize) {
        self.offset = self.offset.map(|offset| offset + bytes as u64);
    }

    /// One write(2) or pwrite(2).
    pub(super) fn write(&mut self, bytes: &[u8]) -> std::result::Result<usize, Errno> {
        let count = match self.offset {
            None => nix::unistd::write(&self.file, bytes)?,
            Some(offset) => nix::sys::uio::pwrite(&self.file, bytes, offset as i64)?,
        };
        self.advance(count);
        Ok(count)
    }
}

impl AsFd for TargetFile {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

fn check(file: BorrowedFd<'_>, stat: &FileStat) -> Result<()> {
    let kind = SFlag::from_bits_truncate(stat.st_mode) & SFlag::S_IFMT;
    let wrong = |code, what: &str| Err(Error::new(code, format!("`target` {what}")));
    if kind != SFlag::S_IFREG {
        let name = match kind {
            SFlag::S_IFIFO => "a pipe",
            SFlag::S_IFSOCK => "a socket",
            SFlag::S_IFDIR => "a directory",
            _ => "a device",
        };
        return wrong(Code::NotRegularFile, &format!("is {name}; use a regular file"));
    }
    let flags = OFlag::from_bits_retain(fcntl(file, FcntlArg::F_GETFL).map_err(|errno| Error::system("fcntl", errno))?);
    if flags & OFlag::O_ACCMODE == OFlag::O_RDONLY {
        return wrong(Code::InvalidArgument, "is open for reading only; open it for writing");
    }
    if flags.contains(OFlag::O_APPEND) {
        return wrong(
            Code::InvalidArgument,
            "is open with O_APPEND, which splice(2) refuses; open it with 'r+' and set `append: true`",
        );
    }
    Ok(())
}

/// Files with a receive that appends, by device and inode. Two of them would start at the same offset.
static APPENDING: Mutex<Option<HashSet<(u64, u64)>>> = Mutex::new(None);

struct Appending((u64, u64));

impl Appending {
    fn begin(stat: &FileStat) -> Result<Self> {
        let key = (stat.st_dev, stat.st_ino);
        if !files().get_or_insert_default().insert(key) {
            let message = "another receiveFile appends to this file; wait until it ends, or set `offset` in both";
            return Err(Error::new(Code::Busy, message));
        }
        Ok(Self(key))
    }
}

impl Drop for Appending {
    fn drop(&mut self) {
        if let Some(files) = files().as_mut() {
            files.remove(&self.0);
        }
    }
}

fn files() -> MutexGuard<'static, Option<HashSet<(u64, u64)>>> {
    APPENDING.lock().unwrap_or_else(PoisonError::into_inner)
}
