//! Kernel features and the page cache.

use std::path::{Path, PathBuf};

use napi::Env;
use napi::bindgen_prelude::JsObjectValue;
use napi_derive::napi;
use zerosend_core::Result;
use zerosend_core::io::pool::{Lane, Volume};
use zerosend_tools::{self, Interface, Measurement, Mechanism, PageResidency, Probe, Throughput, WarmReport};

use crate::background_task::under_way;
use crate::engine::with;
use crate::events::Answer;
use crate::relay::session::ErrnoName;

/// Features of the kernel.
#[napi(object, object_from_js = false)]
pub struct ProbeReport {
    pub kernel: String,
    pub machine: String,
    pub page_size: f64,
    pub pipes: PipeReport,
    pub mechanisms: Vec<MechanismReport>,
    pub interfaces: Vec<InterfaceReport>,
}

/// Limits of pipes.
#[napi(object, object_from_js = false)]
pub struct PipeReport {
    pub default_size: f64,
    pub max_size: f64,
    pub user_pages_soft: f64,
    pub user_pages_hard: f64,
}

/// A kernel feature.
#[napi(object, object_from_js = false)]
pub struct MechanismReport {
    pub name: &'static str,
    pub available: bool,
    pub syscall: Option<&'static str>,
    pub refusal: Option<ErrnoName>,
    pub since: &'static str,
    pub purpose: &'static str,
    pub without: Option<&'static str>,
}

/// A network interface.
#[napi(object, object_from_js = false)]
pub struct InterfaceReport {
    pub name: String,
    pub up: bool,
    pub loopback: bool,
    pub scatter_gather: Option<bool>,
    pub transmit_checksum: Option<bool>,
    pub receive_checksum: Option<bool>,
    pub segmentation: Option<bool>,
}

/// Which pages of a file are in the page cache.
#[napi(object, object_from_js = false)]
pub struct PageReport {
    pub size: f64,
    pub page_size: f64,
    pub pages: f64,
    pub resident: f64,
    pub runs: Vec<PageRun>,
    #[napi(ts_type = "'cachestat' | 'mincore'")]
    pub by: &'static str,
}

/// Consecutive pages.
#[napi(object, object_from_js = false)]
pub struct PageRun {
    pub resident: bool,
    pub pages: f64,
}

/// The result of `warmPages`.
#[napi(object, object_from_js = false)]
pub struct WarmedReport {
    pub pages: f64,
    pub resident_before: f64,
    pub resident: f64,
    pub bytes_read: f64,
}

/// The result of `measurePages`.
#[napi(object, object_from_js = false)]
pub struct MeasuredReport {
    pub size: f64,
    pub pages: f64,
    pub first: ThroughputReport,
    pub second: ThroughputReport,
    pub evicted: ThroughputReport,
    pub direct: Option<ThroughputReport>,
    pub direct_refusal: Option<ErrnoName>,
}

/// One read of the file.
#[napi(object, object_from_js = false)]
pub struct ThroughputReport {
    pub bytes: f64,
    pub seconds: f64,
    pub resident_before: f64,
}

/// Tests the features of the kernel; the event of `request` has `probe`.
#[napi]
pub fn probe(env: &Env, request: f64) -> napi::Result<()> {
    with(env, |engine| {
        engine.run(Lane::Long, Volume::NONE, request, || {
            zerosend_tools::probe().map(|probe| {
                Answer::Shape(Box::new(move |event| event.set_named_property("probe", ProbeReport::from(probe))))
            })
        });
        Ok(())
    })
}

/// The event of `request` has `pages`.
#[napi]
pub fn page_residency(env: &Env, request: f64, path: String) -> napi::Result<()> {
    with(env, |engine| {
        let path = PathBuf::from(path);
        engine.run(Lane::Short, Volume::of_path(&path), request, move || pages(zerosend_tools::residency(&path)));
        Ok(())
    })
}

/// The event of `request` has `pages`: those left in the page cache.
#[napi]
pub fn evict_pages(env: &Env, request: f64, path: String) -> napi::Result<()> {
    with(env, |engine| {
        let path = PathBuf::from(path);
        engine.run(Lane::Long, Volume::of_path(&path), request, move || pages(zerosend_tools::evict(&path)));
        Ok(())
    })
}

fn pages(found: Result<PageResidency>) -> Result<Answer> {
    found.map(|found| Answer::Shape(Box::new(move |event| event.set_named_property("pages", PageReport::from(found)))))
}

/// The event of `request` has `warmed`; earlier ones have the bytes so far. Releasing the token aborts it.
#[napi]
pub fn warm_pages(env: &Env, request: f64, path: String) -> napi::Result<f64> {
    under_way(env, request, move |stop, progress| {
        let report = WarmedReport::from(zerosend_tools::warm(Path::new(&path), stop, progress)?);
        Ok(Answer::Shape(Box::new(move |event| event.set_named_property("warmed", report))))
    })
}

/// The event of `request` has `measured`; earlier ones have the bytes so far. Releasing the token aborts it.
#[napi]
pub fn measure_pages(env: &Env, request: f64, path: String) -> napi::Result<f64> {
    under_way(env, request, move |stop, progress| {
        let report = MeasuredReport::from(zerosend_tools::measure(Path::new(&path), stop, progress)?);
        Ok(Answer::Shape(Box::new(move |event| event.set_named_property("measured", report))))
    })
}

impl From<Probe> for ProbeReport {
    fn from(probe: Probe) -> Self {
        Self {
            kernel: probe.kernel,
            machine: probe.machine,
            page_size: probe.page_size as f64,
            pipes: PipeReport {
                default_size: probe.pipes.default_size as f64,
                max_size: probe.pipes.max_size as f64,
                user_pages_soft: probe.pipes.user_pages_soft as f64,
                user_pages_hard: probe.pipes.user_pages_hard as f64,
            },
            mechanisms: probe.mechanisms.into_iter().map(MechanismReport::from).collect(),
            interfaces: probe.interfaces.into_iter().map(InterfaceReport::from).collect(),
        }
    }
}

impl From<Mechanism> for MechanismReport {
    fn from(mechanism: Mechanism) -> Self {
        Self {
            name: mechanism.name,
            available: mechanism.refusal.is_none(),
            syscall: mechanism.refusal.map(|refusal| refusal.syscall),
            refusal: mechanism.refusal.map(|refusal| refusal.errno.into()),
            since: mechanism.since,
            purpose: mechanism.purpose,
            without: mechanism.without,
        }
    }
}

impl From<Interface> for InterfaceReport {
    fn from(interface: Interface) -> Self {
        Self {
            name: interface.name,
            up: interface.up,
            loopback: interface.loopback,
            scatter_gather: interface.scatter_gather,
            transmit_checksum: interface.transmit_checksum,
            receive_checksum: interface.receive_checksum,
            segmentation: interface.segmentation,
        }
    }
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

impl From<WarmReport> for WarmedReport {
    fn from(report: WarmReport) -> Self {
        Self {
            pages: report.pages as f64,
            resident_before: report.resident_before as f64,
            resident: report.resident as f64,
            bytes_read: report.bytes_read as f64,
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
    fn from(throughput: Throughput) -> Self {
        Self {
            bytes: throughput.bytes as f64,
            seconds: throughput.time.as_secs_f64(),
            resident_before: throughput.resident_before as f64,
        }
    }
}
