//! [`Transfer`]: parts of memory and of files to a descriptor.

use std::os::fd::{AsFd, BorrowedFd};

use nix::errno::Errno;

use super::attempt::{Attempt, Moved, PartSource};
use super::cursor::{Cursor, Heads};
use super::mover::Mover;
use super::part::Part;
use super::prefetch::PrefetchedBytes;
use super::progress::{Account, Step, run_turn};
use super::residency::FileResidency;
use super::{Budget, Cork, DEFAULT_BUFFER, Disk, Method, Prefetch, Prefetched, Progress, Report, read_write, strategy};
use crate::error::{Code, Error, Result};
use crate::io::pool::Volume;
use zerosend_sys::io::Target;
use zerosend_sys::{Kernel, Linux, SysResult};

/// Parts to send to a descriptor, and how far that is.
pub struct Transfer {
    cursor: Cursor,
    account: Account,
    method: Method,
    /// The method in use for the current part.
    mover: Option<Mover>,
    /// The method that moved bytes last.
    used: Option<Method>,
    target: Target,
    disk: Disk,
    residency: FileResidency,
    /// Bytes of the current file part that the pool has read.
    prefetched: Option<PrefetchedBytes>,
    cork: Cork,
    buffer: usize,
}

impl Transfer {
    /// A transfer of `parts` in order by `method` to a descriptor of kind `target`.
    pub fn new(parts: impl IntoIterator<Item = Part>, method: Method, target: Target, disk: Disk) -> Self {
        let cursor = Cursor::new(parts);
        Self {
            account: Account::new(Some(cursor.total())),
            cursor,
            method,
            mover: None,
            used: None,
            target,
            disk,
            residency: FileResidency::default(),
            prefetched: None,
            cork: Cork::Auto,
            buffer: DEFAULT_BUFFER,
        }
    }

    /// Puts `head` before everything else. Only before the first byte is sent.
    pub fn prepend(&mut self, head: Vec<u8>) {
        debug_assert!(self.account.moved == 0);
        if !head.is_empty() {
            self.account.remaining = Some(self.remaining().saturating_add(head.len() as u64));
            self.cursor.push_front(Part::Memory(head));
        }
    }

    /// Changes whether turns may wait for a disk, when the driver changes.
    pub fn set_disk(&mut self, disk: Disk) {
        self.disk = disk;
    }

    /// Changes the kind of descriptor. Only before the first byte is sent.
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

    /// Bytes not yet accepted by the kernel.
    pub fn remaining(&self) -> u64 {
        self.account.remaining.unwrap_or(0)
    }

    /// Bytes sent so far, and how.
    pub fn report(&self) -> Report {
        let method = self.used.unwrap_or_else(|| match self.cursor.front() {
            Some(Part::Pages { .. }) => Method::Vmsplice,
            _ => strategy::choose(self.method, self.remaining(), self.target, false, || false),
        });
        Report { bytes: self.account.moved, method, syscalls: self.account.syscalls }
    }

    /// The file system of the next file.
    pub fn volume(&self) -> Volume {
        let file = self.cursor.parts().find_map(|part| match part {
            Part::File { file, .. } => Some(file),
            Part::Memory(_) | Part::Block { .. } | Part::Pages { .. } => None,
        });
        file.map_or(Volume::NONE, |file| Volume::of(file.as_fd()))
    }

    /// Sends until all is sent, `out` would block, the budget is spent, or a disk would have to be waited for.
    ///
    /// `out` must be in non-blocking mode, unless the caller may wait for it. After an error nothing more may be sent: the
    /// receiver has some of the bytes, and only closing the connection shows it that they are not all.
    pub fn advance(&mut self, out: impl AsFd, budget: &mut Budget) -> Result<Progress> {
        self.advance_on(&mut Linux, out.as_fd(), budget)
    }

    /// [`Transfer::advance`] with another [`Kernel`].
    pub fn advance_on<K: Kernel>(
        &mut self,
        kernel: &mut K,
        out: BorrowedFd<'_>,
        budget: &mut Budget,
    ) -> Result<Progress> {
        self.residency.begin_turn();
        // For this turn only, so that the socket is not left corked. A Unix socket refuses it, and has no packets to fill.
        let corks = self.cork == Cork::On && self.target == Target::Socket && self.remaining() > 0;
        let mut is_corked = false;
        if corks {
            self.account.syscalls += 2;
            is_corked = kernel.cork(out, true).is_ok();
        }
        let outcome =
            run_turn(self, budget, |transfer| &transfer.account, |transfer, max| transfer.step(kernel, out, max));
        if is_corked {
            let _ = kernel.cork(out, false);
        }
        outcome
    }

    fn step<K: Kernel>(&mut self, kernel: &mut K, out: BorrowedFd<'_>, max: u64) -> Result<Step> {
        match self.attempt(kernel, out, max) {
            Ok(Moved::Bytes(count)) => {
                self.consume(count);
                Ok(Step::Moved(count))
            }
            Ok(Moved::Short(count)) => {
                self.consume(count);
                Ok(Step::Blocked(count))
            }
            Ok(Moved::Cold) => Ok(Step::Ended(Progress::Cold)),
            Ok(Moved::EndOfFile) => Err(self.truncated()),
            Err(Errno::EINTR) => Ok(Step::Interrupted),
            Err(Errno::EAGAIN) => Ok(Step::Blocked(0)),
            Err(errno) if self.fall_back(errno) => Ok(Step::Moved(0)),
            Err(errno) => Err(Error::system(self.syscall_name(), errno)),
        }
    }

    fn attempt<K: Kernel>(&mut self, kernel: &mut K, out: BorrowedFd<'_>, max: u64) -> SysResult<Moved> {
        let heads = self.cursor.heads(max);
        let room = max.saturating_sub(heads.bytes);
        let next = match heads.next {
            Some(Part::File { file, offset, length }) => {
                Some((PartSource::File((**file).as_fd(), file.mapping()), *offset, *length))
            }
            Some(Part::Pages { pages, offset, length }) => Some((PartSource::Pages(pages), *offset, *length)),
            Some(Part::Memory(_) | Part::Block { .. }) | None => None,
        };
        let Some((source, offset, left)) = next.filter(|_| room > 0) else {
            return send_heads(kernel, out, &heads, self.target, self.cork, &mut self.account);
        };
        let length = usize::try_from(left.min(room)).unwrap_or(usize::MAX);

        if let PartSource::File(..) = source
            && let Some(bytes) = self.prefetched.as_ref().and_then(|prefetched| prefetched.from(offset))
        {
            if bytes.is_empty() && heads.slices().is_empty() {
                return Ok(Moved::EndOfFile);
            }
            let bytes = &bytes[..length.min(bytes.len())];
            let offered = heads.bytes as usize + bytes.len();
            let more = self.cork != Cork::Off && self.remaining() > offered as u64;
            let sent = read_write::send(kernel, out, heads.slices(), bytes, self.target, more)?;
            self.account.syscalls += 1;
            self.used = Some(Method::ReadWrite);
            return Ok(Moved::of(sent, offered));
        }
        let mover = self.mover.get_or_insert_with(|| match source {
            // The only method that moves pages of memory without a copy.
            PartSource::Pages(_) => Mover::from(Method::Vmsplice),
            PartSource::File(_, mapping) => {
                let syscalls = &mut self.account.syscalls;
                Mover::from(strategy::choose(self.method, left, self.target, mapping.is_some(), || {
                    *syscalls += 1;
                    kernel.is_unix_socket(out)
                }))
            }
        });
        if !heads.slices().is_empty() && !mover.takes_heads() {
            return send_heads(kernel, out, &heads, self.target, self.cork, &mut self.account);
        }
        self.used = Some(mover.method());
        let attempt = Attempt {
            out,
            target: self.target,
            heads: heads.slices(),
            offset,
            length,
            left,
            last: heads.last,
            cork: self.cork,
            buffer: self.buffer,
            disk: self.disk,
            residency: &mut self.residency,
            syscalls: &mut self.account.syscalls,
        };
        mover.attempt(kernel, attempt, source)
    }

    fn consume(&mut self, count: usize) {
        self.account.add(count);
        if self.cursor.advance(count) {
            // The next part is another file, or another range of this one: choose the method and check residency again.
            self.mover = None;
            self.residency = FileResidency::default();
            self.prefetched = None;
        }
    }

    /// Replaces the method by `read-write` where the kernel, or a sandbox (`EPERM`), refuses it for this file or target, or
    /// where no pipe or mapping can be made. True: try again.
    fn fall_back(&mut self, errno: Errno) -> bool {
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
        if !refused || matches!(self.mover, Some(Mover::ReadWrite) | None) {
            return false;
        }
        self.mover = Some(Mover::ReadWrite);
        true
    }

    fn syscall_name(&self) -> &'static str {
        match (self.cursor.front(), &self.mover) {
            (Some(Part::File { .. } | Part::Pages { .. }), Some(mover)) => mover.syscall_name(),
            _ => "sendmsg",
        }
    }

    fn truncated(&self) -> Error {
        let missing = self.remaining();
        Error::new(
            Code::Truncated,
            format!("the file was truncated while it was sent: {missing} bytes are missing; close the connection"),
        )
    }

    /// Removes and returns the next bytes, at most `max`, for a driver that sends them by other means. `None`: they are
    /// not in the page cache (see [`Progress::Cold`]). Empty: nothing is left.
    pub fn take(&mut self, max: usize) -> Result<Option<Vec<u8>>> {
        self.take_on(&mut Linux, max)
    }

    /// [`Transfer::take`] with another [`Kernel`].
    pub fn take_on<K: Kernel>(&mut self, kernel: &mut K, max: usize) -> Result<Option<Vec<u8>>> {
        let Some(bytes) = self.next_bytes(kernel, max)? else { return Ok(None) };
        self.consume(bytes.len());
        Ok(Some(bytes))
    }

    /// The next bytes, which the caller has to consume. Bytes in a pipe are read out of it.
    fn next_bytes<K: Kernel>(&mut self, kernel: &mut K, max: usize) -> Result<Option<Vec<u8>>> {
        let Some(part) = self.cursor.front() else { return Ok(Some(Vec::new())) };
        if let Some(memory) = self.cursor.front_memory() {
            return Ok(Some(memory[..memory.len().min(max)].to_vec()));
        }
        let length = usize::try_from(part.len()).unwrap_or(max).min(max);
        if let Some(pipe) = self.mover.as_mut().and_then(Mover::filled_pipe) {
            let mut buffer = vec![0; length.min(pipe.filled())];
            self.account.syscalls += 1;
            let count =
                retry(|| kernel.read(pipe.read_end(), &mut buffer)).map_err(|errno| Error::system("read", errno))?;
            if count == 0 {
                return Err(self.truncated());
            }
            pipe.subtract(count);
            buffer.truncate(count);
            return Ok(Some(buffer));
        }
        let mut buffer = vec![0; length];
        let (file, offset) = match part {
            Part::File { file, offset, .. } => (file, *offset),
            Part::Pages { pages, offset, .. } => {
                pages.copy_out(*offset as usize, &mut buffer);
                return Ok(Some(buffer));
            }
            Part::Memory(_) | Part::Block { .. } => unreachable!("`front_memory` returned its bytes"),
        };
        if let Some(bytes) = self.prefetched.as_ref().and_then(|prefetched| prefetched.from(offset)) {
            if bytes.is_empty() {
                return Err(self.truncated());
            }
            return Ok(Some(bytes[..length.min(bytes.len())].to_vec()));
        }
        let (syscalls, residency) = (&mut self.account.syscalls, &mut self.residency);
        match read_write::read(kernel, file.as_fd(), &mut buffer, offset, self.disk, residency, syscalls) {
            // Interrupted: the pool reads them.
            Ok(None) | Err(Errno::EINTR) => Ok(None),
            Ok(Some(0)) => Err(self.truncated()),
            Ok(Some(count)) => {
                buffer.truncate(count);
                Ok(Some(buffer))
            }
            Err(errno) => Err(Error::system("pread", errno)),
        }
    }

    /// What to prefetch after [`Progress::Cold`].
    pub fn prefetch(&self) -> Option<Prefetch> {
        let FileResidency { wants_bytes, prefetches, .. } = self.residency;
        self.cursor.parts().find_map(|part| match part {
            Part::File { file, offset, length } => {
                Some(Prefetch::new(file.clone(), *offset, *length, prefetches == 0, wants_bytes))
            }
            Part::Memory(_) | Part::Block { .. } | Part::Pages { .. } => None,
        })
    }

    /// Adds the result of a prefetch.
    pub fn prefetched(&mut self, prefetched: Prefetched) {
        self.residency.prefetches = self.residency.prefetches.saturating_add(1);
        match prefetched {
            Prefetched::Pages { until } => self.residency.set_prefetched(until),
            Prefetched::Memory => self.residency.set_in_memory(),
            Prefetched::Overlay => self.residency.set_overlay(),
            Prefetched::Bytes(bytes) => self.prefetched = Some(bytes),
        }
    }
}

/// Sends only the memory at the cursor.
fn send_heads<K: Kernel>(
    kernel: &mut K,
    out: BorrowedFd<'_>,
    heads: &Heads<'_>,
    target: Target,
    cork: Cork,
    account: &mut Account,
) -> SysResult<Moved> {
    let more = cork != Cork::Off && account.remaining > Some(heads.bytes);
    account.syscalls += 1;
    let sent = kernel.gather(out, heads.slices(), target, more)?;
    Ok(Moved::of(sent, heads.bytes as usize))
}

/// Repeats a read that a signal interrupted, which has consumed nothing. A FUSE daemon may answer EINTR each time, so the
/// number of attempts is limited.
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
