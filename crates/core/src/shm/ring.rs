//! [`Ring`]: a queue of bytes or messages from one writer to one reader, in this process or in another.
//!
//! Bytes pass by two copies and, while both sides are awake, without a system call. The order of reads and writes is argued
//! in [`super::protocol`], who may write and read in [`super::liveness`].

use std::collections::BTreeMap;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering, fence};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use super::liveness::OVER;
use super::protocol::{self, Corrupt};
use super::segment::{Seals, Segment, SegmentName};
use super::waiter::Waiters;
use crate::error::{Code, Error, Result};
use zerosend_sys::futex;
use zerosend_sys::io::MAX_GATHER;
use zerosend_sys::memory::{HEADER_BYTES, Header, RingMapping, Side, Span};
use zerosend_sys::page::page_size;

/// "zerosend", little endian.
const MAGIC: u64 = u64::from_le_bytes(*b"zerosend");
const VERSION: u32 = 1;
/// Bytes that a ring holds at most. What a side waits for has to fit in a futex.
pub(super) const MAX_CAPACITY: u64 = 1 << 31;
/// Bytes before each message: its length, little endian.
pub(super) const FRAME: usize = 4;

/// How long a ring that is just being made is waited for.
const OPEN_RETRIES: u32 = 100;
const OPEN_RETRY_INTERVAL: Duration = Duration::from_millis(2);

/// What passes through a ring.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Framing {
    /// A stream of bytes.
    Bytes,
    /// Messages: each is read as a whole, as it was written.
    Messages,
}

/// Which end of a ring.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// The one who writes.
    Writer,
    /// The one who reads.
    Reader,
}

impl Role {
    pub(super) fn other(self) -> Self {
        match self {
            Role::Writer => Role::Reader,
            Role::Reader => Role::Writer,
        }
    }

    pub(super) fn name(self) -> &'static str {
        match self {
            Role::Writer => "writer",
            Role::Reader => "reader",
        }
    }
}

/// How a ring is made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RingOptions {
    /// Bytes that it holds, rounded up to whole pages; 2 GiB at most.
    pub capacity: u64,
    /// What passes.
    pub framing: Framing,
    /// Who may open one with a name, as for `chmod(2)`.
    pub mode: u32,
}

impl Default for RingOptions {
    fn default() -> Self {
        Self { capacity: 1 << 20, framing: Framing::Messages, mode: 0o600 }
    }
}

/// What came of a read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Read {
    /// So many bytes were copied. Of messages, as many whole frames as fit: a length of 4 bytes, little endian, before each.
    Bytes(usize),
    /// There is nothing, now.
    Empty,
    /// The next message needs a buffer of so many bytes, its length included.
    TooLarge(usize),
    /// The writer has ended, and everything was read.
    Ended,
}

impl protocol::Word64 for AtomicU64 {
    fn load(&self, order: Ordering) -> u64 {
        self.load(order)
    }

    fn store(&self, value: u64, order: Ordering) {
        self.store(value, order);
    }
}

impl protocol::Word32 for AtomicU32 {
    fn load(&self, order: Ordering) -> u32 {
        self.load(order)
    }

    fn store(&self, value: u32, order: Ordering) {
        self.store(value, order);
    }

    fn wake(&self) {
        let _ = futex::wake(self);
    }
}

impl protocol::Side for Side {
    type Position = AtomicU64;
    type Flag = AtomicU32;

    fn position(&self) -> &AtomicU64 {
        &self.position
    }

    fn sleeps(&self) -> &AtomicU32 {
        &self.sleeps
    }

    fn state(&self) -> &AtomicU32 {
        &self.state
    }

    fn fence() {
        fence(Ordering::SeqCst);
    }
}

/// A ring. Its methods may be called from several threads; they do not wait, but for [`Ring::wait`].
pub struct Ring {
    pub(super) segment: Segment,
    pub(super) mapping: RingMapping,
    framing: Framing,
    /// How far this process has written and read, in the roles that it has.
    pub(super) positions: [Mutex<Option<u64>>; 2],
    pub(super) closed: AtomicBool,
    pub(super) waiters: Waiters,
}

impl Ring {
    /// Makes a ring, with a name (`shm_open(3)`) or without one (`memfd_create(2)`, sealed against changes of its size). Its
    /// memory is taken at once. May wait. `EEXIST`: the name is taken; `ENOSPC`: there is no memory for it;
    /// [`Code::OutOfRange`].
    pub fn create(name: Option<&SegmentName>, options: &RingOptions) -> Result<Self> {
        if options.capacity == 0 || options.capacity > MAX_CAPACITY {
            let message = format!("capacity is {}, but must be 1 to {MAX_CAPACITY} bytes", options.capacity);
            return Err(Error::new(Code::OutOfRange, message));
        }
        let capacity = options.capacity.next_multiple_of(page_size());
        let segment = Segment::create(name, HEADER_BYTES as u64 + capacity, options.mode)?;
        let made = segment.reserve().and_then(|()| Self::map(&segment, capacity));
        let mapping = match made {
            Ok(mapping) => mapping,
            Err(error) => {
                if let Some(name) = name {
                    let _ = super::unlink(name);
                }
                return Err(error);
            }
        };
        if name.is_none() {
            segment.seal(Seals { shrink: true, grow: true, write: false })?;
        }
        let header = mapping.header();
        header.version.store(VERSION, Ordering::Relaxed);
        header.framing.store(u32::from(options.framing == Framing::Messages), Ordering::Relaxed);
        header.capacity.store(capacity, Ordering::Relaxed);
        // Last: who sees it sees the rest.
        header.magic.store(MAGIC, Ordering::Release);
        Ok(Self::of(segment, mapping, options.framing))
    }

    /// Opens the ring of this name. May wait, for one that is just being made. `ENOENT`, `EACCES`; [`Code::Corrupt`] for
    /// what is no ring, or one of another version.
    pub fn open(name: &SegmentName) -> Result<Self> {
        Self::over(Segment::open(name)?)
    }

    /// Opens the ring behind a descriptor, which stays the caller's. [`Code::InvalidArgument`] for memory that its other users
    /// can truncate, unless they are trusted or this process has it open as a ring already: access beyond the end of a mapped
    /// file is `SIGBUS`.
    pub fn from_fd(fd: BorrowedFd<'_>, trust: bool) -> Result<Self> {
        let segment = Segment::from_fd(fd)?;
        if !trust && !segment.cannot_shrink() && !is_open(&segment) {
            return Err(Error::new(
                Code::InvalidArgument,
                "the memory is not sealed against shrinking: a process that truncates it would kill this one (SIGBUS); \
                 seal it with F_SEAL_SHRINK, or open it with `trust: true`",
            ));
        }
        Self::over(segment)
    }

    fn over(segment: Segment) -> Result<Self> {
        let mut tries = OPEN_RETRIES;
        loop {
            match Self::check(&segment) {
                Ok((mapping, framing)) => return Ok(Self::of(segment, mapping, framing)),
                Err((error, being_made)) if !being_made || tries == 0 => return Err(error),
                Err(_) => thread::sleep(OPEN_RETRY_INTERVAL),
            }
            tries -= 1;
        }
    }

    /// Checks all that is taken from the header once and for all.
    fn check(segment: &Segment) -> std::result::Result<(RingMapping, Framing), (Error, bool)> {
        let wrong = |what: String| (corrupt(segment, &what), false);
        let size = segment.size().map_err(|error| (error, false))?;
        let capacity = size.saturating_sub(HEADER_BYTES as u64);
        if capacity == 0 || capacity > MAX_CAPACITY || !capacity.is_multiple_of(page_size()) {
            return Err((corrupt(segment, &format!("no ring has {size} bytes")), size == 0));
        }
        // Before the first access: a page of a sparse file that cannot be allocated is SIGBUS too.
        segment.reserve().map_err(|error| (error, false))?;
        let mapping = Self::map(segment, capacity).map_err(|error| (error, false))?;
        let header = mapping.header();
        let magic = header.magic.load(Ordering::Acquire);
        if magic != MAGIC {
            return Err((corrupt(segment, "it does not begin as a ring does"), magic == 0));
        }
        let version = header.version.load(Ordering::Relaxed);
        if version != VERSION {
            return Err(wrong(format!("it is of version {version}, and this is version {VERSION}")));
        }
        let framing = match header.framing.load(Ordering::Relaxed) {
            0 => Framing::Bytes,
            1 => Framing::Messages,
            other => return Err(wrong(format!("its framing is {other}"))),
        };
        let written = header.capacity.load(Ordering::Relaxed);
        if written != capacity {
            return Err(wrong(format!("its capacity says {written}, but it has {capacity} bytes")));
        }
        Ok((mapping, framing))
    }

    fn map(segment: &Segment, capacity: u64) -> Result<RingMapping> {
        RingMapping::new(segment, capacity as usize).map_err(|errno| segment.failed("mmap", errno))
    }

    fn of(segment: Segment, mapping: RingMapping, framing: Framing) -> Self {
        let (positions, waiters) = ([Mutex::new(None), Mutex::new(None)], Waiters::default());
        if let Some(key) = segment.key() {
            *open_rings().entry(key).or_default() += 1;
        }
        Self { segment, mapping, framing, positions, closed: AtomicBool::new(false), waiters }
    }

    /// Bytes that it holds.
    pub fn capacity(&self) -> u64 {
        self.mapping.capacity() as u64
    }

    /// Bytes of the largest message: with its length it must fit.
    pub fn largest_message(&self) -> usize {
        self.mapping.capacity() - FRAME
    }

    /// What passes.
    pub fn framing(&self) -> Framing {
        self.framing
    }

    /// Its name, when it has one.
    pub fn name(&self) -> Option<&SegmentName> {
        self.segment.name()
    }

    /// Writes what fits of `bytes`: of a stream any part, of messages as many whole frames (a length of 4 bytes, little
    /// endian, before each) from the front. Returns how many bytes. The first write takes the role of the writer:
    /// [`Code::Busy`] when somebody has it. [`Code::Closed`] when the reader has closed or this side has ended,
    /// [`Code::Corrupt`], [`Code::OutOfRange`] for a message larger than the ring.
    pub fn write(&self, bytes: &[u8]) -> Result<usize> {
        self.writing(|position, room| {
            let count = match self.framing {
                Framing::Bytes => bytes.len().min(room as usize),
                Framing::Messages => self.whole_frames(bytes, room as usize)?,
            };
            self.mapping.copy_in(position, &bytes[..count]);
            Ok(count)
        })
    }

    /// Writes one message, when there is room for it as a whole. Errors as of [`Ring::write`].
    pub fn write_message(&self, message: &[u8]) -> Result<bool> {
        if self.framing == Framing::Bytes {
            return Err(Error::new(Code::InvalidArgument, "the ring is one of bytes and has no messages"));
        }
        let frame = FRAME + message.len();
        self.check_frame(frame)?;
        let written = self.writing(|position, room| {
            if frame as u64 > room {
                return Ok(0);
            }
            self.mapping.copy_in(position, &(message.len() as u32).to_le_bytes());
            self.mapping.copy_in(position + FRAME as u64, message);
            Ok(frame)
        })?;
        Ok(written > 0)
    }

    fn check_frame(&self, frame: usize) -> Result<()> {
        if frame as u64 <= self.capacity() {
            return Ok(());
        }
        let message = format!(
            "a message of {} bytes is too large: the ring takes {} at most; make it with a larger capacity",
            frame - FRAME,
            self.largest_message(),
        );
        Err(Error::new(Code::OutOfRange, message))
    }

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

    fn writing(&self, copy: impl FnOnce(u64, u64) -> Result<usize>) -> Result<usize> {
        let mut mine = self.claim(Role::Writer)?;
        let header = self.mapping.header();
        let position = mine.unwrap_or_default();
        if protocol::state(&header.reader) == OVER {
            return Err(Error::new(Code::Closed, "the reader of the ring has closed it"));
        }
        let room = protocol::writable(&header.reader, position, self.capacity()).map_err(|Corrupt| self.corrupt())?;
        let count = copy(position, room)? as u64;
        if count > 0 {
            *mine = Some(position + count);
            protocol::advance(&header.writer, &header.reader, position + count, || self.capacity());
        }
        Ok(count as usize)
    }

    /// Copies what is there to `into`, as much as fits. The first read takes the role of the reader: [`Code::Busy`] when
    /// somebody has it. [`Code::Corrupt`], [`Code::Closed`] when this side has closed.
    pub fn read(&self, into: &mut [u8]) -> Result<Read> {
        self.reading(|position, available| {
            let count = match self.framing {
                Framing::Bytes => into.len().min(available),
                Framing::Messages => match self.frames(position, available, into.len())? {
                    0 => return Ok((0, Read::TooLarge(self.frame_at(position, available)?))),
                    count => count,
                },
            };
            self.mapping.copy_out(position, &mut into[..count]);
            Ok((count as u64, Read::Bytes(count)))
        })
    }

    /// Gives `take` what is there, as spans for the kernel: of a stream one, of messages [`MAX_GATHER`] at most, without their
    /// lengths. `take` says how many bytes of them it took from the front; `within` keeps how many of the first message
    /// were taken before.
    pub(super) fn give(&self, within: &mut usize, take: impl FnOnce(&[Span<'_>]) -> Result<usize>) -> Result<Read> {
        self.reading(|position, available| {
            if self.framing == Framing::Bytes {
                let taken = take(&[self.mapping.span(position, available)])?;
                return Ok((taken as u64, Read::Bytes(taken)));
            }
            let mut frames = Vec::with_capacity(MAX_GATHER);
            let (mut end, mut bytes) = (0, 0);
            while end < available && frames.len() < MAX_GATHER {
                let frame = self.frame_at(position + end as u64, available - end)?;
                let before = if frames.is_empty() { *within } else { 0 };
                let message = (frame - FRAME).saturating_sub(before);
                frames.push((self.mapping.span(position + (end + FRAME + before) as u64, message), frame));
                (end, bytes) = (end + frame, bytes + message);
            }
            let spans: Vec<_> = frames.iter().map(|(span, _)| *span).collect();
            let taken = if bytes == 0 { 0 } else { take(&spans)? };
            // Those that went as a whole make room.
            let (mut rest, mut passed) = (taken, 0);
            for (span, frame) in &frames {
                if rest < span.len() {
                    break;
                }
                (rest, passed, *within) = (rest - span.len(), passed + frame, 0);
            }
            *within += rest;
            Ok((passed as u64, Read::Bytes(taken)))
        })
    }

    /// Bytes of the frame at a position.
    fn frame_at(&self, position: u64, available: usize) -> Result<usize> {
        let mut length = [0; FRAME];
        if available < FRAME {
            return Err(self.corrupt());
        }
        self.mapping.copy_out(position, &mut length);
        let frame = FRAME + u32::from_le_bytes(length) as usize;
        // Messages are published as a whole: one that is not all there is none.
        if frame > available { Err(self.corrupt()) } else { Ok(frame) }
    }

    /// Bytes of the whole frames from a position on, `most` at most.
    fn frames(&self, position: u64, available: usize, most: usize) -> Result<usize> {
        let mut count = 0;
        while count < available {
            let frame = self.frame_at(position + count as u64, available - count)?;
            if count + frame > most {
                break;
            }
            count += frame;
        }
        Ok(count)
    }

    fn reading(&self, copy: impl FnOnce(u64, usize) -> Result<(u64, Read)>) -> Result<Read> {
        let mut mine = self.claim(Role::Reader)?;
        let header = self.mapping.header();
        let position = mine.unwrap_or_default();
        let look = || protocol::readable(&header.writer, position, self.capacity()).map_err(|Corrupt| self.corrupt());
        let mut available = look()?;
        if available == 0 {
            if protocol::state(&header.writer) != OVER {
                return Ok(Read::Empty);
            }
            // What was written before the end is seen now.
            available = look()?;
            if available == 0 {
                return Ok(Read::Ended);
            }
        }
        let (count, read) = copy(position, available as usize)?;
        if count > 0 {
            *mine = Some(position + count);
            protocol::advance(&header.reader, &header.writer, position + count, || self.room(position + count));
        }
        Ok(read)
    }

    /// Bytes that the writer may write when the reader has come so far.
    fn room(&self, position: u64) -> u64 {
        let used = self.mapping.header().writer.position.load(Ordering::Acquire).wrapping_sub(position);
        self.capacity().saturating_sub(used)
    }

    /// The writer says that there is no more. Nobody can write after that.
    pub fn end(&self) -> Result<()> {
        let _mine = self.claim(Role::Writer)?;
        let header = self.mapping.header();
        protocol::set_state(&header.writer, &header.reader, OVER);
        Ok(())
    }

    /// Leaves. A reader that closes refuses what the writer writes later; a writer that has not ended has died, for the reader.
    /// Those who wait here are told. Closing it again does nothing.
    pub fn close(&self) {
        if self.closed.swap(true, Ordering::AcqRel) {
            return;
        }
        let header = self.mapping.header();
        if self.position(Role::Reader).take().is_some() {
            protocol::set_state(&header.reader, &header.writer, OVER);
            let _ = self.lock(Role::Reader, libc::F_UNLCK as i16);
        }
        if self.position(Role::Writer).take().is_some() {
            let _ = self.lock(Role::Writer, libc::F_UNLCK as i16);
        }
        for role in [Role::Reader, Role::Writer] {
            protocol::wake(self.side(role), || u64::MAX);
        }
    }

    pub(super) fn position(&self, role: Role) -> MutexGuard<'_, Option<u64>> {
        self.positions[role as usize].lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn side(&self, role: Role) -> &Side {
        let header: &Header = self.mapping.header();
        match role {
            Role::Writer => &header.writer,
            Role::Reader => &header.reader,
        }
    }

    pub(super) fn corrupt(&self) -> Error {
        corrupt(&self.segment, "its positions or lengths contradict each other")
    }
}

fn corrupt(segment: &Segment, what: &str) -> Error {
    let error = Error::new(Code::Corrupt, format!("the shared memory is no ring that can be used: {what}"));
    match segment.name() {
        Some(name) => error.with_path(name.as_str()),
        None => error,
    }
}

pub(super) fn closed() -> Error {
    Error::new(Code::Closed, "the ring is closed")
}

impl AsFd for Ring {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.segment.as_fd()
    }
}

/// Rings that this process has open, by device and inode.
static OPEN: Mutex<BTreeMap<(u64, u64), usize>> = Mutex::new(BTreeMap::new());

fn open_rings() -> MutexGuard<'static, BTreeMap<(u64, u64), usize>> {
    OPEN.lock().unwrap_or_else(PoisonError::into_inner)
}

fn is_open(segment: &Segment) -> bool {
    segment.key().is_some_and(|key| open_rings().contains_key(&key))
}

impl Drop for Ring {
    fn drop(&mut self) {
        if let Some(key) = self.segment.key() {
            let mut rings = open_rings();
            match rings.get_mut(&key) {
                Some(count) if *count > 1 => *count -= 1,
                _ => drop(rings.remove(&key)),
            }
        }
        self.close();
    }
}
