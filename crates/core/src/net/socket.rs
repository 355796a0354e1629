//! Creating sockets, and converting their addresses.

use std::net::SocketAddr;
use std::os::fd::OwnedFd;

use nix::sys::socket::{AddressFamily, SockFlag, SockType, SockaddrStorage, socket};
use zerosend_sys::SysResult;

/// A non-blocking stream socket that is closed on exec.
pub(super) fn new_socket(family: AddressFamily) -> SysResult<OwnedFd> {
    socket(family, SockType::Stream, SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK, None)
}

/// Converts an IP address; `None` for other families.
pub(crate) fn to_std(name: &SockaddrStorage) -> Option<SocketAddr> {
    if let Some(v4) = name.as_sockaddr_in() {
        return Some(SocketAddr::new(v4.ip().into(), v4.port()));
    }
    name.as_sockaddr_in6().map(|v6| SocketAddr::new(v6.ip().into(), v6.port()))
}
