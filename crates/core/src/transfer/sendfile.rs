//! `sendfile(2)`: the socket refers to the pages of the page cache. Nothing is copied on the way to a device with
//! scatter-gather.
//!
//! It has no flag for "resident bytes only", so residency is checked before. Memory in front of the file is sent in its own
//! call with `MSG_MORE`, so that head and first page share a packet.

use std::os::fd::BorrowedFd;

use super::attempt::{Attempt, Moved};
use zerosend_sys::{Kernel, SysResult};

/// The maximum of bytes that one call moves: `MAX_RW_COUNT` of the kernel.
const MAX_COUNT: usize = 0x7fff_f000;

pub(super) fn attempt<K: Kernel>(kernel: &mut K, mut attempt: Attempt<'_>, file: BorrowedFd<'_>) -> SysResult<Moved> {
    let wanted = attempt.length.min(MAX_COUNT);
    let Some(length) = attempt.resident_len(kernel, file, wanted) else { return Ok(Moved::Cold) };
    *attempt.syscalls += 1;
    match kernel.sendfile(attempt.out, file, attempt.offset, length)? {
        0 => Ok(Moved::EndOfFile),
        sent => Ok(Moved::of(sent, length)),
    }
}
