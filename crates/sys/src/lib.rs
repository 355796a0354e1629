//! The only unsafe code of the crate, one file per syscall family.
//!
//! Nothing here loops or retries: a call makes one syscall and returns its short count or its errno. Where nix has a
//! safe wrapper that wrapper is used; this module holds what nix lacks, and the [`Kernel`] trait through which
//! transfers make their calls, so that tests can put a hostile kernel in its place.

#![allow(unsafe_code)]

pub mod fd;
pub mod features;
pub mod io;
pub mod memory;
pub mod open;
pub mod page;
pub mod pipe;
pub mod residency;
pub mod shared;
pub mod socket;
pub mod terminal;

pub use io::{Kernel, Linux};
use nix::errno::Errno;

/// A syscall's result: a value or its errno.
pub type SysResult<T> = std::result::Result<T, Errno>;

/// The errno of an error of the standard library.
pub fn errno_of(error: &std::io::Error) -> Errno {
    error.raw_os_error().map_or(Errno::EIO, Errno::from_raw)
}
