//! One direction of a link: what was taken from one side and not yet given to the other and to its mirrors.
//!
//! At most one pipe or one buffer is full at a time, so a reader that is slow holds back its sender and nothing else. A
//! flow holds a pipe only while bytes are in it.

use std::sync::Arc;
use std::sync::atomic::AtomicUsize;

use nix::errno::Errno;

use super::append::AppendReporter;
use super::buffer::{FlowBuffer, Taken};
use super::mirror::Mirror;
use super::options::RelayMethod;
use super::side::Side;
use crate::event_loop::slab::Token;
use crate::io::pipe_pool::PipePool;

/// What became of a flow when it was pumped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Progress {
    /// Its source has nothing, or its target or a mirror takes nothing.
    Blocked,
    /// It has had its share of the turn.
    Yield,
    /// It moves no more bytes; see [`Flow::over`].
    Over,
}

/// Why a flow moves no more bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum StopReason {
    /// The source has ended, and so was the direction towards the target.
    Ended,
    /// The source has failed. What it sent before has been written to the target.
    SourceFailed(Errno),
    /// The target accepts no more bytes.
    TargetFailed(Errno),
}

/// What a pump may use of its worker.
pub(super) struct PumpContext<'a> {
    pub pipes: &'a mut PipePool,
    pub mirror_pipes: &'a mut PipePool,
    pub scratch: &'a mut [u8],
    pub method: RelayMethod,
    /// Bytes of one turn.
    pub budget: u64,
    /// Whose turn it is.
    pub token: Token,
    pub append_reporter: &'a AppendReporter,
    /// Links and mirrors that wait for descriptors.
    pub waiting: &'a Arc<AtomicUsize>,
}

#[derive(Default)]
pub(super) struct Flow {
    /// Goes to the target first, and to no mirror.
    preface: Vec<u8>,
    pub buffer: FlowBuffer,
    pub mirrors: Vec<Mirror>,
    ended: bool,
    pub over: Option<StopReason>,
    /// Bytes given to the target.
    pub bytes: u64,
    /// Its target has refused bytes in the last pump: epoll has to be asked anew. A socket may take less than all without
    /// being full, and then nothing that happens later is an edge.
    pub needs_rearm: bool,
}

impl Flow {
    /// A flow of which these bytes were read before.
    pub fn with_initial_bytes(bytes: Vec<u8>) -> Self {
        Self { buffer: FlowBuffer::with_bytes(bytes), ..Self::default() }
    }

    /// A flow that has nothing to move.
    pub fn closed() -> Self {
        Self { over: Some(StopReason::Ended), ..Self::default() }
    }

    /// Gives this before anything else.
    pub fn set_preface(&mut self, preface: Vec<u8>) {
        self.preface = preface;
    }

    /// Moves what can be moved. Readiness is withdrawn at `EAGAIN`. `ends`: the end of the source is passed on.
    pub fn pump(&mut self, from: &Side, to: &Side, ends: bool, context: &mut PumpContext<'_>) -> Progress {
        let end = self.bytes + context.budget;
        self.needs_rearm = false;
        loop {
            if self.over.is_some() {
                return Progress::Over;
            }
            if let Some(errno) = to.broken() {
                self.stop(StopReason::TargetFailed(errno), context);
                continue;
            }
            if !self.preface.is_empty() || !self.buffer.is_empty() {
                let max = self.offer(context);
                if max == 0 || !to.writable.get() {
                    return Progress::Blocked;
                }
                let given = self.give(to, max);
                self.note_given(to, given);
                continue;
            }
            if self.bytes >= end {
                self.buffer.release(context.pipes);
                return Progress::Yield;
            }
            if self.ended {
                self.stop(StopReason::Ended, context);
                if ends && let Err(errno) = to.end() {
                    to.fail(errno);
                    self.over = Some(StopReason::TargetFailed(errno));
                }
                continue;
            }
            if !from.readable.get() {
                self.buffer.release(context.pipes);
                return Progress::Blocked;
            }
            let straight = self.mirrors.is_empty().then_some(to);
            match self.buffer.take(from, straight, context.method, context.pipes, context.scratch) {
                Ok(Taken { count: 0, .. }) => match from.lost() {
                    Some(errno) => self.stop(StopReason::SourceFailed(errno), context),
                    None => self.ended = true,
                },
                Ok(Taken { given, .. }) => {
                    let given = given.map(|count| self.bytes += count as u64);
                    self.note_given(to, given);
                }
                Err(Errno::EINTR) => {}
                Err(Errno::EAGAIN) => match from.lost() {
                    // A write to it has failed for want of memory, say, and its connection stands: its peer waits for what was
                    // not written, and may never send another byte.
                    Some(errno) => self.stop(StopReason::SourceFailed(errno), context),
                    None => from.readable.set(false),
                },
                Err(errno) => {
                    from.fail(errno);
                    self.stop(StopReason::SourceFailed(errno), context);
                }
            }
        }
    }

    /// A write to the target has returned this.
    fn note_given(&mut self, to: &Side, given: Result<(), Errno>) {
        match given {
            Ok(()) | Err(Errno::EINTR) => {}
            Err(Errno::EAGAIN) => {
                to.writable.set(false);
                self.needs_rearm = true;
            }
            Err(errno) => to.fail(errno),
        }
    }

    fn stop(&mut self, reason: StopReason, context: &mut PumpContext<'_>) {
        self.over = Some(reason);
        self.buffer.release(context.pipes);
    }

    fn give(&mut self, to: &Side, max: usize) -> Result<(), Errno> {
        if !self.preface.is_empty() {
            let count = to.write(&self.preface)?;
            self.preface.drain(..count);
            return Ok(());
        }
        let count = self.buffer.give(to, max)?;
        self.bytes += count as u64;
        for mirror in &mut self.mirrors {
            mirror.pass(count);
        }
        Ok(())
    }

    /// Copies to the mirrors, and says how many of the first bytes none of them needs any more.
    fn offer(&mut self, context: &mut PumpContext<'_>) -> usize {
        let mut max = usize::MAX;
        if self.preface.is_empty() {
            for mirror in &mut self.mirrors {
                mirror.drain(context);
                max = max.min(mirror.offer(&mut self.buffer, context));
                mirror.drain(context);
            }
        }
        max
    }
}
