//! `vmsplice(2)` into a pipe, `splice(2)` from the pipe to the target: pages of memory are passed by reference.
//!
//! The kernel may read such a page long after the call, until the receiver has its bytes. So this method only sends memory
//! that is not written to any more: pages of the page cache, through a read-only mapping of the file, and
//! [`zerosend_sys::memory::SealedPages`] that the transfer owns and unmaps at its end. It never sends memory of an allocator:
//! freed and reused, it would change before the receiver has it.

use std::os::fd::BorrowedFd;

use nix::errno::Errno;

use super::attempt::{Attempt, Moved, PartSource};
use super::mmap::Window;
use super::pipe_stage::{self, PipeStage};
use crate::io::pipe_pool::PooledPipe;
use zerosend_sys::{Kernel, SysResult};

/// The pipe, and the mapping of a file.
#[derive(Default)]
pub(super) struct Vmsplice {
    pub stage: PipeStage,
    window: Window,
}

pub(super) fn attempt<K: Kernel>(
    Vmsplice { stage, window }: &mut Vmsplice,
    kernel: &mut K,
    mut attempt: Attempt<'_>,
    source: PartSource<'_>,
) -> SysResult<Moved> {
    let pipe = stage.pipe()?;
    match source {
        PartSource::Pages(pages) => {
            if pipe.filled() == 0 {
                let span = pages.span(attempt.offset as usize, attempt.length.min(pipe.capacity()));
                *attempt.syscalls += 1;
                pipe.add(kernel.vmsplice(pipe.write_end(), span, true)?);
            }
            pipe_stage::send(kernel, &mut attempt, pipe)
        }
        PartSource::File(file, _) => {
            if pipe.filled() == 0
                && let Some(end) = fill(kernel, &mut attempt, file, pipe, window)?
            {
                return Ok(end);
            }
            let filled = pipe.filled();
            if attempt.is_truncated_within(kernel, file, filled)? {
                return Ok(Moved::EndOfFile);
            }
            let moved = pipe_stage::send(kernel, &mut attempt, pipe)?;
            let sent = filled - pipe.filled();
            Ok(if attempt.is_truncated_within(kernel, file, sent)? { Moved::EndOfFile } else { moved })
        }
    }
}

/// Puts the next mapped pages of the file into the pipe. `Some`: the result of the attempt, which ends here.
fn fill<K: Kernel>(
    kernel: &mut K,
    attempt: &mut Attempt<'_>,
    file: BorrowedFd<'_>,
    pipe: &mut PooledPipe,
    window: &mut Window,
) -> SysResult<Option<Moved>> {
    attempt.check_mappable(kernel, file)?;
    let wanted = attempt.length.min(pipe.capacity());
    let Some(length) = attempt.resident_len(kernel, file, wanted) else { return Ok(Some(Moved::Cold)) };
    let left = usize::try_from(attempt.left).unwrap_or(usize::MAX);
    let span = window.span(kernel, file, attempt.offset, left, attempt.syscalls)?.first(length);
    *attempt.syscalls += 1;
    match kernel.vmsplice(pipe.write_end(), span, false) {
        Ok(count) => {
            pipe.add(count);
            Ok(None)
        }
        Err(Errno::EFAULT) => attempt.fault(kernel, file, span.len()).map(Some),
        Err(errno) => Err(errno),
    }
}
