//! Descriptors that JavaScript names by number.

use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};

use napi::Env;
use napi_derive::napi;
use nix::errno::Errno;
use nix::sys::socket::{SockaddrStorage, getpeername};
use zerosend_core::io::NonBlocking;
use zerosend_core::{Error, Result};
use zerosend_sys as sys;

use crate::engine::guard::guard;
use crate::engine::handles::Kind;
use crate::engine::with;
use crate::ffi::JsFd;

/// A descriptor that native code owns: a duplicate of one that JavaScript has open, or one that was received.
pub struct Descriptor(pub OwnedFd);

impl Kind for Descriptor {
    const NAME: &'static str = "a descriptor";
    const RELEASED: &'static str = "the socket was closed before the operation started";
}

impl Descriptor {
    /// The descriptor in nonblocking mode, for a thread that serves several.
    pub fn into_nonblocking(self) -> Result<NonBlocking> {
        NonBlocking::new(self.0)
    }

    pub fn try_clone(&self) -> Result<OwnedFd> {
        self.0
            .try_clone()
            .map_err(|error| Error::system("dup", error.raw_os_error().map_or(Errno::EMFILE, Errno::from_raw)))
    }
}

/// A duplicate of `fd`, which is open in JavaScript now.
pub fn duplicate(fd: i32) -> Result<OwnedFd> {
    sys::fd::duplicate(fd).map_err(|errno| Error::system("dup", errno))
}

/// Borrows `fd`. `syscall` is named in the error for a negative number.
pub fn borrow<'fd>(syscall: &'static str, fd: &'fd JsFd) -> Result<BorrowedFd<'fd>> {
    fd.borrow().map_err(|errno| Error::system(syscall, errno))
}

/// Duplicates a descriptor and returns the handle of the duplicate.
#[napi]
pub fn duplicate_descriptor(env: &Env, fd: i32) -> napi::Result<f64> {
    with(env, |engine| Ok(engine.handles.objects.register(Descriptor(duplicate(fd)?))))
}

/// Makes the close of the socket `fd` a TCP reset. Does nothing for descriptors of other kinds.
#[napi]
pub fn reset_on_close(env: &Env, #[napi(ts_arg_type = "number")] fd: JsFd) -> napi::Result<()> {
    guard(env, || {
        // It fails for descriptors without a connection.
        let _ = fd.borrow().and_then(sys::socket::reset_on_close);
        Ok(())
    })
}

/// Bytes sent on the socket `fd` that the peer may still acknowledge; 0 where the kernel cannot say.
#[napi]
pub fn unacknowledged(env: &Env, #[napi(ts_arg_type = "number")] fd: JsFd) -> napi::Result<f64> {
    guard(env, || {
        let bytes = fd.borrow().and_then(|socket| {
            // ENOTCONN: the peer has reset the connection; the kernel still counts bytes that the peer has not acknowledged.
            getpeername::<SockaddrStorage>(socket.as_raw_fd())?;
            sys::socket::unacknowledged(socket)
        });
        Ok(bytes.unwrap_or(0) as f64)
    })
}
