//! Opening files: see `open(2)`, `openat2(2)`, `statx(2)`.
//!
//! `openat2` has a safe wrapper in nix, which lacks one flag; `statx` has none.

use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};

use nix::errno::Errno;
use nix::fcntl::{OFlag, OpenHow, ResolveFlag};

use super::SysResult;

/// `RESOLVE_CACHED` of `openat2(2)`: EAGAIN instead of waiting for a disk. Linux 5.12; nix 0.31 has no name for it.
pub const RESOLVE_CACHED: ResolveFlag = ResolveFlag::from_bits_retain(libc::RESOLVE_CACHED);

/// What `statx` says of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stat {
    /// Type and permission bits.
    pub mode: u32,
    /// Bytes.
    pub size: u64,
    /// Last modification: seconds since 1970 and the nanoseconds after them.
    pub mtime: (i64, u32),
    /// Last change of content or inode, likewise.
    pub ctime: (i64, u32),
    /// Inode number.
    pub ino: u64,
    /// Device, as `stat(2)` encodes it.
    pub dev: u64,
    /// The mount it was reached through; never reused since Linux 6.8, 0 before 5.8.
    pub mount: u64,
}

/// Where the attributes of a file on a remote or FUSE file system come from. A local file system ignores it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Attributes {
    /// From the file system, which the call waits for: `AT_STATX_FORCE_SYNC`.
    Fresh,
    /// From the kernel's memory, however old, so that the call does not wait: `AT_STATX_DONT_SYNC`. For facts that do
    /// not change: type, inode, device, mount.
    Cached,
}

/// `STATX_MNT_ID` and `STATX_MNT_ID_UNIQUE` of `<linux/stat.h>`; kernels ignore the bits they do not know.
const STATX_MNT_IDS: libc::c_uint = 0x1000 | 0x4000;

/// One `openat2(2)`.
pub fn openat2(dir: impl AsFd, path: &std::ffi::CStr, flags: OFlag, resolve: ResolveFlag) -> SysResult<OwnedFd> {
    nix::fcntl::openat2(dir, path, OpenHow::new().flags(flags).resolve(resolve))
}

/// `/dev/null`, for writing.
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
    // Not the function of the C library: glibc has it from 2.28 on, musl from 1.2.4, and a weak symbol that is missing is a
    // call to address 0.
    // SAFETY: the descriptor is borrowed for the call, the path is a C string, and `buffer` is writable memory of the size
    // the kernel fills.
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
    // SAFETY: every field of `struct statx` is an integer, for which the zeroes above are already valid.
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
