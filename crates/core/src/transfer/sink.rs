//! The file that bytes are received into, and where in it they go.

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
    /// A path is emptied; a descriptor is written to from its position, which moves.
    Default,
    /// To this offset, which is not beyond the end of the file.
    At(u64),
    /// To the end of the file.
    End,
}

/// A regular file that is open for writing.
pub struct Sink {
    file: OwnedFd,
    /// `None`: at the position of the descriptor.
    offset: Option<u64>,
    _appending: Option<Appending>,
}

impl Sink {
    /// Opens or creates the file at `path`.
    pub fn open(path: &Path, start: Start) -> Result<Self> {
        // O_NONBLOCK: a FIFO is refused instead of waited for. Not O_TRUNC: what is not a regular file stays as it is.
        let flags = OFlag::O_WRONLY | OFlag::O_CREAT | OFlag::O_CLOEXEC | OFlag::O_NOCTTY | OFlag::O_NONBLOCK;
        let file = nix::fcntl::open(path, flags, Mode::from_bits_retain(0o666))
            .map_err(|errno| Error::system("open", errno).with_path(path))?;
        let sink = Self::from_fd(file, start).map_err(|error| error.with_path(path))?;
        if start == Start::Default {
            nix::unistd::ftruncate(&sink.file, 0).map_err(|errno| Error::system("ftruncate", errno).with_path(path))?;
        }
        Ok(sink)
    }

    /// Takes a descriptor: a regular file, open for writing and not for appending.
    pub fn from_fd(file: OwnedFd, start: Start) -> Result<Self> {
        let stat = fstat(&file).map_err(|errno| Error::system("fstat", errno))?;
        check(file.as_fd(), &stat)?;
        let size = stat.st_size as u64;
        let (offset, appending) = match start {
            Start::Default => (None, None),
            Start::At(offset) if offset > size => {
                let message = format!(
                    "offset is {offset}, but the file has {size} bytes; to leave a gap, extend it with truncate first"
                );
                return Err(Error::new(Code::OutOfRange, message));
            }
            Start::At(offset) => (Some(offset), None),
            Start::End => {
                let appending = Appending::begin(&stat)?;
                // After the check that nothing else appends: the size is final.
                let size = fstat(&file).map_err(|errno| Error::system("fstat", errno))?.st_size as u64;
                (Some(size), Some(appending))
            }
        };
        Ok(Self { file, offset, _appending: appending })
    }

    /// The descriptor, for writers that keep the position themselves.
    pub fn into_file(self) -> OwnedFd {
        self.file
    }

    /// Where the next byte goes; `None`: to the position of the descriptor.
    pub(super) fn offset(&self) -> Option<u64> {
        self.offset
    }

    /// Takes note of bytes that were written at [`Sink::offset`].
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

impl AsFd for Sink {
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
        return wrong(Code::NotRegularFile, &format!("is {name}, but must be a regular file"));
    }
    let flags = OFlag::from_bits_retain(fcntl(file, FcntlArg::F_GETFL).map_err(|errno| Error::system("fcntl", errno))?);
    if flags & OFlag::O_ACCMODE == OFlag::O_RDONLY {
        return wrong(Code::InvalidArgument, "is a file that is open for reading only; open it for writing");
    }
    if flags.contains(OFlag::O_APPEND) {
        return wrong(
            Code::InvalidArgument,
            "is a file that is open for appending (O_APPEND), which splice(2) refuses; open it with 'r+' and give `append: true`",
        );
    }
    Ok(())
}

/// Files that are being appended to, by device and inode: two writers would both start at the same end.
static APPENDING: Mutex<Option<HashSet<(u64, u64)>>> = Mutex::new(None);

struct Appending((u64, u64));

impl Appending {
    fn begin(stat: &FileStat) -> Result<Self> {
        let key = (stat.st_dev, stat.st_ino);
        if !files().get_or_insert_default().insert(key) {
            let message = "another receiveFile appends to this file; wait for it to end, or give each an `offset`";
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
