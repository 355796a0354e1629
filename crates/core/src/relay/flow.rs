//! One direction of a link: what was taken from one side and not yet given to the other and to its mirrors.
//!
//! At most one pipe or one buffer is full at a time, so a reader that is slow holds back its sender and nothing else. A
//! flow holds a pipe only while bytes are in it.

use std::sync::Arc;
use std::sync::atomic::AtomicUsize;

use nix::errno::Errno;

use super::load::{Load, Taken};
use super::options::RelayMethod;
use super::piece::Receipts;
use super::side::Side;
use super::tap::Tap;
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
pub(super) enum Over {
    /// The source has ended, and so was the direction towards the target.
    Ended,
    /// The source has failed. What it sent before has been written to the target.
    SourceFailed(Errno),
    /// The target accepts no more bytes.
    TargetFailed(Errno),
}

/// What a pump may use of its worker.
pub(super) struct Means<'a> {
    pub pipes: &'a mut PipePool,
    pub tap_pipes: &'a mut PipePool,
    pub buffer: &'a mut [u8],
    pub method: RelayMethod,
    /// Bytes of one turn.
    pub budget: u64,
    /// Whose turn it is.
    pub token: Token,
    pub receipts: &'a Receipts,
    /// Links and mirrors that wait for descriptors.
    pub waiting: &'a Arc<AtomicUsize>,
}

#[derive(Default)]
pub(super) struct Flow {
    /// Goes to the target first, and to no mirror.
    preface: Vec<u8>,
    pub load: Load,
    pub taps: Vec<Tap>,
    ended: bool,
    pub over: Option<Over>,
    /// Bytes given to the target.
    pub bytes: u64,
    /// Its target has refused bytes in the last pump: epoll has to be asked anew. A socket may take less than all without
    /// being full, and then nothing that happens later is an edge.
    pub refused: bool,
}

impl Flow {
    /// A flow of which these bytes were read before.
    pub fn after(bytes: Vec<u8>) -> Self {
        Self { load: Load::of(bytes), ..Self::default() }
    }

    /// A flow that has nothing to move.
    pub fn absent() -> Self {
        Self { over: Some(Over::Ended), ..Self::default() }
    }

    /// Gives this before anything else.
    pub fn introduce(&mut self, preface: Vec<u8>) {
        self.preface = preface;
    }

    /// Moves what can be moved. Readiness is withdrawn at `EAGAIN`. `ends`: the end of the source is passed on.
    pub fn pump(&mut self, from: &Side, to: &Side, ends: bool, means: &mut Means<'_>) -> Progress {
        let end = self.bytes + means.budget;
        self.refused = false;
        loop {
            if self.over.is_some() {
                return Progress::Over;
            }
            if let Some(errno) = to.broken() {
                self.stop(Over::TargetFailed(errno), means);
                continue;
            }
            if !self.preface.is_empty() || !self.load.is_empty() {
                let most = self.offer(means);
                if most == 0 || !to.writable.get() {
                    return Progress::Blocked;
                }
                let given = self.give(to, most);
                self.note_given(to, given);
                continue;
            }
            if self.bytes >= end {
                self.load.release(means.pipes);
                return Progress::Yield;
            }
            if self.ended {
                self.stop(Over::Ended, means);
                if ends && let Err(errno) = to.end() {
                    to.fail(errno);
                    self.over = Some(Over::TargetFailed(errno));
                }
                continue;
            }
            if !from.readable.get() {
                self.load.release(means.pipes);
                return Progress::Blocked;
            }
            let straight = self.taps.is_empty().then_some(to);
            match self.load.take(from, straight, means.method, means.pipes, means.buffer) {
                Ok(Taken { count: 0, .. }) => match from.lost() {
                    Some(errno) => self.stop(Over::SourceFailed(errno), means),
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
                    Some(errno) => self.stop(Over::SourceFailed(errno), means),
                    None => from.readable.set(false),
                },
                Err(errno) => {
                    from.fail(errno);
                    self.stop(Over::SourceFailed(errno), means);
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
                self.refused = true;
            }
            Err(errno) => to.fail(errno),
        }
    }

    fn stop(&mut self, over: Over, means: &mut Means<'_>) {
        self.over = Some(over);
        self.load.release(means.pipes);
    }

    fn give(&mut self, to: &Side, most: usize) -> Result<(), Errno> {
        if !self.preface.is_empty() {
            let count = to.write(&self.preface)?;
            self.preface.drain(..count);
            return Ok(());
        }
        let count = self.load.give(to, most)?;
        self.bytes += count as u64;
        for tap in &mut self.taps {
            tap.pass(count);
        }
        Ok(())
    }

    /// Copies to the taps, and says how many of the first bytes none of them needs any more.
    fn offer(&mut self, means: &mut Means<'_>) -> usize {
        let mut most = usize::MAX;
        if self.preface.is_empty() {
            for tap in &mut self.taps {
                tap.drain(means);
                most = most.min(tap.offer(&mut self.load, means));
                tap.drain(means);
            }
        }
        most
    }
}
