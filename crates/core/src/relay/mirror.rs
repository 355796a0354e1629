//! A copy of a flow: a mirror, or one of several sinks.
//!
//! What a flow has taken is copied into the mirror's own pipe by `tee(2)`, which may take less than all and always begins with
//! the first byte. So each mirror counts how far it is `ahead` of what the flow has given to its target: it is offered bytes
//! only when that is 0, and the flow gives no byte that a mirror does not have, or has missed for good.

use std::os::fd::AsFd;
use std::sync::Arc;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::sys::epoll::EpollFlags;

use super::append::{Append, AppendReporter, AppendResult, AppendTarget};
use super::buffer::FlowBuffer;
use super::dial::{Addresses, ConnectContext, ConnectStatus, DescriptorWait, Dial, Expired, Step};
use super::flow::PumpContext;
use super::options::Policy;
use super::side::Side;
use crate::event_loop::slab::Token;
use crate::io::pipe::Pipe;
use crate::io::pipe_pool::{PipePool, RETRY_INTERVAL};
use zerosend_sys::SysResult;
use zerosend_sys::pipe::{SpliceFlags, splice};

/// Reads of a mirror's answers in one turn.
const MAX_READS: usize = 16;

/// Where the copies go.
pub(super) enum MirrorSink {
    /// To a server that is being connected to; no socket: before the next try.
    Connecting { dial: Dial, side: Option<Side>, addresses: Arc<Addresses> },
    /// To a socket or pipe. `own`: it is the link's alone, is told of the end, and what comes from it interests nobody.
    Stream { side: Side, own: bool },
    /// To a file, on a thread that may wait for the disk; `writing`: bytes that the thread has.
    File { file: AppendTarget, writing: usize },
    /// There was nothing to be had.
    Nowhere,
}

pub(super) struct Mirror {
    sink: MirrorSink,
    policy: Policy,
    /// Which of the link's it is.
    index: usize,
    pipe: Option<Pipe>,
    filled: usize,
    ahead: usize,
    /// It has no pipe and waits for one, until then at max; counted where descriptors are missing.
    pipe_wait: Option<(Instant, Option<DescriptorWait>)>,
    pub report: MirrorReport,
    /// It gets no more bytes: it failed for good.
    over: bool,
    /// All has gone on, and the sink has been told of the end.
    finished: bool,
    /// What came from the sink has ended too.
    closed: bool,
    /// See `Flow::refused`.
    pub needs_rearm: bool,
}

/// What became of a mirror or sink.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct MirrorReport {
    /// Bytes it got.
    pub bytes: u64,
    /// Bytes it missed.
    pub dropped: u64,
    /// Why it missed bytes, or got no more: the last failure.
    pub failure: Option<Errno>,
}

impl Mirror {
    pub fn new(sink: MirrorSink, policy: Policy, index: usize) -> Self {
        Self {
            sink,
            policy,
            index,
            pipe: None,
            filled: 0,
            ahead: 0,
            pipe_wait: None,
            report: MirrorReport::default(),
            over: false,
            finished: false,
            closed: false,
            needs_rearm: false,
        }
    }

    /// One that has failed before it began.
    pub fn failed(errno: Errno, policy: Policy, index: usize) -> Self {
        let report = MirrorReport { failure: Some(errno), ..MirrorReport::default() };
        Self { report, over: true, ..Self::new(MirrorSink::Nowhere, policy, index) }
    }

    /// What epoll has to wait for.
    pub fn side(&self) -> Option<&Side> {
        match &self.sink {
            MirrorSink::Connecting { side, .. } => side.as_ref(),
            MirrorSink::Stream { side, .. } => Some(side).filter(|side| side.is_pollable()),
            MirrorSink::File { .. } | MirrorSink::Nowhere => None,
        }
    }

    fn is_connecting(&self) -> bool {
        !self.over && matches!(self.sink, MirrorSink::Connecting { .. })
    }

    /// When something is to be done unless an event comes before; `limit`: how long it may connect.
    pub fn deadline(&self, limit: Duration) -> Option<Instant> {
        match &self.sink {
            _ if self.over => None,
            MirrorSink::Connecting { dial, .. } => dial.deadline(limit),
            _ => self.pipe_wait.as_ref().map(|(until, _)| *until),
        }
    }

    /// Looks whether the moment of [`Mirror::deadline`] has come.
    pub fn expire(&mut self, limit: Duration, now: Instant) -> bool {
        if self.deadline(limit).is_none_or(|deadline| deadline > now) {
            return false;
        }
        match &mut self.sink {
            MirrorSink::Connecting { dial, side, .. } => match dial.expire(limit, now) {
                Expired::All => self.fail(Errno::ETIMEDOUT),
                Expired::Step => *side = None,
                Expired::Nothing => return false,
            },
            _ => self.pipe_wait = None,
        }
        true
    }

    /// Connects to the next address of its server, unless a socket is connecting or there is nothing to connect. Returns the
    /// new socket, which nothing waits for yet.
    pub fn dial(&mut self, context: &mut ConnectContext<'_>) -> Option<&Side> {
        if self.over {
            return None;
        }
        let MirrorSink::Connecting { dial, side: side @ None, .. } = &mut self.sink else { return None };
        match dial.next(context) {
            Step::Connecting(socket) => *side = Some(Side::socket(socket)),
            Step::Wait => {}
            Step::Failed(errno) => self.fail(errno),
        }
        self.side()
    }

    /// Takes note of what epoll says. True: it has to be dialled.
    pub fn note(&mut self, events: EpollFlags) -> bool {
        match &mut self.sink {
            MirrorSink::Connecting { dial, side, addresses } => {
                let Some(connecting) = side else { return false };
                match dial.check(connecting, events) {
                    ConnectStatus::Pending => return false,
                    ConnectStatus::Failed => {
                        *side = None;
                        return true;
                    }
                    ConnectStatus::Connected => {}
                }
                if let Some(address) = dial.address() {
                    addresses.prefer(address);
                }
                if let Some(side) = side.take() {
                    self.sink = MirrorSink::Stream { side, own: true };
                }
            }
            MirrorSink::Stream { side, .. } => {
                if side.note(events) {
                    let errno = side.failure().err().unwrap_or(Errno::EPIPE);
                    self.fail(errno);
                }
            }
            MirrorSink::File { .. } | MirrorSink::Nowhere => {}
        }
        false
    }

    /// It gets no more.
    pub fn fail(&mut self, errno: Errno) {
        if !self.over {
            self.over = true;
            self.report.failure = Some(errno);
            self.report.dropped += self.filled as u64;
            self.filled = 0;
            self.stop_waiting();
            if let MirrorSink::Connecting { side, .. } = &mut self.sink {
                *side = None;
            }
        }
    }

    /// Others may have the descriptors that it has waited for.
    pub fn stop_waiting(&mut self) {
        self.pipe_wait = None;
        if let MirrorSink::Connecting { dial, .. } = &mut self.sink {
            dial.stop_waiting();
        }
    }

    /// Why the link cannot go on: nothing may be missed, and something was.
    pub fn broken(&self) -> Option<Errno> {
        self.report.failure.filter(|_| self.policy == Policy::Block)
    }

    /// How many of the first bytes of `load` it has, or has missed.
    pub fn offer(&mut self, load: &mut FlowBuffer, context: &mut PumpContext<'_>) -> usize {
        if self.ahead == 0 {
            match self.copy(load, context.mirror_pipes) {
                Ok(count) => {
                    self.ahead = count;
                    self.filled += count;
                    self.pipe_wait = None;
                }
                Err(Errno::EAGAIN) if self.policy == Policy::Block => return 0,
                Err(Errno::EAGAIN) => {}
                // More pipes than there may be, or than there are descriptors for.
                Err(errno @ Errno::EMFILE) if self.policy == Policy::Drop => self.report.failure = Some(errno),
                // The pipe that is being written comes back.
                Err(Errno::EMFILE) if self.is_writing() => return 0,
                Err(Errno::EMFILE) => {
                    self.wait_for_pipe(load, context);
                    return 0;
                }
                Err(errno) => self.fail(errno),
            }
            if self.ahead == 0 {
                self.report.dropped += load.len() as u64;
                self.ahead = load.len();
            }
        }
        self.ahead
    }

    /// There is no pipe for it. The flow gives its own pipe back: otherwise all could wait for the pipes of one another.
    fn wait_for_pipe(&mut self, load: &mut FlowBuffer, context: &mut PumpContext<'_>) {
        match load.spill(context.pipes) {
            Ok(()) => {
                context.pipes.close_idle();
                let waiting = (!context.mirror_pipes.is_full()).then(|| DescriptorWait::new(context.waiting));
                self.pipe_wait = Some((Instant::now() + RETRY_INTERVAL, waiting));
            }
            Err(errno) => self.fail(errno),
        }
    }

    /// Whether it waits for a pipe.
    pub fn lacks_pipe(&self) -> bool {
        self.pipe_wait.is_some()
    }

    fn copy(&mut self, load: &FlowBuffer, pipes: &mut PipePool) -> SysResult<usize> {
        if self.over {
            return Err(self.report.failure.unwrap_or(Errno::EPIPE));
        }
        if self.pipe.is_none() {
            self.pipe = Some(pipes.acquire().ok_or(Errno::EMFILE)?);
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
    pub fn drain(&mut self, context: &mut PumpContext<'_>) {
        self.needs_rearm = false;
        if self.over {
            return self.release(context.mirror_pipes);
        }
        match &mut self.sink {
            MirrorSink::Connecting { .. } | MirrorSink::Nowhere => {}
            MirrorSink::Stream { side, own } => {
                while let (Some(pipe), true, true) = (&self.pipe, self.filled > 0, side.writable.get()) {
                    match splice(pipe.read_end(), None, side.as_fd(), None, self.filled, SpliceFlags::default()) {
                        Ok(count) => {
                            self.filled -= count;
                            self.report.bytes += count as u64;
                        }
                        Err(Errno::EINTR) => {}
                        Err(Errno::EAGAIN) => {
                            side.writable.set(false);
                            self.needs_rearm = true;
                        }
                        Err(errno) => return self.fail(errno),
                    }
                }
                // A mirror whose answers nobody reads would stop reading.
                if *own && !self.closed {
                    self.closed = discard(side, context.scratch);
                }
            }
            MirrorSink::File { file, writing } => {
                if self.filled > 0 && self.policy == Policy::Drop && file.is_stalled() {
                    self.pipe = None;
                    self.report.dropped += std::mem::take(&mut self.filled) as u64;
                    context.mirror_pipes.discard();
                } else if self.filled > 0
                    && *writing == 0
                    && let Some(pipe) = self.pipe.take()
                {
                    *writing = std::mem::take(&mut self.filled);
                    Append::new(pipe, *writing, context.token, self.index, context.append_reporter).send_to(file);
                }
            }
        }
        self.release(context.mirror_pipes);
    }

    /// Takes the result of a file write.
    pub fn written(&mut self, result: AppendResult, pipes: &mut PipePool) {
        let AppendResult { pipe, written, lost, failure } = result;
        self.report.bytes += written as u64;
        self.report.dropped += lost as u64;
        if let MirrorSink::File { writing, .. } = &mut self.sink {
            *writing = 0;
        }
        match pipe {
            Some(pipe) => pipes.release(pipe),
            None => pipes.discard(),
        }
        match failure {
            Some(errno) if self.policy == Policy::Block => self.fail(errno),
            // What comes later may find room on the disk again.
            Some(errno) => self.report.failure = Some(errno),
            None => {}
        }
    }

    /// Whether a thread writes bytes of it to a file.
    pub fn is_writing(&self) -> bool {
        matches!(self.sink, MirrorSink::File { writing: 1.., .. })
    }

    /// Whether bytes of it are still to be written to a file.
    pub fn owes_file(&self) -> bool {
        matches!(self.sink, MirrorSink::File { .. }) && self.unconfirmed() > 0
    }

    /// Bytes that nothing is known of yet: those in a pipe, and those that a thread writes to a file.
    pub fn unconfirmed(&self) -> u64 {
        let writing = if let MirrorSink::File { writing, .. } = &self.sink { *writing } else { 0 };
        (self.filled + writing) as u64
    }

    /// Whether what it has may be missed.
    pub fn may_miss(&self) -> bool {
        self.policy == Policy::Drop || self.finished
    }

    /// The flow is at its end: true when nothing is left to do here.
    pub fn finish(&mut self) -> bool {
        if self.over {
            return !self.is_writing();
        }
        if !self.finished && self.unconfirmed() == 0 && !self.is_connecting() {
            self.finished = true;
            if let MirrorSink::Stream { side, own: true, .. } = &self.sink {
                let _ = side.end();
            }
        }
        // To close what still sends would be a reset, and its last bytes might be lost.
        self.finished && (self.closed || !matches!(self.sink, MirrorSink::Stream { own: true, .. }))
    }

    /// Whether nothing is on its way to the sink.
    pub fn is_drained(&self) -> bool {
        !self.is_writing() && (self.over || self.filled == 0 && !self.is_connecting())
    }

    /// The sink's connection, when it is the link's alone.
    pub fn own_side(&self) -> Option<&Side> {
        match &self.sink {
            MirrorSink::Stream { side, own: true } if !self.over => Some(side),
            MirrorSink::Connecting { side, .. } if !self.over => side.as_ref(),
            _ => None,
        }
    }

    /// The link has ended. With `append_reporter`, what is for a file is still written, after what is being written; all else is
    /// missed.
    pub fn abandon(&mut self, pipes: &mut PipePool, append_reporter: Option<&AppendReporter>) {
        let Some(pipe) = self.pipe.take() else { return };
        match (&self.sink, append_reporter) {
            (MirrorSink::File { file, .. }, Some(append_reporter)) if self.filled > 0 && !file.is_stalled() => {
                let length = std::mem::take(&mut self.filled);
                Append::new(pipe, length, ABANDONED, self.index, append_reporter).send_to(file);
            }
            _ => {
                self.report.dropped += std::mem::take(&mut self.filled) as u64;
                pipes.discard();
            }
        }
    }

    fn release(&mut self, pipes: &mut PipePool) {
        if self.filled > 0 {
            return;
        }
        match self.pipe.take() {
            Some(pipe) if !self.over => pipes.release(pipe),
            Some(_) => pipes.discard(),
            None => {}
        }
    }
}

/// The token of pieces whose link has ended; a slab never returns it.
const ABANDONED: Token = Token::MAX;

/// Reads and forgets; true at the end.
fn discard(side: &Side, buffer: &mut [u8]) -> bool {
    for _ in 0..MAX_READS {
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
