//! Regression tests: one test per fault, in the file of its subject. Each failed before the fix. Their counterparts through the public
//! API are in `__test__/regressions/`.

mod mirrors;
mod pool;
mod reactor;
mod relay;
#[path = "../relay_support/mod.rs"]
mod relay_support;
mod server;
#[path = "../server_support/mod.rs"]
mod server_support;
mod shm;
mod static_site;
mod transfer;
