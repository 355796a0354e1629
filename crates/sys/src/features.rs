//! Calls that detect features of the kernel: `io_uring_setup(2)`, `SO_ZEROCOPY`, `TCP_ULP`, `SIOCETHTOOL`.

use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

use nix::errno::Errno;

use crate::SysResult;

/// Whether `io_uring_setup(2)` is available: creates and closes a ring of one entry.
pub fn io_uring() -> SysResult<()> {
    // `struct io_uring_params` of <linux/io_uring.h> has 120 bytes; all zero are the defaults.
    let mut params = [0_u64; 15];
    // SAFETY: the kernel reads and writes the 120 bytes of the struct. `params` has as many, is live, and is aligned to 8, while the
    // struct has no field of more than 8 bytes. It consists of integers, so every result is a valid value.
    let fd = unsafe { libc::syscall(libc::SYS_io_uring_setup, 1 as libc::c_uint, params.as_mut_ptr()) };
    let fd = Errno::result(fd)?;
    // SAFETY: the call has just created the descriptor, so it is open and has no other owner.
    drop(unsafe { OwnedFd::from_raw_fd(fd as libc::c_int) });
    Ok(())
}

/// Allows the socket to send with `MSG_ZEROCOPY`; see `SO_ZEROCOPY` in `socket(7)`.
pub fn set_zerocopy(socket: BorrowedFd<'_>) -> SysResult<()> {
    let on: libc::c_int = 1;
    // SAFETY: the kernel reads one `int` from `on`, which is live and of the given size.
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

/// Enables kernel TLS on a connected socket (`TCP_ULP` "tls"); see `Documentation/networking/tls.rst`.
pub fn set_kernel_tls(socket: BorrowedFd<'_>) -> SysResult<()> {
    let name = b"tls";
    // SAFETY: the kernel reads `name.len()` bytes from `name`, which is live.
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

/// Work that a network interface takes over from the kernel; see `<linux/ethtool.h>`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Offload {
    /// `ETHTOOL_GSG`: sending packets from several ranges of memory.
    ScatterGather,
    /// `ETHTOOL_GTXCSUM`: checksums of sent packets.
    TransmitChecksum,
    /// `ETHTOOL_GRXCSUM`: checksums of received packets.
    ReceiveChecksum,
    /// `ETHTOOL_GTSO`: splitting a large TCP packet into segments.
    Segmentation,
}

/// `struct ethtool_value` of `<linux/ethtool.h>`.
#[repr(C)]
struct EthtoolValue {
    command: u32,
    data: u32,
}

/// Whether an interface has an offload enabled. `socket` is any socket. `ENODEV`: unknown interface; `EOPNOTSUPP`: its driver
/// does not report the offload.
pub fn offload(socket: BorrowedFd<'_>, interface: &str, offload: Offload) -> SysResult<bool> {
    // The commands of <linux/ethtool.h>.
    let command = match offload {
        Offload::ReceiveChecksum => 0x14,
        Offload::TransmitChecksum => 0x16,
        Offload::ScatterGather => 0x18,
        Offload::Segmentation => 0x1e,
    };
    let mut value = EthtoolValue { command, data: 0 };
    // SAFETY: `struct ifreq` is a name and a union of integers and pointers, for which all zeros is a valid value.
    let mut request: libc::ifreq = unsafe { MaybeUninit::zeroed().assume_init() };
    if interface.len() >= request.ifr_name.len() {
        return Err(Errno::ENODEV);
    }
    for (to, from) in request.ifr_name.iter_mut().zip(interface.bytes()) {
        *to = from as libc::c_char;
    }
    request.ifr_ifru.ifru_data = (&raw mut value).cast();
    // SAFETY: SIOCETHTOOL reads `request`, and reads and writes the `struct ethtool_value` to which its data points. Both are live
    // during the call, and the kernel writes no more than the 8 bytes of that struct for the commands above.
    let result = unsafe { libc::ioctl(socket.as_raw_fd(), libc::SIOCETHTOOL, &raw mut request) };
    Errno::result(result).map(|_| value.data != 0)
}
