//! The question every method without a flag for it asks first: may these bytes be moved without waiting for the disk?

use std::os::fd::BorrowedFd;

use super::{Attempt, Disk};
use crate::sys::Kernel;
use crate::sys::residency::Residency;

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
    *attempt.syscalls += 1;
    match kernel.resident(file, attempt.offset, wanted as u64) {
        Residency::Resident => Some(wanted),
        Residency::Cold | Residency::Unknown if attempt.offset < *attempt.warm_until => {
            Some((*attempt.warm_until - attempt.offset) as usize)
        }
        Residency::Cold | Residency::Unknown => None,
    }
}
