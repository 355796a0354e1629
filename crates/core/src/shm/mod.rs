//! Memory that processes share: [`SharedBuffer`], bytes that all of them read and write, and [`Ring`], a queue from one
//! writer to one reader.

mod buffer;
mod fd_passing;
mod liveness;
mod pipe_to;
pub mod protocol;
mod ring;
mod segment;
mod waiter;

pub use buffer::SharedBuffer;
pub use fd_passing::{receive_descriptor, send_descriptor};
pub use pipe_to::PipeTo;
pub use ring::{Framing, Read, Ring, RingOptions, Role};
pub use segment::{Seals, SegmentName, unlink};
pub use waiter::Ready;
