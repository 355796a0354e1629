//! A copy of a flow: a mirror, or one of several sinks.
//!
//! What a flow has taken is copied into the tap's own pipe by `tee(2)`, which may take less than all and always begins with
//! the first byte. So each tap counts how far it is `ahead` of what the flow has given to its target: it is offered bytes
//! only when that is 0, and the flow gives no byte that a tap does not have, or has missed for good.

use std::os::fd::AsFd;
use std::sync::Arc;
use std::time::Instant;

use nix::errno::Errno;
use nix::sys::epoll::EpollFlags;

use super::append::AppendedFile;
use super::flow::Means;
use super::load::Load;
use super::options::Policy;
use super::pipes::PipePool;
use super::side::Side;
use super::worker::Message;
use crate::pipe::Pipe;
use crate::pool::{Lane, Pool, Volume};
use crate::sys::SysResult;
use crate::sys::pipe::{SpliceFlags, splice};

/// Reads of a mirror's answers in one turn.
const MOST_READS: usize = 16;

/// Where the copies go.
pub(super) enum Outlet {
    /// To a socket or pipe, once it is connected. `own`: it is the link's alone, is told of the end, and what comes from it
    /// interests nobody.
    Stream { side: Side, connecting: Option<Instant>, own: bool },
    /// To a file, on a thread that may wait for the disk.
    File { file: Arc<AppendedFile>, writing: bool },
    /// There was nothing to be had.
    Nowhere,
}

pub(super) struct Tap {
    outlet: Outlet,
    policy: Policy,
    /// Which of the link's it is.
    index: usize,
    /// Shared with the thread that writes the file.
    pipe: Option<Arc<Pipe>>,
    filled: usize,
    ahead: usize,
    pub report: TapReport,
    /// All has gone on, and the outlet has been told of the end.
    finished: bool,
    /// What came from the outlet has ended too.
    closed: bool,
    /// See `Flow::refused`.
    pub refused: bool,
}

/// What became of a mirror or sink.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct TapReport {
    /// Bytes it got.
    pub bytes: u64,
    /// Bytes it missed.
    pub dropped: u64,
    /// Why it got no more.
    pub failure: Option<Errno>,
}

impl Tap {
    pub fn new(outlet: Outlet, policy: Policy, index: usize) -> Self {
        Self {
            outlet,
            policy,
            index,
            pipe: None,
            filled: 0,
            ahead: 0,
            report: TapReport::default(),
            finished: false,
            closed: false,
            refused: false,
        }
    }

    /// One that has failed before it began.
    pub fn failed(errno: Errno, policy: Policy, index: usize) -> Self {
        let report = TapReport { failure: Some(errno), ..TapReport::default() };
        Self { report, ..Self::new(Outlet::Nowhere, policy, index) }
    }

    /// What epoll has to wait for.
    pub fn side(&self) -> Option<&Side> {
        match &self.outlet {
            Outlet::Stream { side, .. } => Some(side).filter(|side| side.is_pollable()),
            Outlet::File { .. } | Outlet::Nowhere => None,
        }
    }

    /// Since when it has been connecting.
    pub fn connecting(&self) -> Option<Instant> {
        match &self.outlet {
            Outlet::Stream { connecting, .. } if self.report.failure.is_none() => *connecting,
            _ => None,
        }
    }

    /// Takes note of what epoll says.
    pub fn note(&mut self, events: EpollFlags) {
        let Outlet::Stream { side, connecting, .. } = &mut self.outlet else { return };
        let failed = side.note(events);
        if connecting.is_some() {
            side.writable.set(false);
            match side.failure() {
                Ok(()) if events.contains(EpollFlags::EPOLLOUT) && !failed => {
                    *connecting = None;
                    side.writable.set(true);
                }
                Ok(()) => {}
                Err(errno) => self.fail(errno),
            }
        } else if failed {
            let errno = side.failure().err().unwrap_or(Errno::EPIPE);
            self.fail(errno);
        }
    }

    /// It gets no more.
    pub fn fail(&mut self, errno: Errno) {
        if self.report.failure.is_none() {
            self.report.failure = Some(errno);
            self.report.dropped += self.filled as u64;
            self.filled = 0;
        }
    }

    /// Why the link cannot go on: nothing may be missed, and something was.
    pub fn broken(&self) -> Option<Errno> {
        self.report.failure.filter(|_| self.policy == Policy::Block)
    }

    /// How many of the first bytes of `load` it has, or has missed.
    pub fn offer(&mut self, load: &Load, pipes: &mut PipePool) -> usize {
        if self.ahead == 0 {
            match self.copy(load, pipes) {
                Ok(count) => {
                    self.ahead = count;
                    self.filled += count;
                }
                Err(Errno::EAGAIN) if self.policy == Policy::Block => return 0,
                Err(Errno::EAGAIN) => {}
                Err(errno) => self.fail(errno),
            }
            if self.ahead == 0 {
                self.report.dropped += load.len() as u64;
                self.ahead = load.len();
            }
        }
        self.ahead
    }

    fn copy(&mut self, load: &Load, pipes: &mut PipePool) -> SysResult<usize> {
        if let Some(errno) = self.report.failure {
            return Err(errno);
        }
        if self.pipe.is_none() {
            self.pipe = Some(Arc::new(pipes.take().ok_or(Errno::EMFILE)?));
        }
        match &self.pipe {
            Some(pipe) => load.copy(pipe),
            None => Err(Errno::EMFILE),
        }
    }

    /// The flow has given `count` bytes to its target.
    pub fn pass(&mut self, count: usize) {
        self.ahead -= count;
    }

    /// Moves on what it has.
    pub fn drain(&mut self, means: &mut Means<'_>) {
        self.refused = false;
        if self.report.failure.is_some() {
            return self.release(means.tap_pipes);
        }
        match &mut self.outlet {
            Outlet::Stream { connecting: Some(_), .. } | Outlet::Nowhere => {}
            Outlet::Stream { side, own, .. } => {
                while let (Some(pipe), true, true) = (&self.pipe, self.filled > 0, side.writable.get()) {
                    match splice(pipe.read_end(), None, side.as_fd(), None, self.filled, SpliceFlags::default()) {
                        Ok(count) => {
                            self.filled -= count;
                            self.report.bytes += count as u64;
                        }
                        Err(Errno::EINTR) => {}
                        Err(Errno::EAGAIN) => {
                            side.writable.set(false);
                            self.refused = true;
                        }
                        Err(errno) => return self.fail(errno),
                    }
                }
                // A mirror whose answers nobody reads would stop reading.
                if *own && !self.closed {
                    self.closed = discard(side, means.buffer);
                }
            }
            Outlet::File { file, writing } => {
                if let (Some(pipe), true, false) = (&self.pipe, self.filled > 0, *writing) {
                    *writing = true;
                    let (file, pipe, mailbox) = (file.clone(), pipe.clone(), means.mailbox.clone());
                    let (token, index) = (means.token, self.index);
                    let work = move || Ok(file.append(&pipe));
                    let answer = move |written: crate::Result<(usize, SysResult<()>)>| {
                        let (count, result) = written.unwrap_or((0, Err(Errno::EIO)));
                        mailbox.send(Message::Written { token, index, count, result });
                    };
                    Pool::global().run(Lane::Long, Volume::NONE, work, answer).detach();
                }
            }
        }
        self.release(means.tap_pipes);
    }

    /// Word from the thread that writes the file.
    pub fn written(&mut self, count: usize, result: SysResult<()>) {
        self.report.bytes += count as u64;
        self.filled = self.filled.saturating_sub(count);
        if let Outlet::File { writing, .. } = &mut self.outlet {
            *writing = false;
        }
        if let Err(errno) = result {
            self.fail(errno);
        }
    }

    /// Whether what it has may be missed.
    pub fn may_miss(&self) -> bool {
        self.policy == Policy::Drop || self.finished
    }

    /// The flow is at its end: true when nothing is left to do here.
    pub fn finish(&mut self) -> bool {
        if self.report.failure.is_some() {
            return true;
        }
        if !self.finished && self.filled == 0 && self.connecting().is_none() {
            self.finished = true;
            if let Outlet::Stream { side, own: true, .. } = &self.outlet {
                let _ = side.end();
            }
        }
        // To close what still sends would be a reset, and its last bytes might be lost.
        self.finished && (self.closed || !matches!(self.outlet, Outlet::Stream { own: true, .. }))
    }

    /// Whether nothing is on its way to the outlet.
    pub fn is_drained(&self) -> bool {
        let writing = matches!(self.outlet, Outlet::File { writing: true, .. });
        self.report.failure.is_some() || self.filled == 0 && self.connecting().is_none() && !writing
    }

    /// The outlet's connection, when it is the link's alone.
    pub fn own_side(&self) -> Option<&Side> {
        match &self.outlet {
            Outlet::Stream { side, own: true, .. } if self.report.failure.is_none() => Some(side),
            _ => None,
        }
    }

    /// The link is over. What is for a file is still written; all else is missed.
    pub fn abandon(&mut self, pipes: &mut PipePool) {
        match (&self.outlet, &self.pipe) {
            (Outlet::File { file, .. }, Some(pipe)) if self.filled > 0 => {
                let (file, pipe) = (file.clone(), pipe.clone());
                // Who would hear of a failure is gone.
                let work = move || Ok(file.append(&pipe));
                Pool::global().run(Lane::Long, Volume::NONE, work, drop).detach();
                self.report.bytes += self.filled as u64;
            }
            _ => self.report.dropped += self.filled as u64,
        }
        self.filled = 0;
        if self.pipe.take().is_some() {
            pipes.lose();
        }
    }

    fn release(&mut self, pipes: &mut PipePool) {
        if self.filled > 0 || matches!(self.outlet, Outlet::File { writing: true, .. }) {
            return;
        }
        match self.pipe.take().map(Arc::try_unwrap) {
            Some(Ok(pipe)) if self.report.failure.is_none() => pipes.put(pipe),
            Some(_) => pipes.lose(),
            None => {}
        }
    }
}

/// Reads and forgets; true at the end.
fn discard(side: &Side, buffer: &mut [u8]) -> bool {
    for _ in 0..MOST_READS {
        if !side.readable.get() {
            break;
        }
        match side.read(buffer) {
            Ok(0) => return true,
            Ok(_) | Err(Errno::EINTR) => {}
            Err(_) => side.readable.set(false),
        }
    }
    false
}
