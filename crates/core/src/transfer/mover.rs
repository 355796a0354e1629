//! The method in use for a part, with the state it keeps between attempts.

use nix::errno::Errno;

use super::attempt::{Attempt, Moved, PartSource};
use super::mmap::Window;
use super::pipe_stage::PipeStage;
use super::vmsplice::Vmsplice;
use super::{Method, mmap, read_write, sendfile, splice, vmsplice};
use crate::io::pipe_pool::PooledPipe;
use zerosend_sys::{Kernel, SysResult};

/// A method and its state. The two methods of the hot path have none, so choosing them allocates nothing.
pub(super) enum Mover {
    Sendfile,
    ReadWrite,
    Splice(Box<PipeStage>),
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

    /// Whether memory in front of the part is sent in the same call.
    pub fn takes_heads(&self) -> bool {
        matches!(self, Mover::ReadWrite | Mover::Mmap(_))
    }

    /// Makes one attempt.
    pub fn attempt<K: Kernel>(
        &mut self,
        kernel: &mut K,
        attempt: Attempt<'_>,
        source: PartSource<'_>,
    ) -> SysResult<Moved> {
        match (self, source) {
            (Mover::ReadWrite, source) => read_write::attempt(kernel, attempt, source),
            (Mover::Vmsplice(state), source) => vmsplice::attempt(state, kernel, attempt, source),
            (Mover::Sendfile, PartSource::File(file, _)) => sendfile::attempt(kernel, attempt, file),
            (Mover::Splice(stage), PartSource::File(file, _)) => splice::attempt(stage, kernel, attempt, file),
            (Mover::Mmap(window), PartSource::File(file, mapping)) => {
                mmap::attempt(window, kernel, attempt, file, mapping)
            }
            // `Transfer` never selects these methods for pages.
            (Mover::Sendfile | Mover::Splice(_) | Mover::Mmap(_), PartSource::Pages(_)) => Err(Errno::EINVAL),
        }
    }

    /// The pipe that holds the next bytes of the part, if one does.
    pub fn filled_pipe(&mut self) -> Option<&mut PooledPipe> {
        match self {
            Mover::Splice(stage) => stage.filled(),
            Mover::Vmsplice(state) => state.stage.filled(),
            Mover::Sendfile | Mover::ReadWrite | Mover::Mmap(_) => None,
        }
    }

    /// The syscall that an error of this method is reported for.
    pub fn syscall_name(&self) -> &'static str {
        match self {
            Mover::Sendfile => "sendfile",
            Mover::ReadWrite | Mover::Mmap(_) => "sendmsg",
            Mover::Splice(_) => "splice",
            Mover::Vmsplice(_) => "vmsplice",
        }
    }
}
