//! The binding: it converts arguments and results, and decides nothing.
//!
//! `Engine` is the state of one JavaScript environment (the main thread or a worker): the objects that have a handle, and the
//! queue of events. The other modules export functions for one kind of object each.

mod bench;
mod cache;
mod descriptor;
mod engine;
mod ffi;
mod mapped_file;
mod output;
mod page_cache;
mod pages;
mod parts;
mod pipe;
mod probe;
mod raw;
mod receive;
mod relay;
mod server;
mod shm;
mod site;
mod transfer;
