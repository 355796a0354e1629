//! Statistics of a cache.

use crate::stats::Counter;

/// A snapshot of the statistics of a cache.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct CacheStats {
    /// Files in the cache.
    pub files: u64,
    /// Bytes of these files.
    pub bytes: u64,
    /// Mapped files among them.
    pub mapped: u64,
    /// Lookups that found a fresh file.
    pub hits: u64,
    /// All other lookups, those of missing files included.
    pub misses: u64,
    /// Comparisons with the disk.
    pub revalidations: u64,
    /// Files that had changed on the disk.
    pub stale: u64,
    /// Files removed to make room for others.
    pub evictions: u64,
    /// Files that were served but not kept: too large, or changed a moment ago.
    pub rejected: u64,
    /// Lookups of a missing file that were answered from memory.
    pub negative_hits: u64,
}

/// The counters behind [`CacheStats`].
#[derive(Default)]
pub(super) struct Counters {
    pub hits: Counter,
    pub misses: Counter,
    pub revalidations: Counter,
    pub stale: Counter,
    pub evictions: Counter,
    pub rejected: Counter,
    pub negative_hits: Counter,
}
