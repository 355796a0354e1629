//! Writing to and reading from a ring.
//!
//! A byte is copied twice, in and out, and while both sides are awake no system call is made. The order of the accesses is
//! described in [`super::protocol`].

use std::sync::atomic::Ordering;

use super::layout::{FRAME, Framing, Role, state};
use super::protocol::{self, Corrupt};
use super::ring::Ring;
use crate::error::{Code, Error, Result};
use zerosend_sys::io::MAX_GATHER;
use zerosend_sys::memory::Span;

/// The result of [`Ring::read`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ReadOutcome {
    /// Number of bytes copied. Of messages, as many whole frames as fit: a length of 4 bytes, little endian, before each.
    Bytes(usize),
    /// The ring is empty at present.
    Empty,
    /// The next message needs a buffer of this many bytes, its length included.
    TooLarge(usize),
    /// The writer has ended the ring, and all was read.
    Ended,
}

impl Ring {
    /// Writes as much of `bytes` as fits: of a stream any part, of messages whole frames (a length of 4 bytes, little endian,
    /// before each). Returns the number of bytes. The first write takes the role of the writer: [`Code::Busy`] when another
    /// process has it. [`Code::Closed`]: the reader has closed the ring, or it has ended; [`Code::Corrupt`];
    /// [`Code::OutOfRange`]: a message is larger than the ring.
    pub fn write(&self, bytes: &[u8]) -> Result<usize> {
        self.write_with(|position, room| {
            let count = match self.framing() {
                Framing::Bytes => bytes.len().min(room),
                Framing::Messages => self.whole_frames(bytes, room)?,
            };
            self.mapping.copy_in(position, &bytes[..count]);
            Ok(count)
        })
    }

    /// Writes a message, or returns false when the whole of it does not fit at present. Errors as of [`Ring::write`].
    pub fn write_message(&self, message: &[u8]) -> Result<bool> {
        if self.framing() == Framing::Bytes {
            let message = "cannot write a message: the ring has framing 'bytes'; use write()";
            return Err(Error::new(Code::InvalidArgument, message));
        }
        let frame = FRAME + message.len();
        self.check_frame(frame)?;
        let written = self.write_with(|position, room| {
            if frame > room {
                return Ok(0);
            }
            self.mapping.copy_in(position, &(message.len() as u32).to_le_bytes());
            self.mapping.copy_in(position + FRAME as u64, message);
            Ok(frame)
        })?;
        Ok(written > 0)
    }

    fn check_frame(&self, frame: usize) -> Result<()> {
        if frame <= self.mapping.capacity() {
            return Ok(());
        }
        let message = format!(
            "a message of {} bytes is too large: the ring takes up to {}; create it with a larger capacity",
            frame - FRAME,
            self.max_message(),
        );
        Err(Error::new(Code::OutOfRange, message))
    }

    /// Bytes of the whole frames at the start of `bytes`, at most `room`.
    fn whole_frames(&self, bytes: &[u8], room: usize) -> Result<usize> {
        let mut count = 0;
        while let Some(length) = bytes.get(count..count + FRAME) {
            let frame = FRAME + u32::from_le_bytes(length.try_into().unwrap_or_default()) as usize;
            self.check_frame(frame)?;
            if count + frame > bytes.len().min(room) {
                break;
            }
            count += frame;
        }
        Ok(count)
    }

    /// Calls `copy` with the position of the writer and the room there, and advances it by the number that `copy` returns.
    fn write_with(&self, copy: impl FnOnce(u64, usize) -> Result<usize>) -> Result<usize> {
        let mut mine = self.claim(Role::Writer)?;
        let header = self.mapping.header();
        let position = mine.unwrap_or_default();
        if protocol::state(&header.reader) == state::ENDED {
            return Err(Error::new(Code::Closed, "cannot write: the reader has closed the ring"));
        }
        let room = protocol::writable(&header.reader, position, self.capacity()).map_err(|Corrupt| self.corrupt())?;
        let count = copy(position, room as usize)?;
        if count > 0 {
            *mine = Some(position + count as u64);
            protocol::advance(&header.writer, &header.reader, position + count as u64, || self.capacity());
        }
        Ok(count)
    }

    /// Copies available data to `into`, as much as fits. The first read takes the role of the reader: [`Code::Busy`] when
    /// another process has it. [`Code::Corrupt`]; [`Code::Closed`] after [`Ring::close`].
    pub fn read(&self, into: &mut [u8]) -> Result<ReadOutcome> {
        self.read_with(|position, available| {
            let count = match self.framing() {
                Framing::Bytes => into.len().min(available),
                Framing::Messages => match self.frames(position, available, into.len())? {
                    0 => return Ok((0, ReadOutcome::TooLarge(self.frame_at(position, available)?))),
                    count => count,
                },
            };
            self.mapping.copy_out(position, &mut into[..count]);
            Ok((count as u64, ReadOutcome::Bytes(count)))
        })
    }

    /// Passes available data to `send` as spans for the kernel: one of a stream, up to [`MAX_GATHER`] of messages, without
    /// their lengths. `send` returns how many bytes it has sent. `partial` keeps how many bytes of the first message were sent
    /// before; a message is removed from the ring when all of it was sent.
    pub(super) fn send_spans(
        &self,
        partial: &mut usize,
        send: impl FnOnce(&[Span<'_>]) -> Result<usize>,
    ) -> Result<ReadOutcome> {
        self.read_with(|position, available| {
            if self.framing() == Framing::Bytes {
                let sent = send(&[self.mapping.span(position, available)])?;
                return Ok((sent as u64, ReadOutcome::Bytes(sent)));
            }
            let mut frames = Vec::with_capacity(MAX_GATHER);
            let mut spans = Vec::with_capacity(MAX_GATHER);
            let mut end = 0;
            while end < available && frames.len() < MAX_GATHER {
                let frame = self.frame_at(position + end as u64, available - end)?;
                let before = if frames.is_empty() { *partial } else { 0 };
                let message = (frame - FRAME).saturating_sub(before);
                spans.push(self.mapping.span(position + (end + FRAME + before) as u64, message));
                frames.push(frame);
                end += frame;
            }
            let is_empty = spans.iter().all(Span::is_empty);
            let sent = if is_empty { 0 } else { send(&spans)? };
            let (mut rest, mut removed) = (sent, 0);
            for (span, frame) in spans.iter().zip(&frames) {
                if rest < span.len() {
                    break;
                }
                (rest, removed, *partial) = (rest - span.len(), removed + frame, 0);
            }
            *partial += rest;
            Ok((removed as u64, ReadOutcome::Bytes(sent)))
        })
    }

    /// Bytes of the frame at a position.
    fn frame_at(&self, position: u64, available: usize) -> Result<usize> {
        if available < FRAME {
            return Err(self.corrupt());
        }
        let frame = FRAME + u32::from_le_bytes(self.mapping.read_array::<FRAME>(position)) as usize;
        // Messages are published as a whole, so a frame that extends beyond the available bytes is invalid.
        if frame > available { Err(self.corrupt()) } else { Ok(frame) }
    }

    /// Bytes of the whole frames from a position on, at most `max`.
    fn frames(&self, position: u64, available: usize, max: usize) -> Result<usize> {
        let mut count = 0;
        while count < available {
            let frame = self.frame_at(position + count as u64, available - count)?;
            if count + frame > max {
                break;
            }
            count += frame;
        }
        Ok(count)
    }

    /// Calls `copy` with the position of the reader and the bytes available there, and advances it by the number that `copy`
    /// returns.
    fn read_with(&self, copy: impl FnOnce(u64, usize) -> Result<(u64, ReadOutcome)>) -> Result<ReadOutcome> {
        let mut mine = self.claim(Role::Reader)?;
        let header = self.mapping.header();
        let position = mine.unwrap_or_default();
        let check = || protocol::readable(&header.writer, position, self.capacity()).map_err(|Corrupt| self.corrupt());
        let mut available = check()?;
        if available == 0 {
            if protocol::state(&header.writer) != state::ENDED {
                return Ok(ReadOutcome::Empty);
            }
            // The writer may have written between the two loads above.
            available = check()?;
            if available == 0 {
                return Ok(ReadOutcome::Ended);
            }
        }
        let (count, outcome) = copy(position, available as usize)?;
        if count > 0 {
            let position = position + count;
            *mine = Some(position);
            protocol::advance(&header.reader, &header.writer, position, || {
                let used = header.writer.position.load(Ordering::Acquire).wrapping_sub(position);
                self.capacity().saturating_sub(used)
            });
        }
        Ok(outcome)
    }
}
