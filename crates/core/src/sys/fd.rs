//! Descriptors that come as numbers.

use std::os::fd::{BorrowedFd, OwnedFd, RawFd};

use nix::errno::Errno;

use super::SysResult;

/// Lends the descriptor `number` to `call`, and not a moment longer. `EBADF` for a negative number.
///
/// A number is only as good as the moment it was read in: the caller must have it from an object that is open now, on
/// this thread, and nothing may close that object during the call.
pub fn during_call<R>(number: RawFd, call: impl FnOnce(BorrowedFd<'_>) -> R) -> SysResult<R> {
    if number < 0 {
        return Err(Errno::EBADF);
    }
    // SAFETY: not -1, and not kept beyond `call`. A number that is not open makes the kernel answer EBADF.
    Ok(call(unsafe { BorrowedFd::borrow_raw(number) }))
}

/// A duplicate of the descriptor `number`, owned by the caller.
pub fn duplicate(number: RawFd) -> SysResult<OwnedFd> {
    during_call(number, |fd| {
        fd.try_clone_to_owned().map_err(|error| Errno::from_raw(error.raw_os_error().unwrap_or(libc::EBADF)))
    })?
}
