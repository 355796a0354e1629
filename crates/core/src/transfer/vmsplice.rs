//! `vmsplice(2)` into a pipe, `splice(2)` from the pipe to the target: pages of memory change hands by reference.
//!
//! The kernel may read such a page long after the call, until the receiver has its bytes. So only memory that nobody
//! writes to goes this way: the pages of the page cache itself, through a read-only mapping of the file (then it is what
//! `sendfile` does, by a longer road), and [`zerosend_sys::memory::Pages`] that the transfer owns and unmaps at its end.
//! Memory of an allocator never does: freed and used again, it would change under the receiver.

use std::os::fd::BorrowedFd;

use nix::errno::Errno;

use super::mmap::{self, Window};
use super::{Attempt, Moved, Source, resident, splice};
use crate::io::pipe::Pooled;
use zerosend_sys::{Kernel, SysResult};

#[derive(Default)]
pub(super) struct Vmsplice {
    pipe: Option<Pooled>,
    window: Window,
}

impl Vmsplice {
    pub fn pipe(&mut self) -> Option<&mut Pooled> {
        self.pipe.as_mut()
    }

    pub fn attempt<K: Kernel>(
        &mut self,
        kernel: &mut K,
        mut attempt: Attempt<'_>,
        source: Source<'_>,
    ) -> SysResult<Moved> {
        let pipe = match &mut self.pipe {
            Some(pipe) => pipe,
            none => none.insert(Pooled::take()?),
        };
        let carried = pipe.filled() > 0;
        match source {
            Source::Pages(_) if carried => {}
            Source::Pages(pages) => {
                let span = pages.span(attempt.offset as usize, attempt.length.min(pipe.capacity()));
                *attempt.syscalls += 1;
                pipe.add(kernel.vmsplice(pipe.write_end(), span, true)?);
            }
            Source::File(file, _) => {
                if !carried && let Some(end) = fill(kernel, &mut attempt, file, pipe, &mut self.window)? {
                    return Ok(end);
                }
                if !splice::still_there(kernel, &mut attempt, file, pipe.filled())? {
                    return Ok(Moved::EndOfFile);
                }
                let filled = pipe.filled();
                let moved = splice::drain(kernel, &mut attempt, pipe)?;
                let sent = filled - pipe.filled();
                let whole = splice::still_there(kernel, &mut attempt, file, sent)?;
                return Ok(if whole { moved } else { Moved::EndOfFile });
            }
        }
        splice::drain(kernel, &mut attempt, pipe)
    }
}

/// Puts the next mapped pages of the file into the pipe; `Some` when that ends the attempt.
fn fill<K: Kernel>(
    kernel: &mut K,
    attempt: &mut Attempt<'_>,
    file: BorrowedFd<'_>,
    pipe: &mut Pooled,
    window: &mut Window,
) -> SysResult<Option<Moved>> {
    let wanted = attempt.length.min(pipe.capacity());
    resident::check_mappable(kernel, attempt, file)?;
    let Some(length) = resident::movable(kernel, attempt, file, wanted) else { return Ok(Some(Moved::Cold)) };
    let reach = usize::try_from(attempt.left).unwrap_or(usize::MAX);
    let span = window.span(kernel, file, attempt.offset, reach, attempt.syscalls)?.first(length);
    *attempt.syscalls += 1;
    match kernel.vmsplice(pipe.write_end(), span, false) {
        Ok(count) => {
            pipe.add(count);
            Ok(None)
        }
        Err(Errno::EFAULT) => mmap::lost(kernel, attempt, file, span.len()).map(Some),
        Err(errno) => Err(errno),
    }
}
