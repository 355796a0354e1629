//! Listening sockets.
//!
//! On TCP each worker has a socket with `SO_REUSEPORT`, see socket(7): the kernel distributes connections, and each wakes one
//! worker. The option would also let a second server bind the same port without an error, so the port is first bound
//! without it. All workers share a Unix socket.

use std::net::SocketAddr;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::PathBuf;
use std::sync::Arc;

use nix::errno::Errno;
use nix::sys::socket::{
    AddressFamily, Backlog, SockaddrIn, SockaddrIn6, SockaddrLike, SockaddrStorage, UnixAddr, bind, getsockname,
    listen, setsockopt, sockopt,
};

use super::address::Address;
use super::socket::{new_socket, to_std};
use super::unix_socket::{self, SocketFile};
use crate::error::{Error, Result};
use zerosend_sys::SysResult;

/// A listening socket.
pub(crate) struct Listener {
    fd: Arc<OwnedFd>,
    is_shared: bool,
    /// Removes the file when the last worker drops it.
    _file: Option<Arc<SocketFile>>,
}

impl Listener {
    /// Whether all workers have the same socket.
    pub fn is_shared(&self) -> bool {
        self.is_shared
    }
}

impl AsFd for Listener {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

/// Options of [`open`].
pub(crate) struct Listen {
    /// Number of workers.
    pub count: usize,
    pub backlog: i32,
    /// TCP: other processes may listen on the address too.
    pub reuse_port: bool,
    /// Unix: the mode of the file. Default: as set by the umask.
    pub socket_mode: Option<u32>,
}

/// Opens a listener for each worker; returns the bound address.
pub(crate) fn open(address: &Address, options: &Listen) -> Result<(Vec<Listener>, Address)> {
    let &Listen { count, backlog, reuse_port, socket_mode } = options;
    let backlog = self::backlog(backlog);
    match address {
        Address::Unix(path) => {
            let (fd, file) = unix_socket::listen_at(path, socket_mode, backlog)?;
            let (fd, file) = (Arc::new(fd), Arc::new(file));
            let listener = || Listener { fd: fd.clone(), is_shared: count > 1, _file: Some(file.clone()) };
            Ok(((0..count).map(|_| listener()).collect(), address.clone()))
        }
        Address::Tcp(requested) => {
            let failed = |syscall| move |errno| Error::system(syscall, errno).with_path(requested.to_string());
            if !reuse_port && requested.port() != 0 {
                open_tcp(*requested, false).map_err(failed("bind"))?;
            }
            let mut bound = *requested;
            let mut listeners = Vec::with_capacity(count);
            for _ in 0..count {
                let fd = open_tcp(bound, true).map_err(failed("bind"))?;
                listen(&fd, backlog).map_err(failed("listen"))?;
                let name: SockaddrStorage = getsockname(fd.as_raw_fd()).map_err(failed("getsockname"))?;
                bound = to_std(&name).unwrap_or(bound);
                listeners.push(Listener { fd: Arc::new(fd), is_shared: false, _file: None });
            }
            Ok((listeners, Address::Tcp(bound)))
        }
    }
}

/// Makes a bound socket the listener of `count` workers; returns its address.
pub(crate) fn adopt(socket: OwnedFd, count: usize, backlog: i32) -> Result<(Vec<Listener>, Address)> {
    let failed = |syscall| move |errno| Error::system(syscall, errno);
    let name: SockaddrStorage = getsockname(socket.as_raw_fd()).map_err(failed("getsockname"))?;
    let address = match to_std(&name) {
        // libuv reports a failed bind only at listen(2). The socket is not bound then, and the kernel would choose another port.
        Some(address) if address.port() == 0 => return Err(Error::system("listen", Errno::EADDRINUSE)),
        Some(address) => Address::Tcp(address),
        None => Address::Unix(name.as_unix_addr().and_then(UnixAddr::path).map(PathBuf::from).unwrap_or_default()),
    };
    listen(&socket, self::backlog(backlog)).map_err(failed("listen"))?;
    let fd = Arc::new(socket);
    Ok(((0..count).map(|_| Listener { fd: fd.clone(), is_shared: count > 1, _file: None }).collect(), address))
}

fn backlog(length: i32) -> Backlog {
    Backlog::new(length.clamp(1, i32::from(u16::MAX))).unwrap_or(Backlog::MAXALLOWABLE)
}

fn open_tcp(address: SocketAddr, reuse_port: bool) -> SysResult<OwnedFd> {
    let (family, name): (_, Box<dyn SockaddrLike>) = match address {
        SocketAddr::V4(address) => (AddressFamily::Inet, Box::new(SockaddrIn::from(address))),
        SocketAddr::V6(address) => (AddressFamily::Inet6, Box::new(SockaddrIn6::from(address))),
    };
    let fd = new_socket(family)?;
    setsockopt(&fd, sockopt::ReuseAddr, &true)?;
    if family == AddressFamily::Inet6 {
        // `::` accepts IPv4 too, as in Node, regardless of `net.ipv6.bindv6only`; see ipv6(7).
        setsockopt(&fd, sockopt::Ipv6V6Only, &false)?;
    }
    if reuse_port {
        setsockopt(&fd, sockopt::ReusePort, &true)?;
    }
    match bind(fd.as_raw_fd(), name.as_ref()) {
        Ok(()) => Ok(fd),
        Err(errno) => Err(errno),
    }
}

/// Failed connections that one call of [`accept`] skips.
const MAX_FAILED: usize = 16;

/// Accepts a connection, in non-blocking mode; returns its socket and the client's address. `EAGAIN`: the backlog is empty.
/// `EINTR`: call again in the next round.
pub(crate) fn accept(listener: &Listener) -> SysResult<(OwnedFd, Option<SocketAddr>)> {
    for _ in 0..MAX_FAILED {
        match zerosend_sys::socket::accept(listener.as_fd()) {
            // Network errors of a connection that failed while it was in the backlog; see accept(2).
            Err(
                Errno::EINTR
                | Errno::ECONNABORTED
                | Errno::EPROTO
                | Errno::ENETDOWN
                | Errno::ENOPROTOOPT
                | Errno::EHOSTDOWN
                | Errno::ENONET
                | Errno::EHOSTUNREACH
                | Errno::EOPNOTSUPP
                | Errno::ENETUNREACH,
            ) => {}
            Ok((fd, name)) => return Ok((fd, name.as_ref().and_then(to_std))),
            Err(errno) => return Err(errno),
        }
    }
    Err(Errno::EINTR)
}
