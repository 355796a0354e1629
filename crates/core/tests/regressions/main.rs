//! A home for each fault that was found in use: one test for one fault and its kin, in the file of its subject. Each of
//! them failed before the fault was repaired. Their counterparts through the public API are in `__test__/regressions/`.

mod files;
mod mirrors;
mod pool;
mod reactor;
mod relay;
#[path = "../relay_support/mod.rs"]
mod relay_support;
mod server;
mod shm;
mod transfer;
