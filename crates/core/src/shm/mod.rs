//! Shared memory: [`SharedBuffer`], bytes that processes read and write, and [`Ring`], a queue from one writer to one reader.

mod buffer;
mod fd_passing;
mod handle;
mod layout;
mod liveness;
mod pipe_to;
pub mod protocol;
mod ring;
mod ring_io;
mod segment;

pub use buffer::SharedBuffer;
pub use fd_passing::{receive_descriptor, send_descriptor};
pub use handle::{Ready, RingHandle};
pub use layout::{Framing, Role};
pub use pipe_to::PipeTo;
pub use ring::{Ring, RingOptions};
pub use ring_io::ReadOutcome;
pub use segment::{Seals, SegmentName, unlink};
