//! A regular file, open for reading, with its metadata at that time.
//!
//! Other types are refused: a transfer from a FIFO or a device could block on another process.

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

/// The flags of every open. `O_NONBLOCK`: opening a FIFO without a writer does not block, open(2); regular files ignore the flag.
/// `O_NOCTTY`: a terminal does not become the controlling terminal.
pub(super) const OPEN_FLAGS: OFlag =
    OFlag::O_RDONLY.union(OFlag::O_CLOEXEC).union(OFlag::O_NOCTTY).union(OFlag::O_NONBLOCK);

/// A regular file, open for reading.
#[derive(Debug)]
pub struct OpenFile {
    fd: ClosedBy,
    meta: FileMeta,
    is_local: bool,
}

/// close(2) of a file on FUSE or NFS waits for a flush, which would block the thread that drops it.
fn close_in_pool(fd: OwnedFd) {
    let work = |fd| {
        drop(fd);
        Ok(())
    };
    Pool::global().run(Lane::Short, Volume::of(&fd), move || work(fd), drop).detach();
}

impl OpenFile {
    /// Opens a regular file; symbolic links are followed. May block on the disk.
    pub fn open(path: &Path) -> Result<Self> {
        match nix::fcntl::open(path, OPEN_FLAGS, Mode::empty()) {
            Ok(fd) => Self::from_fd(fd).map_err(|error| error.with_path(path)),
            // open(2): a socket, or a device without a driver.
            Err(Errno::ENXIO) => Err(not_regular("a socket or an absent device").with_path(path)),
            Err(errno) => Err(Error::system("open", errno).with_path(path)),
        }
    }

    /// Takes ownership of a descriptor that is open for reading. May block on its file system.
    pub fn from_fd(fd: OwnedFd) -> Result<Self> {
        Self::of_any_type(fd)?.map_err(|meta| not_regular(meta.kind()))
    }

    /// Takes ownership of a descriptor that is open for reading. The inner error is the metadata of a file of another type.
    pub(super) fn of_any_type(fd: OwnedFd) -> Result<std::result::Result<Self, FileMeta>> {
        let (meta, mount) = FileMeta::with_mount(&fd)?;
        if !meta.is_file() {
            return Ok(Err(meta));
        }
        let is_local = mount.is_some_and(|mount| mounts::is_local(&fd, mount));
        let fd = if is_local { ClosedBy::dropping(fd) } else { ClosedBy::calling(fd, close_in_pool) };
        Ok(Ok(Self { fd, meta, is_local }))
    }

    /// Whether its file system is local, see [`mounts`].
    pub(crate) fn is_local(&self) -> bool {
        self.is_local
    }

    /// The metadata when it was opened.
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
