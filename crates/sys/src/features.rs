//! Calls that are made only to see whether they work: `io_uring_setup(2)`, the error queue of `MSG_ZEROCOPY`, `SIOCETHTOOL`.

use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

use nix::errno::Errno;

use super::SysResult;

/// A ring of one entry, made and closed; see `io_uring_setup(2)`.
pub fn io_uring() -> SysResult<()> {
    // `struct io_uring_params` of `<linux/io_uring.h>`: 120 bytes, all zero for the defaults.
    let mut params = [0_u64; 15];
    // SAFETY: the kernel reads and writes the 120 bytes of the struct, which are live and aligned.
    let fd = unsafe { libc::syscall(libc::SYS_io_uring_setup, 1 as libc::c_uint, params.as_mut_ptr()) };
    let fd = Errno::result(fd)?;
    // SAFETY: a new descriptor, which nobody else knows of.
    drop(unsafe { OwnedFd::from_raw_fd(fd as libc::c_int) });
    Ok(())
}

/// `SO_ZEROCOPY`: the socket may send with `MSG_ZEROCOPY`; see `socket(7)`.
pub fn set_zerocopy(socket: BorrowedFd<'_>) -> SysResult<()> {
    let on: libc::c_int = 1;
    // SAFETY: the value is one live int, and its size is given.
    let result = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_ZEROCOPY,
            (&raw const on).cast(),
            size_of::<libc::c_int>() as libc::socklen_t,
        )
    };
    Errno::result(result).map(drop)
}

/// `TCP_ULP` "tls": the kernel's TLS on a connected socket; see `Documentation/networking/tls.rst`.
pub fn set_kernel_tls(socket: BorrowedFd<'_>) -> SysResult<()> {
    let name = b"tls";
    // SAFETY: the value is `name`, whose length is given.
    let result = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::IPPROTO_TCP,
            libc::TCP_ULP,
            name.as_ptr().cast(),
            name.len() as libc::socklen_t,
        )
    };
    Errno::result(result).map(drop)
}

/// What the kernel offers to do in a network interface; see `SIOCETHTOOL` in `netdevice(7)`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Offload {
    /// `ETHTOOL_GSG`: packets from memory in several pieces.
    ScatterGather,
    /// `ETHTOOL_GTXCSUM`: checksums of what is sent.
    TransmitChecksum,
    /// `ETHTOOL_GRXCSUM`: checksums of what is received.
    ReceiveChecksum,
    /// `ETHTOOL_GTSO`: TCP segments cut from a larger packet.
    Segmentation,
}

#[repr(C)]
struct EthtoolValue {
    command: u32,
    data: u32,
}

/// Whether an interface does this. `socket` is any socket. `ENODEV`; `EOPNOTSUPP`: it does not say.
pub fn offload(socket: BorrowedFd<'_>, interface: &str, offload: Offload) -> SysResult<bool> {
    // `<linux/ethtool.h>`.
    let command = match offload {
        Offload::ReceiveChecksum => 0x14,
        Offload::TransmitChecksum => 0x16,
        Offload::ScatterGather => 0x18,
        Offload::Segmentation => 0x1e,
    };
    let mut value = EthtoolValue { command, data: 0 };
    // SAFETY: `struct ifreq` is plain data; all zeros is an empty name and no address.
    let mut request: libc::ifreq = unsafe { MaybeUninit::zeroed().assume_init() };
    if interface.len() >= request.ifr_name.len() {
        return Err(Errno::ENODEV);
    }
    for (to, from) in request.ifr_name.iter_mut().zip(interface.bytes()) {
        *to = from as libc::c_char;
    }
    request.ifr_ifru.ifru_data = (&raw mut value).cast();
    // SAFETY: the kernel reads the request and writes to the value, both live for the call.
    let result = unsafe { libc::ioctl(socket.as_raw_fd(), 0x8946, &raw mut request) };
    Errno::result(result).map(|_| value.data != 0)
}
