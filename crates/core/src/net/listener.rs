//! Sockets that connections come from.
//!
//! On TCP each worker has a socket of its own with `SO_REUSEPORT`, socket(7), so that the kernel spreads connections and
//! no two workers wake for one. That option would also let a second server take the same port in silence, so the port is
//! bound once without it before. A Unix socket is shared by all workers.

use std::net::SocketAddr;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::PathBuf;
use std::sync::Arc;

use nix::errno::Errno;
use nix::sys::socket::{
    AddressFamily, Backlog, SockFlag, SockType, SockaddrIn, SockaddrIn6, SockaddrLike, SockaddrStorage, UnixAddr, bind,
    getsockname, listen, setsockopt, socket, sockopt,
};

use super::address::Address;
use super::unix_socket::{self, SocketFile};
use crate::error::{Error, Result};
use zerosend_sys::SysResult;

/// A socket that listens.
pub(crate) struct Listener {
    fd: Arc<OwnedFd>,
    /// Other workers have the same socket.
    shared: bool,
    /// Removed when the last worker lets go of it.
    _file: Option<Arc<SocketFile>>,
}

impl Listener {
    /// Whether other workers have the same socket.
    pub fn is_shared(&self) -> bool {
        self.shared
    }
}

impl AsFd for Listener {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

/// How listeners are opened.
pub(crate) struct Listen {
    /// Listeners to open, one for each worker.
    pub count: usize,
    pub backlog: i32,
    /// TCP: other processes may listen on the address too.
    pub reuse_port: bool,
    /// Unix: the mode of the file; `None`: what the umask leaves.
    pub socket_mode: Option<u32>,
}

/// Opens a listener for each worker; returns the address that was bound.
pub(crate) fn open(address: &Address, options: &Listen) -> Result<(Vec<Listener>, Address)> {
    let &Listen { count, backlog, reuse_port, socket_mode } = options;
    let backlog = self::backlog(backlog);
    match address {
        Address::Unix(path) => {
            let (fd, file) = unix_socket::listen_at(path, socket_mode, backlog)?;
            let (fd, file) = (Arc::new(fd), Arc::new(file));
            let listener = || Listener { fd: fd.clone(), shared: count > 1, _file: Some(file.clone()) };
            Ok(((0..count).map(|_| listener()).collect(), address.clone()))
        }
        Address::Tcp(wanted) => {
            let failed = |syscall| move |errno| Error::system(syscall, errno).with_path(wanted.to_string());
            if !reuse_port && wanted.port() != 0 {
                open_tcp(*wanted, false).map_err(failed("bind"))?;
            }
            let mut bound = *wanted;
            let mut listeners = Vec::with_capacity(count);
            for _ in 0..count {
                let fd = open_tcp(bound, true).map_err(failed("bind"))?;
                listen(&fd, backlog).map_err(failed("listen"))?;
                let name: SockaddrStorage = getsockname(fd.as_raw_fd()).map_err(failed("getsockname"))?;
                bound = to_std(&name).unwrap_or(bound);
                listeners.push(Listener { fd: Arc::new(fd), shared: false, _file: None });
            }
            Ok((listeners, Address::Tcp(bound)))
        }
    }
}

/// Makes `socket`, which is bound, the listener of all of `count` workers; gives its address.
pub(crate) fn adopt(socket: OwnedFd, count: usize, backlog: i32) -> Result<(Vec<Listener>, Address)> {
    let failed = |syscall| move |errno| Error::system(syscall, errno);
    let name: SockaddrStorage = getsockname(socket.as_raw_fd()).map_err(failed("getsockname"))?;
    let address = match to_std(&name) {
        // A bind that failed may have been put off until now (libuv does that); the kernel would choose another port.
        Some(address) if address.port() == 0 => return Err(Error::system("listen", Errno::EADDRINUSE)),
        Some(address) => Address::Tcp(address),
        None => Address::Unix(name.as_unix_addr().and_then(UnixAddr::path).map(PathBuf::from).unwrap_or_default()),
    };
    listen(&socket, self::backlog(backlog)).map_err(failed("listen"))?;
    let fd = Arc::new(socket);
    Ok(((0..count).map(|_| Listener { fd: fd.clone(), shared: count > 1, _file: None }).collect(), address))
}

fn backlog(wanted: i32) -> Backlog {
    Backlog::new(wanted.clamp(1, i32::from(u16::MAX))).unwrap_or(Backlog::MAXALLOWABLE)
}

pub(super) fn new_socket(family: AddressFamily) -> SysResult<OwnedFd> {
    socket(family, SockType::Stream, SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK, None)
}

fn open_tcp(address: SocketAddr, reuse_port: bool) -> SysResult<OwnedFd> {
    let (family, name): (_, Box<dyn SockaddrLike>) = match address {
        SocketAddr::V4(address) => (AddressFamily::Inet, Box::new(SockaddrIn::from(address))),
        SocketAddr::V6(address) => (AddressFamily::Inet6, Box::new(SockaddrIn6::from(address))),
    };
    let fd = new_socket(family)?;
    setsockopt(&fd, sockopt::ReuseAddr, &true)?;
    if family == AddressFamily::Inet6 {
        // `::` serves IPv4 too, as in Node, whatever `net.ipv6.bindv6only` says; see ipv6(7).
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

/// The address of the standard library; `None` for other families.
pub(crate) fn to_std(name: &SockaddrStorage) -> Option<SocketAddr> {
    if let Some(v4) = name.as_sockaddr_in() {
        return Some(SocketAddr::new(v4.ip().into(), v4.port()));
    }
    name.as_sockaddr_in6().map(|v6| SocketAddr::new(v6.ip().into(), v6.port()))
}

/// Connections that died before they were accepted and are passed over in one call.
const MAX_DEAD: usize = 16;

/// The next connection in the backlog, in non-blocking mode, and where it comes from. `EAGAIN`: there is none. `EINTR`: there may
/// be more, ask again after others have had their turn.
pub(crate) fn accept(listener: &Listener) -> SysResult<(OwnedFd, Option<SocketAddr>)> {
    for _ in 0..MAX_DEAD {
        match zerosend_sys::socket::accept(listener.as_fd()) {
            // accept(2): errors of the network that a connection died of before it was accepted.
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
