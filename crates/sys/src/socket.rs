//! Calls on sockets that nix lacks: some options, `accept4(2)` with the peer's address, the length of the send queue.

use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

use nix::errno::Errno;
use nix::sys::socket::{SockaddrLike, SockaddrStorage};

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

/// The address family of a socket; see `SO_DOMAIN` in `socket(7)`.
pub fn domain(socket: BorrowedFd<'_>) -> SysResult<libc::c_int> {
    let mut value: libc::c_int = 0;
    let mut length = size_of::<libc::c_int>() as libc::socklen_t;
    // SAFETY: the kernel writes one int to `value`, whose size it is told.
    let result = unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_DOMAIN,
            (&raw mut value).cast(),
            &raw mut length,
        )
    };
    Errno::result(result).map(|_| value)
}

/// The next connection of a listening socket, in non-blocking mode, and its peer's address; see `accept4(2)`.
pub fn accept(listener: BorrowedFd<'_>) -> SysResult<(OwnedFd, Option<SockaddrStorage>)> {
    let mut name = MaybeUninit::<libc::sockaddr_storage>::zeroed();
    let mut length = size_of::<libc::sockaddr_storage>() as libc::socklen_t;
    // SAFETY: `name` is writable memory of `length` bytes, and the kernel writes no more than that.
    let fd = unsafe {
        libc::accept4(
            listener.as_raw_fd(),
            name.as_mut_ptr().cast(),
            &raw mut length,
            libc::SOCK_NONBLOCK | libc::SOCK_CLOEXEC,
        )
    };
    let fd = Errno::result(fd)?;
    // SAFETY: a new descriptor, which nobody else knows of.
    let fd = unsafe { OwnedFd::from_raw_fd(fd) };
    // SAFETY: the kernel has filled `length` bytes of it, and the rest is zero.
    let name = unsafe { SockaddrStorage::from_raw(name.as_ptr().cast(), Some(length)) };
    Ok((fd, name))
}

/// Makes close(2) of a TCP socket a reset that discards what was not sent; see `SO_LINGER` in `socket(7)`. On a Unix socket
/// it has no effect.
pub fn reset_on_close(socket: BorrowedFd<'_>) -> SysResult<()> {
    let linger = libc::linger { l_onoff: 1, l_linger: 0 };
    nix::sys::socket::setsockopt(&socket, nix::sys::socket::sockopt::Linger, &linger)
}

/// Ends a TCP connection with a reset, also when other descriptors refer to it: `connect(2)` with `AF_UNSPEC` dissolves the
/// association, and what was not acknowledged is discarded. `EOPNOTSUPP` or `EINVAL` on Unix sockets, which know no reset.
pub fn reset(socket: impl AsFd) -> SysResult<()> {
    // SAFETY: sockaddr is plain data, and all zeros is a valid one.
    let mut address: libc::sockaddr = unsafe { std::mem::zeroed() };
    address.sa_family = libc::AF_UNSPEC as libc::sa_family_t;
    let length = size_of::<libc::sockaddr>() as libc::socklen_t;
    // SAFETY: the address is live and of the length given.
    let result = unsafe { libc::connect(socket.as_fd().as_raw_fd(), &raw const address, length) };
    Errno::result(result).map(drop)
}

/// Bytes that were sent and that the peer has not acknowledged; see `SIOCOUTQ` in `tcp(7)` and `unix(7)`.
pub fn unacknowledged(socket: BorrowedFd<'_>) -> SysResult<u64> {
    let mut count: libc::c_int = 0;
    // SAFETY: TIOCOUTQ, which is SIOCOUTQ, writes one int to the address it is given.
    Errno::result(unsafe { libc::ioctl(socket.as_raw_fd(), libc::TIOCOUTQ, &raw mut count) })?;
    Ok(u64::try_from(count).unwrap_or(0))
}
