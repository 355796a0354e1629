//! The only unsafe code of the crate, one file per syscall family.
//!
//! Nothing here loops or retries: a call makes one syscall and returns its short count or its errno. Where nix has a
//! safe wrapper the engine uses nix directly; this module holds what nix lacks.
#![allow(unsafe_code)]

pub mod open;

use nix::errno::Errno;

/// A syscall's result: a value or its errno.
pub type SysResult<T> = std::result::Result<T, Errno>;
