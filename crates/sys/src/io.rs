//! The calls that move bytes: `sendmsg(2)`, `writev(2)`, `sendfile(2)`, `preadv2(2)`, and the [`Kernel`] that makes them.

use std::io::{IoSlice, IoSliceMut};
use std::os::fd::{AsRawFd, BorrowedFd};

use nix::errno::Errno;
use nix::sys::socket::MsgFlags;

use super::memory::{Mapping, Span};
use super::pipe::SpliceFlags;
use super::{SysResult, pipe};

/// Slices that go before a span in one call, at most.
pub const MAX_GATHER: usize = 16;

/// The kind of descriptor that bytes are written to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Target {
    /// A stream socket, TCP or Unix: written with `sendmsg(2)`.
    Socket,
    /// A pipe, file or terminal: written with `writev(2)`.
    Fd,
}

/// The syscalls a transfer makes, one method a call. [`Linux`] is the real one.
///
/// Every method makes at most one syscall, returns its short count, and never retries.
pub trait Kernel {
    /// Writes `slices` in order; see `sendmsg(2)`, `writev(2)`. Never blocks on a socket, never raises `SIGPIPE` there.
    /// `more` is `MSG_MORE`: the kernel waits for the bytes that follow before it sends a packet that is not full.
    fn gather(&mut self, out: BorrowedFd<'_>, slices: &[IoSlice<'_>], target: Target, more: bool) -> SysResult<usize>;

    /// Copies `length` bytes of `file` from `offset` on to `out`; see `sendfile(2)`. The file's own position is not used.
    fn sendfile(&mut self, out: BorrowedFd<'_>, file: BorrowedFd<'_>, offset: u64, length: usize) -> SysResult<usize>;

    /// Reads at `offset`. With `resident_only`, `EAGAIN` says that the disk would have to be asked (`RWF_NOWAIT`).
    fn pread(&mut self, file: BorrowedFd<'_>, buffer: &mut [u8], offset: u64, resident_only: bool) -> SysResult<usize>;

    /// Whether `length` bytes from `offset` on are in the page cache; see [`super::residency`].
    fn resident(&mut self, file: BorrowedFd<'_>, offset: u64, length: u64) -> super::residency::Residency;

    /// The file's size in bytes; see `fstat(2)`.
    fn size(&mut self, file: BorrowedFd<'_>) -> SysResult<u64>;

    /// Maps a part of a file; see [`Mapping::new`].
    fn map(&mut self, file: BorrowedFd<'_>, offset: u64, length: usize) -> SysResult<Mapping>;

    /// Like [`Kernel::gather`] with `span` behind the slices, of which there are [`MAX_GATHER`] at most. `EFAULT`: the
    /// file behind the span has become shorter.
    fn gather_span(
        &mut self,
        out: BorrowedFd<'_>,
        slices: &[IoSlice<'_>],
        span: Span<'_>,
        target: Target,
        more: bool,
    ) -> SysResult<usize>;

    /// From or to a pipe, never waiting for one; see `splice(2)`. `offset` is where a file is read from; without it the
    /// bytes come from a pipe.
    fn splice(
        &mut self,
        from: BorrowedFd<'_>,
        offset: Option<u64>,
        to: BorrowedFd<'_>,
        length: usize,
        more: bool,
    ) -> SysResult<usize>;

    /// Makes a pipe refer to pages of memory; see `vmsplice(2)`. `gift`: nobody will use them any more.
    fn vmsplice(&mut self, pipe: BorrowedFd<'_>, span: Span<'_>, gift: bool) -> SysResult<usize>;

    /// Reads from a pipe or socket; see `read(2)`.
    fn read(&mut self, from: BorrowedFd<'_>, buffer: &mut [u8]) -> SysResult<usize>;

    /// Holds back packets that are not full, or lets them go; see `tcp(7)`, `TCP_CORK`.
    fn cork(&mut self, socket: BorrowedFd<'_>, on: bool) -> SysResult<()>;

    /// Whether a socket is one of `unix(7)`.
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
            pread_resident(file, buffer, offset)
        } else {
            nix::sys::uio::pread(file, buffer, i64::try_from(offset).map_err(|_| Errno::EOVERFLOW)?)
        }
    }

    fn resident(&mut self, file: BorrowedFd<'_>, offset: u64, length: u64) -> super::residency::Residency {
        super::residency::residency(file, offset, length)
    }

    fn size(&mut self, file: BorrowedFd<'_>) -> SysResult<u64> {
        nix::sys::stat::fstat(file).map(|stat| stat.st_size as u64)
    }

    fn map(&mut self, file: BorrowedFd<'_>, offset: u64, length: usize) -> SysResult<Mapping> {
        Mapping::new(file, offset, length)
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
        super::socket::set_tcp(socket, libc::TCP_CORK, on)
    }

    fn is_unix_socket(&mut self, socket: BorrowedFd<'_>) -> bool {
        super::socket::domain(socket) == Ok(libc::AF_UNIX)
    }
}

/// `sendmsg(2)` or `writev(2)` of slices and of memory that may be read by the kernel only, so without a slice of it. At most
/// [`MAX_GATHER`] + 1 of both.
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
            // SAFETY: msghdr is plain data, and all zeros is one without name, control data and vectors.
            let mut message: libc::msghdr = unsafe { std::mem::zeroed() };
            message.msg_iov = iovecs.as_mut_ptr();
            message.msg_iovlen = count as _;
            let flags = libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL | if more { libc::MSG_MORE } else { 0 };
            // SAFETY: `count` live iovecs, over slices and spans that outlive the call; the kernel only reads them.
            unsafe { libc::sendmsg(out.as_raw_fd(), &raw const message, flags) }
        }
        // SAFETY: as above.
        Target::Fd => unsafe { libc::writev(out.as_raw_fd(), iovecs.as_ptr(), count as libc::c_int) },
    };
    Errno::result(sent).map(|sent| sent as usize)
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
