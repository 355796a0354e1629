//! The calls that move bytes: `sendmsg(2)`, `writev(2)`, `sendfile(2)`, and the [`Kernel`] trait that makes them.
//!
//! Only `sendmsg(2)` suppresses `SIGPIPE` (`MSG_NOSIGNAL`). For the other calls the process must ignore the signal; see the
//! preconditions of the crate.

use std::io::IoSlice;
use std::os::fd::{AsRawFd, BorrowedFd};

use nix::errno::Errno;
use nix::sys::socket::MsgFlags;

use crate::memory::{Mapping, Span};
use crate::pipe::{self, SpliceFlags};
use crate::residency::{self, Residency};
use crate::{SysResult, socket};

/// Maximum number of slices before the spans of one call.
pub const MAX_GATHER: usize = 16;

/// The kind of descriptor that bytes are written to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Target {
    /// A stream socket, TCP or Unix: written with `sendmsg(2)`.
    Socket,
    /// A pipe, file or terminal: written with `writev(2)`.
    Fd,
}

/// The system calls of a transfer, one for each method. [`Linux`] makes them; tests have other implementations.
///
/// A method makes at most one system call, returns its short count, and does not retry.
pub trait Kernel {
    /// Writes `slices` in order; see `sendmsg(2)`, `writev(2)`. Does not block on a socket. `more` is `MSG_MORE`: more bytes
    /// follow at once, so the kernel does not send a partial packet.
    fn gather(&mut self, out: BorrowedFd<'_>, slices: &[IoSlice<'_>], target: Target, more: bool) -> SysResult<usize>;

    /// Copies `length` bytes of `file` from `offset` on to `out`; see `sendfile(2)`. The position of the file does not change.
    fn sendfile(&mut self, out: BorrowedFd<'_>, file: BorrowedFd<'_>, offset: u64, length: usize) -> SysResult<usize>;

    /// Reads at `offset`. With `resident_only` it does not wait for the disk: `EAGAIN` (`RWF_NOWAIT`).
    fn pread(&mut self, file: BorrowedFd<'_>, buffer: &mut [u8], offset: u64, resident_only: bool) -> SysResult<usize>;

    /// Whether `length` bytes from `offset` on are in the page cache; see [`residency::residency`].
    fn resident(&mut self, file: BorrowedFd<'_>, offset: u64, length: u64) -> Residency;

    /// The size of the file in bytes; see `fstat(2)`.
    fn size(&mut self, file: BorrowedFd<'_>) -> SysResult<u64>;

    /// Maps a part of a file; see [`Mapping::read_only`].
    fn map(&mut self, file: BorrowedFd<'_>, offset: u64, length: usize) -> SysResult<Mapping>;

    /// Like [`Kernel::gather`] with at most [`MAX_GATHER`] slices, and `span` after them. `EFAULT`: the file behind the span was
    /// truncated.
    fn gather_span(
        &mut self,
        out: BorrowedFd<'_>,
        slices: &[IoSlice<'_>],
        span: Span<'_>,
        target: Target,
        more: bool,
    ) -> SysResult<usize>;

    /// Moves bytes from or to a pipe, without waiting for the pipe; see `splice(2)`. `offset` is a position in a file `from`;
    /// without it `from` is a pipe.
    fn splice(
        &mut self,
        from: BorrowedFd<'_>,
        offset: Option<u64>,
        to: BorrowedFd<'_>,
        length: usize,
        more: bool,
    ) -> SysResult<usize>;

    /// Makes a pipe refer to pages of memory; see `vmsplice(2)`. `gift`: the process does not use them any more.
    fn vmsplice(&mut self, pipe: BorrowedFd<'_>, span: Span<'_>, gift: bool) -> SysResult<usize>;

    /// Reads from a pipe or socket; see `read(2)`.
    fn read(&mut self, from: BorrowedFd<'_>, buffer: &mut [u8]) -> SysResult<usize>;

    /// Delays partial packets, or sends them; see `tcp(7)`, `TCP_CORK`.
    fn cork(&mut self, socket: BorrowedFd<'_>, on: bool) -> SysResult<()>;

    /// Whether a descriptor is a Unix socket; see `unix(7)`.
    fn is_unix_socket(&mut self, socket: BorrowedFd<'_>) -> bool;
}

/// The kernel this process runs on.
#[derive(Debug, Default, Clone, Copy)]
pub struct Linux;

impl Kernel for Linux {
    fn gather(&mut self, out: BorrowedFd<'_>, slices: &[IoSlice<'_>], target: Target, more: bool) -> SysResult<usize> {
        match target {
            Target::Socket => {
                let mut flags = MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_NOSIGNAL;
                if more {
                    flags |= MsgFlags::from_bits_retain(libc::MSG_MORE);
                }
                nix::sys::socket::sendmsg::<()>(out.as_raw_fd(), slices, &[], flags, None)
            }
            Target::Fd => nix::sys::uio::writev(out, slices),
        }
    }

    fn sendfile(&mut self, out: BorrowedFd<'_>, file: BorrowedFd<'_>, offset: u64, length: usize) -> SysResult<usize> {
        let mut position = i64::try_from(offset).map_err(|_| Errno::EOVERFLOW)?;
        nix::sys::sendfile::sendfile64(out, file, Some(&mut position), length)
    }

    fn pread(&mut self, file: BorrowedFd<'_>, buffer: &mut [u8], offset: u64, resident_only: bool) -> SysResult<usize> {
        if resident_only {
            residency::pread_resident(file, buffer, offset)
        } else {
            nix::sys::uio::pread(file, buffer, i64::try_from(offset).map_err(|_| Errno::EOVERFLOW)?)
        }
    }

    fn resident(&mut self, file: BorrowedFd<'_>, offset: u64, length: u64) -> Residency {
        residency::residency(file, offset, length)
    }

    fn size(&mut self, file: BorrowedFd<'_>) -> SysResult<u64> {
        nix::sys::stat::fstat(file).map(|stat| stat.st_size as u64)
    }

    fn map(&mut self, file: BorrowedFd<'_>, offset: u64, length: usize) -> SysResult<Mapping> {
        Mapping::read_only(file, offset, length)
    }

    fn gather_span(
        &mut self,
        out: BorrowedFd<'_>,
        slices: &[IoSlice<'_>],
        span: Span<'_>,
        target: Target,
        more: bool,
    ) -> SysResult<usize> {
        gather_spans(out, slices, &[span], target, more)
    }

    fn splice(
        &mut self,
        from: BorrowedFd<'_>,
        offset: Option<u64>,
        to: BorrowedFd<'_>,
        length: usize,
        more: bool,
    ) -> SysResult<usize> {
        pipe::splice(from, offset, to, None, length, SpliceFlags { more, moving: false })
    }

    fn vmsplice(&mut self, pipe: BorrowedFd<'_>, span: Span<'_>, gift: bool) -> SysResult<usize> {
        pipe::vmsplice(pipe, &[span], gift)
    }

    fn read(&mut self, from: BorrowedFd<'_>, buffer: &mut [u8]) -> SysResult<usize> {
        nix::unistd::read(from, buffer)
    }

    fn cork(&mut self, socket: BorrowedFd<'_>, on: bool) -> SysResult<()> {
        socket::set_tcp(socket, libc::TCP_CORK, on)
    }

    fn is_unix_socket(&mut self, socket: BorrowedFd<'_>) -> bool {
        socket::domain(socket) == Ok(libc::AF_UNIX)
    }
}

/// Writes `slices`, then `spans`: memory that only the kernel may read. At most [`MAX_GATHER`] + 1 of both, else `EMSGSIZE`.
pub fn gather_spans(
    out: BorrowedFd<'_>,
    slices: &[IoSlice<'_>],
    spans: &[Span<'_>],
    target: Target,
    more: bool,
) -> SysResult<usize> {
    let mut iovecs = [libc::iovec { iov_base: std::ptr::null_mut(), iov_len: 0 }; MAX_GATHER + 1];
    let count = slices.len() + spans.len();
    if count > iovecs.len() {
        return Err(Errno::EMSGSIZE);
    }
    for (iovec, slice) in iovecs.iter_mut().zip(slices) {
        *iovec = libc::iovec { iov_base: slice.as_ptr().cast_mut().cast(), iov_len: slice.len() };
    }
    for (iovec, span) in iovecs[slices.len()..].iter_mut().zip(spans) {
        *iovec = span.as_iovec();
    }
    let sent = match target {
        Target::Socket => {
            // SAFETY: `msghdr` consists of integers and raw pointers, for which all zeros is a valid value: no name, no control
            // data, no iovecs.
            let mut message: libc::msghdr = unsafe { std::mem::zeroed() };
            message.msg_iov = iovecs.as_mut_ptr();
            message.msg_iovlen = count as _;
            let flags = libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL | if more { libc::MSG_MORE } else { 0 };
            // SAFETY: `message` is live and names the first `count` elements of `iovecs`. Each is a slice or a span, which are
            // borrowed for the call. The kernel only reads what they refer to, and reports EFAULT for pages that a truncated file
            // lacks.
            unsafe { libc::sendmsg(out.as_raw_fd(), &raw const message, flags) }
        }
        // SAFETY: the first `count` elements of `iovecs` are live. Each is a slice or a span, which are borrowed for the call. The
        // kernel only reads what they refer to, and reports EFAULT for pages that a truncated file lacks.
        Target::Fd => unsafe { libc::writev(out.as_raw_fd(), iovecs.as_ptr(), count as libc::c_int) },
    };
    Errno::result(sent).map(|sent| sent as usize)
}
