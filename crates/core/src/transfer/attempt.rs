//! One attempt of a method: its input, its result, and the checks that the methods share.

use std::io::IoSlice;
use std::os::fd::BorrowedFd;

use nix::errno::Errno;

use super::residency::FileResidency;
use zerosend_sys::io::Target;
use zerosend_sys::memory::{Mapping, SealedPages};
use zerosend_sys::{Kernel, SysResult};

/// Whether the kernel may hold back a packet that is not full.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Cork {
    /// `MSG_MORE` and `SPLICE_F_MORE` wherever more bytes follow at once.
    #[default]
    Auto,
    /// As `Auto`, and `TCP_CORK` for each turn: only full packets are sent before the turn ends.
    On,
    /// Never: the bytes of each call are sent at once.
    Off,
}

/// Whether a turn may wait for a disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Disk {
    /// Never: bytes that are not in the page cache end the turn with [`super::Progress::Cold`].
    ResidentOnly,
    /// Yes: the driver is a thread that serves this transfer only.
    MayBlock,
}

/// What one attempt of a method did.
pub(super) enum Moved {
    /// The target accepted this many bytes and may accept more.
    Bytes(usize),
    /// The target accepted this many bytes, fewer than it was offered.
    Short(usize),
    /// Nothing was moved: the bytes are not in the page cache.
    Cold,
    /// The file ends before the range of the part does.
    EndOfFile,
}

impl Moved {
    /// The target accepted `sent` of `offered` bytes.
    pub fn of(sent: usize, offered: usize) -> Self {
        if sent < offered { Moved::Short(sent) } else { Moved::Bytes(sent) }
    }
}

/// The part to move, without its range.
#[derive(Clone, Copy)]
pub(super) enum PartSource<'a> {
    File(BorrowedFd<'a>, Option<&'a Mapping>),
    Pages(&'a SealedPages),
}

/// The input of one attempt.
pub(super) struct Attempt<'a> {
    pub out: BorrowedFd<'a>,
    pub target: Target,
    /// Memory to send first; empty for methods that cannot send it in the same call.
    pub heads: &'a [IoSlice<'a>],
    pub offset: u64,
    /// The maximum of bytes of the part to move in this attempt.
    pub length: usize,
    /// Bytes left of the part.
    pub left: u64,
    /// This is the last part.
    pub last: bool,
    pub cork: Cork,
    /// Bytes of a user-space buffer.
    pub buffer: usize,
    pub disk: Disk,
    pub residency: &'a mut FileResidency,
    pub syscalls: &'a mut u64,
}

impl Attempt<'_> {
    /// Whether more bytes follow the next `count` bytes of the part, and the kernel may wait for them (`MSG_MORE`).
    pub fn more_after(&self, count: usize) -> bool {
        self.cork != Cork::Off && !(self.last && count as u64 >= self.left)
    }

    /// Bytes in `heads`.
    pub fn head_len(&self) -> usize {
        self.heads.iter().map(|head| head.len()).sum()
    }

    /// The number of the next `wanted` bytes of `file` that can be moved without waiting for a disk; `None`: zero.
    ///
    /// A page may still be evicted between this check and the call that moves it. Then the call waits for the disk.
    pub fn resident_len<K: Kernel>(&mut self, kernel: &mut K, file: BorrowedFd<'_>, wanted: usize) -> Option<usize> {
        match self.disk {
            Disk::MayBlock => Some(wanted),
            Disk::ResidentOnly => {
                self.residency.resident_len(kernel, file, self.offset, self.left, wanted, self.syscalls)
            }
        }
    }

    /// `ENODEV` for a file that must not be sent from a mapping: see [`FileResidency::is_mappable`].
    pub fn check_mappable<K: Kernel>(&mut self, kernel: &mut K, file: BorrowedFd<'_>) -> SysResult<()> {
        // A turn that must not block does not move bytes whose residency is unknown.
        if self.disk == Disk::ResidentOnly || self.residency.is_mappable(kernel, file, self.offset, self.syscalls) {
            Ok(())
        } else {
            Err(Errno::ENODEV)
        }
    }

    /// Bytes between the cursor and the end of the file.
    pub fn file_len_left<K: Kernel>(&mut self, kernel: &mut K, file: BorrowedFd<'_>) -> SysResult<usize> {
        *self.syscalls += 1;
        Ok(usize::try_from(kernel.size(file)?.saturating_sub(self.offset)).unwrap_or(usize::MAX))
    }

    /// Whether the file was truncated within the next `count` bytes. A truncation clears the rest of a page that is mapped
    /// or in a pipe; those zeros must not be sent in place of the file's bytes.
    pub fn is_truncated_within<K: Kernel>(
        &mut self,
        kernel: &mut K,
        file: BorrowedFd<'_>,
        count: usize,
    ) -> SysResult<bool> {
        Ok(self.file_len_left(kernel, file)? < count)
    }

    /// The meaning of `EFAULT` from a mapping: the file was truncated within the next `count` bytes, or the disk failed.
    pub fn fault<K: Kernel>(&mut self, kernel: &mut K, file: BorrowedFd<'_>, count: usize) -> SysResult<Moved> {
        if self.is_truncated_within(kernel, file, count)? { Ok(Moved::EndOfFile) } else { Err(Errno::EIO) }
    }
}
