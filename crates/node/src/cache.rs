//! File caches, and the files they give out.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use napi::Env;
use napi_derive::napi;
use zerosend_core::cache::{Advice, CacheOptions, CacheStats, CachedFile, FileCache, Revalidate};
use zerosend_core::event_loop::slab::Token;
use zerosend_core::io::pool::{Lane, Volume};
use zerosend_core::{Code, Error, Result};

use crate::engine::{Engine, Held, lane_for, with};
use crate::events::Answer;
use crate::site::one_of;

/// What a cache may hold. Absent: the default.
#[napi(object)]
pub struct CacheSettings {
    pub max_files: Option<f64>,
    pub max_bytes: Option<f64>,
    pub max_file_size: Option<f64>,
    pub max_mapped: Option<f64>,
    /// Milliseconds; 0 is always, absent is never.
    pub revalidate: Option<f64>,
    pub populate: bool,
    #[napi(ts_type = "'normal' | 'sequential' | 'random' | 'willneed'")]
    pub advice: String,
}

/// What is known of a file.
#[napi(object, object_from_js = false)]
pub struct CachedFileInfo {
    pub path: String,
    pub size: f64,
    pub mtime_ms: f64,
    pub ctime_ms: f64,
    pub ino: f64,
    pub dev: f64,
    pub etag: String,
    pub hits: f64,
    pub mapped: bool,
}

/// What a cache has counted.
#[napi(object, object_from_js = false)]
pub struct CacheCounters {
    pub files: f64,
    pub bytes: f64,
    pub mapped: f64,
    pub hits: f64,
    pub misses: f64,
    pub revalidations: f64,
    pub stale: f64,
    pub evictions: f64,
    pub rejected: f64,
    pub negative_hits: f64,
}

/// Makes a cache and returns its token.
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
                Some(after) => Revalidate::After(Duration::from_millis(after as u64)),
            },
            populate: settings.populate,
            advice: one_of("advice", &settings.advice, ADVICE)?,
        })?;
        Ok(engine.hold(Held::Cache(Arc::new(cache)))? as f64)
    })
}

/// Looks up a file, on a thread that may wait for the disk: the event of `request` has its `token` and `file`.
#[napi]
pub fn get_cached(env: &Env, request: f64, cache: f64, path: String) -> napi::Result<()> {
    with(env, |engine| {
        let cache = engine.cache(cache)?;
        let path = PathBuf::from(path);
        let volume = Volume::of_path(&path);
        engine.run(Lane::Short, volume, request, move || cache.get(&path).map(Answer::Cached));
        Ok(())
    })
}

/// Copies bytes of a file, on a thread that may wait for the disk: the event of `request` has the `bytes`.
#[napi]
pub fn read_cached(env: &Env, request: f64, file: f64, offset: f64, length: f64) -> napi::Result<()> {
    with(env, |engine| {
        let file = engine.cached(file)?;
        let volume = Volume::of_device(file.meta().dev);
        engine.run(lane_for(length), volume, request, move || {
            file.read_at(offset as u64, length as u64).map(Answer::Bytes)
        });
        Ok(())
    })
}

/// How often the cache has given the file out, the first time not counted.
#[napi]
pub fn cached_hits(env: &Env, file: f64) -> napi::Result<f64> {
    with(env, |engine| Ok(engine.cached(file)?.hits() as f64))
}

/// Forgets a file; gives whether there was one.
#[napi]
pub fn invalidate_cached(env: &Env, cache: f64, path: String) -> napi::Result<bool> {
    with(env, |engine| Ok(engine.cache(cache)?.invalidate(&PathBuf::from(path))))
}

/// Forgets all files.
#[napi]
pub fn clear_cache(env: &Env, cache: f64) -> napi::Result<()> {
    with(env, |engine| {
        engine.cache(cache)?.clear();
        Ok(())
    })
}

/// Forgets all files, and keeps none from now on.
#[napi]
pub fn close_cache(env: &Env, cache: f64) -> napi::Result<()> {
    with(env, |engine| {
        engine.cache(cache)?.close();
        Ok(())
    })
}

/// All files that are kept, the last used first.
#[napi]
pub fn cache_entries(env: &Env, cache: f64) -> napi::Result<Vec<CachedFileInfo>> {
    with(env, |engine| Ok(engine.cache(cache)?.entries().iter().map(|file| CachedFileInfo::of(file)).collect()))
}

/// What the cache has counted.
#[napi]
pub fn cache_counters(env: &Env, cache: f64) -> napi::Result<CacheCounters> {
    with(env, |engine| Ok(engine.cache(cache)?.stats().into()))
}

impl Engine {
    pub fn cache(&mut self, token: f64) -> Result<Arc<FileCache>> {
        match self.held.get_mut(token as Token) {
            Some(Held::Cache(cache)) => Ok(cache.clone()),
            _ => Err(Error::new(Code::Closed, "the cache is closed")),
        }
    }

    pub fn cached(&mut self, token: f64) -> Result<Arc<CachedFile>> {
        match self.held.get_mut(token as Token) {
            Some(Held::File(file)) => Ok(file.clone()),
            _ => Err(Error::new(Code::Closed, "the file was released")),
        }
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

impl From<CacheStats> for CacheCounters {
    fn from(stats: CacheStats) -> Self {
        Self {
            files: stats.files as f64,
            bytes: stats.bytes as f64,
            mapped: stats.mapped as f64,
            hits: stats.hits as f64,
            misses: stats.misses as f64,
            revalidations: stats.revalidations as f64,
            stale: stats.stale as f64,
            evictions: stats.evictions as f64,
            rejected: stats.rejected as f64,
            negative_hits: stats.negative_hits as f64,
        }
    }
}

const ADVICE: &[(&str, Advice)] = &[
    ("normal", Advice::Normal),
    ("sequential", Advice::Sequential),
    ("random", Advice::Random),
    ("willneed", Advice::WillNeed),
];
