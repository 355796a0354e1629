//! `splice(2)` twice: file to pipe, pipe to target. The pages of the page cache change hands by reference.
//!
//! What the target does not take stays in the pipe and belongs to this transfer: it goes first at the next turn. The
//! cursor of the transfer stands at the first byte that the target has not got, so a pipe that is given up loses nothing.
//! A pipe is filled only when it is empty: its room is counted in pages, and a page that is half used still counts.

use std::os::fd::BorrowedFd;

use nix::errno::Errno;

use super::{Attempt, Moved, resident};
use crate::io::pipe::Pooled;
use zerosend_sys::{Kernel, SysResult};

/// The pipe, once there is one.
#[derive(Default)]
pub(super) struct Splice {
    pipe: Option<Pooled>,
}

impl Splice {
    pub fn pipe(&mut self) -> Option<&mut Pooled> {
        self.pipe.as_mut()
    }

    pub fn attempt<K: Kernel>(
        &mut self,
        kernel: &mut K,
        mut attempt: Attempt<'_>,
        file: BorrowedFd<'_>,
    ) -> SysResult<Moved> {
        let pipe = match &mut self.pipe {
            Some(pipe) => pipe,
            none => none.insert(Pooled::take()?),
        };
        if pipe.filled() > 0 {
            if !still_there(kernel, &mut attempt, file, pipe.filled())? {
                return Ok(Moved::EndOfFile);
            }
        } else {
            let wanted = attempt.length.min(pipe.capacity());
            let Some(length) = resident::movable(kernel, &mut attempt, file, wanted) else { return Ok(Moved::Cold) };
            *attempt.syscalls += 1;
            match kernel.splice(file, Some(attempt.offset), pipe.write_end(), length, false)? {
                0 => return Ok(Moved::EndOfFile),
                count => pipe.add(count),
            }
        }
        drain(kernel, &mut attempt, pipe)
    }
}

/// From the pipe to the target, once.
pub(super) fn drain<K: Kernel>(kernel: &mut K, attempt: &mut Attempt<'_>, pipe: &mut Pooled) -> SysResult<Moved> {
    let length = attempt.length.min(pipe.filled());
    let more = attempt.followed(length as u64);
    *attempt.syscalls += 1;
    match kernel.splice(pipe.read_end(), None, attempt.out, length, more) {
        // ENODATA: a page in the pipe was cut off the file before the disk had filled it.
        Ok(0) | Err(Errno::ENODATA) => Ok(Moved::EndOfFile),
        Ok(sent) => {
            pipe.subtract(sent);
            Ok(if sent < length { Moved::Short(sent) } else { Moved::Bytes(sent) })
        }
        Err(errno) => Err(errno),
    }
}

/// Bytes that the file has from here on, as far as `usize` counts.
pub(super) fn left_of<K: Kernel>(kernel: &mut K, attempt: &mut Attempt<'_>, file: BorrowedFd<'_>) -> SysResult<usize> {
    *attempt.syscalls += 1;
    Ok(usize::try_from(kernel.size(file)?.saturating_sub(attempt.offset)).unwrap_or(usize::MAX))
}

/// Whether the file still has the next `count` bytes, which were looked at some time ago. Of a page that is in a pipe or
/// mapped, what a truncation cuts off reads as zeros, and zeros must not pass for the file's bytes.
pub(super) fn still_there<K: Kernel>(
    kernel: &mut K,
    attempt: &mut Attempt<'_>,
    file: BorrowedFd<'_>,
    count: usize,
) -> SysResult<bool> {
    Ok(left_of(kernel, attempt, file)? >= count)
}
