//! From a ring to a descriptor, without a buffer of this process in between.
//!
//! The kernel copies the ring's pages at the call, by `sendmsg(2)` or `writev(2)`, so that the writer may use them again as soon as
//! that returns. `vmsplice(2)` would only refer to them: a socket reads such pages until its peer has acknowledged them, and
//! nothing tells when that is; the writer would change bytes that are on their way.

use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use super::ring::{Read, Ring, Role};
use crate::error::{Code, Error, Result};
use crate::io::NonBlocking;
use crate::stats::contain;
use crate::thread;
use zerosend_sys::io::{Target, gather_spans};
use zerosend_sys::memory::Span;

/// Milliseconds in which a drain that waits for its target sees that it is cancelled.
const POLL_INTERVAL: u16 = 100;

/// A drain that is under way, on a thread of its own. Dropping it cancels it.
pub struct PipeTo {
    ring: Arc<Ring>,
    stop: Arc<AtomicBool>,
}

impl PipeTo {
    /// Sends all that comes out of `ring` to `target` (of messages what is in them), until its writer ends; then calls `done` with
    /// the number of bytes, or with what went wrong and `error.bytes`. `target` is a duplicate.
    pub fn start(ring: Arc<Ring>, target: OwnedFd, done: impl FnOnce(Result<u64>) + Send + 'static) -> Result<Self> {
        let target = NonBlocking::new(target)?;
        let stop = Arc::new(AtomicBool::new(false));
        let drain = Self { ring: ring.clone(), stop: stop.clone() };
        thread::spawn("zerosend-pipeto", move || {
            let mut bytes = 0;
            let outcome = contain(|| run(&ring, &target, &stop, &mut bytes)).unwrap_or_else(|| Err(Error::dropped()));
            drop((ring, target));
            contain(|| done(outcome.map(|()| bytes).map_err(|error| error.with_bytes(bytes))));
        })
        .map_err(|error| Error::new(Code::Limit, format!("cannot start a thread to send the ring: {error}")))?;
        Ok(drain)
    }

    /// Ends it: `done` hears of [`Code::Aborted`].
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
    let mut within = 0;
    loop {
        if stop.load(Ordering::Acquire) {
            return Err(Error::new(Code::Aborted, "the operation was aborted"));
        }
        let mut full = false;
        let read = ring.give(&mut within, |spans| write(target, spans).inspect(|count| full = *count == 0))?;
        match read {
            Read::Ended => return Ok(()),
            Read::Bytes(_) if full => {
                let mut wanted = [PollFd::new(target.as_fd(), PollFlags::POLLOUT)];
                match poll(&mut wanted, PollTimeout::from(POLL_INTERVAL)) {
                    Ok(_) | Err(Errno::EINTR) => {}
                    Err(errno) => return Err(Error::system("poll", errno)),
                }
            }
            Read::Bytes(count) => *bytes += count as u64,
            Read::Empty | Read::TooLarge(_) => {
                let waited = ring.wait(Role::Reader, 1, stop);
                if !stop.load(Ordering::Acquire) {
                    waited?;
                }
            }
        }
    }
}

/// 0: it takes nothing, now.
fn write(target: &NonBlocking, spans: &[Span<'_>]) -> Result<usize> {
    match gather_spans(target.as_fd(), &[], spans, target.target(), false) {
        Ok(count) => Ok(count),
        Err(Errno::EAGAIN | Errno::EINTR) => Ok(0),
        Err(errno) => Err(Error::system(if target.target() == Target::Fd { "writev" } else { "sendmsg" }, errno)),
    }
}
