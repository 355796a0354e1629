//! The queue between the workers and the thread of the log.

use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::entry::Entry;
use crate::event_loop::waker::Waker;
use crate::stats::Counter;

/// Maximum number of queued entries.
const MAX_QUEUED: usize = 65_536;
/// Time without a written line after which [`Queue::finish`] gives up.
const STALL_TIMEOUT: Duration = Duration::from_secs(2);

#[derive(Default)]
struct State {
    queued: Vec<Entry>,
    /// Entries that the thread of the log has taken and not yet written.
    taken: usize,
    /// The queue is closed. At this time the remaining entries are lost.
    closed: Option<Instant>,
    /// The remaining entries have been counted as lost.
    is_abandoned: bool,
}

impl State {
    fn remaining(&self) -> usize {
        self.taken + self.queued.len()
    }
}

pub(super) struct Queue {
    state: Mutex<State>,
    /// Signals new entries, and the end.
    wake: Condvar,
    /// Signals written entries of a closed queue.
    progress: Condvar,
    lost: Counter,
    is_waiting: AtomicBool,
    /// A line is written in part, see [`super::writer::LineWriter`].
    is_partial: AtomicBool,
    /// Interrupts the thread of the log while it waits for a full pipe.
    pub waker: Waker,
}

impl Queue {
    pub fn new() -> io::Result<Self> {
        Ok(Self {
            state: Mutex::default(),
            wake: Condvar::new(),
            progress: Condvar::new(),
            lost: Counter::new(),
            is_waiting: AtomicBool::new(false),
            is_partial: AtomicBool::new(false),
            waker: Waker::new()?,
        })
    }

    /// Moves all `entries` into the queue. Those beyond its capacity are lost.
    pub fn add(&self, entries: &mut Vec<Entry>) {
        let mut state = self.lock();
        let room = if state.closed.is_some() { 0 } else { MAX_QUEUED.saturating_sub(state.queued.len()) };
        if entries.len() > room {
            self.lost.add((entries.len() - room) as u64);
            entries.truncate(room);
        }
        state.queued.append(entries);
        drop(state);
        if self.is_waiting.load(Ordering::Relaxed) {
            self.wake.notify_one();
        }
    }

    /// Waits for entries and takes all of them. Returns `None` when the queue is closed and empty.
    pub fn take(&self) -> Option<Vec<Entry>> {
        let mut state = self.lock();
        while state.queued.is_empty() {
            if state.closed.is_some() {
                return None;
            }
            self.is_waiting.store(true, Ordering::Relaxed);
            state = self.wake.wait(state).unwrap_or_else(PoisonError::into_inner);
            self.is_waiting.store(false, Ordering::Relaxed);
        }
        state.taken = state.queued.len();
        Some(std::mem::take(&mut state.queued))
    }

    /// Records that `count` of the taken entries are processed, `lost` of them without being written.
    pub fn settle(&self, count: usize, lost: usize) {
        let mut state = self.lock();
        if !state.is_abandoned {
            self.lost.add(lost as u64);
        }
        state.taken -= count.min(state.taken);
        if state.closed.is_some() {
            self.progress.notify_all();
        }
    }

    /// Counts all taken entries that are not processed as lost.
    pub fn lose_taken(&self) {
        let taken = self.lock().taken;
        self.settle(taken, taken);
    }

    pub fn close(&self, deadline: Instant) {
        self.lock().closed.get_or_insert(deadline);
        self.wake_all();
    }

    /// Closes the queue and waits until all entries are written, until `deadline`, or until no entry has been written for
    /// [`STALL_TIMEOUT`]. The remaining entries are lost.
    pub fn finish(&self, deadline: Instant) {
        let mut state = self.lock();
        state.closed = Some(deadline);
        self.wake_all();
        let mut last_progress = (Instant::now(), state.remaining());
        while state.remaining() > 0 {
            let now = Instant::now();
            if state.remaining() < last_progress.1 {
                last_progress = (now, state.remaining());
            }
            let left = deadline.min(last_progress.0 + STALL_TIMEOUT).saturating_duration_since(now);
            if left.is_zero() {
                self.lost.add(state.remaining() as u64);
                state.queued = Vec::new();
                state.is_abandoned = true;
                state.closed = Some(now);
                drop(state);
                return self.waker.wake();
            }
            state = self.progress.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    pub fn lost(&self) -> u64 {
        self.lost.get() + u64::from(self.is_partial.load(Ordering::Relaxed))
    }

    pub fn set_partial(&self, is_partial: bool) {
        self.is_partial.store(is_partial, Ordering::Relaxed);
    }

    /// The time at which a blocked write gives up; `None` while the queue is open.
    pub fn deadline(&self) -> Option<Instant> {
        self.lock().closed
    }

    fn wake_all(&self) {
        self.wake.notify_one();
        self.waker.wake();
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
