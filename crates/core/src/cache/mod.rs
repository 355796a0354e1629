//! [`FileCache`]: frequently requested files, kept ready to be sent.
//!
//! A small file (up to [`MAX_IN_MEMORY`]) is held in memory: a hit costs one map lookup, one `statx` and, in the transfer, one
//! `sendmsg`; it needs neither a descriptor nor a mapping, so any number of them exhausts neither. A larger file, up to
//! [`CacheOptions::max_file_size`], stays open and mapped; [`CacheOptions::max_mapped`] limits their number. User space never
//! reads the mapped pages: they are passed to the kernel, which returns `EFAULT` for a file truncated underneath instead of
//! raising `SIGBUS`.
//!
//! | module | what it is for |
//! |---|---|
//! | `file_cache` | [`FileCache`]: lookup, revalidation, loading |
//! | `entry` | [`CachedFile`]: one version of a file |
//! | `origin` | where a file comes from: an absolute path, or a path below a root |
//! | `lru_store` | the files within the limits |
//! | `missing` | files that were not found |
//! | `single_flight` | concurrent requests for a file load it once |
//! | `key`, `options`, `stats` | keys, options and counters |
//!
//! Freshness: a hit is compared with the disk by [`FileMeta`](crate::fs::FileMeta), as often as [`Revalidate`] says. A file
//! that changed a moment ago is not kept, because its next version could have the same times.
//!
//! Locks: the state of the cache (files and missing files), and the set of keys being loaded. No thread holds both, and neither
//! is held during a system call: removed files are unmapped and closed after the state is unlocked. A thread that loads a file
//! holds a `Flight`, which is not a lock; other threads that want the same file wait on a condition variable.
//! `benches/cache.rs` measures the cost of the lock.

mod entry;
mod file_cache;
mod key;
mod lru_store;
mod missing;
mod options;
mod origin;
mod single_flight;
mod stats;

pub use entry::CachedFile;
pub(crate) use file_cache::Fetched;
pub use file_cache::FileCache;
pub use options::{Advice, CacheOptions, MAX_IN_MEMORY, Revalidate};
pub use stats::CacheStats;
