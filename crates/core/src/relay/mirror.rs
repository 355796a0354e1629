//! A copy of a flow.
//!
//! The bytes that a flow has read are copied into the pipe of the mirror by `tee(2)`, which may copy less than all and always
//! starts at the first byte. So each mirror counts the bytes that it has copied and the flow has not yet written to its target,
//! `teed_ahead`. It copies only when that is 0, and the flow writes no byte that a mirror has neither copied nor dropped.

use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::sys::epoll::EpollFlags;

use super::append::{Append, AppendReporter};
use super::buffer::FlowBuffer;
use super::descriptors::DescriptorWait;
use super::dial::ConnectContext;
use super::message::AppendResult;
use super::mirror_sink::{MirrorSink, discard_responses};
use super::options::Policy;
use super::pump::PumpContext;
use super::session::MirrorReport;
use super::side::Side;
use crate::event_loop::slab::Token;
use crate::io::pipe::Pipe;
use crate::io::pipe_pool::{PipePool, RETRY_INTERVAL};
use zerosend_sys::SysResult;
use zerosend_sys::pipe::{SpliceFlags, splice};

/// The token in appends whose link is closed; the slab never assigns it.
const CLOSED_LINK: Token = Token::MAX;

pub(super) struct Mirror {
    sink: MirrorSink,
    policy: Policy,
    /// Index in the link.
    index: usize,
    pipe: Option<Pipe>,
    /// Bytes in the pipe.
    filled: usize,
    /// Bytes copied or dropped that the flow has not yet written to its target.
    teed_ahead: usize,
    /// Until when it waits for a pipe, and its count if descriptors are missing.
    pipe_wait: Option<(Instant, Option<DescriptorWait>)>,
    pub report: MirrorReport,
    /// It receives no more bytes.
    failed: bool,
    /// All bytes are written, and the end of the stream was passed on.
    finished: bool,
    /// The responses of the server have ended.
    responses_ended: bool,
    /// See `Flow::needs_rearm`.
    pub needs_rearm: bool,
}

impl Mirror {
    /// A mirror with this index in its link. `sink`: an error if it could not be opened.
    pub fn new(sink: SysResult<MirrorSink>, policy: Policy, index: usize) -> Self {
        let failure = sink.as_ref().err().copied();
        Self {
            sink: sink.unwrap_or(MirrorSink::Closed),
            policy,
            index,
            pipe: None,
            filled: 0,
            teed_ahead: 0,
            pipe_wait: None,
            report: MirrorReport { failure, ..MirrorReport::default() },
            failed: failure.is_some(),
            finished: false,
            responses_ended: false,
            needs_rearm: false,
        }
    }

    /// The descriptor to register with epoll.
    pub fn side(&self) -> Option<&Side> {
        self.sink.side()
    }

    /// The connection, if it belongs to this link only.
    pub fn private_side(&self) -> Option<&Side> {
        self.sink.private_side().filter(|_| !self.failed)
    }

    fn is_connecting(&self) -> bool {
        !self.failed && self.sink.is_connecting()
    }

    /// When [`Mirror::expire`] is due. `timeout`: the connect timeout.
    pub fn deadline(&self, timeout: Duration) -> Option<Instant> {
        if self.failed {
            None
        } else if self.sink.is_connecting() {
            self.sink.connect_deadline(timeout)
        } else {
            self.pipe_wait.as_ref().map(|(until, _)| *until)
        }
    }

    /// Handles a deadline. Returns whether one had passed.
    pub fn expire(&mut self, timeout: Duration, now: Instant) -> bool {
        if self.deadline(timeout).is_none_or(|deadline| deadline > now) {
            return false;
        }
        if !self.sink.is_connecting() {
            self.pipe_wait = None;
            return true;
        }
        self.sink.expire(timeout, now).unwrap_or_else(|errno| {
            self.fail(errno);
            true
        })
    }

    /// Starts to connect to the next address of the server, if necessary. Returns the new socket, to be registered with epoll.
    pub fn dial(&mut self, context: &mut ConnectContext<'_>) -> Option<&Side> {
        if self.failed || !self.sink.is_disconnected() {
            return None;
        }
        if let Err(errno) = self.sink.dial(context) {
            self.fail(errno);
        }
        self.side()
    }

    /// Handles an event. Returns true if [`Mirror::dial`] has to be called.
    pub fn on_event(&mut self, events: EpollFlags) -> bool {
        self.sink.on_event(events).unwrap_or_else(|errno| {
            self.fail(errno);
            false
        })
    }

    /// Stops the mirror. Bytes in its pipe are dropped.
    pub fn fail(&mut self, errno: Errno) {
        if !self.failed {
            self.failed = true;
            self.report.failure = Some(errno);
            self.report.dropped += self.filled as u64;
            self.filled = 0;
            self.stop_waiting();
            self.sink.disconnect();
        }
    }

    /// Stops waiting for descriptors, so that others get them.
    pub fn stop_waiting(&mut self) {
        self.pipe_wait = None;
        self.sink.stop_waiting();
    }

    /// The error because of which the link has to fail: the mirror has dropped bytes under [`Policy::Block`].
    pub fn link_error(&self) -> Option<Errno> {
        self.report.failure.filter(|_| self.policy == Policy::Block)
    }

    /// Copies bytes of `buffer`, if none are copied already. Returns how many of its first bytes are copied or dropped.
    pub fn tee(&mut self, buffer: &mut FlowBuffer, context: &mut PumpContext<'_>) -> usize {
        if self.teed_ahead > 0 {
            return self.teed_ahead;
        }
        match self.copy(buffer, context.mirror_pipes) {
            Ok(count) => {
                self.teed_ahead = count;
                self.filled += count;
                self.pipe_wait = None;
            }
            Err(Errno::EAGAIN) if self.policy == Policy::Block => return 0,
            Err(Errno::EAGAIN) => {}
            // The limit of pipes is reached, or descriptors are missing.
            Err(errno @ Errno::EMFILE) if self.policy == Policy::Drop => self.report.failure = Some(errno),
            // The pipe comes back when it is written to the file.
            Err(Errno::EMFILE) if self.is_appending() => return 0,
            Err(Errno::EMFILE) => {
                self.wait_for_pipe(buffer, context);
                return 0;
            }
            Err(errno) => self.fail(errno),
        }
        if self.teed_ahead == 0 {
            self.report.dropped += buffer.len() as u64;
            self.teed_ahead = buffer.len();
        }
        self.teed_ahead
    }

    /// Starts to wait for a pipe. The flow releases its own pipe, so that flows cannot wait for each other's pipes.
    fn wait_for_pipe(&mut self, buffer: &mut FlowBuffer, context: &mut PumpContext<'_>) {
        match buffer.move_to_memory(context.pipes) {
            Ok(()) => {
                context.pipes.close_idle();
                let waiting = (!context.mirror_pipes.is_full()).then(|| DescriptorWait::new(context.waiting));
                self.pipe_wait = Some((Instant::now() + RETRY_INTERVAL, waiting));
            }
            Err(errno) => self.fail(errno),
        }
    }

    pub fn waits_for_pipe(&self) -> bool {
        self.pipe_wait.is_some()
    }

    fn copy(&mut self, buffer: &FlowBuffer, pipes: &mut PipePool) -> SysResult<usize> {
        if self.failed {
            return Err(self.report.failure.unwrap_or(Errno::EPIPE));
        }
        let pipe = match self.pipe.take() {
            Some(pipe) => pipe,
            None => pipes.acquire().map_err(|_| Errno::EMFILE)?,
        };
        buffer.tee_to(self.pipe.insert(pipe))
    }

    /// The flow has written `count` bytes to its target.
    pub fn advance(&mut self, count: usize) {
        self.teed_ahead -= count;
    }

    /// Writes the bytes in the pipe to the sink, as far as it accepts them.
    pub fn drain(&mut self, context: &mut PumpContext<'_>) {
        self.needs_rearm = false;
        if self.failed {
            return self.release_pipe(context.mirror_pipes);
        }
        match &mut self.sink {
            MirrorSink::Connecting { .. } | MirrorSink::Closed => {}
            MirrorSink::Stream { side, is_private } => {
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
                if *is_private && !self.responses_ended {
                    self.responses_ended = discard_responses(side, context.scratch);
                }
            }
            MirrorSink::File { target, appending } => {
                if self.filled > 0 && self.policy == Policy::Drop && target.is_stalled() {
                    self.pipe = None;
                    self.report.dropped += std::mem::take(&mut self.filled) as u64;
                    context.mirror_pipes.discard();
                } else if self.filled > 0
                    && *appending == 0
                    && let Some(pipe) = self.pipe.take()
                {
                    *appending = std::mem::take(&mut self.filled);
                    Append::new(pipe, *appending, context.token, self.index, context.append_reporter).submit(target);
                }
            }
        }
        self.release_pipe(context.mirror_pipes);
    }

    /// Handles the result of an append.
    pub fn appended(&mut self, result: AppendResult, pipes: &mut PipePool) {
        let AppendResult { pipe, written, lost, failure } = result;
        self.report.bytes += written as u64;
        self.report.dropped += lost as u64;
        if let MirrorSink::File { appending, .. } = &mut self.sink {
            *appending = 0;
        }
        match pipe {
            Some(pipe) => pipes.release(pipe),
            None => pipes.discard(),
        }
        match failure {
            Some(errno) if self.policy == Policy::Block => self.fail(errno),
            // Later appends may succeed, once the disk has room again.
            Some(errno) => self.report.failure = Some(errno),
            None => {}
        }
    }

    /// Whether another thread appends bytes of it to a file.
    pub fn is_appending(&self) -> bool {
        self.sink.appending() > 0
    }

    /// Whether bytes are still to be written to a file.
    pub fn has_unwritten_file_bytes(&self) -> bool {
        matches!(self.sink, MirrorSink::File { .. }) && self.unconfirmed() > 0
    }

    /// Bytes that are neither written nor dropped yet: those in the pipe and those that another thread appends.
    pub fn unconfirmed(&self) -> u64 {
        (self.filled + self.sink.appending()) as u64
    }

    /// Whether the link may be closed before its bytes are written.
    pub fn may_be_dropped(&self) -> bool {
        self.policy == Policy::Drop || self.finished
    }

    /// The flow has ended. Passes the end on once all bytes are written; returns true when nothing is left to do.
    pub fn finish(&mut self) -> bool {
        if self.failed {
            return !self.is_appending();
        }
        if !self.finished && self.unconfirmed() == 0 && !self.is_connecting() {
            self.finished = true;
            self.sink.shut_down();
        }
        // Closing a socket while its peer still sends causes a reset, which may discard its last bytes.
        self.finished && (self.responses_ended || !self.sink.is_private_stream())
    }

    /// Whether all bytes are written or dropped.
    pub fn is_drained(&self) -> bool {
        !self.is_appending() && (self.failed || self.filled == 0 && !self.is_connecting())
    }

    /// Releases the pipe of a closed link. With `reporter`, bytes for a file are still appended, after those that are being
    /// appended; all others are dropped.
    pub fn abandon(&mut self, pipes: &mut PipePool, reporter: Option<&AppendReporter>) {
        let Some(pipe) = self.pipe.take() else { return };
        match (&self.sink, reporter) {
            (MirrorSink::File { target, .. }, Some(reporter)) if self.filled > 0 && !target.is_stalled() => {
                let length = std::mem::take(&mut self.filled);
                Append::new(pipe, length, CLOSED_LINK, self.index, reporter).submit(target);
            }
            _ => {
                self.report.dropped += std::mem::take(&mut self.filled) as u64;
                pipes.discard();
            }
        }
    }

    /// Releases an empty pipe.
    fn release_pipe(&mut self, pipes: &mut PipePool) {
        if self.filled > 0 {
            return;
        }
        match self.pipe.take() {
            Some(pipe) if !self.failed => pipes.release(pipe),
            // It may still hold dropped bytes.
            Some(_) => pipes.discard(),
            None => {}
        }
    }
}
