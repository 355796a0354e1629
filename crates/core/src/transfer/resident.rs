//! The question every method without a flag for it asks first: may these bytes be moved without waiting for the disk?

use std::os::fd::BorrowedFd;

use super::{Attempt, Disk};
use crate::sys::Kernel;
use crate::sys::residency::Residency;

/// Bytes asked about at once, when so many are left: a turn of a large file is a part of it, and the answer does for the
/// turns after it.
const WINDOW: u64 = 8 * 1024 * 1024;

/// How many of the next `wanted` bytes of `file` may be moved now; `None`: not one.
///
/// A page that was resident may be evicted before it is moved: then the call waits for the disk, as the exception.
pub(super) fn movable<K: Kernel>(
    kernel: &mut K,
    attempt: &mut Attempt<'_>,
    file: BorrowedFd<'_>,
    wanted: usize,
) -> Option<usize> {
    let end = attempt.offset + wanted as u64;
    if attempt.disk == Disk::MayBlock || end <= *attempt.warm_until {
        return Some(wanted);
    }
    let window = attempt.left.min(WINDOW);
    if window > wanted as u64 {
        *attempt.syscalls += 1;
        if kernel.resident(file, attempt.offset, window) == Residency::Resident {
            *attempt.warm_until = attempt.offset + window;
            return Some(wanted);
        }
    }
    *attempt.syscalls += 1;
    match kernel.resident(file, attempt.offset, wanted as u64) {
        Residency::Resident => Some(wanted),
        Residency::Cold | Residency::Unknown if attempt.offset < *attempt.warm_until => {
            Some((*attempt.warm_until - attempt.offset) as usize)
        }
        Residency::Cold | Residency::Unknown => None,
    }
}
