//! One direction of a link: reads from one side, writes to the other and to the mirrors.
//!
//! A flow reads only while its buffer is empty, so a slow reader holds back its sender and nothing else. It holds a pipe only
//! while bytes are in it.

use nix::errno::Errno;

use super::buffer::{FlowBuffer, ReadResult};
use super::mirror::Mirror;
use super::pump::PumpContext;
use super::side::Side;

/// State of a flow after [`Flow::pump`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum FlowState {
    /// The source has no bytes, or the target or a mirror accepts none.
    Blocked,
    /// The budget of the turn is used up.
    Yield,
    /// The flow is finished; see [`Flow::stopped`].
    Finished,
}

/// Why a flow moves no more bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum StopReason {
    /// The source has ended, and the target was shut down.
    Ended,
    /// The source has failed. What it sent before is written to the target.
    SourceFailed(Errno),
    /// The target accepts no more bytes.
    TargetFailed(Errno),
}

#[derive(Default)]
pub(super) struct Flow {
    /// Written to the target before all other bytes, and to no mirror.
    preface: Vec<u8>,
    pub buffer: FlowBuffer,
    pub mirrors: Vec<Mirror>,
    source_ended: bool,
    pub stopped: Option<StopReason>,
    /// Bytes written to the target.
    pub bytes: u64,
    /// The target has refused bytes in the last pump, and epoll must be armed again: a socket may accept a part of the bytes
    /// without being full, and then no edge follows.
    pub needs_rearm: bool,
}

impl Flow {
    /// A flow with bytes that were already read from its source.
    pub fn with_initial_bytes(bytes: Vec<u8>) -> Self {
        Self { buffer: FlowBuffer::with_bytes(bytes), ..Self::default() }
    }

    /// A flow without a source.
    pub fn closed() -> Self {
        Self { stopped: Some(StopReason::Ended), ..Self::default() }
    }

    /// Sets the bytes that are written to the target before all others.
    pub fn set_preface(&mut self, preface: Vec<u8>) {
        self.preface = preface;
    }

    /// Moves bytes until a side blocks or the budget is used up. `passes_end`: shut down the target when the source ends.
    pub fn pump(&mut self, from: &Side, to: &Side, passes_end: bool, context: &mut PumpContext<'_>) -> FlowState {
        let end = self.bytes + context.budget;
        self.needs_rearm = false;
        loop {
            if self.stopped.is_some() {
                return FlowState::Finished;
            }
            if let Some(errno) = to.write_error() {
                self.stop(StopReason::TargetFailed(errno), context);
                continue;
            }
            if !self.preface.is_empty() || !self.buffer.is_empty() {
                let max = self.tee_to_mirrors(context);
                if max == 0 || !to.writable.get() {
                    return FlowState::Blocked;
                }
                let result = self.write(to, max);
                self.note_write(to, result);
                continue;
            }
            if self.bytes >= end {
                self.buffer.release(context.pipes);
                return FlowState::Yield;
            }
            if self.source_ended {
                self.stop(StopReason::Ended, context);
                if passes_end && let Err(errno) = to.shut_down() {
                    to.fail(errno);
                    self.stopped = Some(StopReason::TargetFailed(errno));
                }
                continue;
            }
            if !from.readable.get() {
                self.buffer.release(context.pipes);
                return FlowState::Blocked;
            }
            self.read(from, to, context);
        }
    }

    fn read(&mut self, from: &Side, to: &Side, context: &mut PumpContext<'_>) {
        let direct_to = self.mirrors.is_empty().then_some(to);
        match self.buffer.read_from(from, direct_to, context.method, context.pipes, context.scratch) {
            Ok(ReadResult { count: 0, .. }) => match from.read_error() {
                Some(errno) => self.stop(StopReason::SourceFailed(errno), context),
                None => self.source_ended = true,
            },
            Ok(ReadResult { written, .. }) => {
                let result = written.map(|count| self.bytes += count as u64);
                self.note_write(to, result);
            }
            Err(Errno::EINTR) => {}
            Err(Errno::EAGAIN) => match from.read_error() {
                // A write to the source has failed, for lack of memory for example, but its connection is open: its peer may wait
                // for the bytes that were not written and send nothing more.
                Some(errno) => self.stop(StopReason::SourceFailed(errno), context),
                None => from.readable.set(false),
            },
            Err(errno) => {
                from.fail(errno);
                self.stop(StopReason::SourceFailed(errno), context);
            }
        }
    }

    /// Updates the readiness of the target after a write.
    fn note_write(&mut self, to: &Side, result: Result<(), Errno>) {
        match result {
            Ok(()) | Err(Errno::EINTR) => {}
            Err(Errno::EAGAIN) => {
                to.writable.set(false);
                self.needs_rearm = true;
            }
            Err(errno) => to.fail(errno),
        }
    }

    fn stop(&mut self, reason: StopReason, context: &mut PumpContext<'_>) {
        self.stopped = Some(reason);
        self.buffer.release(context.pipes);
    }

    fn write(&mut self, to: &Side, max: usize) -> Result<(), Errno> {
        if !self.preface.is_empty() {
            let count = to.write(&self.preface)?;
            self.preface.drain(..count);
            return Ok(());
        }
        let count = self.buffer.write_to(to, max)?;
        self.bytes += count as u64;
        for mirror in &mut self.mirrors {
            mirror.advance(count);
        }
        Ok(())
    }

    /// Copies bytes to the mirrors. Returns how many of the first bytes all mirrors have received or dropped.
    fn tee_to_mirrors(&mut self, context: &mut PumpContext<'_>) -> usize {
        let mut max = usize::MAX;
        if self.preface.is_empty() {
            for mirror in &mut self.mirrors {
                mirror.drain(context);
                max = max.min(mirror.tee(&mut self.buffer, context));
                mirror.drain(context);
            }
        }
        max
    }
}
