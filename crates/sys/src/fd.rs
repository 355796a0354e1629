//! Ownership of descriptors: duplicates, closing on another thread, and receiving them over a socket.

use std::io::IoSliceMut;
use std::mem::ManuallyDrop;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

use nix::errno::Errno;
use nix::sys::socket::{ControlMessageOwned, MsgFlags, recvmsg};

use crate::SysResult;

/// A descriptor with the function that closes it on drop.
#[derive(Debug)]
pub struct ClosedBy {
    fd: ManuallyDrop<OwnedFd>,
    close: fn(OwnedFd),
}

impl ClosedBy {
    /// Closed on the thread that drops it.
    pub fn dropping(fd: OwnedFd) -> Self {
        Self { fd: ManuallyDrop::new(fd), close: drop }
    }

    /// Passed to `close`, which may close it on another thread.
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
        // SAFETY: the field is initialized in every constructor and taken only here. `drop` runs once, and dropping the
        // `ManuallyDrop` field afterwards does not touch its content.
        (self.close)(unsafe { ManuallyDrop::take(&mut self.fd) });
    }
}

/// A duplicate of the descriptor `number`, closed on exec; see `fcntl(2)`, `F_DUPFD_CLOEXEC`. `EBADF`: it is not open.
///
/// This is safe for every number, like opening `/proc/self/fd/<number>`: the call neither closes nor changes the original.
/// The caller decides whether it may use what the number refers to at the time of the call.
pub fn duplicate(number: RawFd) -> SysResult<OwnedFd> {
    // SAFETY: the arguments are integers, and the kernel accesses no memory of the process. A number that is not open is EBADF.
    let fd = Errno::result(unsafe { libc::fcntl(number, libc::F_DUPFD_CLOEXEC, 3) })?;
    // SAFETY: the call has just created `fd`, so it is open and has no other owner.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Receives bytes from a Unix socket, and the descriptor that was sent with them, if any; see `SCM_RIGHTS` in `unix(7)`. Does
/// not wait: `EAGAIN`. Further descriptors are closed.
pub fn receive(socket: BorrowedFd<'_>, bytes: &mut IoSliceMut<'_>) -> SysResult<(usize, Option<OwnedFd>)> {
    // The kernel closes descriptors that do not fit (MSG_CTRUNC).
    let mut space = nix::cmsg_space!([RawFd; 4]);
    let flags = MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_CMSG_CLOEXEC;
    let message = recvmsg::<()>(socket.as_raw_fd(), std::slice::from_mut(bytes), Some(&mut space), flags)?;
    let mut received = Vec::new();
    for control in message.cmsgs()? {
        if let ControlMessageOwned::ScmRights(fds) = control {
            // SAFETY: the kernel has created these descriptors for this message. nix only copies their numbers, so each of them
            // is open and has no other owner. The iterator yields each control message once.
            received.extend(fds.into_iter().map(|fd| unsafe { OwnedFd::from_raw_fd(fd) }));
        }
    }
    let first = if received.is_empty() { None } else { Some(received.swap_remove(0)) };
    Ok((message.bytes, first))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_that_is_not_open_is_ebadf() {
        assert_eq!(duplicate(-1).err(), Some(Errno::EBADF));
        assert_eq!(duplicate(RawFd::MAX).err(), Some(Errno::EBADF));
    }

    #[test]
    fn a_duplicate_outlives_the_original() {
        let (read, write) = crate::pipe::new().expect("a pipe");
        let duplicate = duplicate(write.as_raw_fd()).expect("a duplicate");
        drop(write);
        assert_eq!(nix::unistd::write(&duplicate, b"x"), Ok(1));
        assert_eq!(nix::unistd::read(&read, &mut [0; 2]), Ok(1));
    }
}
