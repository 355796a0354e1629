//! `pread(2)` into a buffer, then `sendmsg(2)` (or `writev(2)`) of head and buffer in one call.
//!
//! Two copies, but the cheapest method for small files, and the only one that works for every file and target. Bytes
//! that the target does not accept are read again in the next turn: no state is kept between turns.

use std::cell::RefCell;
use std::io::IoSlice;
use std::os::fd::BorrowedFd;

use nix::errno::Errno;

use super::attempt::{Attempt, Disk, Moved, PartSource};
use super::residency::FileResidency;
use zerosend_sys::io::{MAX_GATHER, Target};
use zerosend_sys::{Kernel, SysResult};

/// Default of the bytes read and sent in one attempt. A buffer of this size fits into the second-level cache of a core.
pub const DEFAULT_BUFFER: usize = 128 * 1024;

thread_local! {
    static SCRATCH: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

pub(super) fn attempt<K: Kernel>(kernel: &mut K, attempt: Attempt<'_>, source: PartSource<'_>) -> SysResult<Moved> {
    match source {
        PartSource::File(file, _) => send_file(kernel, attempt, file),
        // The pages are memory already: only the kernel copies them.
        PartSource::Pages(pages) => {
            let span = pages.span(attempt.offset as usize, attempt.length);
            let more = attempt.more_after(span.len());
            *attempt.syscalls += 1;
            let sent = kernel.gather_span(attempt.out, attempt.heads, span, attempt.target, more)?;
            Ok(Moved::of(sent, attempt.head_len() + span.len()))
        }
    }
}

fn send_file<K: Kernel>(kernel: &mut K, attempt: Attempt<'_>, file: BorrowedFd<'_>) -> SysResult<Moved> {
    SCRATCH.with_borrow_mut(|scratch| {
        if scratch.len() < attempt.buffer {
            scratch.resize(attempt.buffer, 0);
        }
        let wanted = attempt.length.min(attempt.buffer);
        let buffer = &mut scratch[..wanted];
        let Attempt { offset, disk, .. } = attempt;
        let count = match read(kernel, file, buffer, offset, disk, attempt.residency, attempt.syscalls)? {
            None => return Ok(Moved::Cold),
            Some(0) => return Ok(Moved::EndOfFile),
            Some(count) => count,
        };
        let more = attempt.more_after(count);
        *attempt.syscalls += 1;
        let sent = send(kernel, attempt.out, attempt.heads, &buffer[..count], attempt.target, more)?;
        Ok(Moved::of(sent, attempt.head_len() + count))
    })
}

/// Sends `heads` and `bytes` in one call.
pub(super) fn send<K: Kernel>(
    kernel: &mut K,
    out: BorrowedFd<'_>,
    heads: &[IoSlice<'_>],
    bytes: &[u8],
    target: Target,
    more: bool,
) -> SysResult<usize> {
    let mut slices = [IoSlice::new(&[]); MAX_GATHER + 1];
    slices[..heads.len()].copy_from_slice(heads);
    slices[heads.len()] = IoSlice::new(bytes);
    kernel.gather(out, &slices[..=heads.len()], target, more)
}

/// Reads at `offset`. `None`: it would have to wait for a disk, and must not.
pub(super) fn read<K: Kernel>(
    kernel: &mut K,
    file: BorrowedFd<'_>,
    buffer: &mut [u8],
    offset: u64,
    disk: Disk,
    residency: &mut FileResidency,
    syscalls: &mut u64,
) -> SysResult<Option<usize>> {
    if disk == Disk::ResidentOnly && residency.is_unreported() {
        residency.wants_bytes = true;
        return Ok(None);
    }
    let mut buffer = buffer;
    let mut may_block = disk == Disk::MayBlock || residency.is_in_memory();
    if let Some(prefetched) = residency.prefetched_on_overlay(offset) {
        if prefetched == 0 && !may_block {
            return Ok(None);
        }
        let length = if may_block { buffer.len() } else { buffer.len().min(prefetched) };
        buffer = &mut buffer[..length];
        may_block = true;
    }
    if !may_block {
        *syscalls += 1;
        match kernel.pread(file, buffer, offset, true) {
            Err(errno @ (Errno::EAGAIN | Errno::EOPNOTSUPP | Errno::ENOSYS | Errno::EPERM)) => {
                residency.set_cold(offset, errno != Errno::EAGAIN);
                return Ok(None);
            }
            other => return other.map(Some),
        }
    }
    *syscalls += 1;
    match kernel.pread(file, buffer, offset, false) {
        // Only a FUSE daemon fails with EAGAIN here. The caller would take it for a target that would block.
        Err(Errno::EAGAIN) => Err(Errno::EIO),
        other => other.map(Some),
    }
}
