//! `mmap(2)` and `sendmsg(2)` from the mapping: one copy, made by the kernel, head and file in one call.
//!
//! The mapping slides over the file in windows, so that a file of 5 GiB costs no 5 GiB of address space and page tables.
//! Mapped pages are never read by user space (there is no type here that could): a file truncated underneath is `EFAULT`
//! to `sendmsg`, not a signal. What a truncation cuts off within a page reads as zeros instead, so the size is asked
//! before and after each call.

use std::os::fd::BorrowedFd;

use nix::errno::Errno;

use super::{Attempt, Moved, resident, splice};
use zerosend_sys::memory::{Mapping, Span};
use zerosend_sys::page::page_size;
use zerosend_sys::{Kernel, SysResult};

/// Bytes mapped at once: a file up to this size is mapped whole.
const WINDOW: u64 = 16 * 1024 * 1024;

/// The part of the file that is mapped.
#[derive(Default)]
pub(super) struct Window {
    mapping: Option<Mapping>,
    start: u64,
    end: u64,
}

impl Window {
    /// The next bytes of the file, `length` at most, and fewer at the end of the window, which moves on when it has been
    /// used up.
    pub fn span<K: Kernel>(
        &mut self,
        kernel: &mut K,
        file: BorrowedFd<'_>,
        offset: u64,
        length: usize,
        syscalls: &mut u64,
    ) -> SysResult<Span<'_>> {
        if !(self.start..self.end).contains(&offset) {
            // The old one first: the two need not exist at the same time.
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
                    // Whatever a filesystem says here (procfs: EIO), it means that it maps nothing.
                    _ => Errno::ENODEV,
                })?;
                if size == WINDOW {
                    *syscalls += 1;
                    let _ = mapping.advise_sequential();
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
    let wanted = attempt.length;
    resident::check_mappable(kernel, &mut attempt, file)?;
    let Some(length) = resident::movable(kernel, &mut attempt, file, wanted) else { return Ok(Moved::Cold) };
    let reach = usize::try_from(attempt.left).unwrap_or(usize::MAX);
    let span = match kept.filter(|mapping| attempt.offset < mapping.len() as u64) {
        Some(mapping) => mapping.span(attempt.offset as usize, reach),
        None => window.span(kernel, file, attempt.offset, reach, attempt.syscalls)?,
    };
    // Before the call, so that no byte beyond the end goes out; and after it, for what changed in between. Behind the mapping:
    // a file that cannot be mapped may have a size that means nothing.
    let length = length.min(splice::left_of(kernel, &mut attempt, file)?);
    if length == 0 {
        return Ok(Moved::EndOfFile);
    }
    let span = span.first(length);
    let heads: usize = attempt.heads.iter().map(|head| head.len()).sum();
    let offered = heads + span.len();
    let how = attempt.target.gather(attempt.followed(span.len() as u64));
    *attempt.syscalls += 1;
    match kernel.gather_span(attempt.out, attempt.heads, span, how) {
        Err(Errno::EFAULT) => lost(kernel, &mut attempt, file, span.len()),
        Err(errno) => Err(errno),
        Ok(sent) => Ok(if !splice::still_there(kernel, &mut attempt, file, sent.saturating_sub(heads))? {
            Moved::EndOfFile
        } else if sent < offered {
            Moved::Short(sent)
        } else {
            Moved::Bytes(sent)
        }),
    }
}

/// What `EFAULT` means: the file is shorter now, or the disk failed.
pub(super) fn lost<K: Kernel>(
    kernel: &mut K,
    attempt: &mut Attempt<'_>,
    file: BorrowedFd<'_>,
    count: usize,
) -> SysResult<Moved> {
    if splice::still_there(kernel, attempt, file, count)? { Err(Errno::EIO) } else { Ok(Moved::EndOfFile) }
}
