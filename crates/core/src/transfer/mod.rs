//! [`Transfer`]: parts of memory and of files to a descriptor, resumable at any byte.
//!
//! A transfer owns what is to be sent and a cursor; it owns no descriptor to send to and no thread. Whoever drives it
//! (the JavaScript thread, a reactor, a pool thread) calls [`Transfer::advance`] with a descriptor that is good for
//! that call, and does with the [`Progress`] what fits the driver. So one state machine serves them all.
//!
//! This module knows the order of parts, short counts, budgets and errors. It does not know what a byte is moved by:
//! that is one file per method ([`sendfile`], [`splice`], [`mmap`], [`read_write`], [`vmsplice`]), each making one attempt
//! at a time and keeping what it needs in between (a pipe, a mapping). Nor does it wait: not for the target
//! ([`Progress::Blocked`]), and, unless told that it may, not for the disk ([`Progress::Cold`]).
//!
//! The cursor counts what the target has got. Bytes that a method has in a pipe are ahead of it; they go first at the
//! next turn, and are lost to nobody when the pipe is given up.

mod budget;
mod method;
mod mmap;
mod prefetch;
mod read_write;
mod receive;
mod resident;
mod sendfile;
mod sink;
mod splice;
mod strategy;
mod vmsplice;

use std::collections::VecDeque;
use std::io::IoSlice;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;

use nix::errno::Errno;

use crate::error::{Code, Error, Result};
use crate::io::pool::Volume;
use zerosend_sys::io::{Gather, MAX_GATHER};
use zerosend_sys::memory::{Mapping, Pages};
use zerosend_sys::{Kernel, Linux, SysResult};

pub use budget::Budget;
pub use method::Method;
pub use prefetch::{Prefetch, Prefetched};
pub use read_write::DEFAULT_BUFFER;
pub use receive::Receive;
pub use sink::{Sink, Start};

use method::Mover;
use resident::Resident;

/// What an interrupted call costs of the budget, so that a storm of signals does not hold up others.
const INTERRUPTED: usize = 4096;

/// A file that transfers can share: only positional reads are made, so they never disturb each other.
pub trait FileSource: AsFd + Send + Sync {
    /// A mapping of it from its beginning, where somebody keeps one.
    fn mapping(&self) -> Option<&Mapping> {
        None
    }
}

impl FileSource for std::fs::File {}
impl FileSource for std::os::fd::OwnedFd {}

/// A file shared by transfers.
pub type SharedFile = Arc<dyn FileSource>;

/// A stretch of bytes to send.
pub enum Part {
    /// Bytes in memory.
    Memory(Vec<u8>),
    /// `length` bytes of a block of memory that others have too, from `offset` on.
    Block {
        /// The block.
        bytes: Arc<[u8]>,
        /// Where the stretch begins, in bytes.
        offset: usize,
        /// How long it is, in bytes.
        length: usize,
    },
    /// `length` bytes of a file from `offset` on.
    File {
        /// The file.
        file: SharedFile,
        /// Where the stretch begins, in bytes.
        offset: u64,
        /// How long it is, in bytes.
        length: u64,
    },
    /// `length` bytes of pages that nobody writes to any more, from `offset` on. They go by `vmsplice`, whatever the
    /// method of the transfer, so that they are not copied.
    Pages {
        /// The pages; unmapped when all who share them are gone.
        pages: Arc<Pages>,
        /// Where the stretch begins, in bytes.
        offset: u64,
        /// How long it is, in bytes.
        length: u64,
    },
}

impl Part {
    fn len(&self) -> u64 {
        match self {
            Part::Memory(bytes) => bytes.len() as u64,
            Part::Block { length, .. } => *length as u64,
            Part::File { length, .. } | Part::Pages { length, .. } => *length,
        }
    }

    /// Its bytes, where user space has them.
    fn memory(&self) -> Option<&[u8]> {
        match self {
            Part::Memory(bytes) => Some(bytes),
            Part::Block { bytes, offset, length } => Some(&bytes[*offset..*offset + *length]),
            Part::File { .. } | Part::Pages { .. } => None,
        }
    }
}

/// Whether the kernel may hold back a packet that is not full.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Cork {
    /// `MSG_MORE` and `SPLICE_F_MORE` wherever more bytes follow at once.
    #[default]
    Auto,
    /// That, and `TCP_CORK` for each turn, so that only full packets leave until the turn ends.
    On,
    /// Never: each call's bytes leave at once.
    Off,
}

/// What kind of descriptor the bytes go to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Target {
    /// A stream socket, TCP or Unix.
    Socket,
    /// A pipe, a file, a terminal: whatever is written with `write(2)`.
    Stream,
}

/// Whether a turn may wait for a disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Disk {
    /// Never: what is not in the page cache ends the turn with [`Progress::Cold`].
    ResidentOnly,
    /// It may: the driver is a thread that has nothing else to do.
    MayBlock,
}

/// Why a turn ended, when nothing failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Progress {
    /// Every byte is with the kernel.
    Done,
    /// The target takes no more now: wait until it is writable.
    Blocked,
    /// The budget is spent and the target would take more: let others have their turn first.
    Yield,
    /// The next bytes are not in the page cache: start [`Transfer::prefetch`], and give what comes of it to
    /// [`Transfer::prefetched`].
    Cold,
}

/// What one attempt of a method did.
enum Moved {
    /// This many bytes went, and the target may take more.
    Bytes(usize),
    /// This many bytes went, and the target took less than it was offered.
    Short(usize),
    /// Nothing went: the disk would have to be asked.
    Cold,
    /// The file has no byte where one was announced.
    EndOfFile,
}

/// Where a part's bytes are.
#[derive(Clone, Copy)]
enum Source<'a> {
    File(BorrowedFd<'a>, Option<&'a Mapping>),
    Pages(&'a Pages),
}

/// One attempt's view of the transfer, as the methods get it.
struct Attempt<'a> {
    pub out: BorrowedFd<'a>,
    pub target: Target,
    /// Memory that goes first; empty for methods that cannot take it along.
    pub heads: &'a [IoSlice<'a>],
    pub offset: u64,
    /// Bytes of the part to move at most in this attempt.
    pub length: usize,
    /// Bytes left of the part.
    pub left: u64,
    /// No part follows behind this one.
    pub last: bool,
    pub cork: Cork,
    /// Bytes of a user-space buffer.
    pub buffer: usize,
    pub disk: Disk,
    /// What is known of where the file's bytes are.
    pub resident: &'a mut Resident,
    pub syscalls: &'a mut u64,
}

impl Attempt<'_> {
    /// Whether to tell the kernel that more follows when `count` bytes of the part are sent.
    pub fn followed(&self, count: u64) -> bool {
        self.cork != Cork::Off && !(self.last && count >= self.left)
    }
}

/// What was sent, and how.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Report {
    /// Bytes handed to the kernel.
    pub bytes: u64,
    /// The method that moved the file's bytes.
    pub method: Method,
    /// Syscalls made.
    pub syscalls: u64,
}

/// Parts on their way to a descriptor.
pub struct Transfer {
    parts: VecDeque<Part>,
    /// How much of a memory part at the front is gone.
    front_sent: usize,
    remaining: u64,
    sent: u64,
    syscalls: u64,
    method: Method,
    mover: Option<Mover>,
    used: Option<Method>,
    target: Target,
    disk: Disk,
    resident: Resident,
    /// Bytes of the file part that comes next, and where in the file they begin.
    chunk: Option<(u64, Vec<u8>)>,
    cork: Cork,
    buffer: usize,
}

impl Transfer {
    /// A transfer of `parts` in order by `method` to a descriptor of kind `target`.
    pub fn new(parts: impl IntoIterator<Item = Part>, method: Method, target: Target, disk: Disk) -> Self {
        let parts: VecDeque<Part> = parts.into_iter().filter(|part| part.len() > 0).collect();
        // Sparse files may have lengths whose sum is beyond all bounds.
        let remaining = parts.iter().map(Part::len).fold(0, u64::saturating_add);
        Self {
            parts,
            front_sent: 0,
            remaining,
            sent: 0,
            syscalls: 0,
            method,
            mover: None,
            used: None,
            target,
            disk,
            resident: Resident::default(),
            chunk: None,
            cork: Cork::Auto,
            buffer: DEFAULT_BUFFER,
        }
    }

    /// Puts `head` before everything else. Only before the first byte has gone.
    pub fn prepend(&mut self, head: Vec<u8>) {
        debug_assert!(self.sent == 0 && self.front_sent == 0);
        if !head.is_empty() {
            self.remaining = self.remaining.saturating_add(head.len() as u64);
            self.parts.push_front(Part::Memory(head));
        }
    }

    /// Changes whether turns may wait for a disk, when the driver changes.
    pub fn set_disk(&mut self, disk: Disk) {
        self.disk = disk;
    }

    /// Changes what kind of descriptor the bytes go to. Only before the first byte has gone.
    pub fn set_target(&mut self, target: Target) {
        self.target = target;
    }

    /// Changes whether packets that are not full may be held back. Default [`Cork::Auto`].
    pub fn set_cork(&mut self, cork: Cork) {
        self.cork = cork;
    }

    /// Changes the size in bytes of the buffer of `read-write`. Default 128 KiB.
    pub fn set_buffer(&mut self, bytes: usize) {
        self.buffer = bytes.max(1);
    }

    /// Bytes not yet handed to the kernel.
    pub fn remaining(&self) -> u64 {
        self.remaining
    }

    /// What has been sent so far, and how.
    pub fn report(&self) -> Report {
        let method = self.used.unwrap_or_else(|| match self.parts.front() {
            Some(Part::Pages { .. }) => Method::Vmsplice,
            _ => strategy::choose(self.method, self.remaining, self.target, false, || false),
        });
        Report { bytes: self.sent, method, syscalls: self.syscalls }
    }

    /// Sends until all is sent, `out` takes no more, the budget is spent, or the disk would have to be waited for.
    ///
    /// `out` must be in non-blocking mode, unless waiting for it is meant. After an error nothing more may be sent: the
    /// receiver has a part of the bytes, and only closing the connection tells it so.
    pub fn advance(&mut self, out: impl AsFd, budget: &mut Budget) -> Result<Progress> {
        self.advance_on(&mut Linux, out.as_fd(), budget)
    }

    /// [`Transfer::advance`] on a kernel of the caller's choice.
    pub fn advance_on<K: Kernel>(
        &mut self,
        kernel: &mut K,
        out: BorrowedFd<'_>,
        budget: &mut Budget,
    ) -> Result<Progress> {
        if self.cork != Cork::On || self.target != Target::Socket || self.remaining == 0 {
            return self.run(kernel, out, budget);
        }
        // For the turn only, so that no socket stays corked, however the transfer ends. A Unix socket refuses, and has
        // no packets to fill.
        self.syscalls += 2;
        let corked = kernel.cork(out, true);
        let outcome = self.run(kernel, out, budget);
        if corked.is_ok() {
            let _ = kernel.cork(out, false);
        }
        outcome
    }

    fn run<K: Kernel>(&mut self, kernel: &mut K, out: BorrowedFd<'_>, budget: &mut Budget) -> Result<Progress> {
        self.resident.begin_turn();
        loop {
            if self.remaining == 0 {
                return Ok(Progress::Done);
            }
            if budget.left() == 0 {
                return Ok(Progress::Yield);
            }
            match self.attempt(kernel, out, budget.left()) {
                Ok(Moved::Bytes(count)) => {
                    self.consume(count);
                    budget.spend(count);
                }
                Ok(Moved::Short(count)) => {
                    self.consume(count);
                    budget.spend(count);
                    if self.remaining > 0 {
                        return Ok(Progress::Blocked);
                    }
                }
                Ok(Moved::Cold) => return Ok(Progress::Cold),
                Ok(Moved::EndOfFile) => return Err(self.truncated()),
                Err(Errno::EINTR) => budget.spend(INTERRUPTED),
                Err(Errno::EAGAIN) => return Ok(Progress::Blocked),
                Err(errno) => {
                    if !self.degrade(errno) {
                        return Err(Error::system(self.syscall_name(), errno));
                    }
                }
            }
        }
    }

    /// Takes the next bytes, at most `max`, out of the transfer, for a driver that must send them by other means.
    /// `None`: they are not in the page cache (see [`Progress::Cold`]). Empty: nothing is left.
    pub fn take(&mut self, max: usize) -> Result<Option<Vec<u8>>> {
        self.take_on(&mut Linux, max)
    }

    /// [`Transfer::take`] on a kernel of the caller's choice.
    pub fn take_on<K: Kernel>(&mut self, kernel: &mut K, max: usize) -> Result<Option<Vec<u8>>> {
        let carried = match self.parts.front() {
            Some(Part::File { length, .. } | Part::Pages { length, .. }) => {
                self.mover.as_mut().and_then(Mover::carried).map(|pipe| (pipe, *length))
            }
            _ => None,
        };
        if let Some((pipe, length)) = carried {
            let mut buffer = vec![0; usize::try_from(length).unwrap_or(max).min(max).min(pipe.filled())];
            self.syscalls += 1;
            let count =
                retry(|| kernel.read(pipe.read_end(), &mut buffer)).map_err(|errno| Error::system("read", errno))?;
            if count == 0 {
                return Err(self.truncated());
            }
            pipe.subtract(count);
            buffer.truncate(count);
            self.consume(count);
            return Ok(Some(buffer));
        }
        let taken = match self.parts.front() {
            None => return Ok(Some(Vec::new())),
            Some(Part::Pages { pages, offset, length }) => {
                let mut buffer = vec![0; usize::try_from(*length).unwrap_or(max).min(max)];
                pages.copy_out(*offset as usize, &mut buffer);
                buffer
            }
            Some(part @ (Part::Memory(_) | Part::Block { .. })) => {
                let rest = &part.memory().unwrap_or_default()[self.front_sent..];
                rest[..rest.len().min(max)].to_vec()
            }
            Some(Part::File { file, offset, length }) => {
                let length = usize::try_from(*length).unwrap_or(max).min(max);
                if let Some(chunk) = self.chunk_at(*offset) {
                    if chunk.is_empty() {
                        return Err(self.truncated());
                    }
                    let bytes = chunk[..length.min(chunk.len())].to_vec();
                    self.consume(bytes.len());
                    return Ok(Some(bytes));
                }
                let mut buffer = vec![0; length];
                let (syscalls, resident) = (&mut self.syscalls, &mut self.resident);
                let read = read_write::read(kernel, file.as_fd(), &mut buffer, *offset, self.disk, resident, syscalls);
                match read {
                    // Interrupted: the pool reads them.
                    Ok(None) | Err(Errno::EINTR) => return Ok(None),
                    Ok(Some(0)) => return Err(self.truncated()),
                    Ok(Some(count)) => buffer.truncate(count),
                    Err(errno) => return Err(Error::system("pread", errno)),
                }
                buffer
            }
        };
        self.consume(taken.len());
        Ok(Some(taken))
    }

    /// What to prefetch after [`Progress::Cold`].
    pub fn prefetch(&self) -> Option<Prefetch> {
        let Resident { wants_bytes, prefetches, .. } = self.resident;
        self.parts.iter().find_map(|part| match part {
            Part::File { file, offset, length } => {
                Some(Prefetch::new(file.clone(), *offset, *length, prefetches == 0, wants_bytes))
            }
            Part::Memory(_) | Part::Block { .. } | Part::Pages { .. } => None,
        })
    }

    /// Takes what was prefetched.
    pub fn prefetched(&mut self, prefetched: Prefetched) {
        self.resident.prefetches = self.resident.prefetches.saturating_add(1);
        match prefetched {
            Prefetched::Pages { until } => self.resident.brought(until),
            Prefetched::Memory => self.resident.found_in_memory(),
            Prefetched::Overlay => self.resident.found_on_overlay(),
            Prefetched::Bytes { offset, bytes } => self.chunk = Some((offset, bytes)),
        }
    }

    /// The file system of the next file.
    pub fn volume(&self) -> Volume {
        let file = self.parts.iter().find_map(|part| match part {
            Part::File { file, .. } => Some(file),
            Part::Memory(_) | Part::Block { .. } | Part::Pages { .. } => None,
        });
        file.map_or(Volume::NONE, |file| Volume::of(file.as_fd()))
    }

    /// The prefetched bytes of the file from `offset` on, when there are any. Empty: the file has none there.
    fn chunk_at(&self, offset: u64) -> Option<&[u8]> {
        let (start, bytes) = self.chunk.as_ref()?;
        let skip = usize::try_from(offset.checked_sub(*start)?).ok()?;
        // The end of a chunk is the end of the file only if there was no byte at all.
        if skip > 0 && skip >= bytes.len() { None } else { bytes.get(skip..) }
    }

    fn attempt<K: Kernel>(&mut self, kernel: &mut K, out: BorrowedFd<'_>, budget: u64) -> SysResult<Moved> {
        let mut heads = [IoSlice::new(&[]); MAX_GATHER];
        let mut head_count = 0;
        let mut head_bytes: u64 = 0;
        let mut parts = self.parts.iter().peekable();
        let mut skip = self.front_sent;
        while head_count < MAX_GATHER
            && head_bytes < budget
            && let Some(bytes) = parts.peek().and_then(|part| part.memory())
        {
            let rest = &bytes[skip..];
            let wanted = usize::try_from(budget - head_bytes).unwrap_or(usize::MAX).min(rest.len());
            heads[head_count] = IoSlice::new(&rest[..wanted]);
            head_count += 1;
            head_bytes += wanted as u64;
            skip = 0;
            parts.next();
        }
        let heads = &heads[..head_count];
        let next = match parts.next() {
            Some(Part::File { file, offset, length }) => {
                Some((Source::File((**file).as_fd(), file.mapping()), *offset, *length))
            }
            Some(Part::Pages { pages, offset, length }) => Some((Source::Pages(pages), *offset, *length)),
            _ => None,
        };

        if let Some((Source::File(..), offset, left)) = next
            && head_bytes < budget
            && let Some(chunk) = self.chunk_at(offset)
        {
            if chunk.is_empty() && heads.is_empty() {
                return Ok(Moved::EndOfFile);
            }
            let length = usize::try_from(left.min(budget - head_bytes)).unwrap_or(usize::MAX).min(chunk.len());
            let more = self.cork != Cork::Off && self.remaining > head_bytes + length as u64;
            let how = self.target.gather(more);
            let sent = read_write::send(kernel, out, heads, &chunk[..length], how)?;
            self.syscalls += 1;
            self.used = Some(Method::ReadWrite);
            return Ok(if sent < head_bytes as usize + length { Moved::Short(sent) } else { Moved::Bytes(sent) });
        }
        if let Some((source, offset, left)) = next
            && head_bytes < budget
        {
            let mover = self.mover.get_or_insert_with(|| match source {
                // The one method that moves pages of memory without a copy.
                Source::Pages(_) => Mover::from(Method::Vmsplice),
                Source::File(_, mapping) => {
                    let syscalls = &mut self.syscalls;
                    Mover::from(strategy::choose(self.method, left, self.target, mapping.is_some(), || {
                        *syscalls += 1;
                        kernel.is_unix_socket(out)
                    }))
                }
            });
            if heads.is_empty() || mover.takes_heads() {
                self.used = Some(mover.method());
                return mover.attempt(
                    kernel,
                    Attempt {
                        out,
                        target: self.target,
                        heads,
                        offset,
                        length: usize::try_from(left.min(budget - head_bytes)).unwrap_or(usize::MAX),
                        left,
                        last: parts.peek().is_none(),
                        cork: self.cork,
                        buffer: self.buffer,
                        disk: self.disk,
                        resident: &mut self.resident,
                        syscalls: &mut self.syscalls,
                    },
                    source,
                );
            }
        }
        let more = self.cork != Cork::Off && self.remaining > head_bytes;
        self.syscalls += 1;
        let sent = kernel.gather(out, heads, self.target.gather(more))?;
        Ok(if (sent as u64) < head_bytes { Moved::Short(sent) } else { Moved::Bytes(sent) })
    }

    fn consume(&mut self, mut count: usize) {
        self.sent += count as u64;
        self.remaining -= count as u64;
        while let Some(front) = self.parts.front_mut() {
            match front {
                Part::Memory(_) | Part::Block { .. } => {
                    let length = front.len() as usize;
                    let step = count.min(length - self.front_sent);
                    self.front_sent += step;
                    count -= step;
                    if self.front_sent < length {
                        return;
                    }
                    self.front_sent = 0;
                }
                Part::File { offset, length, .. } | Part::Pages { offset, length, .. } => {
                    let step = (count as u64).min(*length);
                    *offset += step;
                    *length -= step;
                    count -= step as usize;
                    if *length > 0 {
                        return;
                    }
                    // What comes next is another file, or another range of this one: choose and ask again.
                    self.mover = None;
                    self.resident = Resident::default();
                    self.chunk = None;
                }
            }
            self.parts.pop_front();
        }
    }

    /// Falls back to `read-write` where the kernel, or a sandbox (`EPERM`), refuses the method for this file or target, or has no
    /// pipe or mapping left to give. True: try again.
    fn degrade(&mut self, errno: Errno) -> bool {
        let refused = matches!(
            errno,
            Errno::EINVAL
                | Errno::ENOSYS
                | Errno::EPERM
                | Errno::EOPNOTSUPP
                | Errno::ESPIPE
                | Errno::ENODEV
                | Errno::EMFILE
                | Errno::ENFILE
                | Errno::ENOMEM
        );
        match self.mover {
            Some(Mover::ReadWrite) | None => false,
            Some(_) if refused => {
                self.mover = Some(Mover::ReadWrite);
                true
            }
            Some(_) => false,
        }
    }

    fn syscall_name(&self) -> &'static str {
        match (self.parts.front(), &self.mover) {
            (Some(Part::File { .. } | Part::Pages { .. }), Some(mover)) => mover.syscall_name(),
            _ => "sendmsg",
        }
    }

    fn truncated(&self) -> Error {
        let missing = self.remaining;
        Error::new(
            Code::Truncated,
            format!(
                "the file ended {missing} bytes before the length that was announced; \
                 it was truncated while it was being sent, so close the connection"
            ),
        )
    }
}

/// A read that a signal interrupted is made again, for it has taken nothing; but not without end.
fn retry<T>(mut call: impl FnMut() -> SysResult<T>) -> SysResult<T> {
    const ATTEMPTS: usize = 100;
    for _ in 1..ATTEMPTS {
        match call() {
            Err(Errno::EINTR) => {}
            other => return other,
        }
    }
    call()
}

impl Target {
    pub(crate) fn gather(self, more: bool) -> Gather {
        match self {
            Target::Socket => Gather::Socket { more },
            Target::Stream => Gather::Fd,
        }
    }
}
