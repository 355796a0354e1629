//! Waiting for the other side of a ring, and detecting that it has died.
//!
//! The kernel releases the lock of a role when the process dies. So a side whose state is [`state::OPEN`] while its role can be
//! locked has died, and another process can continue at its position.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use nix::errno::Errno;

use super::layout::{Role, state};
use super::protocol::{self, Corrupt};
use super::ring::{Ring, closed};
use crate::error::{Code, Error, Result};
use zerosend_sys::futex;

/// How often a sleeping side checks whether its peer is alive. New bytes wake it at once.
const LIVENESS_INTERVAL: Duration = Duration::from_millis(250);

impl Ring {
    /// Waits until the writer has room for `bytes`, or until the reader has bytes or the end to read. [`Code::PeerDied`]: the
    /// other side has died and left nothing to read; reported once, then another process can take its role.
    /// [`Code::Closed`]: [`Ring::close`] was called, or `stop` was set and the role woken.
    pub fn wait(&self, role: Role, bytes: usize, stop: &AtomicBool) -> Result<()> {
        drop(self.claim(role)?);
        let mine = self.side(role);
        let wanted = bytes.clamp(1, self.mapping.capacity()) as u32;
        let stopped = || self.is_closed() || stop.load(Ordering::Acquire);
        loop {
            if stopped() {
                return Err(closed());
            }
            if self.is_ready(role, wanted)? {
                return Ok(());
            }
            // The next iteration reports an error of `is_ready`.
            let awake = || stopped() || self.is_ready(role, wanted).unwrap_or(true);
            if protocol::prepare_sleep(mine, wanted, awake) {
                let slept = futex::wait(&mine.sleeps, wanted, LIVENESS_INTERVAL);
                mine.sleeps.store(0, Ordering::Relaxed);
                if slept == Err(Errno::ETIMEDOUT) {
                    self.check_alive(role.other(), || self.is_ready(role, wanted))?;
                }
            }
        }
    }

    fn is_ready(&self, role: Role, wanted: u32) -> Result<bool> {
        let header = self.mapping.header();
        let position = self.position(role).unwrap_or_default();
        let bytes = match role {
            Role::Reader => protocol::readable(&header.writer, position, self.capacity()),
            Role::Writer => protocol::writable(&header.reader, position, self.capacity()),
        };
        let enough = bytes.map_err(|Corrupt| self.corrupt())? >= u64::from(wanted);
        Ok(enough || protocol::state(self.side(role.other())) == state::ENDED)
    }

    /// Fails when the process with this role has died and the caller is not `ready`. Makes the role vacant then, so that the
    /// death is reported once.
    fn check_alive(&self, role: Role, ready: impl FnOnce() -> Result<bool>) -> Result<()> {
        let side = self.side(role);
        if protocol::state(side) != state::OPEN || self.position(role).is_some() {
            return Ok(());
        }
        // With the lock no other process can take the role meanwhile.
        if self.lock(role).is_err() {
            return Ok(());
        }
        let died = protocol::state(side) == state::OPEN;
        let process = side.process.load(Ordering::Relaxed);
        // What it has written is read first; the next check finds it dead again.
        let ready = ready();
        if died && matches!(ready, Ok(false)) {
            side.state.store(state::VACANT, Ordering::Release);
        }
        self.unlock(role);
        if !died || ready? {
            return Ok(());
        }
        let message = format!("the {} of the ring, process {process}, died without ending it", role.name());
        Err(Error::new(Code::PeerDied, message))
    }
}
