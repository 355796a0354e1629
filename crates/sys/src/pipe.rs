//! `pipe2(2)`, `F_SETPIPE_SZ`, `FIONREAD`, `splice(2)`, `tee(2)`, `vmsplice(2)`.

use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, SpliceFFlags, fcntl};

use crate::SysResult;
use crate::memory::Span;

/// Maximum number of spans of one [`vmsplice`].
pub const MAX_SPANS: usize = 16;

/// A new pipe, non-blocking and closed on exec: the read end and the write end.
pub fn new() -> SysResult<(OwnedFd, OwnedFd)> {
    nix::unistd::pipe2(OFlag::O_CLOEXEC | OFlag::O_NONBLOCK)
}

/// Bytes that the pipe holds when all its pages are full.
pub fn capacity(pipe: BorrowedFd<'_>) -> SysResult<usize> {
    fcntl(pipe, FcntlArg::F_GETPIPE_SZ).map(|size| size as usize)
}

/// Sets the capacity to `bytes`, rounded up by the kernel to a power of two of pages; returns the new capacity.
///
/// `EPERM`: more than `/proc/sys/fs/pipe-max-size`, or the user has more pages in pipes than
/// `/proc/sys/fs/pipe-user-pages-soft` allows. `EBUSY`: the pipe holds more bytes than that.
pub fn set_capacity(pipe: BorrowedFd<'_>, bytes: usize) -> SysResult<usize> {
    let bytes = libc::c_int::try_from(bytes).map_err(|_| Errno::EINVAL)?;
    fcntl(pipe, FcntlArg::F_SETPIPE_SZ(bytes)).map(|size| size as usize)
}

/// Bytes that can be read from a pipe or socket; see `FIONREAD` in `pipe(7)`.
pub fn unread(pipe: BorrowedFd<'_>) -> SysResult<usize> {
    let mut count: libc::c_int = 0;
    // SAFETY: FIONREAD writes one `int`, and `count` is a live `c_int`.
    Errno::result(unsafe { libc::ioctl(pipe.as_raw_fd(), libc::FIONREAD, &raw mut count) })?;
    Ok(count as usize)
}

/// Flags of [`splice`].
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct SpliceFlags {
    /// `SPLICE_F_MORE`: more bytes follow; for sockets.
    pub more: bool,
    /// `SPLICE_F_MOVE`: a hint that pages may be moved instead of copied; today's kernels ignore it.
    pub moving: bool,
}

/// One `splice(2)` with `SPLICE_F_NONBLOCK`. An offset is for an end that is a file, whose position then does not change.
pub fn splice(
    from: BorrowedFd<'_>,
    from_offset: Option<u64>,
    to: BorrowedFd<'_>,
    to_offset: Option<u64>,
    length: usize,
    flags: SpliceFlags,
) -> SysResult<usize> {
    let position = |offset: Option<u64>| offset.map(i64::try_from).transpose().map_err(|_| Errno::EOVERFLOW);
    let (mut from_offset, mut to_offset) = (position(from_offset)?, position(to_offset)?);
    let mut bits = SpliceFFlags::SPLICE_F_NONBLOCK;
    bits.set(SpliceFFlags::SPLICE_F_MORE, flags.more);
    bits.set(SpliceFFlags::SPLICE_F_MOVE, flags.moving);
    nix::fcntl::splice(from, from_offset.as_mut(), to, to_offset.as_mut(), length, bits)
}

/// One `tee(2)` with `SPLICE_F_NONBLOCK`: duplicates bytes of a pipe into another, without consuming them.
pub fn tee(from: BorrowedFd<'_>, to: BorrowedFd<'_>, length: usize) -> SysResult<usize> {
    nix::fcntl::tee(from, to, length, SpliceFFlags::SPLICE_F_NONBLOCK)
}

/// One `vmsplice(2)` with `SPLICE_F_NONBLOCK`: the pipe refers to the pages themselves, without a copy. `gift` is
/// `SPLICE_F_GIFT`. `EINVAL`: more than [`MAX_SPANS`] spans.
pub fn vmsplice(pipe: BorrowedFd<'_>, spans: &[Span<'_>], gift: bool) -> SysResult<usize> {
    let mut iovecs = [libc::iovec { iov_base: std::ptr::null_mut(), iov_len: 0 }; MAX_SPANS];
    if spans.len() > MAX_SPANS {
        return Err(Errno::EINVAL);
    }
    for (iovec, span) in iovecs.iter_mut().zip(spans) {
        *iovec = span.as_iovec();
    }
    let mut flags = libc::SPLICE_F_NONBLOCK;
    if gift {
        flags |= libc::SPLICE_F_GIFT;
    }
    // SAFETY: the first `spans.len()` elements of `iovecs` are live and refer to memory that the spans keep mapped during the call.
    // The kernel only reads it, and takes a reference to each page that it uses after the call, so that unmapping is no
    // problem.
    let count = unsafe { libc::vmsplice(pipe.as_raw_fd(), iovecs.as_ptr(), spans.len(), flags) };
    Errno::result(count).map(|count| count as usize)
}
