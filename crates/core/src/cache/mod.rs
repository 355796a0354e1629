//! [`FileCache`]: files that are asked for again and again, kept ready to be sent.
//!
//! A small file (up to [`MAX_BLOCK`]) is a block of memory: a hit costs one map lookup, one `statx` and, in the transfer, one
//! `sendmsg`; it holds no descriptor and no mapping, so that any number of them exhausts neither. A larger one, up to
//! [`CacheOptions::max_file_size`], stays open and mapped; how many is bounded by [`CacheOptions::max_mapped`]. Mapped pages
//! are never read by user space: they go to the kernel, for which a file truncated underneath is `EFAULT` and no signal.
//!
//! | module | what it is for |
//! |---|---|
//! | `entry` | [`CachedFile`]: one version of a file |
//! | `lru` | which are kept, within the budgets |
//! | `flights` | each is loaded once, however many ask |
//!
//! Freshness: a hit is compared with the disk by [`FileMeta`], as often as [`Revalidate`] says. A file that was changed just
//! now is not kept, for its next version could have the same times. One lock guards the map and is never held over a system call; `benches/cache.rs` says what it costs.

mod entry;
mod flights;
mod lru;

use std::ffi::CString;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use ::lru::LruCache;
use nix::errno::Errno;
use nix::fcntl::AT_FDCWD;

pub use entry::CachedFile;
pub use zerosend_sys::memory::Advice;

use crate::error::{Code, Error, Result};
use crate::fs::pseudo_file::{Look, look};
use crate::fs::{Access, FileMeta, Identity, Lookup, OpenFile, Visit};
use crate::stats::Counter;
use entry::Loaded;
use flights::Flights;
use lru::{Budget, Entry, Kept, Key};
use zerosend_sys::SysResult;
use zerosend_sys::memory::Mapping;

/// Bytes of a file that is kept in memory rather than mapped, at most. A page-cache page for each mapped file, a descriptor
/// and an area of address space would cost more than the copy does.
pub const MAX_BLOCK: u64 = 64 * 1024;

/// How often a file in the cache is compared with the disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Revalidate {
    /// At every hit: one `statx`.
    #[default]
    Always,
    /// At the first hit after this time.
    After(Duration),
    /// Not at all: until it is invalidated.
    Never,
}

/// What a cache may hold, and how it behaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CacheOptions {
    /// Files. Default 1024.
    pub max_files: usize,
    /// Bytes of all files. Default 512 MiB.
    pub max_bytes: u64,
    /// Bytes of one file; a larger one is served, not kept. Default 16 MiB.
    pub max_file_size: u64,
    /// Files that are mapped, each with a descriptor of its own. Default 256.
    pub max_mapped: usize,
    /// Freshness. Default [`Revalidate::Always`].
    pub revalidate: Revalidate,
    /// Bring a mapped file into the page cache when it is loaded, where that may wait for the disk. Default false.
    pub populate: bool,
    /// About mappings. Default [`Advice::Normal`].
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

/// What a cache has counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct CacheStats {
    /// Files kept now.
    pub files: u64,
    /// Bytes of them.
    pub bytes: u64,
    /// How many of them are mapped.
    pub mapped: u64,
    /// Lookups that found a fresh file.
    pub hits: u64,
    /// Lookups that did not, a missing file included.
    pub misses: u64,
    /// Comparisons with the disk.
    pub revalidations: u64,
    /// Files that were found to have changed.
    pub stale: u64,
    /// Files that had to go for others.
    pub evictions: u64,
    /// Files that were served and not kept: too large, or written just now.
    pub rejected: u64,
    /// Lookups of a missing file that were answered from memory.
    pub negative_hits: u64,
}

#[derive(Default)]
struct Counters {
    hits: Counter,
    misses: Counter,
    revalidations: Counter,
    stale: Counter,
    evictions: Counter,
    rejected: Counter,
    negative_hits: Counter,
}

struct State {
    kept: Kept,
    /// Missing files. Empty under [`Revalidate::Always`], where looking again is as cheap.
    missing: LruCache<Key, Missing>,
}

/// A file that was missing.
struct Missing {
    /// When, in milliseconds of the cache's clock.
    since: u64,
    /// In which directory.
    root: Option<Identity>,
}

/// What a look at the entry of a file said.
enum Hit {
    Fresh(Arc<CachedFile>),
    /// There is none, or it was of another version.
    None,
    /// The file system has to be asked, and may not be waited for.
    WouldBlock,
}

/// Files kept ready to be sent. See the [module](self).
pub struct FileCache {
    options: CacheOptions,
    state: Mutex<State>,
    flights: Flights,
    counters: Counters,
    began: Instant,
    /// Counts invalidations, so that a load that began before one does not undo it.
    epoch: AtomicU64,
    closed: AtomicBool,
}

impl std::fmt::Debug for FileCache {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("FileCache").field("options", &self.options).field("stats", &self.stats()).finish()
    }
}

/// What a lookup found.
pub(crate) enum Fetched {
    /// A file, from the cache or not.
    File(Arc<CachedFile>),
    /// Everything that is no file.
    Other(Lookup),
}

/// Where a file is to be found.
trait Origin {
    /// Whether [`Origin::stat`] and [`Origin::open`] may wait.
    fn access(&self) -> Access;
    fn stat(&self) -> Option<FileMeta>;
    fn open(&self) -> Result<Lookup>;
    fn path(&self) -> PathBuf;
    /// Which directory it is looked for in; an error when that cannot be told without waiting.
    fn root(&self) -> SysResult<Option<Identity>>;
}

impl FileCache {
    /// An empty cache. [`Code::InvalidArgument`] for budgets of 0.
    pub fn new(options: CacheOptions) -> Result<Self> {
        for (name, value) in [("maxFiles", options.max_files as u64), ("maxBytes", options.max_bytes)] {
            if value == 0 {
                return Err(Error::new(
                    Code::InvalidArgument,
                    format!("{name} is 0, but must be 1 at least; leave the cache out to have none"),
                ));
            }
        }
        Ok(Self {
            options,
            state: Mutex::new(State { kept: Kept::new(), missing: LruCache::unbounded() }),
            flights: Flights::default(),
            counters: Counters::default(),
            began: Instant::now(),
            epoch: AtomicU64::new(0),
            closed: AtomicBool::new(false),
        })
    }

    /// The options as given.
    pub fn options(&self) -> &CacheOptions {
        &self.options
    }

    /// The file at an absolute path; symbolic links are followed. May wait for a disk. Errors are those of opening it:
    /// `ENOENT`, `EACCES`, [`Code::NotRegularFile`]; and [`Code::Closed`].
    pub fn get(&self, path: &Path) -> Result<Arc<CachedFile>> {
        if self.closed.load(Ordering::Relaxed) {
            return Err(Error::new(Code::Closed, "the cache is closed"));
        }
        let origin = AbsolutePath(path);
        match self.fetch(key(0, path.as_os_str().as_bytes()), &origin)? {
            Fetched::File(file) => Ok(file),
            // Not opened, because it was missing a short while ago.
            Fetched::Other(_) => Err(Error::system("open", Errno::ENOENT).with_path(path)),
        }
    }

    /// The file at `relative` below the root of `visit`, by the root's policy.
    pub(crate) fn get_under(&self, visit: &Visit<'_>, relative: &str) -> Result<Fetched> {
        self.fetch(key(visit.root().id(), relative.as_bytes()), &Below(visit, relative))
    }

    /// Forgets the file at an absolute path, by whichever root it was found; gives whether there was one.
    pub fn invalidate(&self, path: &Path) -> bool {
        self.epoch.fetch_add(1, Ordering::Relaxed);
        let mut state = self.lock();
        state.missing.clear();
        let mut found = state.kept.remove(&key(0, path.as_os_str().as_bytes()), None);
        for key in state.kept.keys_of(|file| file.path() == path) {
            found |= state.kept.remove(&key, None);
        }
        found
    }

    /// Forgets everything.
    pub fn clear(&self) {
        self.epoch.fetch_add(1, Ordering::Relaxed);
        let mut state = self.lock();
        state.kept.clear();
        state.missing.clear();
    }

    /// Forgets everything and keeps nothing from now on: [`FileCache::get`] fails, sites serve without it.
    pub fn close(&self) {
        self.closed.store(true, Ordering::Relaxed);
        self.clear();
    }

    /// All files that are kept, the last used first.
    pub fn entries(&self) -> Vec<Arc<CachedFile>> {
        self.lock().kept.files()
    }

    /// What it has counted.
    pub fn stats(&self) -> CacheStats {
        let state = self.lock();
        let counters = &self.counters;
        CacheStats {
            files: state.kept.len() as u64,
            bytes: state.kept.bytes,
            mapped: state.kept.mapped as u64,
            hits: counters.hits.get(),
            misses: counters.misses.get(),
            revalidations: counters.revalidations.get(),
            stale: counters.stale.get(),
            evictions: counters.evictions.get(),
            rejected: counters.rejected.get(),
            negative_hits: counters.negative_hits.get(),
        }
    }

    fn fetch(&self, key: Key, origin: &impl Origin) -> Result<Fetched> {
        let access = origin.access();
        match self.hit(&key, origin) {
            Hit::Fresh(file) => return Ok(Fetched::File(file)),
            Hit::WouldBlock => return Ok(Fetched::Other(Lookup::WouldBlock)),
            Hit::None => {}
        }
        if self.is_known_missing(&key, origin) {
            return Ok(Fetched::Other(Lookup::Missing));
        }
        let _flight = if access == Access::MayBlock {
            let flight = self.flights.enter(&key);
            // Another may have landed with it between the look above and the entry, waited for or not.
            if let Hit::Fresh(file) = self.hit(&key, origin) {
                return Ok(Fetched::File(file));
            }
            crate::failpoint::failpoint!("cache::load");
            Some(flight)
        } else {
            None
        };
        let epoch = self.epoch.load(Ordering::Relaxed);
        let fetched = match origin.open() {
            Ok(Lookup::File(file)) => self.admit(key, origin, file, epoch)?,
            Err(error) => {
                self.counters.misses.add(1);
                if error.errno() == Some(Errno::ENOENT) {
                    self.note_missing(key, origin);
                }
                return Err(error);
            }
            Ok(other) => {
                if matches!(other, Lookup::Missing) {
                    self.note_missing(key, origin);
                }
                Fetched::Other(other)
            }
        };
        if !matches!(fetched, Fetched::Other(Lookup::WouldBlock)) {
            self.counters.misses.add(1);
        }
        Ok(fetched)
    }

    /// The file, if it is there and as it is on the disk.
    fn hit(&self, key: &[u8], origin: &impl Origin) -> Hit {
        let now = self.now();
        let (file, checked) = {
            let mut state = self.lock();
            let Some(entry) = state.kept.get(key) else { return Hit::None };
            (entry.file.clone(), entry.checked)
        };
        let due = match self.options.revalidate {
            Revalidate::Always => true,
            Revalidate::After(after) => u128::from(now - checked.min(now)) >= after.as_millis(),
            Revalidate::Never => false,
        };
        if due {
            if origin.access() == Access::CachedOnly && !file.is_local() {
                return Hit::WouldBlock;
            }
            self.counters.revalidations.add(1);
            if origin.stat() != Some(*file.meta()) {
                if self.lock().kept.remove(key, Some(&file)) {
                    self.counters.stale.add(1);
                }
                return Hit::None;
            }
            if let Revalidate::After(_) = self.options.revalidate
                && let Some(entry) = self.lock().kept.get(key)
            {
                entry.checked = now;
            }
        }
        self.counters.hits.add(1);
        file.hits.fetch_add(1, Ordering::Relaxed);
        Hit::Fresh(file)
    }

    /// Loads a file and keeps it, where it is to be kept.
    fn admit(&self, key: Key, origin: &impl Origin, file: OpenFile, epoch: u64) -> Result<Fetched> {
        let access = origin.access();
        let size = file.meta().size;
        let reject = |file| {
            self.counters.rejected.add(1);
            Ok(Fetched::File(Arc::new(CachedFile::open(origin.path(), file))))
        };
        match look(&file, size, access).map_err(|error| error.with_path(origin.path()))? {
            Look::Ordinary => {}
            Look::WouldBlock => return Ok(Fetched::Other(Lookup::WouldBlock)),
            Look::Generated(bytes) => {
                self.counters.rejected.add(1);
                return Ok(Fetched::File(Arc::new(CachedFile::generated(origin.path(), &file, bytes))));
            }
        }
        let closed = self.closed.load(Ordering::Relaxed);
        if closed || size > self.options.max_file_size.min(self.options.max_bytes) {
            return reject(file);
        }
        let loaded = if size <= MAX_BLOCK {
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
        let budget =
            Budget { files: self.options.max_files, bytes: self.options.max_bytes, mapped: self.options.max_mapped };
        let entry = Entry { file: loaded.clone(), checked: self.now() };
        let mut state = self.lock();
        if self.epoch.load(Ordering::Relaxed) == epoch {
            state.missing.pop(&key);
            let evicted = state.kept.insert(key, entry, budget);
            drop(state);
            self.counters.evictions.add(evicted);
        }
        Ok(Fetched::File(loaded))
    }

    fn prepare(&self, mapping: &Mapping, access: Access) {
        // Advice that a kernel does not know is no reason to do without the file.
        let _ = mapping.advise(self.options.advice);
        if self.options.populate && access == Access::MayBlock {
            let _ = mapping.populate();
        }
    }

    /// Whether the file was missing a short while ago, in the directory that the root is now.
    fn is_known_missing(&self, key: &[u8], origin: &impl Origin) -> bool {
        let after = match self.options.revalidate {
            Revalidate::Always => return false,
            Revalidate::After(after) => after.as_millis(),
            Revalidate::Never => u128::MAX,
        };
        let now = self.now();
        let missing = self.lock().missing.get(key).map(|missing| (missing.since, missing.root));
        let known = missing
            .is_some_and(|(since, root)| u128::from(now.saturating_sub(since)) < after && origin.root() == Ok(root));
        if known {
            self.counters.misses.add(1);
            self.counters.negative_hits.add(1);
        }
        known
    }

    fn note_missing(&self, key: Key, origin: &impl Origin) {
        if self.options.revalidate == Revalidate::Always {
            return;
        }
        let Ok(root) = origin.root() else { return };
        let since = self.now();
        let mut state = self.lock();
        state.missing.put(key, Missing { since, root });
        if state.missing.len() > self.options.max_files {
            state.missing.pop_lru();
        }
    }

    /// Milliseconds since the cache was made.
    fn now(&self) -> u64 {
        if self.options.revalidate == Revalidate::Always { 0 } else { self.began.elapsed().as_millis() as u64 }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // A panic elsewhere leaves at worst sums that are too high, and nothing in here panics.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn key(root: u64, path: &[u8]) -> Key {
    let mut key = Vec::with_capacity(8 + path.len());
    key.extend_from_slice(&root.to_ne_bytes());
    key.extend_from_slice(path);
    key.into_boxed_slice()
}

struct AbsolutePath<'a>(&'a Path);

impl Origin for AbsolutePath<'_> {
    fn access(&self) -> Access {
        Access::MayBlock
    }

    fn stat(&self) -> Option<FileMeta> {
        FileMeta::at(AT_FDCWD, &CString::new(self.0.as_os_str().as_bytes()).ok()?)
    }

    fn open(&self) -> Result<Lookup> {
        OpenFile::open(self.0).map(Lookup::File)
    }

    fn path(&self) -> PathBuf {
        self.0.to_owned()
    }

    fn root(&self) -> SysResult<Option<Identity>> {
        Ok(None)
    }
}

struct Below<'a>(&'a Visit<'a>, &'a str);

impl Origin for Below<'_> {
    fn access(&self) -> Access {
        self.0.access()
    }

    fn stat(&self) -> Option<FileMeta> {
        self.0.root().stat(self.1)
    }

    fn open(&self) -> Result<Lookup> {
        self.0.open(self.1)
    }

    fn path(&self) -> PathBuf {
        self.0.root().path().join(self.1)
    }

    fn root(&self) -> SysResult<Option<Identity>> {
        self.0.identity()
    }
}
