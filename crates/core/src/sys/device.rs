//! The device number of an open file, without asking its file system.

use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd};

use nix::errno::Errno;

use super::SysResult;

/// One `statx(2)` with an empty mask and `AT_STATX_DONT_SYNC`: the kernel answers from the inode it has, so a FUSE or
/// network file system is not asked even where its attributes have expired.
pub fn device(fd: impl AsFd) -> SysResult<u64> {
    let mut buffer = MaybeUninit::<libc::statx>::zeroed();
    // By number, because glibc has the wrapper only since 2.28.
    // SAFETY: the descriptor is borrowed for the call, the path is a C string, and `buffer` is writable memory of the
    // size the kernel fills.
    let result = unsafe {
        libc::syscall(
            libc::SYS_statx,
            fd.as_fd().as_raw_fd(),
            c"".as_ptr(),
            libc::AT_EMPTY_PATH | libc::AT_STATX_DONT_SYNC,
            0 as libc::c_uint,
            buffer.as_mut_ptr(),
        )
    };
    Errno::result(result)?;
    // SAFETY: every field of `struct statx` is an integer, for which the zeroes above are already valid.
    let stat = unsafe { buffer.assume_init() };
    Ok(libc::makedev(stat.stx_dev_major, stat.stx_dev_minor))
}
