//! What a cache may hold, and how it behaves.

use std::time::Duration;

pub use zerosend_sys::memory::Advice;

/// Bytes of the largest file that is kept in memory; a larger one is mapped. Below it a descriptor, an area of address space and
/// a partly used page per file would cost more than the copy.
pub const MAX_IN_MEMORY: u64 = 64 * 1024;

/// How often a cached file is compared with the disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Revalidate {
    /// At every hit: one `statx`.
    #[default]
    Always,
    /// At the first hit after this time.
    After(Duration),
    /// Never: a file is served until it is invalidated or evicted.
    Never,
}

/// The limits and the behavior of a [`FileCache`](super::FileCache).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CacheOptions {
    /// Maximum number of files. Default 1024.
    pub max_files: usize,
    /// Maximum bytes of all files together. Default 512 MiB.
    pub max_bytes: u64,
    /// Maximum bytes of one file; a larger one is served but not kept. Default 16 MiB.
    pub max_file_size: u64,
    /// Maximum number of mapped files; each holds a descriptor. Default 256.
    pub max_mapped: usize,
    /// When a hit is compared with the disk. Default [`Revalidate::Always`].
    pub revalidate: Revalidate,
    /// Read a mapped file into the page cache when it is loaded by a caller that may block. Default false.
    pub populate: bool,
    /// `madvise(2)` for mappings. Default [`Advice::Normal`].
    pub advice: Advice,
}

impl Default for CacheOptions {
    fn default() -> Self {
        Self {
            max_files: 1024,
            max_bytes: 512 * 1024 * 1024,
            max_file_size: 16 * 1024 * 1024,
            max_mapped: 256,
            revalidate: Revalidate::Always,
            populate: false,
            advice: Advice::Normal,
        }
    }
}
