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

#[cfg(test)]
mod tests {
    use std::thread;
    use std::time::Duration;

    use super::*;
    use crate::shm::protocol::{advance, prepare_sleep, readable, set_state, state, writable};

    fn side() -> Side {
        Side { position: 0.into(), state: state::VACANT.into(), process: 0.into(), sleeps: 0.into() }
    }

    fn sleep(side: &Side) {
        let _ = futex::wait(&side.sleeps, 1, Duration::from_secs(60));
        side.sleeps.store(0, Ordering::Relaxed);
    }

    /// Miri runs this as well (`npm run sanitize -- miri`), with its emulation of weak memory: a load returns an old value unless
    /// the protocol orders it after the store.
    #[test]
    fn a_reader_sees_each_value_once_and_both_sides_wake_each_other() {
        const CAPACITY: u64 = 2;
        let count = if cfg!(miri) { 60 } else { 10_000 };
        let (writer, reader) = (side(), side());
        let slots = [AtomicU64::new(0), AtomicU64::new(0)];
        let slot = |position: u64| &slots[(position % CAPACITY) as usize];
        thread::scope(|scope| {
            scope.spawn(|| {
                for position in 0..count {
                    let room = || writable(&reader, position, CAPACITY).expect("consistent") > 0;
                    while !room() {
                        if prepare_sleep(&writer, 1, room) {
                            sleep(&writer);
                        }
                    }
                    slot(position).store(position + 1, Ordering::Relaxed);
                    advance(&writer, &reader, position + 1, || CAPACITY);
                }
                set_state(&writer, &reader, state::ENDED);
            });
            let (mut position, mut stale) = (0, 0);
            loop {
                let available = || readable(&writer, position, CAPACITY).expect("consistent") > 0;
                let ended = || state(&writer) == state::ENDED;
                if available() {
                    // Not an assertion: the writer would wait for a reader that has panicked.
                    stale += u64::from(slot(position).load(Ordering::Relaxed) != position + 1);
                    position += 1;
                    advance(&reader, &writer, position, || 1);
                } else if ended() && !available() {
                    break;
                } else if prepare_sleep(&reader, 1, || available() || ended()) {
                    sleep(&reader);
                }
            }
            assert_eq!((position, stale), (count, 0));
        });
    }

    #[test]
    fn a_capacity_is_whole_pages_up_to_the_maximum() {
        let header = HEADER_BYTES as u64;
        assert_eq!(capacity_of(header + page_size()), Some(page_size()));
        assert_eq!(capacity_of(header + MAX_CAPACITY), Some(MAX_CAPACITY));
        for size in [0, header - 1, header, header + 1, header + MAX_CAPACITY + page_size(), u64::MAX] {
            assert_eq!(capacity_of(size), None, "{size}");
        }
    }
}
