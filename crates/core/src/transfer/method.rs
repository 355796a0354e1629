//! The names of the methods, and which file makes each attempt.

use std::str::FromStr;

use nix::errno::Errno;

use super::mmap::Window;
use super::splice::Splice;
use super::vmsplice::Vmsplice;
use super::{Attempt, Moved, Source, mmap, read_write, sendfile};
use crate::error::{Code, Error};
use crate::io::pipe::Pooled;
use zerosend_sys::{Kernel, SysResult};

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
            Error::new(Code::InvalidArgument, format!("method is '{name}', but must be one of {}", allowed.join(", ")))
        })
    }
}

/// A method at work on one part, with what it keeps between attempts. The two of the hot path keep nothing.
pub(super) enum Mover {
    Sendfile,
    ReadWrite,
    Splice(Box<Splice>),
    Mmap(Box<Window>),
    Vmsplice(Box<Vmsplice>),
}

impl From<Method> for Mover {
    fn from(method: Method) -> Self {
        match method {
            Method::Sendfile => Mover::Sendfile,
            Method::Splice => Mover::Splice(Box::default()),
            Method::Mmap => Mover::Mmap(Box::default()),
            Method::Vmsplice => Mover::Vmsplice(Box::default()),
            Method::ReadWrite | Method::Auto => Mover::ReadWrite,
        }
    }
}

impl Mover {
    pub fn method(&self) -> Method {
        match self {
            Mover::Sendfile => Method::Sendfile,
            Mover::ReadWrite => Method::ReadWrite,
            Mover::Splice(_) => Method::Splice,
            Mover::Mmap(_) => Method::Mmap,
            Mover::Vmsplice(_) => Method::Vmsplice,
        }
    }

    /// Memory in front of the part goes in the same call.
    pub fn takes_heads(&self) -> bool {
        matches!(self, Mover::ReadWrite | Mover::Mmap(_))
    }

    pub fn attempt<K: Kernel>(&mut self, kernel: &mut K, attempt: Attempt<'_>, source: Source<'_>) -> SysResult<Moved> {
        match (self, source) {
            (Mover::ReadWrite, source) => read_write::attempt(kernel, attempt, source),
            (Mover::Vmsplice(vmsplice), source) => vmsplice.attempt(kernel, attempt, source),
            (Mover::Sendfile, Source::File(file, _)) => sendfile::attempt(kernel, attempt, file),
            (Mover::Splice(splice), Source::File(file, _)) => splice.attempt(kernel, attempt, file),
            (Mover::Mmap(window), Source::File(file, mapping)) => mmap::attempt(window, kernel, attempt, file, mapping),
            // `strategy::choose` does not put pages on these roads.
            (Mover::Sendfile | Mover::Splice(_) | Mover::Mmap(_), Source::Pages(_)) => Err(Errno::EINVAL),
        }
    }

    /// The pipe with the next bytes of the part, when some wait in one.
    pub fn carried(&mut self) -> Option<&mut Pooled> {
        let pipe = match self {
            Mover::Splice(splice) => splice.pipe(),
            Mover::Vmsplice(vmsplice) => vmsplice.pipe(),
            Mover::Sendfile | Mover::ReadWrite | Mover::Mmap(_) => None,
        };
        pipe.filter(|pipe| pipe.filled() > 0)
    }

    pub fn syscall_name(&self) -> &'static str {
        match self {
            Mover::Sendfile => "sendfile",
            Mover::ReadWrite | Mover::Mmap(_) => "sendmsg",
            Mover::Splice(_) => "splice",
            Mover::Vmsplice(_) => "vmsplice",
        }
    }
}
