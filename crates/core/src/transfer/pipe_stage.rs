//! The pipe of `splice` and `vmsplice`, and its second half: from the pipe to the target.
//!
//! Bytes that the target does not accept stay in the pipe and are sent first in the next turn. The cursor of the transfer is
//! at the first byte that the target has not accepted, so a pipe can be discarded without losing bytes. A pipe is filled
//! only when it is empty: its capacity is counted in pages, and a page that is partly used counts as one.

use nix::errno::Errno;

use super::attempt::{Attempt, Moved};
use crate::io::pipe_pool::PooledPipe;
use zerosend_sys::{Kernel, SysResult};

/// A pooled pipe, taken at the first use.
#[derive(Default)]
pub(super) struct PipeStage(Option<PooledPipe>);

impl PipeStage {
    /// The pipe.
    pub fn pipe(&mut self) -> SysResult<&mut PooledPipe> {
        match &mut self.0 {
            Some(pipe) => Ok(pipe),
            none => Ok(none.insert(PooledPipe::acquire()?)),
        }
    }

    /// The pipe, if it holds bytes.
    pub fn filled(&mut self) -> Option<&mut PooledPipe> {
        self.0.as_mut().filter(|pipe| pipe.filled() > 0)
    }
}

/// Sends bytes of the pipe in one call.
pub(super) fn send<K: Kernel>(kernel: &mut K, attempt: &mut Attempt<'_>, pipe: &mut PooledPipe) -> SysResult<Moved> {
    let length = attempt.length.min(pipe.filled());
    let more = attempt.more_after(length);
    *attempt.syscalls += 1;
    match kernel.splice(pipe.read_end(), None, attempt.out, length, more) {
        // ENODATA: the file was truncated before the disk had filled a page that is in the pipe.
        Ok(0) | Err(Errno::ENODATA) => Ok(Moved::EndOfFile),
        Ok(sent) => {
            pipe.subtract(sent);
            Ok(Moved::of(sent, length))
        }
        Err(errno) => Err(errno),
    }
}
