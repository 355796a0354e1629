//! The page cache: how much of a file it has, filling it, evicting from it, and what it is worth.

use std::path::{Path, PathBuf};

use napi::Env;
use napi_derive::napi;
use zerosend_core::Result;
use zerosend_core::io::pool::{Lane, Volume};
use zerosend_tools::{Measurement, PageResidency, Throughput, WarmReport};

use crate::engine::background_task::run_in_background;
use crate::engine::convert::{ErrnoName, numbers};
use crate::engine::events::Payload;
use crate::engine::with;

/// How much of a file is in the page cache.
#[napi(object, object_from_js = false)]
pub struct PageReport {
    /// Bytes of the file.
    pub size: f64,
    /// Bytes in a page.
    pub page_size: f64,
    /// Pages of the file.
    pub pages: f64,
    /// Pages of the file that are in the page cache.
    pub resident: f64,
    /// From the start of the file to its end.
    pub runs: Vec<PageRun>,
    /// The system call that reported it.
    #[napi(ts_type = "'cachestat' | 'mincore'")]
    pub by: &'static str,
}

/// Consecutive pages that are, or are not, in the page cache.
#[napi(object, object_from_js = false)]
pub struct PageRun {
    pub resident: bool,
    /// Number of pages.
    pub pages: f64,
}

numbers! {
    /// The result of `warmPages`.
    pub struct WarmedReport from WarmReport {
        /// Pages of the file.
        pages,
        /// Pages that were in the page cache before.
        resident_before,
        /// Pages that are in the page cache now: fewer than all when memory is short.
        resident,
        /// Bytes read from the disk or the page cache.
        bytes_read,
    }
}

/// How fast a file can be read.
#[napi(object, object_from_js = false)]
pub struct MeasuredReport {
    /// Bytes of the file.
    pub size: f64,
    /// Pages of the file.
    pub pages: f64,
    /// In the state in which the file was found.
    pub first: ThroughputReport,
    /// A second time.
    pub second: ThroughputReport,
    /// After eviction from the page cache.
    pub evicted: ThroughputReport,
    /// With `O_DIRECT`. Absent: the file system does not support it.
    pub direct: Option<ThroughputReport>,
    /// The error of `O_DIRECT`.
    pub direct_refusal: Option<ErrnoName>,
}

/// One reading of a file.
#[napi(object, object_from_js = false)]
pub struct ThroughputReport {
    pub bytes: f64,
    pub seconds: f64,
    /// Pages that were in the page cache before.
    pub resident_before: f64,
}

/// How much of a file is in the page cache. The event of `request` has a `PageReport` as its value.
#[napi]
pub fn page_residency(env: &Env, request: f64, path: String) -> napi::Result<()> {
    with(env, |engine| {
        let path = PathBuf::from(path);
        engine.run(Lane::Short, Volume::of_path(&path), request, move || report(zerosend_tools::residency(&path)));
        Ok(())
    })
}

/// Evicts a file from the page cache. The event of `request` has a `PageReport` of what is left as its value.
#[napi]
pub fn evict_pages(env: &Env, request: f64, path: String) -> napi::Result<()> {
    with(env, |engine| {
        let path = PathBuf::from(path);
        engine.run(Lane::Long, Volume::of_path(&path), request, move || report(zerosend_tools::evict(&path)));
        Ok(())
    })
}

fn report(found: Result<PageResidency>) -> Result<Payload> {
    found.map(|found| Payload::value(PageReport::from(found)))
}

/// Reads a file into the page cache. `request` makes progress in bytes; its last event has a `WarmedReport` as its value.
/// Returns a handle; releasing it stops the reading.
#[napi]
pub fn warm_pages(env: &Env, request: f64, path: String) -> napi::Result<f64> {
    run_in_background(env, request, move |stop, progress| {
        Ok(Payload::value(WarmedReport::from(zerosend_tools::warm(Path::new(&path), stop, progress)?)))
    })
}

/// Measures how fast a file can be read. `request` makes progress in bytes; its last event has a `MeasuredReport` as its
/// value. Returns a handle; releasing it stops the measurement.
#[napi]
pub fn measure_pages(env: &Env, request: f64, path: String) -> napi::Result<f64> {
    run_in_background(env, request, move |stop, progress| {
        Ok(Payload::value(MeasuredReport::from(zerosend_tools::measure(Path::new(&path), stop, progress)?)))
    })
}

impl From<PageResidency> for PageReport {
    fn from(found: PageResidency) -> Self {
        let runs = found.runs.iter().map(|run| PageRun { resident: run.resident, pages: run.pages as f64 });
        Self {
            size: found.size as f64,
            page_size: found.page_size as f64,
            pages: found.pages as f64,
            resident: found.resident as f64,
            runs: runs.collect(),
            by: found.by,
        }
    }
}

impl From<Measurement> for MeasuredReport {
    fn from(found: Measurement) -> Self {
        Self {
            size: found.size as f64,
            pages: found.pages as f64,
            first: found.first.into(),
            second: found.second.into(),
            evicted: found.evicted.into(),
            direct: found.direct.ok().map(ThroughputReport::from),
            direct_refusal: found.direct.err().map(ErrnoName::from),
        }
    }
}

impl From<Throughput> for ThroughputReport {
    fn from(read: Throughput) -> Self {
        Self {
            bytes: read.bytes as f64,
            seconds: read.time.as_secs_f64(),
            resident_before: read.resident_before as f64,
        }
    }
}
