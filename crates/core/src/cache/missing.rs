//! Files that were looked up and not found, so that a repeated lookup needs no system call.

use lru::LruCache;

use super::key::Key;
use crate::fs::Identity;

/// A file that was missing.
#[derive(Clone, Copy)]
pub(super) struct Missing {
    /// When, in milliseconds of the cache's clock.
    pub since: u64,
    /// In which directory.
    pub root: Option<Identity>,
}

/// Missing files in the order of their last use.
pub(super) struct MissingFiles(LruCache<Key, Missing>);

impl MissingFiles {
    pub fn new() -> Self {
        Self(LruCache::unbounded())
    }

    pub fn get(&mut self, key: &[u8]) -> Option<Missing> {
        self.0.get(key).copied()
    }

    /// Adds a file and removes the least recently used one beyond `max`.
    pub fn insert(&mut self, key: Key, missing: Missing, max: usize) {
        self.0.put(key, missing);
        if self.0.len() > max {
            self.0.pop_lru();
        }
    }

    pub fn remove(&mut self, key: &[u8]) {
        self.0.pop(key);
    }

    pub fn clear(&mut self) {
        self.0.clear();
    }
}
