//! Memory that processes share.

mod buffer;
mod ring;
mod segment;
