//! `setsockopt(2)` where nix has no option of that name.

use std::os::fd::{AsRawFd, BorrowedFd};

use nix::errno::Errno;

use super::SysResult;

/// Sets a switch of `tcp(7)`. `EOPNOTSUPP` or `ENOPROTOOPT` on sockets of other kinds, `ENOTSOCK` on other files.
pub fn set_tcp(socket: BorrowedFd<'_>, option: libc::c_int, on: bool) -> SysResult<()> {
    let value = libc::c_int::from(on);
    // SAFETY: the value is one live int, and its size is given.
    let result = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::IPPROTO_TCP,
            option,
            (&raw const value).cast(),
            size_of::<libc::c_int>() as libc::socklen_t,
        )
    };
    Errno::result(result).map(drop)
}

/// `TCP_NODELAY`: small packets leave at once instead of waiting for the acknowledgement of those before.
pub fn set_no_delay(socket: BorrowedFd<'_>, on: bool) -> SysResult<()> {
    set_tcp(socket, libc::TCP_NODELAY, on)
}
