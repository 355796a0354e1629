//! Passing descriptors over Unix sockets; see `SCM_RIGHTS` in `unix(7)`.

use std::io::{IoSlice, IoSliceMut};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{ControlMessage, MsgFlags, sendmsg};

use crate::error::{Code, Error, Result};
use zerosend_sys::fd::receive;

/// Milliseconds between checks for a cancellation.
const POLL_INTERVAL: u16 = 100;

/// A message with a descriptor needs at least one byte of data.
const DATA: &[u8] = b"d";

/// Sends a duplicate of `fd` over a Unix socket, with one byte of data. Does not block: `EAGAIN` when the socket is full.
pub fn send_descriptor(socket: BorrowedFd<'_>, fd: BorrowedFd<'_>) -> Result<()> {
    let (slices, fds) = ([IoSlice::new(DATA)], [fd.as_raw_fd()]);
    let flags = MsgFlags::MSG_NOSIGNAL | MsgFlags::MSG_DONTWAIT;
    match sendmsg::<()>(socket.as_raw_fd(), &slices, &[ControlMessage::ScmRights(&fds)], flags, None) {
        Ok(_) => Ok(()),
        // Other sockets do not support the control message.
        Err(Errno::EINVAL | Errno::EOPNOTSUPP) => {
            Err(Error::new(Code::InvalidArgument, "invalid socket: descriptors can only be sent over a Unix socket"))
        }
        Err(errno) => Err(Error::system("sendmsg", errno)),
    }
}

/// Waits for a descriptor of [`send_descriptor`], which is closed on exec. [`Code::Closed`]: the other side has closed the
/// connection; [`Code::InvalidArgument`]: data without a descriptor; [`Code::Aborted`]: `stop` was set.
pub fn receive_descriptor(socket: &OwnedFd, stop: &AtomicBool) -> Result<OwnedFd> {
    loop {
        if stop.load(Ordering::Acquire) {
            return Err(Error::new(Code::Aborted, "the operation was aborted"));
        }
        let mut byte = [0];
        match receive(socket.as_fd(), &mut IoSliceMut::new(&mut byte)) {
            Ok((0, _)) => {
                return Err(Error::new(
                    Code::Closed,
                    "the other side closed the connection before it sent a descriptor",
                ));
            }
            Ok((_, Some(fd))) => return Ok(fd),
            Ok((_, None)) => {
                let message = "received data without a descriptor: the socket must not be used for other data before";
                return Err(Error::new(Code::InvalidArgument, message));
            }
            Err(Errno::EINTR) => {}
            Err(Errno::EAGAIN) => {
                let mut readable = [PollFd::new(socket.as_fd(), PollFlags::POLLIN)];
                match poll(&mut readable, PollTimeout::from(POLL_INTERVAL)) {
                    Ok(_) | Err(Errno::EINTR) => {}
                    Err(errno) => return Err(Error::system("poll", errno)),
                }
            }
            Err(errno) => return Err(Error::system("recvmsg", errno)),
        }
    }
}
