//! A regular file, open for reading, with its metadata as of the opening.
//!
//! Only regular files get through: a FIFO or device would make a transfer wait for someone else.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::sys::stat::Mode;

use super::meta::FileMeta;
use crate::error::{Code, Error, Result};

/// How every file is opened. `O_NONBLOCK`: opening a FIFO without a writer returns at once instead of waiting, open(2);
/// regular files ignore it. `O_NOCTTY`: a terminal never becomes ours.
pub(super) const OPEN_FLAGS: OFlag =
    OFlag::O_RDONLY.union(OFlag::O_CLOEXEC).union(OFlag::O_NOCTTY).union(OFlag::O_NONBLOCK);

/// A regular file, open for reading.
#[derive(Debug)]
pub struct OpenFile {
    fd: OwnedFd,
    meta: FileMeta,
}

impl OpenFile {
    /// Opens a regular file; symbolic links are followed. May wait for a disk.
    pub fn open(path: &Path) -> Result<Self> {
        match nix::fcntl::open(path, OPEN_FLAGS, Mode::empty()) {
            Ok(fd) => Self::from_fd(fd).map_err(|error| error.with_path(path)),
            // open(2): a socket, or a device without a driver.
            Err(Errno::ENXIO) => Err(not_regular("a socket or an absent device").with_path(path)),
            Err(errno) => Err(Error::system("open", errno).with_path(path)),
        }
    }

    /// Takes over a descriptor that is open for reading.
    pub fn from_fd(fd: OwnedFd) -> Result<Self> {
        let meta = FileMeta::of(&fd)?;
        Self::with_meta(fd, meta)
    }

    /// Takes over a descriptor whose metadata is known.
    pub(super) fn with_meta(fd: OwnedFd, meta: FileMeta) -> Result<Self> {
        if meta.is_file() { Ok(Self { fd, meta }) } else { Err(not_regular(meta.kind())) }
    }

    /// The metadata as of the opening.
    pub fn meta(&self) -> &FileMeta {
        &self.meta
    }
}

impl crate::transfer::FileSource for OpenFile {}

impl AsFd for OpenFile {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

fn not_regular(kind: &str) -> Error {
    Error::new(Code::NotRegularFile, format!("it is {kind}; give a regular file, or copy the bytes with a pipe"))
}
