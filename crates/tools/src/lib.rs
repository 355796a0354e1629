//! What the kernel can do here, and what it has in its page cache.
#![forbid(unsafe_code)]

pub mod bench;
mod interfaces;
mod page_cache;
mod probe;

pub use interfaces::{Interface, interfaces};
pub use page_cache::{Measurement, Pace, PageResidency, Run, WarmReport, evict, measure, residency, warm};
pub use probe::{Mechanism, PipeLimits, Probe, Refusal, probe};
