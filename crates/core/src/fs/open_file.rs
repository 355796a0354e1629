//! A regular file, open for reading, with its metadata as of the opening.
//!
//! Only regular files get through: a FIFO or device would make a transfer wait for someone else.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::sys::stat::Mode;

use super::meta::FileMeta;
use super::mounts;
use crate::error::{Code, Error, Result};
use crate::io::pool::{Lane, Pool, Volume};
use zerosend_sys::fd::ClosedBy;

/// How every file is opened. `O_NONBLOCK`: opening a FIFO without a writer returns at once instead of waiting, open(2);
/// regular files ignore it. `O_NOCTTY`: a terminal never becomes ours.
pub(super) const OPEN_FLAGS: OFlag =
    OFlag::O_RDONLY.union(OFlag::O_CLOEXEC).union(OFlag::O_NOCTTY).union(OFlag::O_NONBLOCK);

/// A regular file, open for reading.
#[derive(Debug)]
pub struct OpenFile {
    fd: ClosedBy,
    meta: FileMeta,
    is_local: bool,
}

/// close(2) of a file on FUSE or NFS waits for a flush, which the thread that drops it must not.
fn close_in_pool(fd: OwnedFd) {
    let work = |fd| {
        drop(fd);
        Ok(())
    };
    Pool::global().run(Lane::Short, Volume::of(&fd), move || work(fd), drop).detach();
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

    /// Takes over a descriptor that is open for reading. May wait for its file system.
    pub fn from_fd(fd: OwnedFd) -> Result<Self> {
        Self::of_any_type(fd)?.map_err(|meta| not_regular(meta.kind()))
    }

    /// Takes over a descriptor that is open for reading. For one of another type than a regular file gives its metadata.
    pub(super) fn of_any_type(fd: OwnedFd) -> Result<std::result::Result<Self, FileMeta>> {
        let (meta, mount) = FileMeta::with_mount(&fd)?;
        if !meta.is_file() {
            return Ok(Err(meta));
        }
        let is_local = mount.is_some_and(|mount| mounts::is_local(&fd, mount));
        let fd = if is_local { ClosedBy::dropping(fd) } else { ClosedBy::calling(fd, close_in_pool) };
        Ok(Ok(Self { fd, meta, is_local }))
    }

    /// Whether its file system answers from the memory of this machine; see [`mounts`].
    pub(crate) fn is_local(&self) -> bool {
        self.is_local
    }

    /// The metadata as of the opening.
    pub fn meta(&self) -> &FileMeta {
        &self.meta
    }
}

impl AsFd for OpenFile {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

fn not_regular(kind: &str) -> Error {
    Error::new(
        Code::NotRegularFile,
        format!("not a regular file but {kind}: use a regular file, or copy the bytes with a pipe"),
    )
}
