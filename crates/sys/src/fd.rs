//! Descriptors that come as numbers.

use std::io::IoSliceMut;
use std::mem::ManuallyDrop;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

use nix::errno::Errno;
use nix::sys::socket::{ControlMessageOwned, MsgFlags, recvmsg};

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

/// A descriptor, and what closes it when it is dropped.
#[derive(Debug)]
pub struct ClosedBy {
    fd: ManuallyDrop<OwnedFd>,
    close: fn(OwnedFd),
}

impl ClosedBy {
    /// Closed where it is dropped.
    pub fn dropping(fd: OwnedFd) -> Self {
        Self { fd: ManuallyDrop::new(fd), close: drop }
    }

    /// Given to `close`, which may close it on another thread.
    pub fn calling(fd: OwnedFd, close: fn(OwnedFd)) -> Self {
        Self { fd: ManuallyDrop::new(fd), close }
    }
}

impl AsFd for ClosedBy {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

impl Drop for ClosedBy {
    fn drop(&mut self) {
        // SAFETY: taken once, here, and not used afterwards: nothing runs after `drop` of this type.
        (self.close)(unsafe { ManuallyDrop::take(&mut self.fd) });
    }
}

/// A duplicate of the descriptor `number`, owned by the caller.
pub fn duplicate(number: RawFd) -> SysResult<OwnedFd> {
    during_call(number, |fd| {
        fd.try_clone_to_owned().map_err(|error| Errno::from_raw(error.raw_os_error().unwrap_or(libc::EBADF)))
    })?
}

/// Receives bytes from a socket, and the descriptor that came with them; see `SCM_RIGHTS` in `unix(7)`. Does not wait.
pub fn receive(socket: BorrowedFd<'_>, bytes: &mut IoSliceMut<'_>) -> SysResult<(usize, Option<OwnedFd>)> {
    let mut space = nix::cmsg_space!([RawFd; 4]);
    let flags = MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_CMSG_CLOEXEC;
    let message = recvmsg::<()>(socket.as_raw_fd(), std::slice::from_mut(bytes), Some(&mut space), flags)?;
    let mut received = Vec::new();
    for control in message.cmsgs()? {
        if let ControlMessageOwned::ScmRights(fds) = control {
            // SAFETY: the kernel has just made these descriptors for us, and nobody else knows of them.
            received.extend(fds.into_iter().map(|fd| unsafe { OwnedFd::from_raw_fd(fd) }));
        }
    }
    // One is what is sent; those that somebody adds are closed here.
    let first = if received.is_empty() { None } else { Some(received.swap_remove(0)) };
    Ok((message.bytes, first))
}
