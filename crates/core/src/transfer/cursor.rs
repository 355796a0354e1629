//! The unsent parts of a transfer. The cursor is at the first byte that the target has not accepted.

use std::collections::VecDeque;
use std::io::IoSlice;

use super::part::Part;
use zerosend_sys::io::MAX_GATHER;

pub(super) struct Cursor {
    /// Files and pages in front have their range reduced as they are sent.
    parts: VecDeque<Part>,
    /// Bytes sent of a memory part in front.
    front_sent: usize,
}

/// Memory at the cursor, gathered for one call.
pub(super) struct Heads<'a> {
    slices: [IoSlice<'a>; MAX_GATHER],
    count: usize,
    /// Bytes in the slices.
    pub bytes: u64,
    /// The part after them.
    pub next: Option<&'a Part>,
    /// `next` is the last part.
    pub last: bool,
}

impl<'a> Heads<'a> {
    pub fn slices(&self) -> &[IoSlice<'a>] {
        &self.slices[..self.count]
    }
}

impl Cursor {
    pub fn new(parts: impl IntoIterator<Item = Part>) -> Self {
        Self { parts: parts.into_iter().filter(|part| part.len() > 0).collect(), front_sent: 0 }
    }

    /// Bytes in all parts, as if none was sent. Lengths of sparse files may add up to more than a u64 holds.
    pub fn total(&self) -> u64 {
        self.parts.iter().map(Part::len).fold(0, u64::saturating_add)
    }

    /// Adds a part in front of the others, before any byte is sent.
    pub fn push_front(&mut self, part: Part) {
        debug_assert_eq!(self.front_sent, 0);
        self.parts.push_front(part);
    }

    pub fn front(&self) -> Option<&Part> {
        self.parts.front()
    }

    /// The unsent bytes of a memory part in front.
    pub fn front_memory(&self) -> Option<&[u8]> {
        self.parts.front()?.memory().map(|bytes| &bytes[self.front_sent..])
    }

    pub fn parts(&self) -> impl Iterator<Item = &Part> {
        self.parts.iter()
    }

    /// Gathers at most `max` bytes of memory at the cursor, up to the first part of another kind.
    pub fn heads(&self, max: u64) -> Heads<'_> {
        let mut heads = Heads { slices: [IoSlice::new(&[]); MAX_GATHER], count: 0, bytes: 0, next: None, last: false };
        let mut parts = self.parts.iter().peekable();
        let mut skip = self.front_sent;
        while heads.count < MAX_GATHER
            && heads.bytes < max
            && let Some(bytes) = parts.peek().and_then(|part| part.memory())
        {
            let rest = &bytes[skip..];
            let length = usize::try_from(max - heads.bytes).unwrap_or(usize::MAX).min(rest.len());
            heads.slices[heads.count] = IoSlice::new(&rest[..length]);
            heads.count += 1;
            heads.bytes += length as u64;
            skip = 0;
            parts.next();
        }
        heads.next = parts.next();
        heads.last = parts.peek().is_none();
        heads
    }

    /// Moves the cursor by `count` bytes. True when it passed the end of a range of a file or of pages.
    pub fn advance(&mut self, mut count: usize) -> bool {
        let mut ended = false;
        while let Some(front) = self.parts.front_mut() {
            match front {
                Part::Memory(_) | Part::Block { .. } => {
                    let length = front.len() as usize;
                    let step = count.min(length - self.front_sent);
                    self.front_sent += step;
                    count -= step;
                    if self.front_sent < length {
                        return ended;
                    }
                    self.front_sent = 0;
                }
                Part::File { offset, length, .. } | Part::Pages { offset, length, .. } => {
                    let step = (count as u64).min(*length);
                    *offset += step;
                    *length -= step;
                    count -= step as usize;
                    if *length > 0 {
                        return ended;
                    }
                    ended = true;
                }
            }
            self.parts.pop_front();
        }
        ended
    }
}
