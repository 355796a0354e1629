//! Calls on sockets that nix lacks: some options, `accept4(2)` with the address of the peer, the length of the send queue.

use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

use nix::errno::Errno;
use nix::sys::socket::{SockaddrLike, SockaddrStorage};

use crate::SysResult;

/// Sets an on/off option of `tcp(7)`. `EOPNOTSUPP` or `ENOPROTOOPT` on other sockets, `ENOTSOCK` on other files.
pub fn set_tcp(socket: BorrowedFd<'_>, option: libc::c_int, on: bool) -> SysResult<()> {
    let value = libc::c_int::from(on);
    // SAFETY: the kernel reads one `int` from `value`, which is live and of the given size.
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

/// Sends small packets at once instead of waiting for acknowledgements; see `TCP_NODELAY` in `tcp(7)`.
pub fn set_no_delay(socket: BorrowedFd<'_>, on: bool) -> SysResult<()> {
    set_tcp(socket, libc::TCP_NODELAY, on)
}

/// The address family of a socket; see `SO_DOMAIN` in `socket(7)`.
pub fn domain(socket: BorrowedFd<'_>) -> SysResult<libc::c_int> {
    let mut value: libc::c_int = 0;
    let mut length = size_of::<libc::c_int>() as libc::socklen_t;
    // SAFETY: the kernel writes at most `length` bytes to `value`, which is a live `c_int` of that size, and the number of bytes to
    // `length`.
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

/// Accepts a connection, in non-blocking mode and closed on exec, with the address of the peer; see `accept4(2)`.
pub fn accept(listener: BorrowedFd<'_>) -> SysResult<(OwnedFd, Option<SockaddrStorage>)> {
    let mut name = MaybeUninit::<libc::sockaddr_storage>::zeroed();
    let mut length = size_of::<libc::sockaddr_storage>() as libc::socklen_t;
    // SAFETY: `name` is live, writable memory of `length` bytes. The kernel writes no more than that to it, and the size of the
    // address to `length`.
    let fd = unsafe {
        libc::accept4(
            listener.as_raw_fd(),
            name.as_mut_ptr().cast(),
            &raw mut length,
            libc::SOCK_NONBLOCK | libc::SOCK_CLOEXEC,
        )
    };
    let fd = Errno::result(fd)?;
    // SAFETY: the call has just created the descriptor, so it is open and has no other owner.
    let fd = unsafe { OwnedFd::from_raw_fd(fd) };
    // SAFETY: `name` is a `sockaddr_storage` that was zeroed, and the kernel has written an address of `length` bytes to it. No
    // address is longer than a `sockaddr_storage`.
    let name = unsafe { SockaddrStorage::from_raw(name.as_ptr().cast(), Some(length)) };
    Ok((fd, name))
}

/// Makes `close(2)` of a TCP socket send a reset and discard unsent bytes; see `SO_LINGER` in `socket(7)`. No effect on a
/// Unix socket.
pub fn reset_on_close(socket: BorrowedFd<'_>) -> SysResult<()> {
    let linger = libc::linger { l_onoff: 1, l_linger: 0 };
    nix::sys::socket::setsockopt(&socket, nix::sys::socket::sockopt::Linger, &linger)
}

/// Resets a TCP connection, also when other descriptors refer to it: `connect(2)` with `AF_UNSPEC` disconnects it and
/// discards bytes that were not acknowledged. `EOPNOTSUPP` or `EINVAL` on Unix sockets, which have no reset.
pub fn reset(socket: impl AsFd) -> SysResult<()> {
    // SAFETY: `struct sockaddr` consists of integers, for which zero is a valid value.
    let mut address: libc::sockaddr = unsafe { std::mem::zeroed() };
    address.sa_family = libc::AF_UNSPEC as libc::sa_family_t;
    let length = size_of::<libc::sockaddr>() as libc::socklen_t;
    // SAFETY: the kernel reads `length` bytes from `address`, which is live and of that size.
    let result = unsafe { libc::connect(socket.as_fd().as_raw_fd(), &raw const address, length) };
    Errno::result(result).map(drop)
}

/// Bytes in the send queue: not sent, or not acknowledged by the peer; see `SIOCOUTQ` in `tcp(7)` and `unix(7)`.
pub fn unacknowledged(socket: BorrowedFd<'_>) -> SysResult<u64> {
    let mut count: libc::c_int = 0;
    // SAFETY: SIOCOUTQ, which has the value of TIOCOUTQ, writes one `int`, and `count` is a live `c_int`.
    Errno::result(unsafe { libc::ioctl(socket.as_raw_fd(), libc::TIOCOUTQ, &raw mut count) })?;
    Ok(u64::try_from(count).unwrap_or(0))
}
