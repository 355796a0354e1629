//! `mmap(2)` and `sendmsg(2)` from the mapping: one copy, made by the kernel, head and file in one call.
//!
//! The file is mapped in windows, which bounds the address space and page tables of a large file. User space never reads
//! mapped pages ([`Span`] has no way to), so a file truncated meanwhile makes `sendmsg` fail with `EFAULT` instead of raising
//! `SIGBUS`. Bytes cut off within a page read as zeros, so the size is checked before and after each call.

use std::os::fd::BorrowedFd;

use nix::errno::Errno;

use super::attempt::{Attempt, Moved};
use zerosend_sys::memory::{Advice, Mapping, Span};
use zerosend_sys::page::page_size;
use zerosend_sys::{Kernel, SysResult};

/// Bytes mapped at once. A file up to this size is mapped whole.
const WINDOW: u64 = 16 * 1024 * 1024;

/// The mapped range of the file.
#[derive(Default)]
pub(super) struct Window {
    mapping: Option<Mapping>,
    start: u64,
    end: u64,
}

impl Window {
    /// The next bytes of the file: at most `length`, fewer at the end of the window. Maps the next window when the
    /// current one ends before `offset`.
    pub fn span<K: Kernel>(
        &mut self,
        kernel: &mut K,
        file: BorrowedFd<'_>,
        offset: u64,
        length: usize,
        syscalls: &mut u64,
    ) -> SysResult<Span<'_>> {
        if !(self.start..self.end).contains(&offset) {
            // Unmapped before the next window is mapped.
            self.mapping = None;
        }
        let mapping = match &mut self.mapping {
            Some(mapping) => mapping,
            none => {
                let start = offset - offset % page_size();
                let size = (offset - start + length as u64).clamp(1, WINDOW);
                *syscalls += 1;
                let mapping = kernel.map(file, start, size as usize).map_err(|errno| match errno {
                    Errno::EINTR | Errno::EAGAIN => errno,
                    // File systems that cannot map have other errors too (procfs: EIO).
                    _ => Errno::ENODEV,
                })?;
                if size == WINDOW {
                    *syscalls += 1;
                    let _ = mapping.advise(Advice::Sequential);
                }
                (self.start, self.end) = (start, start + mapping.len() as u64);
                none.insert(mapping)
            }
        };
        Ok(mapping.span((offset - self.start) as usize, length))
    }
}

pub(super) fn attempt<K: Kernel>(
    window: &mut Window,
    kernel: &mut K,
    mut attempt: Attempt<'_>,
    file: BorrowedFd<'_>,
    kept: Option<&Mapping>,
) -> SysResult<Moved> {
    attempt.check_mappable(kernel, file)?;
    let wanted = attempt.length;
    let Some(length) = attempt.resident_len(kernel, file, wanted) else { return Ok(Moved::Cold) };
    let left = usize::try_from(attempt.left).unwrap_or(usize::MAX);
    let span = match kept.filter(|mapping| attempt.offset < mapping.len() as u64) {
        Some(mapping) => mapping.span(attempt.offset as usize, left),
        None => window.span(kernel, file, attempt.offset, left, attempt.syscalls)?,
    };
    // Checked before the call, so that no byte beyond the end is sent, and after it, for a truncation in between. Not
    // before mapping: the size of a file that cannot be mapped may be meaningless.
    let length = length.min(attempt.file_len_left(kernel, file)?);
    if length == 0 {
        return Ok(Moved::EndOfFile);
    }
    let span = span.first(length);
    let heads = attempt.head_len();
    let more = attempt.more_after(span.len());
    *attempt.syscalls += 1;
    match kernel.gather_span(attempt.out, attempt.heads, span, attempt.target, more) {
        Err(Errno::EFAULT) => attempt.fault(kernel, file, span.len()),
        Err(errno) => Err(errno),
        Ok(sent) if attempt.is_truncated_within(kernel, file, sent.saturating_sub(heads))? => Ok(Moved::EndOfFile),
        Ok(sent) => Ok(Moved::of(sent, heads + span.len())),
    }
}
