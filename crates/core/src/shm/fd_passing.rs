//! Descriptors over Unix sockets; see `SCM_RIGHTS` in `unix(7)`.

use std::io::{IoSlice, IoSliceMut};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{ControlMessage, MsgFlags, sendmsg};

use crate::error::{Code, Error, Result};
use zerosend_sys::fd::receive;

/// Milliseconds in which one who waits sees that it is cancelled.
const POLL_INTERVAL: u16 = 100;

/// The byte that carries a descriptor: there has to be one.
const CARRIER: &[u8] = b"d";

/// Sends a duplicate of `fd` over a Unix socket, with one byte. Does not wait: `EAGAIN` when the socket is full.
pub fn send_descriptor(socket: BorrowedFd<'_>, fd: BorrowedFd<'_>) -> Result<()> {
    let (slices, fds) = ([IoSlice::new(CARRIER)], [fd.as_raw_fd()]);
    let flags = MsgFlags::MSG_NOSIGNAL | MsgFlags::MSG_DONTWAIT;
    match sendmsg::<()>(socket.as_raw_fd(), &slices, &[ControlMessage::ScmRights(&fds)], flags, None) {
        Ok(_) => Ok(()),
        // TCP takes the byte and drops what comes with it, or refuses: this is for Unix sockets.
        Err(Errno::EINVAL | Errno::EOPNOTSUPP) => {
            Err(Error::new(Code::InvalidArgument, "only a Unix socket carries descriptors"))
        }
        Err(errno) => Err(Error::system("sendmsg", errno)),
    }
}

/// Waits for a descriptor that [`send_descriptor`] sends. [`Code::Closed`] when the other side ends, [`Code::InvalidArgument`] when
/// a byte comes without a descriptor, [`Code::Aborted`].
pub fn receive_descriptor(socket: &OwnedFd, stop: &AtomicBool) -> Result<OwnedFd> {
    loop {
        if stop.load(Ordering::Acquire) {
            return Err(Error::new(Code::Aborted, "The operation was aborted"));
        }
        let mut byte = [0];
        match receive(socket.as_fd(), &mut IoSliceMut::new(&mut byte)) {
            Ok((0, _)) => return Err(Error::new(Code::Closed, "the other side has closed before a descriptor came")),
            Ok((_, Some(fd))) => return Ok(fd),
            Ok((_, None)) => {
                let message =
                    "what came over the socket is no descriptor; let nobody write to it or read from it before";
                return Err(Error::new(Code::InvalidArgument, message));
            }
            Err(Errno::EINTR) => {}
            Err(Errno::EAGAIN) => {
                let mut wanted = [PollFd::new(socket.as_fd(), PollFlags::POLLIN)];
                match poll(&mut wanted, PollTimeout::from(POLL_INTERVAL)) {
                    Ok(_) | Err(Errno::EINTR) => {}
                    Err(errno) => return Err(Error::system("poll", errno)),
                }
            }
            Err(errno) => return Err(Error::system("recvmsg", errno)),
        }
    }
}
