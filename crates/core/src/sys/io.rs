//! The calls that move bytes: `sendmsg(2)`, `writev(2)`, `sendfile(2)`, `preadv2(2)`.

use std::io::{IoSlice, IoSliceMut};
use std::os::fd::{AsRawFd, BorrowedFd};

use nix::errno::Errno;
use nix::sys::socket::MsgFlags;

use super::SysResult;

/// How a vector of bytes leaves: `sendmsg` for sockets, `writev` for everything else.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Gather {
    /// A socket; `more` is `MSG_MORE`: the kernel waits for the bytes that follow before it cuts a packet.
    Socket {
        /// More bytes follow at once.
        more: bool,
    },
    /// A pipe, file or terminal.
    Stream,
}

/// The syscalls a transfer makes, one method a call. [`Linux`] is the real one.
///
/// Every method makes at most one syscall, returns its short count, and never retries.
pub trait Kernel {
    /// Writes `slices` in order; see `sendmsg(2)`, `writev(2)`. Never blocks on a socket, never raises `SIGPIPE` there.
    fn gather(&mut self, out: BorrowedFd<'_>, slices: &[IoSlice<'_>], how: Gather) -> SysResult<usize>;

    /// Copies `length` bytes of `file` from `offset` on to `out`; see `sendfile(2)`. The file's own position is not used.
    fn sendfile(&mut self, out: BorrowedFd<'_>, file: BorrowedFd<'_>, offset: u64, length: usize) -> SysResult<usize>;

    /// Reads at `offset`. With `resident_only`, `EAGAIN` says that the disk would have to be asked (`RWF_NOWAIT`).
    fn pread(&mut self, file: BorrowedFd<'_>, buffer: &mut [u8], offset: u64, resident_only: bool) -> SysResult<usize>;

    /// Whether `length` bytes from `offset` on are in the page cache; see [`super::residency`].
    fn resident(&mut self, file: BorrowedFd<'_>, offset: u64, length: u64) -> super::residency::Residency;
}

/// The kernel this process runs on.
#[derive(Debug, Default, Clone, Copy)]
pub struct Linux;

impl Kernel for Linux {
    fn gather(&mut self, out: BorrowedFd<'_>, slices: &[IoSlice<'_>], how: Gather) -> SysResult<usize> {
        match how {
            Gather::Socket { more } => {
                let mut flags = MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_NOSIGNAL;
                if more {
                    flags |= MsgFlags::from_bits_retain(libc::MSG_MORE);
                }
                nix::sys::socket::sendmsg::<()>(out.as_raw_fd(), slices, &[], flags, None)
            }
            Gather::Stream => nix::sys::uio::writev(out, slices),
        }
    }

    fn sendfile(&mut self, out: BorrowedFd<'_>, file: BorrowedFd<'_>, offset: u64, length: usize) -> SysResult<usize> {
        let mut position = i64::try_from(offset).map_err(|_| Errno::EOVERFLOW)?;
        nix::sys::sendfile::sendfile64(out, file, Some(&mut position), length)
    }

    fn pread(&mut self, file: BorrowedFd<'_>, buffer: &mut [u8], offset: u64, resident_only: bool) -> SysResult<usize> {
        if resident_only {
            pread_resident(file, buffer, offset)
        } else {
            nix::sys::uio::pread(file, buffer, i64::try_from(offset).map_err(|_| Errno::EOVERFLOW)?)
        }
    }

    fn resident(&mut self, file: BorrowedFd<'_>, offset: u64, length: u64) -> super::residency::Residency {
        super::residency::residency(file, offset, length)
    }
}

/// Reads what the page cache holds at `offset`, without waiting for a disk.
///
/// `preadv2(2)` with `RWF_NOWAIT` (Linux 4.14). `EAGAIN`: nothing is resident there. `EOPNOTSUPP`, `ENOSYS`: the
/// filesystem or the kernel cannot tell. Called by number, because glibc has the wrapper only since 2.26.
pub fn pread_resident(file: BorrowedFd<'_>, buffer: &mut [u8], offset: u64) -> SysResult<usize> {
    let mut slices = [IoSliceMut::new(buffer)];
    let (low, high) = split_offset(offset)?;
    // SAFETY: `slices` is one iovec over a live, exclusive buffer, and IoSliceMut is ABI-compatible with iovec.
    let count = unsafe {
        libc::syscall(
            libc::SYS_preadv2,
            file.as_raw_fd(),
            slices.as_mut_ptr().cast::<libc::iovec>(),
            1usize,
            low,
            high,
            libc::RWF_NOWAIT,
        )
    };
    Errno::result(count).map(|count| count as usize)
}

/// `preadv2` takes its offset in two registers: all of it in the first on 64 bits, a half in each on 32.
fn split_offset(offset: u64) -> SysResult<(libc::c_long, libc::c_long)> {
    let offset = i64::try_from(offset).map_err(|_| Errno::EOVERFLOW)?;
    if size_of::<libc::c_long>() == 8 {
        Ok((offset as libc::c_long, 0))
    } else {
        Ok((offset as libc::c_long, (offset >> 32) as libc::c_long))
    }
}
