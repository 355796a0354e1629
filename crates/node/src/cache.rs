//! File caches and their files.

use std::path::PathBuf;
use std::sync::Arc;

use napi::Env;
use napi::bindgen_prelude::Buffer;
use napi_derive::napi;
use zerosend_core::Result;
use zerosend_core::cache::{Advice, CacheOptions, CacheStats, CachedFile, FileCache, Revalidate};
use zerosend_core::io::pool::{Lane, Volume};

use crate::engine::convert::{from_milliseconds, numbers, parse_enum};
use crate::engine::events::Payload;
use crate::engine::handles::Kind;
use crate::engine::{Engine, lane_for, with};

impl Kind for Arc<FileCache> {
    const NAME: &'static str = "a cache";
    const RELEASED: &'static str = "the cache is closed";
}

impl Kind for Arc<CachedFile> {
    const NAME: &'static str = "a file of a cache";
    const RELEASED: &'static str = "the file was released";
}

/// The options of a cache. Absent limits have the default of the core.
#[napi(object)]
pub struct CacheSettings {
    pub max_files: Option<f64>,
    /// Total size of the cached files in bytes.
    pub max_bytes: Option<f64>,
    /// Bytes.
    pub max_file_size: Option<f64>,
    /// Number of files that are mapped instead of copied.
    pub max_mapped: Option<f64>,
    /// Milliseconds after which a file is compared with the disk again. 0: at every request. Absent: never.
    pub revalidate: Option<f64>,
    pub populate: bool,
    #[napi(ts_type = "'normal' | 'sequential' | 'random' | 'willneed'")]
    pub advice: String,
}

/// A file of a cache.
#[napi(object, object_from_js = false)]
pub struct CachedFileInfo {
    pub path: String,
    /// Bytes.
    pub size: f64,
    pub mtime_ms: f64,
    pub ctime_ms: f64,
    pub ino: f64,
    pub dev: f64,
    pub etag: String,
    /// How often the cache has returned the file, the first time not counted.
    pub hits: f64,
    pub mapped: bool,
}

macro_rules! define_counters {
    ($($(#[$doc:meta])* $name:ident,)*) => {
        numbers! {
            /// The counters of a cache.
            pub struct CacheCounters from CacheStats {
                /// Files in the cache.
                files,
                /// Bytes of these files.
                bytes,
                /// Mapped files among them.
                mapped,
                $($(#[$doc])* $name,)*
            }
        }
    };
}

zerosend_core::cache_counters!(define_counters);

/// Opens a cache and returns its handle.
#[napi]
pub fn open_cache(env: &Env, settings: CacheSettings) -> napi::Result<f64> {
    with(env, |engine| {
        let default = CacheOptions::default();
        let cache = FileCache::new(CacheOptions {
            max_files: settings.max_files.map_or(default.max_files, |count| count as usize),
            max_bytes: settings.max_bytes.map_or(default.max_bytes, |bytes| bytes as u64),
            max_file_size: settings.max_file_size.map_or(default.max_file_size, |bytes| bytes as u64),
            max_mapped: settings.max_mapped.map_or(default.max_mapped, |count| count as usize),
            revalidate: match settings.revalidate {
                None => Revalidate::Never,
                Some(0.0) => Revalidate::Always,
                Some(after) => Revalidate::After(from_milliseconds(after)),
            },
            populate: settings.populate,
            advice: parse_enum("advice", &settings.advice, ADVICE)?,
        })?;
        Ok(engine.handles.objects.register(Arc::new(cache)))
    })
}

/// Looks up a file on a thread that may block on the disk. The event of `request` has its handle, and a `CachedFileInfo` as
/// its value.
#[napi]
pub fn get_cached(env: &Env, request: f64, cache: f64, path: String) -> napi::Result<()> {
    with(env, |engine| {
        let cache = engine.cache(cache)?.clone();
        let path = PathBuf::from(path);
        let volume = Volume::of_path(&path);
        engine.run(Lane::Short, volume, request, move || {
            let file = cache.get(&path)?;
            Ok(Payload::new(move |reply| {
                reply.set_value(CachedFileInfo::of(&file))?;
                let handle = reply.handles.objects.register(file);
                reply.set_handle(handle)
            }))
        });
        Ok(())
    })
}

/// Copies bytes of a file on a thread that may block on the disk. The event of `request` has a `Buffer` as its value.
#[napi]
pub fn read_cached(env: &Env, request: f64, file: f64, offset: f64, length: f64) -> napi::Result<()> {
    with(env, |engine| {
        let file = engine.cached_file(file)?.clone();
        let volume = Volume::of_device(file.meta().dev);
        engine.run(lane_for(length), volume, request, move || {
            Ok(Payload::value(Buffer::from(file.read_at(offset as u64, length as u64)?)))
        });
        Ok(())
    })
}

/// How often the cache has returned the file, the first time not counted.
#[napi]
pub fn cached_hits(env: &Env, file: f64) -> napi::Result<f64> {
    with(env, |engine| Ok(engine.cached_file(file)?.hits() as f64))
}

/// Removes a file; false when it was not in the cache.
#[napi]
pub fn invalidate_cached(env: &Env, cache: f64, path: String) -> napi::Result<bool> {
    with(env, |engine| Ok(engine.cache(cache)?.invalidate(&PathBuf::from(path))))
}

/// Removes all files.
#[napi]
pub fn clear_cache(env: &Env, cache: f64) -> napi::Result<()> {
    with(env, |engine| {
        engine.cache(cache)?.clear();
        Ok(())
    })
}

/// Removes all files and stores no others.
#[napi]
pub fn close_cache(env: &Env, cache: f64) -> napi::Result<()> {
    with(env, |engine| {
        engine.cache(cache)?.close();
        Ok(())
    })
}

/// The files in the cache, the last used first.
#[napi]
pub fn cache_entries(env: &Env, cache: f64) -> napi::Result<Vec<CachedFileInfo>> {
    with(env, |engine| Ok(engine.cache(cache)?.entries().iter().map(|file| CachedFileInfo::of(file)).collect()))
}

/// The counters of the cache.
#[napi]
pub fn cache_counters(env: &Env, cache: f64) -> napi::Result<CacheCounters> {
    with(env, |engine| Ok(engine.cache(cache)?.stats().into()))
}

impl Engine {
    fn cache(&mut self, handle: f64) -> Result<&Arc<FileCache>> {
        self.handles.objects.get(handle).map(|cache| &*cache)
    }

    fn cached_file(&mut self, handle: f64) -> Result<&Arc<CachedFile>> {
        self.handles.objects.get(handle).map(|file| &*file)
    }
}

impl CachedFileInfo {
    pub fn of(file: &CachedFile) -> Self {
        let meta = file.meta();
        Self {
            path: file.path().to_string_lossy().into_owned(),
            size: meta.size as f64,
            mtime_ms: meta.mtime_ns as f64 / 1e6,
            ctime_ms: meta.ctime_ns as f64 / 1e6,
            ino: meta.ino as f64,
            dev: meta.dev as f64,
            etag: file.etag(),
            hits: file.hits() as f64,
            mapped: file.is_mapped(),
        }
    }
}

const ADVICE: &[(&str, Advice)] = &[
    ("normal", Advice::Normal),
    ("sequential", Advice::Sequential),
    ("random", Advice::Random),
    ("willneed", Advice::WillNeed),
];
