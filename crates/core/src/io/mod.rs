//! Pipes, the pool for blocking disk work, non-blocking descriptors, and single checked calls.

mod non_blocking;
pub mod pipe;
pub(crate) mod pipe_pool;
pub mod pool;
pub mod raw;
pub mod read_full;

pub use non_blocking::NonBlocking;
pub(crate) use non_blocking::SharedMode;
