//! The descriptors that connections leave to the files they request.

use std::os::fd::RawFd;

use nix::sys::resource::{Resource, getrlimit};

/// Descriptors that are not for connections; a quarter of the limit where that is less.
const RESERVED: u64 = 16;

/// The last descriptors of the process.
pub(super) struct ReservedDescriptors {
    first: RawFd,
}

impl ReservedDescriptors {
    /// Those of the current limit.
    pub fn new() -> Self {
        let limit = getrlimit(Resource::RLIMIT_NOFILE).map_or(RESERVED * 4, |(soft, _)| soft);
        Self { first: RawFd::try_from(limit - RESERVED.min(limit / 4)).unwrap_or(RawFd::MAX) }
    }

    /// Whether `descriptor`, which was the lowest free one, is reserved.
    pub fn contains(&mut self, descriptor: RawFd) -> bool {
        if descriptor < self.first {
            return false;
        }
        // The limit may have been raised, see prlimit(2).
        *self = Self::new();
        descriptor >= self.first
    }
}
