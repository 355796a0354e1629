//! `sendfile(2)`: the pages of the page cache become the socket's own; nothing is copied on the way to a device with
//! scatter-gather.
//!
//! One call moves at most 0x7ffff000 bytes. It has no flag for "only what is resident", so residency is asked first.
//! A head goes before it with `MSG_MORE` (see `mod.rs`), so that head and first page share a packet.

use std::os::fd::BorrowedFd;

use super::{Attempt, Moved, resident};
use zerosend_sys::{Kernel, SysResult};

/// The most that one call moves: `MAX_RW_COUNT` of the kernel.
const MAX_COUNT: usize = 0x7fff_f000;

pub(super) fn attempt<K: Kernel>(kernel: &mut K, mut attempt: Attempt<'_>, file: BorrowedFd<'_>) -> SysResult<Moved> {
    let wanted = attempt.length.min(MAX_COUNT);
    let Some(length) = resident::movable(kernel, &mut attempt, file, wanted) else { return Ok(Moved::Cold) };
    *attempt.syscalls += 1;
    let sent = kernel.sendfile(attempt.out, file, attempt.offset, length)?;
    Ok(match sent {
        0 => Moved::EndOfFile,
        sent if sent < length => Moved::Short(sent),
        sent => Moved::Bytes(sent),
    })
}
