//! Shared memory: buffers and rings.

mod buffer;
mod ring;
mod segment;
