//! Who is at the ends of a ring: taking a role, waiting for the other side, and noticing that it has died.
//!
//! A side takes its role by a lock on the segment (`fcntl(2)`, open file description locks), which the kernel lets go of when the process
//! dies: so there is one writer and one reader at most, a dead peer is known by its state that says "open" with nobody holding the
//! lock, and another process can take its place, where it stopped.

use std::sync::MutexGuard;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, fcntl};

use super::protocol::{self, Corrupt};
use super::ring::{Ring, Role, closed};
use crate::error::{Code, Error, Result};
use zerosend_sys::futex;

/// States of a side. `OPEN` with nobody holding the lock is one that has died.
pub(super) const NEVER: u32 = 0;
pub(super) const OPEN: u32 = 1;
/// The writer has ended, or the reader has closed.
pub(super) const OVER: u32 = 2;

/// How often a sleeper looks whether its peer is alive. It learns of bytes at once.
const HEARTBEAT: Duration = Duration::from_millis(250);
/// How often, and in which distance, a role that is taken is tried again: a peer may be looking into a death.
const CLAIM_RETRIES: u32 = 5;
const CLAIM_RETRY_INTERVAL: Duration = Duration::from_millis(2);

impl Ring {
    /// Waits until the writer has room for `bytes`, or the reader has something to read or the end to learn of.
    /// [`Code::PeerDied`]: the other side has gone without a word, and there is nothing more of it; said once, after which
    /// another may take its place. [`Code::Closed`] when [`Ring::close`] is called meanwhile or `stop` is set.
    pub fn wait(&self, role: Role, bytes: usize, stop: &AtomicBool) -> Result<()> {
        drop(self.claim(role)?);
        let mine = self.side(role);
        let wanted = bytes.clamp(1, self.mapping.capacity()) as u32;
        let stopped = || self.closed.load(Ordering::Acquire) || stop.load(Ordering::Acquire);
        loop {
            if stopped() {
                return Err(closed());
            }
            if self.is_ready(role, wanted)? {
                return Ok(());
            }
            // Errors are found again above.
            let awake = || stopped() || self.is_ready(role, wanted).unwrap_or(true);
            if protocol::prepare_sleep(mine, wanted, awake) {
                let slept = futex::wait(&mine.sleeps, wanted, HEARTBEAT);
                mine.sleeps.store(0, Ordering::Relaxed);
                if slept == Err(Errno::ETIMEDOUT) {
                    self.look_after(role.other(), || self.is_ready(role, wanted))?;
                }
            }
        }
    }

    /// Wakes who waits here, to look at its `stop`.
    pub(super) fn wake(&self, role: Role) {
        protocol::wake(self.side(role), || u64::MAX);
    }

    fn is_ready(&self, role: Role, wanted: u32) -> Result<bool> {
        let header = self.mapping.header();
        let position = self.position(role).unwrap_or_default();
        let bytes = match role {
            Role::Reader => protocol::readable(&header.writer, position, self.capacity()),
            Role::Writer => protocol::writable(&header.reader, position, self.capacity()),
        };
        let enough = bytes.map_err(|Corrupt| self.corrupt())? >= u64::from(wanted);
        Ok(enough || protocol::state(self.side(role.other())) == OVER)
    }

    /// Is this side alive? One that has died makes room for another, and is an error once.
    fn look_after(&self, role: Role, ready: impl FnOnce() -> Result<bool>) -> Result<()> {
        let side = self.side(role);
        if protocol::state(side) != OPEN || self.position(role).is_some() {
            return Ok(());
        }
        // Holding its lock means that it is gone and that nobody takes its place just now.
        if self.lock(role, libc::F_WRLCK as i16).is_err() {
            return Ok(());
        }
        let died = protocol::state(side) == OPEN;
        let process = side.process.load(Ordering::Relaxed);
        // What it has left is read first; the next look finds it dead again.
        let more = ready();
        if died && matches!(more, Ok(false)) {
            side.state.store(NEVER, Ordering::Release);
        }
        let _ = self.lock(role, libc::F_UNLCK as i16);
        if !died || more? {
            return Ok(());
        }
        let message = format!("the {} of the ring has died (process {process}) without ending it", role.name());
        Err(Error::new(Code::PeerDied, message))
    }

    /// The role of this process, taken at its first use, and its position.
    pub(super) fn claim(&self, role: Role) -> Result<MutexGuard<'_, Option<u64>>> {
        let mut mine = self.position(role);
        if self.closed.load(Ordering::Acquire) {
            return Err(closed());
        }
        let header = self.mapping.header();
        let side = self.side(role);
        if mine.is_some() {
            if role == Role::Writer && protocol::state(side) == OVER {
                return Err(Error::new(Code::Closed, "the ring was ended; nothing can be written after that"));
            }
            return Ok(mine);
        }
        let mut tries = CLAIM_RETRIES;
        while let Err(errno) = self.lock(role, libc::F_WRLCK as i16) {
            if !matches!(errno, Errno::EAGAIN | Errno::EACCES) {
                return Err(self.segment.failed("fcntl", errno));
            }
            if tries == 0 {
                let process = side.process.load(Ordering::Relaxed);
                let message = format!("the ring has a {} already: process {process}", role.name());
                return Err(Error::new(Code::Busy, message));
            }
            tries -= 1;
            thread::sleep(CLAIM_RETRY_INTERVAL);
        }
        if role == Role::Writer && protocol::state(side) == OVER {
            let _ = self.lock(role, libc::F_UNLCK as i16);
            return Err(Error::new(Code::Closed, "the ring was ended; nothing can be written after that"));
        }
        // Where the last one stopped.
        let position = side.position.load(Ordering::Acquire);
        let used =
            header.writer.position.load(Ordering::Acquire).wrapping_sub(header.reader.position.load(Ordering::Acquire));
        if used > self.capacity() {
            let _ = self.lock(role, libc::F_UNLCK as i16);
            return Err(self.corrupt());
        }
        side.process.store(std::process::id(), Ordering::Relaxed);
        side.sleeps.store(0, Ordering::Relaxed);
        protocol::set_state(side, self.side(role.other()), OPEN);
        *mine = Some(position);
        Ok(mine)
    }

    pub(super) fn lock(&self, role: Role, kind: i16) -> std::result::Result<(), Errno> {
        let lock = libc::flock {
            l_type: kind,
            l_whence: libc::SEEK_SET as i16,
            l_start: i64::from(role == Role::Reader),
            l_len: 1,
            l_pid: 0,
        };
        fcntl(&self.segment, FcntlArg::F_OFD_SETLK(&lock)).map(drop)
    }
}
