//! Results of a turn and of a transfer, and the turn loop of both directions.

use super::{Budget, Method};
use crate::error::Result;

/// The budget that an interrupted call costs in bytes, so that a series of signals cannot extend a turn without limit.
const INTERRUPTED: usize = 4096;

/// Why a turn ended without an error.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Progress {
    /// Every byte was accepted by the kernel.
    Done,
    /// The descriptor would block: wait until it is ready.
    Blocked,
    /// The budget is spent and the descriptor is still ready: give others their turn first.
    Yield,
    /// The next bytes are not in the page cache: start [`super::Transfer::prefetch`], and pass its result to
    /// [`super::Transfer::prefetched`].
    Cold,
}

/// What was moved, and how.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Report {
    /// Bytes accepted by the kernel.
    pub bytes: u64,
    /// The method that moved the file's bytes.
    pub method: Method,
    /// Syscalls made.
    pub syscalls: u64,
}

/// The counters of a transfer in either direction.
#[derive(Debug, Default)]
pub(super) struct Account {
    /// Bytes moved so far.
    pub moved: u64,
    /// Bytes still to move; `None`: until the source ends.
    pub remaining: Option<u64>,
    pub syscalls: u64,
}

impl Account {
    pub fn new(remaining: Option<u64>) -> Self {
        Self { remaining, ..Self::default() }
    }

    pub fn add(&mut self, count: usize) {
        self.moved += count as u64;
        self.remaining = self.remaining.map(|remaining| remaining.saturating_sub(count as u64));
    }
}

/// The result of one step of a turn.
pub(super) enum Step {
    /// This many bytes were moved; the turn continues.
    Moved(usize),
    /// This many bytes were moved; then the descriptor would block.
    Blocked(usize),
    /// A signal interrupted the call.
    Interrupted,
    /// Nothing was moved, and the turn ends.
    Ended(Progress),
}

/// Runs one turn. `step` moves at most the given number of bytes, which is not 0.
pub(super) fn run_turn<T>(
    transfer: &mut T,
    budget: &mut Budget,
    account: impl Fn(&T) -> &Account,
    mut step: impl FnMut(&mut T, u64) -> Result<Step>,
) -> Result<Progress> {
    loop {
        if account(transfer).remaining == Some(0) {
            return Ok(Progress::Done);
        }
        let left = budget.left();
        if left == 0 {
            return Ok(Progress::Yield);
        }
        match step(transfer, left)? {
            Step::Moved(count) => budget.spend(count),
            Step::Blocked(count) => {
                budget.spend(count);
                if account(transfer).remaining != Some(0) {
                    return Ok(Progress::Blocked);
                }
            }
            Step::Interrupted => budget.spend(INTERRUPTED),
            Step::Ended(progress) => return Ok(progress),
        }
    }
}
