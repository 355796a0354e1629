//! [`FileCache`]: lookup, revalidation and loading.

use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use nix::errno::Errno;

use super::entry::{CachedFile, Loaded};
use super::lru_store::{Entry, Limits, LruStore};
use super::missing::{Missing, MissingFiles};
use super::options::{CacheOptions, MAX_IN_MEMORY, Revalidate};
use super::origin::{AbsolutePath, BelowRoot, Origin};
use super::single_flight::SingleFlight;
use super::stats::{CacheStats, Counters};
use crate::error::{Code, Error, Result};
use crate::fs::pseudo_file::{Inspection, inspect};
use crate::fs::{Access, Lookup, OpenFile, Visit};
use zerosend_sys::memory::Mapping;

struct State {
    files: LruStore,
    /// Empty under [`Revalidate::Always`], where the disk is asked each time anyway.
    missing: MissingFiles,
}

/// Files kept ready to be sent. See the [module](super).
pub struct FileCache {
    options: CacheOptions,
    state: Mutex<State>,
    single_flight: SingleFlight,
    counters: Counters,
    created: Instant,
    /// Number of invalidations. A load that began before one must not insert its file after it.
    epoch: AtomicU64,
    closed: AtomicBool,
}

impl std::fmt::Debug for FileCache {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("FileCache").field("options", &self.options).field("stats", &self.stats()).finish()
    }
}

/// The result of a lookup.
pub(crate) enum Fetched {
    /// A file, whether the cache keeps it or not.
    File(Arc<CachedFile>),
    /// Not a file; never [`Lookup::File`].
    Other(Lookup),
}

/// The result of checking the entry of a file.
enum Hit {
    Fresh(Arc<CachedFile>),
    /// No entry, or a stale one, which was removed.
    None,
    /// The comparison with the disk would block.
    WouldBlock,
}

impl FileCache {
    /// An empty cache. [`Code::InvalidArgument`] when `max_files` or `max_bytes` is 0.
    pub fn new(options: CacheOptions) -> Result<Self> {
        for (name, value) in [("maxFiles", options.max_files as u64), ("maxBytes", options.max_bytes)] {
            if value == 0 {
                let message = format!("invalid {name} 0: use 1 or more, or no cache");
                return Err(Error::new(Code::InvalidArgument, message));
            }
        }
        Ok(Self {
            options,
            state: Mutex::new(State { files: LruStore::new(), missing: MissingFiles::new() }),
            single_flight: SingleFlight::default(),
            counters: Counters::default(),
            created: Instant::now(),
            epoch: AtomicU64::new(0),
            closed: AtomicBool::new(false),
        })
    }

    /// The options as given.
    pub fn options(&self) -> &CacheOptions {
        &self.options
    }

    /// The file at an absolute path; symbolic links are followed. May block on the disk. Errors are those of opening the file
    /// (`ENOENT`, `EACCES`, [`Code::NotRegularFile`]), and [`Code::Closed`].
    pub fn get(&self, path: &Path) -> Result<Arc<CachedFile>> {
        if self.closed.load(Ordering::Relaxed) {
            return Err(Error::new(Code::Closed, "the cache is closed"));
        }
        match self.fetch(&AbsolutePath(path))? {
            Fetched::File(file) => Ok(file),
            // It was missing a moment ago and was not opened again.
            Fetched::Other(_) => Err(Error::system("open", Errno::ENOENT).with_path(path)),
        }
    }

    /// The file at `relative` below the root of `visit`, under the root's policy.
    pub(crate) fn get_under(&self, visit: &Visit<'_>, relative: &str) -> Result<Fetched> {
        self.fetch(&BelowRoot { visit, relative })
    }

    /// Removes the file at an absolute path, under every root it was loaded from. Returns whether there was one.
    pub fn invalidate(&self, path: &Path) -> bool {
        self.epoch.fetch_add(1, Ordering::Relaxed);
        let mut state = self.lock();
        state.missing.clear();
        let keys = state.files.keys_of(|file| file.path() == path);
        let removed: Vec<_> = keys.iter().filter_map(|key| state.files.remove(key)).collect();
        drop(state);
        !removed.is_empty()
    }

    /// Removes all files.
    pub fn clear(&self) {
        self.epoch.fetch_add(1, Ordering::Relaxed);
        let mut state = self.lock();
        let removed = std::mem::replace(&mut state.files, LruStore::new());
        state.missing.clear();
        drop(state);
        drop(removed);
    }

    /// Removes all files and keeps none from now on: [`FileCache::get`] fails, and sites serve files without the cache.
    pub fn close(&self) {
        self.closed.store(true, Ordering::Relaxed);
        self.clear();
    }

    /// All files in the cache, the most recently used first.
    pub fn entries(&self) -> Vec<Arc<CachedFile>> {
        self.lock().files.files()
    }

    /// A snapshot of the statistics.
    pub fn stats(&self) -> CacheStats {
        let files = &self.lock().files;
        self.counters.snapshot(files.len() as u64, files.bytes(), files.mapped() as u64)
    }

    fn fetch(&self, origin: &impl Origin) -> Result<Fetched> {
        let key = origin.key();
        let key = key.as_bytes();
        match self.hit(key, origin) {
            Hit::Fresh(file) => return Ok(Fetched::File(file)),
            Hit::WouldBlock => return Ok(Fetched::Other(Lookup::WouldBlock)),
            Hit::None => {}
        }
        if self.is_known_missing(key, origin) {
            return Ok(Fetched::Other(Lookup::Missing));
        }
        let _flight = if origin.access() == Access::MayBlock {
            let flight = self.single_flight.enter(key);
            // Another thread may have loaded the file since the check above.
            if let Hit::Fresh(file) = self.hit(key, origin) {
                return Ok(Fetched::File(file));
            }
            crate::failpoint::failpoint!("cache::load");
            Some(flight)
        } else {
            None
        };
        let epoch = self.epoch.load(Ordering::Relaxed);
        let fetched = match origin.open() {
            Ok(Lookup::File(file)) => self.load(key, origin, file, epoch)?,
            Ok(other) => {
                if matches!(other, Lookup::Missing) {
                    self.note_missing(key, origin);
                }
                Fetched::Other(other)
            }
            Err(error) => {
                self.counters.misses.add(1);
                if error.errno() == Some(Errno::ENOENT) {
                    self.note_missing(key, origin);
                }
                return Err(error);
            }
        };
        if !matches!(fetched, Fetched::Other(Lookup::WouldBlock)) {
            self.counters.misses.add(1);
        }
        Ok(fetched)
    }

    /// The file, if it is in the cache and unchanged on the disk.
    fn hit(&self, key: &[u8], origin: &impl Origin) -> Hit {
        let now = self.now();
        let (file, checked) = {
            let mut state = self.lock();
            let Some(entry) = state.files.get(key) else { return Hit::None };
            (entry.file.clone(), entry.checked)
        };
        let is_due = match self.options.revalidate {
            Revalidate::Always => true,
            Revalidate::After(after) => u128::from(now.saturating_sub(checked)) >= after.as_millis(),
            Revalidate::Never => false,
        };
        if is_due {
            if origin.access() == Access::CachedOnly && !file.is_local() {
                return Hit::WouldBlock;
            }
            self.counters.revalidations.add(1);
            if origin.stat() != Some(*file.meta()) {
                let removed = self.lock().files.remove_file(key, &file);
                if removed.is_some() {
                    self.counters.stale.add(1);
                }
                return Hit::None;
            }
            if let Revalidate::After(_) = self.options.revalidate
                && let Some(entry) = self.lock().files.get(key)
            {
                entry.checked = now;
            }
        }
        self.counters.hits.add(1);
        file.count_hit();
        Hit::Fresh(file)
    }

    /// Loads a file, and keeps it unless it is too large or changed a moment ago.
    fn load(&self, key: &[u8], origin: &impl Origin, file: OpenFile, epoch: u64) -> Result<Fetched> {
        let access = origin.access();
        let size = file.meta().size;
        let reject = |file| {
            self.counters.rejected.add(1);
            Ok(Fetched::File(Arc::new(CachedFile::open(origin.path(), file))))
        };
        match inspect(&file, size, access).map_err(|error| error.with_path(origin.path()))? {
            Inspection::Regular => {}
            Inspection::WouldBlock => return Ok(Fetched::Other(Lookup::WouldBlock)),
            Inspection::Pseudo(bytes) => {
                self.counters.rejected.add(1);
                return Ok(Fetched::File(Arc::new(CachedFile::snapshot(origin.path(), &file, bytes))));
            }
        }
        let closed = self.closed.load(Ordering::Relaxed);
        if closed || size > self.options.max_file_size.min(self.options.max_bytes) {
            return reject(file);
        }
        let loaded = if size <= MAX_IN_MEMORY {
            match CachedFile::read(origin.path(), file, access)? {
                Loaded::File(file) => file,
                Loaded::Unsettled(file) => return reject(file),
                Loaded::WouldBlock => return Ok(Fetched::Other(Lookup::WouldBlock)),
            }
        } else if !file.meta().is_settled() || self.options.max_mapped == 0 {
            return reject(file);
        } else {
            match CachedFile::map(origin.path(), file, |mapping| self.prepare(mapping, access)) {
                Ok(file) => file,
                Err(file) => return reject(file),
            }
        };
        let loaded = Arc::new(loaded);
        self.insert(key, loaded.clone(), epoch);
        Ok(Fetched::File(loaded))
    }

    fn insert(&self, key: &[u8], file: Arc<CachedFile>, epoch: u64) {
        let CacheOptions { max_files: files, max_bytes: bytes, max_mapped: mapped, .. } = self.options;
        let entry = Entry { file, checked: self.now() };
        let mut state = self.lock();
        if self.epoch.load(Ordering::Relaxed) == epoch {
            state.missing.remove(key);
            let removed = state.files.insert(key.into(), entry, Limits { files, bytes, mapped });
            drop(state);
            self.counters.evictions.add(removed.1.len() as u64);
        }
    }

    fn prepare(&self, mapping: &Mapping, access: Access) {
        // Both are optional: a kernel that refuses them still serves the file.
        let _ = mapping.advise(self.options.advice);
        if self.options.populate && access == Access::MayBlock {
            let _ = mapping.populate();
        }
    }

    /// Whether the file was missing a moment ago, in the directory that the root still is.
    fn is_known_missing(&self, key: &[u8], origin: &impl Origin) -> bool {
        let after = match self.options.revalidate {
            Revalidate::Always => return false,
            Revalidate::After(after) => after.as_millis(),
            Revalidate::Never => u128::MAX,
        };
        let now = self.now();
        let missing = self.lock().missing.get(key);
        let is_known = missing.is_some_and(|Missing { since, root }| {
            u128::from(now.saturating_sub(since)) < after && origin.root() == Ok(root)
        });
        if is_known {
            self.counters.misses.add(1);
            self.counters.negative_hits.add(1);
        }
        is_known
    }

    fn note_missing(&self, key: &[u8], origin: &impl Origin) {
        if self.options.revalidate == Revalidate::Always {
            return;
        }
        let Ok(root) = origin.root() else { return };
        let missing = Missing { since: self.now(), root };
        self.lock().missing.insert(key.into(), missing, self.options.max_files);
    }

    /// Milliseconds since the cache was created. 0 under [`Revalidate::Always`], which compares no times.
    fn now(&self) -> u64 {
        if self.options.revalidate == Revalidate::Always { 0 } else { self.created.elapsed().as_millis() as u64 }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Nothing panics while the lock is held.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
