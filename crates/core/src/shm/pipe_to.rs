//! [`PipeTo`]: sending the contents of a ring to a descriptor, without a buffer in this process.
//!
//! The kernel copies from the pages of the ring during `sendmsg(2)` or `writev(2)`, so the writer can reuse them when the call
//! returns. `vmsplice(2)` would only refer to the pages: a socket reads them until its peer has acknowledged the bytes, and no
//! call reports when that is, so the writer would overwrite bytes before they are sent.

use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use super::layout::Role;
use super::ring::Ring;
use super::ring_io::ReadOutcome;
use crate::error::{Code, Error, Result};
use crate::io::NonBlocking;
use crate::stats::contain;
use crate::thread;
use zerosend_sys::io::Target;
use zerosend_sys::io::gather_spans;
use zerosend_sys::memory::Span;

/// Milliseconds between checks for a cancellation while the target is full.
const POLL_INTERVAL: u16 = 100;

/// A thread that sends the contents of a ring. Dropping it cancels it.
pub struct PipeTo {
    ring: Arc<Ring>,
    stop: Arc<AtomicBool>,
}

impl PipeTo {
    /// Sends the contents of `ring`, of messages without their lengths, to `target` until the writer ends the ring. Then calls
    /// `done` with the number of bytes, or with an error that has the number in [`Error::bytes`].
    pub fn start(ring: Arc<Ring>, target: OwnedFd, done: impl FnOnce(Result<u64>) + Send + 'static) -> Result<Self> {
        let target = NonBlocking::new(target)?;
        let stop = Arc::new(AtomicBool::new(false));
        let task = Self { ring: ring.clone(), stop: stop.clone() };
        thread::spawn("zerosend-pipeto", move || {
            let mut bytes = 0;
            let outcome = contain(|| run(&ring, &target, &stop, &mut bytes)).unwrap_or_else(|| Err(Error::dropped()));
            drop((ring, target));
            contain(|| done(outcome.map(|()| bytes).map_err(|error| error.with_bytes(bytes))));
        })
        .map_err(|error| thread::failed("to send the ring", &error))?;
        Ok(task)
    }

    /// Stops it: `done` gets [`Code::Aborted`].
    pub fn cancel(&self) {
        self.stop.store(true, Ordering::Release);
        self.ring.wake(Role::Reader);
    }
}

impl Drop for PipeTo {
    fn drop(&mut self) {
        self.cancel();
    }
}

fn run(ring: &Ring, target: &NonBlocking, stop: &AtomicBool, bytes: &mut u64) -> Result<()> {
    let mut partial = 0;
    loop {
        if stop.load(Ordering::Acquire) {
            return Err(Error::new(Code::Aborted, "the operation was aborted"));
        }
        let mut is_full = false;
        match ring.send_spans(&mut partial, |spans| send(target, spans).inspect(|count| is_full = *count == 0))? {
            ReadOutcome::Ended => return Ok(()),
            ReadOutcome::Bytes(_) if is_full => {
                let mut writable = [PollFd::new(target.as_fd(), PollFlags::POLLOUT)];
                match poll(&mut writable, PollTimeout::from(POLL_INTERVAL)) {
                    Ok(_) | Err(Errno::EINTR) => {}
                    Err(errno) => return Err(Error::system("poll", errno)),
                }
            }
            ReadOutcome::Bytes(count) => *bytes += count as u64,
            ReadOutcome::Empty | ReadOutcome::TooLarge(_) => {
                let waited = ring.wait(Role::Reader, 1, stop);
                if !stop.load(Ordering::Acquire) {
                    waited?;
                }
            }
        }
    }
}

/// Number of bytes sent; 0 when the target is full.
fn send(target: &NonBlocking, spans: &[Span<'_>]) -> Result<usize> {
    match gather_spans(target.as_fd(), &[], spans, target.target(), false) {
        Ok(count) => Ok(count),
        Err(Errno::EAGAIN | Errno::EINTR) => Ok(0),
        Err(errno) => Err(Error::system(if target.target() == Target::Fd { "writev" } else { "sendmsg" }, errno)),
    }
}
