//! The binding: it shapes arguments and results, and decides nothing.
//!
//! One `Engine` per JavaScript environment (the main thread, each worker) holds that environment's transfers by token and
//! its queue of events. One file per module of the core.
#![deny(unsafe_code)]

mod bench;
mod cache;
mod door;
mod engine;
mod error;
mod events;
mod inspect;
mod join;
mod mapped_file;
mod output;
mod pages;
mod raw;
mod receive;
mod relay;
mod server;
mod shm;
mod site;
mod source;
mod transfer;
mod under_way;
