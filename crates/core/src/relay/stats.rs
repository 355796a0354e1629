//! What a relay counts.

use crate::stats::Counter;

/// Counters, shared by the workers.
#[derive(Debug, Default)]
pub(super) struct RelayStats {
    pub accepted: Counter,
    pub refused: Counter,
    pub closed: Counter,
    pub unreachable: Counter,
    pub retries: Counter,
    pub connect_timeouts: Counter,
    pub idle_timeouts: Counter,
    pub failed: Counter,
    pub cut: Counter,
    pub degraded: Counter,
    pub up: Counter,
    pub down: Counter,
}

impl RelayStats {
    pub fn end(&self, up: u64, down: u64, degraded: bool) {
        self.closed.add(1);
        self.up.add(up);
        self.down.add(down);
        self.degraded.add(u64::from(degraded));
    }
}

/// The counters of a relay now.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct RelaySnapshot {
    /// Connections now.
    pub connections: u64,
    /// Connections accepted so far.
    pub accepted: u64,
    /// Of these, closed at once: too many, or no descriptors.
    pub refused: u64,
    /// Connections for which no target answered.
    pub unreachable: u64,
    /// Further targets that were tried.
    pub retries: u64,
    /// Targets that did not answer in time.
    pub connect_timeouts: u64,
    /// Connections closed for want of bytes.
    pub idle_timeouts: u64,
    /// Connections that ended by a reset or another failure of one side.
    pub failed: u64,
    /// Connections cut by the end of the relay.
    pub cut: u64,
    /// Connections that had bytes go through user space for want of a pipe.
    pub degraded: u64,
    /// Bytes from clients, of connections that have ended.
    pub bytes_up: u64,
    /// Bytes to clients, of connections that have ended.
    pub bytes_down: u64,
}
