//! Measuring tools: kernel features, the page cache, and the comparison of methods.
#![forbid(unsafe_code)]

pub mod bench;
mod interfaces;
mod page_cache;
mod probe;

pub use interfaces::{Interface, interfaces};
pub use page_cache::{Measurement, PageResidency, Run, Throughput, WarmReport, evict, measure, residency, warm};
pub use probe::{Mechanism, PipeLimits, Probe, Refusal, probe};
