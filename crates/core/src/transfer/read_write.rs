//! `pread(2)` into a buffer, then `sendmsg(2)` (or `writev(2)`) of head and buffer in one call.
//!
//! Two copies, yet the cheapest for small files, and the one method that works for every file and every target. What
//! the target does not take is read again at the next turn: nothing is kept between turns but the cursor.

use std::cell::RefCell;
use std::io::IoSlice;
use std::os::fd::BorrowedFd;

use nix::errno::Errno;

use super::{Attempt, Disk, MAX_GATHER, Moved, Resident, Source};
use zerosend_sys::io::Gather;
use zerosend_sys::{Kernel, SysResult};

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
        let buffer = &mut scratch[..wanted];
        let Attempt { offset, disk, .. } = attempt;
        let count = match read(kernel, file, buffer, offset, disk, attempt.resident, attempt.syscalls)? {
            None => return Ok(Moved::Cold),
            Some(0) => return Ok(Moved::EndOfFile),
            Some(count) => count,
        };
        let offered = attempt.heads.iter().map(|head| head.len()).sum::<usize>() + count;
        let how = attempt.target.gather(attempt.followed(count as u64));
        *attempt.syscalls += 1;
        let sent = send(kernel, attempt.out, attempt.heads, &buffer[..count], how)?;
        Ok(if sent < offered { Moved::Short(sent) } else { Moved::Bytes(sent) })
    })
}

/// Sends `heads` and `bytes` in one call.
pub(super) fn send<K: Kernel>(
    kernel: &mut K,
    out: BorrowedFd<'_>,
    heads: &[IoSlice<'_>],
    bytes: &[u8],
    how: Gather,
) -> SysResult<usize> {
    let mut slices = [IoSlice::new(&[]); MAX_GATHER + 1];
    slices[..heads.len()].copy_from_slice(heads);
    slices[heads.len()] = IoSlice::new(bytes);
    kernel.gather(out, &slices[..=heads.len()], how)
}

/// Reads at `offset`: `None` when the disk would have to be waited for and must not be.
pub(super) fn read<K: Kernel>(
    kernel: &mut K,
    file: BorrowedFd<'_>,
    buffer: &mut [u8],
    offset: u64,
    disk: Disk,
    resident: &mut Resident,
    syscalls: &mut u64,
) -> SysResult<Option<usize>> {
    if disk == Disk::ResidentOnly && resident.is_silent() {
        resident.wants_bytes = true;
        return Ok(None);
    }
    let mut buffer = buffer;
    let mut may_block = disk == Disk::MayBlock || resident.is_memory();
    if let Some(brought) = resident.brought_on_overlay(offset) {
        if brought == 0 && !may_block {
            return Ok(None);
        }
        let length = if may_block { buffer.len() } else { buffer.len().min(brought) };
        buffer = &mut buffer[..length];
        may_block = true;
    }
    if !may_block {
        *syscalls += 1;
        match kernel.pread(file, buffer, offset, true) {
            Err(errno @ (Errno::EAGAIN | Errno::EOPNOTSUPP | Errno::ENOSYS | Errno::EPERM)) => {
                resident.refused(offset, errno != Errno::EAGAIN);
                return Ok(None);
            }
            other => return other.map(Some),
        }
    }
    *syscalls += 1;
    match kernel.pread(file, buffer, offset, false) {
        // Only a FUSE daemon answers so. For the caller EAGAIN means that the target takes no more.
        Err(Errno::EAGAIN) => Err(Errno::EIO),
        other => other.map(Some),
    }
}
