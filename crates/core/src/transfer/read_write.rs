//! `pread(2)` into a buffer, then `sendmsg(2)` (or `writev(2)`) of head and buffer in one call.
//!
//! Two copies, yet the cheapest for small files, and the one method that works for every file and every target. What
//! the target does not take is read again at the next turn: nothing is kept between turns but the cursor.

use std::cell::RefCell;
use std::io::IoSlice;
use std::os::fd::BorrowedFd;

use nix::errno::Errno;

use super::{Attempt, Disk, MAX_GATHER, Moved, Source};
use crate::sys::{Kernel, SysResult};

/// Bytes read and sent in one attempt, unless the user says otherwise. It stays in a core's second-level cache.
pub const DEFAULT_BUFFER: usize = 128 * 1024;

thread_local! {
    static SCRATCH: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

pub(super) fn attempt<K: Kernel>(kernel: &mut K, attempt: Attempt<'_>, source: Source<'_>) -> SysResult<Moved> {
    match source {
        Source::File(file, _) => from_file(kernel, attempt, file),
        // The kernel's copy is enough: the pages are memory already.
        Source::Pages(pages) => {
            let span = pages.span(attempt.offset as usize, attempt.length);
            let offered = span.len() + attempt.heads.iter().map(|head| head.len()).sum::<usize>();
            let how = attempt.target.gather(attempt.followed(span.len() as u64));
            *attempt.syscalls += 1;
            let sent = kernel.gather_span(attempt.out, attempt.heads, span, how)?;
            Ok(if sent < offered { Moved::Short(sent) } else { Moved::Bytes(sent) })
        }
    }
}

fn from_file<K: Kernel>(kernel: &mut K, attempt: Attempt<'_>, file: BorrowedFd<'_>) -> SysResult<Moved> {
    SCRATCH.with_borrow_mut(|scratch| {
        if scratch.len() < attempt.buffer {
            scratch.resize(attempt.buffer, 0);
        }
        let wanted = attempt.length.min(attempt.buffer);
        let warm = attempt.offset < *attempt.warm_until;
        let buffer = &mut scratch[..wanted];
        let count = match read(kernel, file, buffer, attempt.offset, attempt.disk, warm, attempt.syscalls)? {
            None => return Ok(Moved::Cold),
            Some(0) => return Ok(Moved::EndOfFile),
            Some(count) => count,
        };
        let mut slices = [IoSlice::new(&[]); MAX_GATHER + 1];
        slices[..attempt.heads.len()].copy_from_slice(attempt.heads);
        slices[attempt.heads.len()] = IoSlice::new(&buffer[..count]);
        let slices = &slices[..=attempt.heads.len()];
        let offered: usize = slices.iter().map(|slice| slice.len()).sum();

        let how = attempt.target.gather(attempt.followed(count as u64));
        *attempt.syscalls += 1;
        let sent = kernel.gather(attempt.out, slices, how)?;
        Ok(if sent < offered { Moved::Short(sent) } else { Moved::Bytes(sent) })
    })
}

/// Reads at `offset`: `None` when the disk would have to be waited for and must not be. `warm`: these bytes have been
/// read ahead already, so that a wait, should they have been evicted since, is the exception.
pub(super) fn read<K: Kernel>(
    kernel: &mut K,
    file: BorrowedFd<'_>,
    buffer: &mut [u8],
    offset: u64,
    disk: Disk,
    warm: bool,
    syscalls: &mut u64,
) -> SysResult<Option<usize>> {
    if disk == Disk::ResidentOnly {
        *syscalls += 1;
        match kernel.pread(file, buffer, offset, true) {
            Err(Errno::EAGAIN | Errno::EOPNOTSUPP | Errno::ENOSYS | Errno::EPERM) if warm => {}
            Err(Errno::EAGAIN | Errno::EOPNOTSUPP | Errno::ENOSYS | Errno::EPERM) => return Ok(None),
            other => return other.map(Some),
        }
    }
    *syscalls += 1;
    kernel.pread(file, buffer, offset, false).map(Some)
}
