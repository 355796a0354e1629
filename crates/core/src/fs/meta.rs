//! File metadata, which identifies a version of a file.
//!
//! Equal [`FileMeta`] are the same version, provided that the first was [settled](FileMeta::is_settled) when it was read. The
//! cache, cached heads, entity tags and transfers all compare versions with it.
//!
//! The change time is part of the identity because programs cannot set it: `tar`, `rsync -t` and `cp -p` set an old
//! modification time on new bytes, and a file system reuses the inode number of a deleted file.

use std::os::fd::AsFd;
use std::time::{SystemTime, UNIX_EPOCH};

use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::sys::stat::Mode;

use super::mounts::Mount;
use crate::error::{Error, Result};
use zerosend_http::etag;
use zerosend_sys as sys;
use zerosend_sys::open::Attributes;

const SECOND_NS: i64 = 1_000_000_000;
/// Longer than one tick of the clock that file times come from: 1 to 10 ms, `CONFIG_HZ`.
const TICK_NS: i64 = 50_000_000;
/// The coarsest times in use: FAT stores the modification time in units of two seconds.
const COARSE_NS: i64 = 2 * SECOND_NS;
/// FAT's unit of the creation time, which Linux before 6.0 reports as the change time.
const FAT_UNIT_NS: i64 = 10_000_000;

/// The metadata of a file, and the identity of its version.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FileMeta {
    /// Size in bytes.
    pub size: u64,
    /// Last modification in nanoseconds since 1970, clamped to the years 1677 to 2262.
    pub mtime_ns: i64,
    /// Last change of content or inode in nanoseconds since 1970, clamped likewise.
    pub ctime_ns: i64,
    /// Inode number.
    pub ino: u64,
    /// Device number.
    pub dev: u64,
    /// Type and permission bits of `st_mode`.
    pub mode: u32,
}

impl FileMeta {
    /// The metadata of an open descriptor of any type, synchronized with a remote file system. May block on it.
    pub fn of(fd: impl AsFd) -> Result<Self> {
        Self::with_mount(fd).map(|(meta, _)| meta)
    }

    /// Like [`FileMeta::of`], with the mount of the descriptor where the kernel reports it.
    pub(super) fn with_mount(fd: impl AsFd) -> Result<(Self, Option<Mount>)> {
        match sys::open::statx(fd.as_fd(), Attributes::Fresh) {
            Ok(stat) => Ok((stat.into(), Some(Mount::from(&stat)))),
            // Linux before 4.11, and seccomp filters without statx.
            Err(Errno::ENOSYS | Errno::EPERM) => {
                let stat = nix::sys::stat::fstat(fd).map_err(|errno| Error::system("fstat", errno))?;
                let meta = Self {
                    size: u64::try_from(stat.st_size).unwrap_or(0),
                    mtime_ns: nanoseconds(stat.st_mtime, stat.st_mtime_nsec),
                    ctime_ns: nanoseconds(stat.st_ctime, stat.st_ctime_nsec),
                    ino: stat.st_ino,
                    dev: stat.st_dev,
                    mode: stat.st_mode,
                };
                Ok((meta, None))
            }
            Err(errno) => Err(Error::system("statx", errno)),
        }
    }

    /// The metadata of the file at `path`, resolved from `dir`, synchronized with a remote file system; `None` when it cannot be
    /// read. May block on the file system.
    pub(crate) fn at(dir: impl AsFd, path: &std::ffi::CStr) -> Option<Self> {
        match sys::open::statx_path(&dir, path, Attributes::Fresh) {
            Ok(stat) => Some(stat.into()),
            Err(Errno::ENOSYS | Errno::EPERM) => {
                let fd = nix::fcntl::openat(dir, path, OFlag::O_PATH | OFlag::O_CLOEXEC, Mode::empty()).ok()?;
                Self::of(fd).ok()
            }
            Err(_) => None,
        }
    }

    /// Whether every later write changes this metadata. False while the file is so new that the clock of its file system may not
    /// have advanced since the last write. Call it right after the metadata is read.
    pub(crate) fn is_settled(&self) -> bool {
        self.is_older_than(TICK_NS, now_ns())
    }

    /// Whether the last change was more than `ns` nanoseconds before `now`, given the resolution of the file system's times.
    pub(crate) fn is_older_than(&self, ns: i64, now: i64) -> bool {
        if self.mtime_ns == 0 && self.ctime_ns == 0 {
            // The file system has no times, so a write changes only the size.
            return false;
        }
        let is_coarse = self.mtime_ns % SECOND_NS == 0 && self.ctime_ns % FAT_UNIT_NS == 0;
        let min_age = ns.max(if is_coarse { COARSE_NS + TICK_NS } else { 0 });
        // A change time in the future comes from a file server whose clock is ahead: the age is unknown. A modification time in
        // the future was set by a program.
        let since_modified = now.saturating_sub(self.mtime_ns);
        now.saturating_sub(self.ctime_ns) >= min_age && !(0..min_age).contains(&since_modified)
    }

    /// False for a modification time without meaning: reproducible builds set 0 or 1, and negative times are before 1970.
    pub(crate) fn has_modification_time(&self) -> bool {
        self.mtime_ns >= 2 * SECOND_NS
    }

    /// The weak entity tag of this version, RFC 9110 section 8.8.3, as computed by Fastify and Express; from the change time if
    /// the modification time has no meaning.
    pub(crate) fn weak_tag(&self) -> String {
        let time = if self.has_modification_time() { self.mtime_ns } else { self.ctime_ns };
        etag::weak(self.size, etag::node_mtime_ms(time))
    }

    /// True for a regular file.
    pub fn is_file(&self) -> bool {
        self.mode & libc::S_IFMT == libc::S_IFREG
    }

    /// True for a directory.
    pub fn is_directory(&self) -> bool {
        self.mode & libc::S_IFMT == libc::S_IFDIR
    }

    /// The type as text, for error messages.
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
            ctime_ns: nanoseconds(stat.ctime.0, i64::from(stat.ctime.1)),
            ino: stat.ino,
            dev: stat.dev,
            mode: stat.mode,
        }
    }
}

/// The current time in nanoseconds since 1970.
pub(crate) fn now_ns() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| i64::try_from(since.as_nanos()).unwrap_or(i64::MAX))
}

fn nanoseconds(seconds: i64, nanos: i64) -> i64 {
    seconds.saturating_mul(SECOND_NS).saturating_add(nanos)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_settled_after_the_resolution_of_its_file_system() {
        const NOW: i64 = 1_700_000_001_234_567_891;
        const SECOND: i64 = 1_700_000_000_000_000_000;
        let old = 1_000_000_007;
        // Modification time, change time, whether every later write changes them.
        let rows = [
            (old, NOW - 60_000_000, true),
            (old, NOW - 40_000_000, false),
            (NOW - 40_000_000, old, false),
            (NOW + 5, old, true),
            (old, NOW + 5, false),
            // Whole seconds, and FAT's two seconds with a creation time.
            (SECOND, SECOND, false),
            (SECOND - SECOND_NS, SECOND - SECOND_NS, true),
            (SECOND, SECOND - 990_000_000, false),
            (SECOND, 0, false),
            // Whole seconds set by a program on a file system with nanoseconds.
            (SECOND - SECOND_NS, NOW - 60_000_000, true),
            (0, 0, false),
            (0, old, true),
        ];
        for (mtime_ns, ctime_ns, expected) in rows {
            let meta = FileMeta { size: 1, mtime_ns, ctime_ns, ino: 1, dev: 1, mode: libc::S_IFREG };
            assert_eq!(meta.is_older_than(TICK_NS, NOW), expected, "{mtime_ns} {ctime_ns}");
        }
    }
}
