//! The memory order of a ring, independent of the type of its words, so that a model checker can explore all interleavings of
//! two threads (`tests/ring_model.rs`).
//!
//! A position counts bytes since the ring was created. Each side stores its own position and loads that of the other.
//!
//! - **Bytes.** The writer copies bytes and then stores its position with *release*. The reader loads that position with
//!   *acquire* and then copies the bytes, so it sees what was written. In the other direction, the reader stores its position
//!   with release after it has copied, and the writer loads it with acquire before it writes there again, so no byte is
//!   overwritten while it is read.
//! - **Sleep.** A side that is about to sleep sets its flag and then checks for progress again. A side that has advanced checks
//!   the flag of its peer afterwards. Between the store and the load of each is a sequentially consistent fence, so at least
//!   one side sees the store of the other (as in Dekker's algorithm; release and acquire alone do not order a store before a
//!   later load). Either the sleeper sees the progress and stays awake, or the peer sees the flag and wakes it. The flag is
//!   the futex itself: the waker sets it to 0 first, and a side that has not fallen asleep by then does not.
//! - **End.** A state is stored with release after the last position, and loaded with acquire before the position that is
//!   taken for the last.

use std::sync::atomic::Ordering;

/// A shared 64-bit word.
pub trait Word64 {
    /// As `AtomicU64::load`.
    fn load(&self, order: Ordering) -> u64;
    /// As `AtomicU64::store`.
    fn store(&self, value: u64, order: Ordering);
}

/// A shared 32-bit word that a side can sleep on.
pub trait Word32 {
    /// As `AtomicU32::load`.
    fn load(&self, order: Ordering) -> u32;
    /// As `AtomicU32::store`.
    fn store(&self, value: u32, order: Ordering);
    /// Wakes the side that sleeps on it.
    fn wake(&self);
}

/// The words of one side, and the fence that goes with them.
pub trait Side {
    /// Type of the position.
    type Position: Word64;
    /// Type of the flag and the state.
    type Flag: Word32;

    /// Bytes written or read.
    fn position(&self) -> &Self::Position;
    /// The flag: the number of bytes that the side waits for while it sleeps, else 0.
    fn sleeps(&self) -> &Self::Flag;
    /// The state. Its values have no meaning here.
    fn state(&self) -> &Self::Flag;
    /// A sequentially consistent fence.
    fn fence();
}

/// The positions are inconsistent: the ring would have more bytes than its capacity.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Corrupt;

/// Number of bytes that a reader at `position` can read.
pub fn readable<S: Side>(writer: &S, position: u64, capacity: u64) -> Result<u64, Corrupt> {
    let bytes = writer.position().load(Ordering::Acquire).wrapping_sub(position);
    if bytes > capacity { Err(Corrupt) } else { Ok(bytes) }
}

/// Number of bytes that a writer at `position` can write.
pub fn writable<S: Side>(reader: &S, position: u64, capacity: u64) -> Result<u64, Corrupt> {
    let used = position.wrapping_sub(reader.position().load(Ordering::Acquire));
    capacity.checked_sub(used).ok_or(Corrupt)
}

/// Advances `mine` to `position`. Wakes `other` when it sleeps and `available`, the number of bytes it can use, is enough.
pub fn advance<S: Side>(mine: &S, other: &S, position: u64, available: impl FnOnce() -> u64) {
    mine.position().store(position, Ordering::Release);
    wake(other, available);
}

/// Sets the state of `mine`, which covers all positions stored before, and wakes `other`.
pub fn set_state<S: Side>(mine: &S, other: &S, state: u32) {
    mine.state().store(state, Ordering::Release);
    wake(other, || u64::MAX);
}

/// Wakes `side` when it sleeps and waits for at most `available` bytes.
pub fn wake<S: Side>(side: &S, available: impl FnOnce() -> u64) {
    S::fence();
    let wanted = side.sleeps().load(Ordering::Relaxed);
    if wanted != 0 && u64::from(wanted) <= available() {
        side.sleeps().store(0, Ordering::Relaxed);
        side.sleeps().wake();
    }
}

/// Sets the flag of `mine` to `wanted` bytes, at least 1. True: the caller sleeps on the flag while it has that value. False:
/// `awake` returned true, the flag is 0 again, and no wake-up will come.
pub fn prepare_sleep<S: Side>(mine: &S, wanted: u32, awake: impl FnOnce() -> bool) -> bool {
    mine.sleeps().store(wanted, Ordering::Relaxed);
    S::fence();
    if awake() {
        mine.sleeps().store(0, Ordering::Relaxed);
        return false;
    }
    true
}

/// The state of a side. Positions that it stored before the state are visible afterwards.
pub fn state<S: Side>(side: &S) -> u32 {
    side.state().load(Ordering::Acquire)
}
