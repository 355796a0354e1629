//! [`Ring`]: creating, opening and closing one, and taking its roles.
//!
//! A side takes its role with a lock on the segment (`fcntl(2)`, open file description lock), which the kernel releases when
//! the process dies. So there is at most one writer and one reader.

use std::collections::BTreeMap;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, fcntl};

use super::layout::{FRAME, Framing, HeaderError, MAX_CAPACITY, Role, capacity_of, check_header, state, write_header};
use super::protocol;
use super::segment::{Seals, Segment, SegmentName, unlink};
use crate::error::{Code, Error, Result};
use zerosend_sys::memory::{HEADER_BYTES, RingMapping, Side};
use zerosend_sys::page::page_size;

/// How often, and at which interval, opening is retried while another process is still creating the ring.
const OPEN_RETRIES: u32 = 100;
const OPEN_RETRY_INTERVAL: Duration = Duration::from_millis(2);

/// How often, and at which interval, a role that is taken is tried again: a peer holds its lock for a moment while it checks
/// whether the process with the role has died.
const CLAIM_RETRIES: u32 = 5;
const CLAIM_RETRY_INTERVAL: Duration = Duration::from_millis(2);

/// Options of [`Ring::create`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RingOptions {
    /// Capacity in bytes, rounded up to whole pages; 1 to 2^31. Default 1 MiB.
    pub capacity: u64,
    /// The kind of data. Default messages.
    pub framing: Framing,
    /// Permissions of a ring with a name, as for `chmod(2)`. Default 0600.
    pub mode: u32,
}

impl Default for RingOptions {
    fn default() -> Self {
        Self { capacity: 1 << 20, framing: Framing::Messages, mode: 0o600 }
    }
}

/// A queue of bytes or messages from one writer to one reader, in this process or in another. The methods can be called from
/// several threads, and do not block except [`Ring::wait`].
pub struct Ring {
    pub(super) segment: Segment,
    pub(super) mapping: RingMapping,
    framing: Framing,
    /// Positions of this process in the roles that it has.
    positions: [Mutex<Option<u64>>; 2],
    closed: AtomicBool,
}

impl Ring {
    /// Creates a ring, with a name (`shm_open(3)`) or without (`memfd_create(2)`, sealed against changes of its size), and
    /// allocates its memory. May block. `EEXIST`: the name is in use; `ENOSPC`: not enough memory; [`Code::OutOfRange`].
    pub fn create(name: Option<&SegmentName>, options: &RingOptions) -> Result<Self> {
        if options.capacity == 0 || options.capacity > MAX_CAPACITY {
            let message = format!("invalid capacity {}: use 1 to {MAX_CAPACITY} bytes", options.capacity);
            return Err(Error::new(Code::OutOfRange, message));
        }
        let capacity = options.capacity.next_multiple_of(page_size());
        let segment = Segment::create(name, HEADER_BYTES as u64 + capacity, options.mode)?;
        let mapping = segment.reserve().and_then(|()| map(&segment, capacity)).inspect_err(|_| {
            if let Some(name) = name {
                let _ = unlink(name);
            }
        })?;
        if name.is_none() {
            segment.seal(Seals { shrink: true, grow: true, write: false })?;
        }
        write_header(mapping.header(), capacity, options.framing);
        Ok(Self::new(segment, mapping, options.framing))
    }

    /// Opens the ring with this name. May block, up to 200 ms while another process is creating it. `ENOENT`; `EACCES`;
    /// `ENOSPC`: not enough memory; [`Code::Corrupt`]: not a ring, or of another version.
    pub fn open(name: &SegmentName) -> Result<Self> {
        Self::from_segment(Segment::open(name)?)
    }

    /// Opens the ring behind a descriptor, which stays open. [`Code::InvalidArgument`] for memory that other processes can
    /// truncate (access beyond the end of a mapped file is `SIGBUS`), unless `trust` is true or this process has the same ring
    /// open already. Other errors as of [`Ring::open`].
    pub fn from_fd(fd: BorrowedFd<'_>, trust: bool) -> Result<Self> {
        let segment = Segment::from_fd(fd)?;
        if !trust && !segment.cannot_shrink() && !segment.key().is_some_and(|key| open_rings().contains_key(&key)) {
            return Err(Error::new(
                Code::InvalidArgument,
                "the memory is not sealed against shrinking, so another process could truncate it and end this one \
                 (SIGBUS); seal it with F_SEAL_SHRINK, or pass `trust: true`",
            ));
        }
        Self::from_segment(segment)
    }

    fn from_segment(segment: Segment) -> Result<Self> {
        let mut retries = OPEN_RETRIES;
        loop {
            match Self::map_checked(&segment)? {
                Ok((mapping, framing)) => return Ok(Self::new(segment, mapping, framing)),
                Err(HeaderError::Unwritten) if retries > 0 => thread::sleep(OPEN_RETRY_INTERVAL),
                Err(HeaderError::Unwritten) => return Err(corrupt(&segment, "it has no ring header")),
                Err(HeaderError::Invalid(reason)) => return Err(corrupt(&segment, &reason)),
            }
            retries -= 1;
        }
    }

    fn map_checked(segment: &Segment) -> Result<std::result::Result<(RingMapping, Framing), HeaderError>> {
        let size = segment.size()?;
        let Some(capacity) = capacity_of(size) else {
            let unexpected = HeaderError::Invalid(format!("its size is {size} bytes"));
            return Ok(Err(if size == 0 { HeaderError::Unwritten } else { unexpected }));
        };
        // Before the first access: a page of a sparse file for which there is no memory is SIGBUS, also when it is only read.
        segment.reserve()?;
        let mapping = map(segment, capacity)?;
        Ok(check_header(mapping.header(), capacity).map(|framing| (mapping, framing)))
    }

    fn new(segment: Segment, mapping: RingMapping, framing: Framing) -> Self {
        if let Some(key) = segment.key() {
            *open_rings().entry(key).or_default() += 1;
        }
        Self {
            segment,
            mapping,
            framing,
            positions: [Mutex::new(None), Mutex::new(None)],
            closed: AtomicBool::new(false),
        }
    }

    /// Capacity in bytes.
    pub fn capacity(&self) -> u64 {
        self.mapping.capacity() as u64
    }

    /// Bytes of the largest message that fits with its length.
    pub fn max_message(&self) -> usize {
        self.mapping.capacity() - FRAME
    }

    /// The kind of data.
    pub fn framing(&self) -> Framing {
        self.framing
    }

    /// Its name, if it has one.
    pub fn name(&self) -> Option<&SegmentName> {
        self.segment.name()
    }

    /// Ends the ring as its writer: the reader reads what was written, and then the end. No more writes are possible.
    pub fn end(&self) -> Result<()> {
        let _position = self.claim(Role::Writer)?;
        let header = self.mapping.header();
        protocol::set_state(&header.writer, &header.reader, state::ENDED);
        Ok(())
    }

    /// Gives up the roles of this process and ends its waits. A writer then gets [`Code::Closed`] until another reader opens
    /// the ring; a reader takes a writer that has not ended the ring for dead. Calling it again does nothing.
    pub fn close(&self) {
        if self.closed.swap(true, Ordering::AcqRel) {
            return;
        }
        let header = self.mapping.header();
        if self.position(Role::Reader).take().is_some() {
            protocol::set_state(&header.reader, &header.writer, state::ENDED);
            self.unlock(Role::Reader);
        }
        if self.position(Role::Writer).take().is_some() {
            self.unlock(Role::Writer);
        }
        self.wake(Role::Reader);
        self.wake(Role::Writer);
    }

    /// Takes a role for this process if it does not have it, and returns its position in it.
    pub(super) fn claim(&self, role: Role) -> Result<MutexGuard<'_, Option<u64>>> {
        let mut position = self.position(role);
        if self.is_closed() {
            return Err(closed());
        }
        let side = self.side(role);
        let has_ended = || role == Role::Writer && protocol::state(side) == state::ENDED;
        if position.is_some() {
            return if has_ended() { Err(ended()) } else { Ok(position) };
        }
        let mut retries = CLAIM_RETRIES;
        while let Err(errno) = self.lock(role) {
            if !matches!(errno, Errno::EAGAIN | Errno::EACCES) {
                return Err(self.segment.failed("fcntl", errno));
            }
            if retries == 0 {
                let process = side.process.load(Ordering::Relaxed);
                let message = format!("the ring already has a {}: process {process}", role.name());
                return Err(Error::new(Code::Busy, message));
            }
            retries -= 1;
            thread::sleep(CLAIM_RETRY_INTERVAL);
        }
        if has_ended() {
            self.unlock(role);
            return Err(ended());
        }
        // The position of the process that had the role before.
        let start = side.position.load(Ordering::Acquire);
        let header = self.mapping.header();
        if protocol::readable(&header.writer, header.reader.position.load(Ordering::Acquire), self.capacity()).is_err()
        {
            self.unlock(role);
            return Err(self.corrupt());
        }
        side.process.store(std::process::id(), Ordering::Relaxed);
        side.sleeps.store(0, Ordering::Relaxed);
        protocol::set_state(side, self.side(role.other()), state::OPEN);
        *position = Some(start);
        Ok(position)
    }

    /// Locks a role. `EAGAIN` or `EACCES`: another open file description has the lock.
    pub(super) fn lock(&self, role: Role) -> std::result::Result<(), Errno> {
        self.set_lock(role, libc::F_WRLCK)
    }

    pub(super) fn unlock(&self, role: Role) {
        // Releasing a whole range of the own description cannot fail.
        let _ = self.set_lock(role, libc::F_UNLCK);
    }

    fn set_lock(&self, role: Role, kind: libc::c_int) -> std::result::Result<(), Errno> {
        let lock = libc::flock {
            l_type: kind as i16,
            l_whence: libc::SEEK_SET as i16,
            l_start: i64::from(role == Role::Reader),
            l_len: 1,
            l_pid: 0,
        };
        fcntl(&self.segment, FcntlArg::F_OFD_SETLK(&lock)).map(drop)
    }

    /// The position of this process in a role; `None` when it does not have the role.
    pub(super) fn position(&self, role: Role) -> MutexGuard<'_, Option<u64>> {
        self.positions[role as usize].lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn side(&self, role: Role) -> &Side {
        let header = self.mapping.header();
        match role {
            Role::Writer => &header.writer,
            Role::Reader => &header.reader,
        }
    }

    /// Wakes the thread that waits in a role, in any process.
    pub(super) fn wake(&self, role: Role) {
        protocol::wake(self.side(role), || u64::MAX);
    }

    pub(super) fn is_closed(&self) -> bool {
        self.closed.load(Ordering::Acquire)
    }

    pub(super) fn corrupt(&self) -> Error {
        corrupt(&self.segment, "its positions or message lengths are inconsistent")
    }
}

fn map(segment: &Segment, capacity: u64) -> Result<RingMapping> {
    RingMapping::new(segment, capacity as usize).map_err(|errno| segment.failed("mmap", errno))
}

fn corrupt(segment: &Segment, reason: &str) -> Error {
    let error = Error::new(Code::Corrupt, format!("the shared memory is not a usable ring: {reason}"));
    match segment.name() {
        Some(name) => error.with_path(name.as_str()),
        None => error,
    }
}

fn ended() -> Error {
    Error::new(Code::Closed, "cannot write: the ring has ended")
}

pub(super) fn closed() -> Error {
    Error::new(Code::Closed, "the ring is closed")
}

impl AsFd for Ring {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.segment.as_fd()
    }
}

/// Number of [`Ring`]s of this process for each segment, by device and inode.
static OPEN_RINGS: Mutex<BTreeMap<(u64, u64), usize>> = Mutex::new(BTreeMap::new());

fn open_rings() -> MutexGuard<'static, BTreeMap<(u64, u64), usize>> {
    OPEN_RINGS.lock().unwrap_or_else(PoisonError::into_inner)
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
