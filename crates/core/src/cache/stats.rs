//! Statistics of a cache.

use crate::stats::Counter;

/// Passes the counters of a cache to the macro `$define`: the documentation and name of each.
#[macro_export]
macro_rules! cache_counters {
    ($define:ident) => {
        $define! {
            /// Lookups that found a fresh file.
            hits,
            /// All other lookups, those of missing files included.
            misses,
            /// Comparisons with the disk.
            revalidations,
            /// Files that had changed on the disk.
            stale,
            /// Files removed to make room for others.
            evictions,
            /// Files that were served but not kept: too large, or changed a moment ago.
            rejected,
            /// Lookups of a missing file that were answered from memory.
            negative_hits,
        }
    };
}

macro_rules! define_counters {
    ($($(#[$doc:meta])* $name:ident,)*) => {
        /// A snapshot of the statistics of a cache.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
        pub struct CacheStats {
            /// Files in the cache.
            pub files: u64,
            /// Bytes of these files.
            pub bytes: u64,
            /// Mapped files among them.
            pub mapped: u64,
            $($(#[$doc])* pub $name: u64,)*
        }

        /// The counters behind [`CacheStats`].
        #[derive(Default)]
        pub(super) struct Counters {
            $(pub $name: Counter,)*
        }

        impl Counters {
            pub fn snapshot(&self, files: u64, bytes: u64, mapped: u64) -> CacheStats {
                CacheStats { files, bytes, mapped, $($name: self.$name.get(),)* }
            }
        }
    };
}

cache_counters!(define_counters);
