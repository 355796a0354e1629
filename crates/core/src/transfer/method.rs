//! The methods by name.

use std::str::FromStr;

use crate::error::{Code, Error};

/// How a file's bytes reach the target.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Method {
    /// Chosen by size and target; see `strategy.rs`.
    Auto,
    /// `sendfile(2)`: page cache to socket inside the kernel.
    Sendfile,
    /// `splice(2)` from the file into a pipe and from the pipe to the target: no copy either.
    Splice,
    /// `sendmsg(2)` from a mapping of the file: one copy.
    Mmap,
    /// `pread(2)` into a buffer and `sendmsg(2)` from it: one copy each way, and the cheapest for small files.
    ReadWrite,
    /// `vmsplice(2)` of mapped pages into a pipe, and `splice(2)` from there: no copy.
    Vmsplice,
}

impl Method {
    /// All of them, in the order they are documented.
    pub const ALL: [Method; 6] =
        [Method::Auto, Method::Sendfile, Method::Splice, Method::Mmap, Method::ReadWrite, Method::Vmsplice];

    /// The name in options and results.
    pub fn as_str(self) -> &'static str {
        match self {
            Method::Auto => "auto",
            Method::Sendfile => "sendfile",
            Method::Splice => "splice",
            Method::Mmap => "mmap",
            Method::ReadWrite => "read-write",
            Method::Vmsplice => "vmsplice",
        }
    }
}

impl FromStr for Method {
    type Err = Error;

    fn from_str(name: &str) -> Result<Self, Error> {
        Self::ALL.into_iter().find(|method| method.as_str() == name).ok_or_else(|| {
            let allowed: Vec<_> = Self::ALL.iter().map(|method| method.as_str()).collect();
            Error::new(Code::InvalidArgument, format!("invalid method '{name}': use one of {}", allowed.join(", ")))
        })
    }
}
