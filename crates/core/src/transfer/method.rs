//! The names of the methods, and which file makes each attempt.

use std::str::FromStr;

use super::{Attempt, Moved, read_write, sendfile};
use crate::error::{Code, Error};
use crate::sys::{Kernel, SysResult};

/// How a file's bytes reach the target.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Method {
    /// Chosen by size and target; see `strategy.rs`.
    Auto,
    /// `sendfile(2)`: page cache to socket inside the kernel.
    Sendfile,
    /// `pread(2)` into a buffer and `sendmsg(2)` from it: one copy each way, and the cheapest for small files.
    ReadWrite,
}

impl Method {
    /// All of them, in the order they are documented.
    pub const ALL: [Method; 3] = [Method::Auto, Method::Sendfile, Method::ReadWrite];

    /// The name in options and results.
    pub fn as_str(self) -> &'static str {
        match self {
            Method::Auto => "auto",
            Method::Sendfile => "sendfile",
            Method::ReadWrite => "read-write",
        }
    }
}

impl FromStr for Method {
    type Err = Error;

    fn from_str(name: &str) -> Result<Self, Error> {
        Self::ALL.into_iter().find(|method| method.as_str() == name).ok_or_else(|| {
            let allowed: Vec<_> = Self::ALL.iter().map(|method| method.as_str()).collect();
            Error::new(Code::InvalidArgument, format!("method is '{name}', but must be one of {}", allowed.join(", ")))
        })
    }
}

/// A method at work on one file part.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Mover {
    Sendfile,
    ReadWrite,
}

impl From<Method> for Mover {
    fn from(method: Method) -> Self {
        match method {
            Method::Sendfile => Mover::Sendfile,
            Method::ReadWrite | Method::Auto => Mover::ReadWrite,
        }
    }
}

impl Mover {
    pub fn method(self) -> Method {
        match self {
            Mover::Sendfile => Method::Sendfile,
            Mover::ReadWrite => Method::ReadWrite,
        }
    }

    /// Memory in front of the file goes in the same call.
    pub fn takes_heads(self) -> bool {
        self == Mover::ReadWrite
    }

    pub fn attempt<K: Kernel>(self, kernel: &mut K, attempt: Attempt<'_>) -> SysResult<Moved> {
        match self {
            Mover::Sendfile => sendfile::attempt(kernel, attempt),
            Mover::ReadWrite => read_write::attempt(kernel, attempt),
        }
    }

    pub fn syscall_name(self) -> &'static str {
        match self {
            Mover::Sendfile => "sendfile",
            Mover::ReadWrite => "sendmsg",
        }
    }
}
