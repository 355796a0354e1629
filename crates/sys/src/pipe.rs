//! `pipe2(2)`, `F_SETPIPE_SZ`, `FIONREAD`, `splice(2)`, `tee(2)`, `vmsplice(2)`.

use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, SpliceFFlags, fcntl};

use super::SysResult;
use super::memory::Span;

/// Spans of one `vmsplice` at most.
pub const MAX_SPANS: usize = 16;

/// A new pipe, both ends non-blocking and closed on exec: the end to read from, the end to write to.
pub fn new() -> SysResult<(OwnedFd, OwnedFd)> {
    nix::unistd::pipe2(OFlag::O_CLOEXEC | OFlag::O_NONBLOCK)
}

/// Bytes that the pipe can hold when its pages are full.
pub fn capacity(pipe: BorrowedFd<'_>) -> SysResult<usize> {
    fcntl(pipe, FcntlArg::F_GETPIPE_SZ).map(|size| size as usize)
}

/// Asks for room for `bytes`, which the kernel rounds up to a power of two of pages; returns what it is then.
///
/// `EPERM`: over `/proc/sys/fs/pipe-max-size`, or over the pages that one unprivileged user may have in pipes
/// (`/proc/sys/fs/pipe-user-pages-soft`). `EBUSY`: it holds more than that.
pub fn set_capacity(pipe: BorrowedFd<'_>, bytes: usize) -> SysResult<usize> {
    let bytes = libc::c_int::try_from(bytes).map_err(|_| Errno::EINVAL)?;
    fcntl(pipe, FcntlArg::F_SETPIPE_SZ(bytes)).map(|size| size as usize)
}

/// Bytes waiting to be read from a pipe or socket; see `ioctl_pipe(2)`, `FIONREAD`.
pub fn unread(pipe: BorrowedFd<'_>) -> SysResult<usize> {
    let mut count: libc::c_int = 0;
    // SAFETY: FIONREAD writes one int, and `count` is one.
    Errno::result(unsafe { libc::ioctl(pipe.as_raw_fd(), libc::FIONREAD, &raw mut count) })?;
    Ok(count as usize)
}

/// What `splice` may be told.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct SpliceFlags {
    /// `SPLICE_F_MORE`: more bytes follow; for sockets.
    pub more: bool,
    /// `SPLICE_F_MOVE`: a hint that pages may be moved instead of copied; today's kernels ignore it.
    pub moving: bool,
}

/// One `splice(2)` with `SPLICE_F_NONBLOCK`. An offset is for an end that is a file, whose own position is then not used.
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

/// One `tee(2)` with `SPLICE_F_NONBLOCK`: what is in one pipe is in the other too, without being consumed.
pub fn tee(from: BorrowedFd<'_>, to: BorrowedFd<'_>, length: usize) -> SysResult<usize> {
    nix::fcntl::tee(from, to, length, SpliceFFlags::SPLICE_F_NONBLOCK)
}

/// One `vmsplice(2)` with `SPLICE_F_NONBLOCK`: the pipe refers to the pages themselves. `gift` is `SPLICE_F_GIFT`.
/// At most [`MAX_SPANS`] spans.
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
    // SAFETY: as many live iovecs as there are spans, over memory that the spans keep mapped during the call; the kernel
    // pins the pages it keeps, and only reads them.
    let count = unsafe { libc::vmsplice(pipe.as_raw_fd(), iovecs.as_ptr(), spans.len(), flags) };
    Errno::result(count).map(|count| count as usize)
}
