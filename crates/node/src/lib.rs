//! The binding: it shapes arguments and results, and decides nothing.
//!
//! One `Engine` per JavaScript environment (the main thread, each worker) holds that environment's transfers by token and
//! its queue of events. One file per module of the core.

mod background_task;
mod bench;
mod cache;
mod engine;
mod error;
mod events;
mod ffi;
mod mapped_file;
mod output;
mod page_cache;
mod pages;
mod parts;
mod raw;
mod receive;
mod relay;
mod server;
mod shm;
mod site;
mod transfer;
