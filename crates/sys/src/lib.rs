//! The system calls of zerosend, one file for each family. Apart from one file of the binding, this crate has all of the
//! unsafe code.
//!
//! A function makes one system call, does not retry, and returns a short count or an errno as the kernel gives it. Where
//! nix has a safe wrapper, that wrapper is used; this crate has the calls that nix lacks, and the [`Kernel`] trait, through
//! which transfers make their calls so that tests can replace the kernel.
//!
//! # Preconditions
//!
//! - The process ignores `SIGPIPE`, as Node and the runtime of Rust do. `sendmsg(2)` has `MSG_NOSIGNAL`, but `writev(2)`,
//!   `write(2)`, `splice(2)`, `tee(2)`, `vmsplice(2)` and `sendfile(2)` have no flag for it: in a process that does not
//!   ignore the signal they end the process instead of returning `EPIPE`.
//! - Memory of a ring cannot be truncated by processes that are not trusted; see [`memory::RingMapping::new`].

#![allow(unsafe_code, reason = "system calls")]

pub mod fd;
pub mod features;
pub mod futex;
pub mod io;
pub mod memory;
pub mod open;
pub mod page;
pub mod pipe;
pub mod residency;
pub mod socket;
pub mod terminal;

pub use io::{Kernel, Linux};
use nix::errno::Errno;

/// The result of a system call: a value or its errno.
pub type SysResult<T> = std::result::Result<T, Errno>;

/// The errno of an error of the standard library; `EIO` when it has none.
pub fn errno_of(error: &std::io::Error) -> Errno {
    error.raw_os_error().map_or(Errno::EIO, Errno::from_raw)
}
