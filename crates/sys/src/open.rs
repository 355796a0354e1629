//! Opening files and their metadata: `openat2(2)`, `statx(2)`.

use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};

use nix::errno::Errno;
use nix::fcntl::{OFlag, OpenHow, ResolveFlag};

use crate::SysResult;

/// `RESOLVE_CACHED` of `openat2(2)` (Linux 5.12): `EAGAIN` instead of waiting for a disk. nix 0.31 lacks it.
pub const RESOLVE_CACHED: ResolveFlag = ResolveFlag::from_bits_retain(libc::RESOLVE_CACHED);

/// Metadata of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stat {
    /// Type and permission bits.
    pub mode: u32,
    /// Bytes.
    pub size: u64,
    /// Last modification: seconds since 1970, and nanoseconds.
    pub mtime: (i64, u32),
    /// Last change of content or inode, likewise.
    pub ctime: (i64, u32),
    /// Inode number.
    pub ino: u64,
    /// Device, encoded as in `stat(2)`.
    pub dev: u64,
    /// Id of the mount through which the file was reached. Not reused since Linux 6.8; 0 before 5.8.
    pub mount: u64,
}

/// The source of the attributes of a file on a remote or FUSE file system. Local file systems ignore it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Attributes {
    /// The file system, for which the call waits: `AT_STATX_FORCE_SYNC`.
    Fresh,
    /// The cache of the kernel, of any age, so that the call does not wait: `AT_STATX_DONT_SYNC`. For attributes that do
    /// not change: type, inode, device, mount.
    Cached,
}

/// `STATX_MNT_ID` and `STATX_MNT_ID_UNIQUE` of `<linux/stat.h>`; kernels ignore unknown bits.
const STATX_MNT_IDS: libc::c_uint = 0x1000 | 0x4000;

/// One `openat2(2)`.
pub fn openat2(dir: impl AsFd, path: &std::ffi::CStr, flags: OFlag, resolve: ResolveFlag) -> SysResult<OwnedFd> {
    nix::fcntl::openat2(dir, path, OpenHow::new().flags(flags).resolve(resolve))
}

/// `/dev/null`, open for writing.
pub fn dev_null() -> SysResult<OwnedFd> {
    nix::fcntl::open(c"/dev/null", OFlag::O_WRONLY | OFlag::O_CLOEXEC, nix::sys::stat::Mode::empty())
}

/// One `statx(2)` of an open descriptor.
pub fn statx(fd: impl AsFd, attributes: Attributes) -> SysResult<Stat> {
    statx_at(fd, c"", libc::AT_EMPTY_PATH, attributes)
}

/// One `statx(2)` of a path below `dir`; symbolic links are followed.
pub fn statx_path(dir: impl AsFd, path: &std::ffi::CStr, attributes: Attributes) -> SysResult<Stat> {
    statx_at(dir, path, 0, attributes)
}

fn statx_at(dir: impl AsFd, path: &std::ffi::CStr, flags: libc::c_int, attributes: Attributes) -> SysResult<Stat> {
    let mut buffer = MaybeUninit::<libc::statx>::zeroed();
    let flags = flags
        | match attributes {
            Attributes::Fresh => libc::AT_STATX_FORCE_SYNC,
            Attributes::Cached => libc::AT_STATX_DONT_SYNC,
        };
    // By number: glibc has the function only since 2.28, musl since 1.2.4, and a missing weak symbol is a call to address 0.
    // SAFETY: the descriptor is borrowed for the call, `path` is a NUL-terminated string, and `buffer` is a live `struct statx`,
    // which is all that the kernel writes to.
    let result = unsafe {
        libc::syscall(
            libc::SYS_statx,
            dir.as_fd().as_raw_fd(),
            path.as_ptr(),
            flags,
            libc::STATX_BASIC_STATS | STATX_MNT_IDS,
            buffer.as_mut_ptr(),
        )
    };
    Errno::result(result)?;
    // SAFETY: the buffer was zeroed, and every field of `struct statx` is an integer, for which zero is a valid value. The kernel
    // has overwritten some of them with other integers.
    let stat = unsafe { buffer.assume_init() };
    Ok(Stat {
        mode: u32::from(stat.stx_mode),
        size: stat.stx_size,
        mtime: (stat.stx_mtime.tv_sec, stat.stx_mtime.tv_nsec),
        ctime: (stat.stx_ctime.tv_sec, stat.stx_ctime.tv_nsec),
        ino: stat.stx_ino,
        dev: libc::makedev(stat.stx_dev_major, stat.stx_dev_minor),
        mount: stat.stx_mnt_id,
    })
}
