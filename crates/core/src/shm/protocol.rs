//! The order in which a ring's words are read and written, apart from where they are, so that a model checker can go through
//! all interleavings of two threads (`tests/ring_model.rs`).
//!
//! A position counts bytes since the ring was made; each side writes its own and reads the other's.
//!
//! - **Bytes.** The writer copies bytes, then stores its position with *release*. The reader loads that position with
//!   *acquire*, then copies bytes: so it sees what was written before. The other way round, the reader's position is stored
//!   with release after it has copied, and loaded by the writer with acquire before it writes there again: so nothing is
//!   written over that is still being read.
//! - **Sleep.** Who wants to sleep says so, then looks once more; who has moved on, looks afterwards whether the other sleeps.
//!   Between the store and the load of each there is a sequentially consistent fence: one of the two must see the other's
//!   store (the pattern of Dekker's algorithm; acquire and release do not order a store before a later load). So either
//!   the sleeper sees the progress and stays awake, or the other sees the sleeper and wakes it. The word that says so is the
//!   futex itself: who wakes sets it to 0 first, and a sleeper that has not fallen asleep by then does not.
//! - **End.** A state is stored with release after the last position, and loaded with acquire before the position that is
//!   believed to be the last.

use std::sync::atomic::Ordering;

/// A word of 64 bits that both sides see.
pub trait Word64 {
    /// As `AtomicU64::load`.
    fn load(&self, order: Ordering) -> u64;
    /// As `AtomicU64::store`.
    fn store(&self, value: u64, order: Ordering);
}

/// A word of 32 bits that both sides see, and on which one of them sleeps.
pub trait Word32 {
    /// As `AtomicU32::load`.
    fn load(&self, order: Ordering) -> u32;
    /// As `AtomicU32::store`.
    fn store(&self, value: u32, order: Ordering);
    /// Wakes who sleeps on it.
    fn wake(&self);
}

/// The words of one side, and the fence that belongs to them.
pub trait Side {
    /// What a position is stored in.
    type Position: Word64;
    /// What a state is stored in.
    type Flag: Word32;

    /// Bytes written or read.
    fn position(&self) -> &Self::Position;
    /// Not 0 while the side sleeps: the bytes that it waits for.
    fn sleeps(&self) -> &Self::Flag;
    /// What the side does; only its owner gives it a meaning.
    fn state(&self) -> &Self::Flag;
    /// A fence of sequential consistency.
    fn fence();
}

/// The words are not those of a ring: more bytes are in it than it holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Corrupt;

/// Bytes that the reader may read, when it has read as far as `position`.
pub fn readable<S: Side>(writer: &S, position: u64, capacity: u64) -> Result<u64, Corrupt> {
    let bytes = writer.position().load(Ordering::Acquire).wrapping_sub(position);
    if bytes > capacity { Err(Corrupt) } else { Ok(bytes) }
}

/// Bytes that the writer may write, when it has written as far as `position`.
pub fn writable<S: Side>(reader: &S, position: u64, capacity: u64) -> Result<u64, Corrupt> {
    let used = position.wrapping_sub(reader.position().load(Ordering::Acquire));
    capacity.checked_sub(used).ok_or(Corrupt)
}

/// `mine` is at `position` now; `available` says how many bytes `other` may use, which it is woken for when it waits for no
/// more than those.
pub fn advance<S: Side>(mine: &S, other: &S, position: u64, available: impl FnOnce() -> u64) {
    mine.position().store(position, Ordering::Release);
    wake(other, available);
}

/// Ends `mine`: what was written before is all there is.
pub fn set_state<S: Side>(mine: &S, other: &S, state: u32) {
    mine.state().store(state, Ordering::Release);
    wake(other, || u64::MAX);
}

/// Wakes `other` when it sleeps and has what it waits for.
pub fn wake<S: Side>(other: &S, available: impl FnOnce() -> u64) {
    S::fence();
    let wanted = other.sleeps().load(Ordering::Relaxed);
    if wanted != 0 && u64::from(wanted) <= available() {
        other.sleeps().store(0, Ordering::Relaxed);
        other.sleeps().wake();
    }
}

/// Says that `mine` goes to sleep until it has `wanted` bytes (1 at least). True: sleep on the word while it is `wanted`. False:
/// there is something to do, and nobody will wake it.
pub fn prepare_sleep<S: Side>(mine: &S, wanted: u32, awake: impl FnOnce() -> bool) -> bool {
    mine.sleeps().store(wanted, Ordering::Relaxed);
    S::fence();
    if awake() {
        mine.sleeps().store(0, Ordering::Relaxed);
        return false;
    }
    true
}

/// The state of a side, and with it all that it did before.
pub fn state<S: Side>(side: &S) -> u32 {
    side.state().load(Ordering::Acquire)
}
