//! A regular file, open for reading, with its metadata as of the opening.
//!
//! Only regular files get through: a FIFO or device would make a transfer wait for someone else.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::sys::stat::Mode;

use crate::error::{Code, Error, Result};
use crate::sys;

/// How every file is opened. `O_NONBLOCK`: opening a FIFO without a writer returns at once instead of waiting, open(2);
/// regular files ignore it. `O_NOCTTY`: a terminal never becomes ours.
pub(super) const OPEN_FLAGS: OFlag =
    OFlag::O_RDONLY.union(OFlag::O_CLOEXEC).union(OFlag::O_NOCTTY).union(OFlag::O_NONBLOCK);

/// What is known of a file since it was opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FileMeta {
    /// Bytes.
    pub size: u64,
    /// Last modification in nanoseconds since 1970, clamped to the years 1677 to 2262.
    pub mtime_ns: i64,
    /// Inode number.
    pub ino: u64,
    /// Device number.
    pub dev: u64,
    /// Type and permission bits of `st_mode`.
    pub mode: u32,
}

impl FileMeta {
    /// The metadata of an open descriptor of any type.
    pub fn of(fd: impl AsFd) -> Result<Self> {
        match sys::open::statx(fd.as_fd()) {
            Ok(stat) => Ok(stat.into()),
            // Kernels before 4.11, and container runtimes whose seccomp filter does not know statx.
            Err(Errno::ENOSYS | Errno::EPERM) => {
                let stat = nix::sys::stat::fstat(fd).map_err(|errno| Error::system("fstat", errno))?;
                Ok(Self {
                    size: u64::try_from(stat.st_size).unwrap_or(0),
                    mtime_ns: nanoseconds(stat.st_mtime, stat.st_mtime_nsec),
                    ino: stat.st_ino,
                    dev: stat.st_dev,
                    mode: stat.st_mode,
                })
            }
            Err(errno) => Err(Error::system("statx", errno)),
        }
    }

    /// The metadata of what `path`, taken from `dir` on, leads to; `None` when that cannot be told.
    pub(crate) fn at(dir: impl AsFd, path: &std::ffi::CStr) -> Option<Self> {
        match sys::open::statx_path(&dir, path) {
            Ok(stat) => Some(stat.into()),
            Err(Errno::ENOSYS | Errno::EPERM) => {
                let fd = nix::fcntl::openat(dir, path, OFlag::O_PATH | OFlag::O_CLOEXEC, Mode::empty()).ok()?;
                Self::of(fd).ok()
            }
            Err(_) => None,
        }
    }

    /// Whether a write that came after this was read would show in it: not while the file is so new that the file system's
    /// clock, which ticks every 1 to 10 ms, may not have moved on since it was written.
    pub(crate) fn is_settled(&self) -> bool {
        const SETTLED_NS: i128 = 50_000_000;
        let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_nanos() as i128);
        // A time in the future says nothing about when it was written.
        !(0..SETTLED_NS).contains(&(now - i128::from(self.mtime_ns)))
    }

    /// True for a regular file.
    pub fn is_file(&self) -> bool {
        self.mode & libc::S_IFMT == libc::S_IFREG
    }

    /// True for a directory.
    pub fn is_directory(&self) -> bool {
        self.mode & libc::S_IFMT == libc::S_IFDIR
    }

    /// The type in words, for messages.
    pub fn kind(&self) -> &'static str {
        match self.mode & libc::S_IFMT {
            libc::S_IFREG => "a regular file",
            libc::S_IFDIR => "a directory",
            libc::S_IFIFO => "a FIFO",
            libc::S_IFSOCK => "a socket",
            libc::S_IFCHR => "a character device",
            libc::S_IFBLK => "a block device",
            libc::S_IFLNK => "a symbolic link",
            _ => "of an unknown type",
        }
    }
}

impl From<sys::open::Stat> for FileMeta {
    fn from(stat: sys::open::Stat) -> Self {
        Self {
            size: stat.size,
            mtime_ns: nanoseconds(stat.mtime.0, i64::from(stat.mtime.1)),
            ino: stat.ino,
            dev: stat.dev,
            mode: stat.mode,
        }
    }
}

fn nanoseconds(seconds: i64, nanos: i64) -> i64 {
    seconds.saturating_mul(1_000_000_000).saturating_add(nanos)
}

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
