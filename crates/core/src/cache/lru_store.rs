//! The cached files in the order of their last use, within three limits: files, bytes, and mappings.
//!
//! The order is kept by the `lru` crate, the sums are kept here. Every operation is O(1), evictions counted to the insertion
//! that caused them. Removed files are returned, so that the caller unmaps and closes them after it has released its lock.

use std::sync::Arc;

use lru::LruCache;

use super::entry::CachedFile;
use super::key::Key;

/// The limits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Limits {
    pub files: usize,
    pub bytes: u64,
    pub mapped: usize,
}

/// A file, and when it was last compared with the disk, in milliseconds of the cache's clock.
pub(super) struct Entry {
    pub file: Arc<CachedFile>,
    pub checked: u64,
}

/// The cached files.
pub(super) struct LruStore {
    entries: LruCache<Key, Entry>,
    bytes: u64,
    mapped: usize,
}

impl LruStore {
    pub fn new() -> Self {
        // Unbounded: `insert` applies the limits.
        Self { entries: LruCache::unbounded(), bytes: 0, mapped: 0 }
    }

    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Sum of the file sizes.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Number of mapped files.
    pub fn mapped(&self) -> usize {
        self.mapped
    }

    /// The entry, which becomes the most recently used.
    pub fn get(&mut self, key: &[u8]) -> Option<&mut Entry> {
        self.entries.get_mut(key)
    }

    /// Adds a file or replaces the one with its key, then evicts until all limits hold. A file that exceeds a limit alone is
    /// evicted at once. Returns the replaced file and the evicted ones.
    pub fn insert(&mut self, key: Key, entry: Entry, limits: Limits) -> (Option<Entry>, Vec<Entry>) {
        self.bytes += entry.file.meta().size;
        self.mapped += usize::from(entry.file.is_mapped());
        let replaced = self.entries.put(key, entry);
        if let Some(replaced) = &replaced {
            self.subtract(&replaced.file);
        }
        let mut evicted = Vec::new();
        while self.len() > limits.files || self.bytes > limits.bytes || self.mapped > limits.mapped {
            let Some((_, entry)) = self.entries.pop_lru() else { break };
            self.subtract(&entry.file);
            evicted.push(entry);
        }
        (replaced, evicted)
    }

    /// Removes and returns the entry.
    pub fn remove(&mut self, key: &[u8]) -> Option<Entry> {
        let entry = self.entries.pop(key)?;
        self.subtract(&entry.file);
        Some(entry)
    }

    /// Removes and returns the entry if it holds this very file.
    pub fn remove_file(&mut self, key: &[u8], file: &Arc<CachedFile>) -> Option<Entry> {
        let is_same = self.entries.peek(key).is_some_and(|entry| Arc::ptr_eq(file, &entry.file));
        if is_same { self.remove(key) } else { None }
    }

    /// The keys of all files that satisfy `matches`.
    pub fn keys_of(&self, matches: impl Fn(&CachedFile) -> bool) -> Vec<Key> {
        self.entries.iter().filter(|(_, entry)| matches(&entry.file)).map(|(key, _)| key.clone()).collect()
    }

    /// All files, the most recently used first.
    pub fn files(&self) -> Vec<Arc<CachedFile>> {
        self.entries.iter().map(|(_, entry)| entry.file.clone()).collect()
    }

    fn subtract(&mut self, file: &CachedFile) {
        self.bytes -= file.meta().size;
        self.mapped -= usize::from(file.is_mapped());
    }
}
