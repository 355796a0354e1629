//! Which files are kept, in the order of their last use, within three budgets: files, bytes, and mappings.
//!
//! The order is the `lru` crate's; the sums are ours. Every operation is O(1), evictions counted to the insertion that
//! caused them.

use std::sync::Arc;

use lru::LruCache;

use super::entry::CachedFile;

/// What the cache may hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Budget {
    pub files: usize,
    pub bytes: u64,
    pub mapped: usize,
}

/// A key: the root it was asked for below (0: none), and the path.
pub(super) type Key = Box<[u8]>;

/// A file, and when it was last compared with the disk, in milliseconds of the cache's clock.
pub(super) struct Entry {
    pub file: Arc<CachedFile>,
    pub checked: u64,
}

/// The files that are kept.
pub(super) struct Kept {
    entries: LruCache<Key, Entry>,
    pub bytes: u64,
    pub mapped: usize,
}

impl Kept {
    pub fn new() -> Self {
        // Unbounded, because the bounds are the budget's.
        Self { entries: LruCache::unbounded(), bytes: 0, mapped: 0 }
    }

    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// The entry, which is then the last used.
    pub fn get(&mut self, key: &[u8]) -> Option<&mut Entry> {
        self.entries.get_mut(key)
    }

    /// Adds a file, in place of the one with its key; gives how many had to go for it. One that is over the budget by
    /// itself goes at once.
    pub fn insert(&mut self, key: Key, entry: Entry, budget: Budget) -> u64 {
        self.bytes += entry.file.meta().size;
        self.mapped += usize::from(entry.file.is_mapped());
        if let Some(old) = self.entries.put(key, entry) {
            self.discount(&old.file);
        }
        let mut evicted = 0;
        while self.len() > budget.files || self.bytes > budget.bytes || self.mapped > budget.mapped {
            let Some((_, entry)) = self.entries.pop_lru() else { break };
            self.discount(&entry.file);
            evicted += 1;
        }
        evicted
    }

    /// Removes the entry, if it is the one of `file` (or of any, with `None`).
    pub fn remove(&mut self, key: &[u8], file: Option<&Arc<CachedFile>>) -> bool {
        match self.entries.peek(key) {
            Some(entry) if file.is_none_or(|file| Arc::ptr_eq(file, &entry.file)) => {}
            _ => return false,
        }
        if let Some(entry) = self.entries.pop(key) {
            self.discount(&entry.file);
        }
        true
    }

    pub fn clear(&mut self) {
        self.entries.clear();
        self.bytes = 0;
        self.mapped = 0;
    }

    /// The keys of all entries that `matches` says yes to.
    pub fn keys_of(&self, matches: impl Fn(&CachedFile) -> bool) -> Vec<Key> {
        self.entries.iter().filter(|(_, entry)| matches(&entry.file)).map(|(key, _)| key.clone()).collect()
    }

    /// All files, the last used first.
    pub fn files(&self) -> Vec<Arc<CachedFile>> {
        self.entries.iter().map(|(_, entry)| entry.file.clone()).collect()
    }

    fn discount(&mut self, file: &CachedFile) {
        self.bytes -= file.meta().size;
        self.mapped -= usize::from(file.is_mapped());
    }
}
