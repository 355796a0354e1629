//! A transfer, where it goes, and who is told.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::sys::epoll::EpollFlags;
use nix::sys::stat::{SFlag, fstat};

use crate::error::{Error, Result};
use crate::transfer::{Budget, Progress, ReadAhead, Receive, Report, Target, Transfer};

/// Hears of a job. Called on the reactor's thread (or a pool thread), so it must be quick and must not block.
pub trait Observer: Send {
    /// Bytes have moved; `sent` is the sum so far.
    fn progress(&mut self, sent: u64);
    /// The end. Nothing is called after it.
    fn done(self: Box<Self>, result: Result<Report>);
}

/// Tells a job that it is no longer wanted.
#[derive(Debug, Default, Clone)]
pub struct Cancel(Arc<AtomicBool>);

impl Cancel {
    /// True once it has been asked for.
    pub fn is_requested(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }

    pub(super) fn request(&self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// What a job does.
pub enum Work {
    /// Sends to its descriptor.
    Send(Transfer),
    /// Receives from its descriptor into a file, on a thread that may wait for the disk.
    Receive(Receive),
    /// A pool thread has it.
    Away,
}

impl Work {
    pub(super) fn advance(&mut self, peer: &NonBlocking, budget: &mut Budget) -> Result<Progress> {
        match self {
            Work::Send(transfer) => transfer.advance(peer, budget),
            Work::Receive(receive) => receive.advance(peer, budget),
            Work::Away => Ok(Progress::Blocked),
        }
    }

    pub(super) fn report(&self) -> Option<Report> {
        match self {
            Work::Send(transfer) => Some(transfer.report()),
            Work::Receive(receive) => Some(receive.report()),
            Work::Away => None,
        }
    }

    pub(super) fn read_ahead(&self) -> Option<ReadAhead> {
        if let Work::Send(transfer) = self { transfer.read_ahead() } else { None }
    }

    pub(super) fn warmed(&mut self, until: u64) {
        if let Work::Send(transfer) = self {
            transfer.warmed(until);
        }
    }

    /// What it waits for when it is blocked.
    pub(super) fn interest(&self) -> EpollFlags {
        if let Work::Send(_) = self { EpollFlags::EPOLLOUT } else { EpollFlags::EPOLLIN | EpollFlags::EPOLLRDHUP }
    }
}

/// One transfer for the reactor.
pub struct Job {
    /// What to do.
    pub work: Work,
    /// Where to, or where from: a duplicate that the job owns, so that no close elsewhere can redirect it.
    pub peer: Arc<NonBlocking>,
    /// The longest time without progress.
    pub timeout: Option<Duration>,
    /// The most one turn may send, in bytes.
    pub chunk: u64,
    /// The shortest time between two reports of progress; `None`: no reports.
    pub progress: Option<Duration>,
    /// Who is told.
    pub observer: Box<dyn Observer>,
}

/// An owned descriptor in non-blocking mode. The mode belongs to the open file, which the caller's own descriptor
/// shares, so the old one comes back when this is dropped.
pub struct NonBlocking {
    fd: OwnedFd,
    restore: Option<OFlag>,
    kind: SFlag,
}

impl NonBlocking {
    /// Takes a descriptor, a duplicate as a rule, and switches it to non-blocking mode.
    pub fn new(fd: OwnedFd) -> Result<Self> {
        let kind = SFlag::from_bits_truncate(fstat(&fd).map_err(|errno| Error::system("fstat", errno))?.st_mode)
            & SFlag::S_IFMT;
        let flags =
            OFlag::from_bits_retain(fcntl(&fd, FcntlArg::F_GETFL).map_err(|errno| Error::system("fcntl", errno))?);
        let mut restore = None;
        if kind != SFlag::S_IFREG && !flags.contains(OFlag::O_NONBLOCK) {
            fcntl(&fd, FcntlArg::F_SETFL(flags | OFlag::O_NONBLOCK)).map_err(|errno| Error::system("fcntl", errno))?;
            restore = Some(flags);
        }
        Ok(Self { fd, restore, kind })
    }

    /// Takes a socket that is in non-blocking mode, without asking the kernel.
    pub fn socket(fd: OwnedFd) -> Self {
        Self { fd, restore: None, kind: SFlag::S_IFSOCK }
    }

    /// How bytes are written to it.
    pub fn target(&self) -> Target {
        if self.kind == SFlag::S_IFSOCK { Target::Socket } else { Target::Stream }
    }

    /// True for what epoll can wait for; regular files are always ready, and writing to them may wait for a disk.
    pub fn is_pollable(&self) -> bool {
        self.kind == SFlag::S_IFSOCK || self.kind == SFlag::S_IFIFO || self.kind == SFlag::S_IFCHR
    }
}

impl AsFd for NonBlocking {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

impl Drop for NonBlocking {
    fn drop(&mut self) {
        if let Some(flags) = self.restore {
            let _ = fcntl(&self.fd, FcntlArg::F_SETFL(flags));
        }
    }
}

/// A job at work: what the reactor adds to it.
pub(super) struct Running {
    pub id: u64,
    pub job: Job,
    pub cancel: Cancel,
    pub last_progress: Instant,
    pub last_report: Instant,
    pub reported: u64,
    /// Its descriptor is in the epoll set.
    pub registered: bool,
    /// It is in the queue for a turn.
    pub queued: bool,
    /// A pool thread is at it, with a read-ahead or a turn.
    pub away: bool,
}

impl Running {
    pub fn new(id: u64, job: Job, cancel: Cancel, now: Instant) -> Self {
        Self {
            id,
            job,
            cancel,
            last_progress: now,
            last_report: now,
            reported: 0,
            registered: false,
            queued: false,
            away: false,
        }
    }

    /// Takes note of how far the transfer is, and tells the observer when it is time to.
    pub fn note_progress(&mut self, now: Instant) {
        let Some(Report { bytes: sent, .. }) = self.job.work.report() else { return };
        if sent == self.reported {
            return;
        }
        self.last_progress = now;
        if let Some(every) = self.job.progress
            && now.duration_since(self.last_report) >= every
        {
            self.last_report = now;
            self.job.observer.progress(sent);
        }
        self.reported = sent;
    }
}
