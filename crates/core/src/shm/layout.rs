//! The memory of a ring: the header, and how messages are stored.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering, fence};

use super::protocol;
use zerosend_sys::futex;
use zerosend_sys::memory::{HEADER_BYTES, Header, Side};
use zerosend_sys::page::page_size;

/// "zerosend", little endian.
const MAGIC: u64 = u64::from_le_bytes(*b"zerosend");
const VERSION: u32 = 1;

/// Maximum capacity of a ring in bytes. The number of bytes that a side waits for has to fit in a futex.
pub(super) const MAX_CAPACITY: u64 = 1 << 31;
/// Bytes before each message: its length, little endian.
pub(super) const FRAME: usize = 4;

/// Values of [`Side::state`].
pub(super) mod state {
    /// No process has had the role, or the last one died and that was reported.
    pub const VACANT: u32 = 0;
    /// A process has the role. When no process holds the lock of the role, that process has died.
    pub const OPEN: u32 = 1;
    /// The writer has ended the ring, or the reader has closed it.
    pub const ENDED: u32 = 2;
}

/// The kind of data in a ring.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Framing {
    /// A stream of bytes.
    Bytes,
    /// Messages, each of which is read as a whole.
    Messages,
}

/// A side of a ring.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// The side that writes.
    Writer,
    /// The side that reads.
    Reader,
}

impl Role {
    pub(super) fn other(self) -> Self {
        match self {
            Role::Writer => Role::Reader,
            Role::Reader => Role::Writer,
        }
    }

    pub(super) fn name(self) -> &'static str {
        match self {
            Role::Writer => "writer",
            Role::Reader => "reader",
        }
    }
}

/// The capacity of a ring whose segment has `size` bytes; `None`: no ring has that size.
pub(super) fn capacity_of(size: u64) -> Option<u64> {
    let capacity = size.checked_sub(HEADER_BYTES as u64)?;
    (capacity > 0 && capacity <= MAX_CAPACITY && capacity.is_multiple_of(page_size())).then_some(capacity)
}

pub(super) fn write_header(header: &Header, capacity: u64, framing: Framing) {
    header.version.store(VERSION, Ordering::Relaxed);
    header.framing.store(u32::from(framing == Framing::Messages), Ordering::Relaxed);
    header.capacity.store(capacity, Ordering::Relaxed);
    // Last, with release: a process that loads it with acquire also sees the fields above.
    header.magic.store(MAGIC, Ordering::Release);
}

/// A header that cannot be used.
pub(super) enum HeaderError {
    /// The header has not been written yet.
    Unwritten,
    /// The reason why it cannot be used.
    Invalid(String),
}

/// Checks the header of a ring with `capacity` bytes of data. Its values are not read again later.
pub(super) fn check_header(header: &Header, capacity: u64) -> Result<Framing, HeaderError> {
    match header.magic.load(Ordering::Acquire) {
        MAGIC => {}
        0 => return Err(HeaderError::Unwritten),
        _ => return Err(HeaderError::Invalid("it has no ring header".into())),
    }
    let version = header.version.load(Ordering::Relaxed);
    if version != VERSION {
        return Err(HeaderError::Invalid(format!("its version is {version}, and this is version {VERSION}")));
    }
    let written = header.capacity.load(Ordering::Relaxed);
    if written != capacity {
        return Err(HeaderError::Invalid(format!("its header has capacity {written}, but its size {capacity}")));
    }
    match header.framing.load(Ordering::Relaxed) {
        0 => Ok(Framing::Bytes),
        1 => Ok(Framing::Messages),
        other => Err(HeaderError::Invalid(format!("its framing is {other}"))),
    }
}

impl protocol::Word64 for AtomicU64 {
    fn load(&self, order: Ordering) -> u64 {
        self.load(order)
    }

    fn store(&self, value: u64, order: Ordering) {
        self.store(value, order);
    }
}

impl protocol::Word32 for AtomicU32 {
    fn load(&self, order: Ordering) -> u32 {
        self.load(order)
    }

    fn store(&self, value: u32, order: Ordering) {
        self.store(value, order);
    }

    fn wake(&self) {
        let _ = futex::wake(self);
    }
}

impl protocol::Side for Side {
    type Position = AtomicU64;
    type Flag = AtomicU32;

    fn position(&self) -> &AtomicU64 {
        &self.position
    }

    fn sleeps(&self) -> &AtomicU32 {
        &self.sleeps
    }

    fn state(&self) -> &AtomicU32 {
        &self.state
    }

    fn fence() {
        fence(Ordering::SeqCst);
    }
}
