//! Rings between threads and between processes, including processes that are killed or break the protocol.
//!
//! `ZEROSEND_KILLS` (default 100): number of processes to kill. `ZEROSEND_RING_BYTES` (default 256 MiB): number of bytes sent
//! between two processes.

mod header;
mod pipe_to;
mod processes;
mod queue;
mod support;
