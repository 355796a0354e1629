//! Memory that processes share: [`SharedBuffer`], bytes that all of them read and write, and [`Ring`], a queue from one
//! writer to one reader.

mod buffer;
mod drain;
pub mod lane;
mod passing;
mod peers;
mod ring;
mod segment;
mod waiter;

pub use buffer::SharedBuffer;
pub use drain::Drain;
pub use passing::{receive_descriptor, send_descriptor};
pub use ring::{Framing, Read, Ring, RingOptions, Role};
pub use segment::{Seals, SegmentName, unlink};
pub use waiter::Ready;
