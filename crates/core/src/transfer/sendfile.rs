//! `sendfile(2)`: the pages of the page cache become the socket's own; nothing is copied on the way to a device with
//! scatter-gather.
//!
//! One call moves at most 0x7ffff000 bytes. It has no flag for "only what is resident", so residency is asked first.
//! A head goes before it with `MSG_MORE` (see `mod.rs`), so that head and first page share a packet.

use super::{Attempt, Disk, Moved};
use crate::sys::residency::Residency;
use crate::sys::{Kernel, SysResult};

/// The most that one call moves: `MAX_RW_COUNT` of the kernel.
const MAX_COUNT: usize = 0x7fff_f000;

pub(super) fn attempt<K: Kernel>(kernel: &mut K, attempt: Attempt<'_>) -> SysResult<Moved> {
    let length = attempt.length.min(MAX_COUNT);
    let end = attempt.offset + length as u64;
    if attempt.disk == Disk::ResidentOnly && end > *attempt.warm_until {
        *attempt.syscalls += 1;
        let length = match kernel.resident(attempt.file, attempt.offset, length as u64) {
            Residency::Resident => length,
            Residency::Cold | Residency::Unknown if attempt.offset < *attempt.warm_until => {
                (*attempt.warm_until - attempt.offset) as usize
            }
            Residency::Cold | Residency::Unknown => return Ok(Moved::Cold),
        };
        return send(kernel, attempt, length);
    }
    send(kernel, attempt, length)
}

fn send<K: Kernel>(kernel: &mut K, attempt: Attempt<'_>, length: usize) -> SysResult<Moved> {
    *attempt.syscalls += 1;
    let sent = kernel.sendfile(attempt.out, attempt.file, attempt.offset, length)?;
    Ok(match sent {
        0 => Moved::EndOfFile,
        sent if sent < length => Moved::Short(sent),
        sent => Moved::Bytes(sent),
    })
}
