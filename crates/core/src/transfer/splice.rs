//! `splice(2)` twice: file to pipe, pipe to target. The pages of the page cache are passed by reference.

use std::os::fd::BorrowedFd;

use super::attempt::{Attempt, Moved};
use super::pipe_stage::{self, PipeStage};
use zerosend_sys::{Kernel, SysResult};

pub(super) fn attempt<K: Kernel>(
    stage: &mut PipeStage,
    kernel: &mut K,
    mut attempt: Attempt<'_>,
    file: BorrowedFd<'_>,
) -> SysResult<Moved> {
    let pipe = stage.pipe()?;
    if pipe.filled() > 0 {
        if attempt.is_truncated_within(kernel, file, pipe.filled())? {
            return Ok(Moved::EndOfFile);
        }
    } else {
        let wanted = attempt.length.min(pipe.capacity());
        let Some(length) = attempt.resident_len(kernel, file, wanted) else { return Ok(Moved::Cold) };
        *attempt.syscalls += 1;
        match kernel.splice(file, Some(attempt.offset), pipe.write_end(), length, false)? {
            0 => return Ok(Moved::EndOfFile),
            count => pipe.add(count),
        }
    }
    pipe_stage::send(kernel, &mut attempt, pipe)
}
