//! A job as it is submitted, and its state while it runs.

use std::sync::Arc;
use std::time::{Duration, Instant};

use nix::sys::epoll::EpollFlags;

use super::observer::{Notifier, Observer};
use crate::error::{Code, Error, Result};
use crate::io::NonBlocking;
use crate::io::pool::{Task, Volume};
use crate::transfer::{Budget, Cancel, Disk, Prefetch, Prefetched, Progress, Receive, Report, Transfer};

/// What a job does.
pub enum Work {
    /// Sends to the peer.
    Send(Transfer),
    /// Receives from the peer into a file, on pool threads.
    Receive(Receive),
}

impl Work {
    pub(super) fn advance(&mut self, peer: &NonBlocking, budget: &mut Budget) -> Result<Progress> {
        match self {
            Work::Send(transfer) => transfer.advance(peer, budget),
            Work::Receive(receive) => receive.advance(peer, budget),
        }
    }

    pub(super) fn report(&self) -> Report {
        match self {
            Work::Send(transfer) => transfer.report(),
            Work::Receive(receive) => receive.report(),
        }
    }

    pub(super) fn prefetch(&self) -> Option<Prefetch> {
        if let Work::Send(transfer) = self { transfer.prefetch() } else { None }
    }

    pub(super) fn prefetched(&mut self, prefetched: Prefetched) {
        if let Work::Send(transfer) = self {
            transfer.prefetched(prefetched);
        }
    }

    /// Allows calls that block on disk.
    pub(super) fn may_block(&mut self) {
        if let Work::Send(transfer) = self {
            transfer.set_disk(Disk::MayBlock);
        }
    }

    /// The file system that a turn on the pool may block on.
    pub(super) fn volume(&self, peer: &NonBlocking) -> Volume {
        match self {
            Work::Receive(receive) => receive.volume(),
            Work::Send(_) if peer.is_regular_file() => Volume::of(peer),
            Work::Send(transfer) => transfer.volume(),
        }
    }

    /// The events of the peer that end [`Progress::Blocked`].
    pub(super) fn interest(&self) -> EpollFlags {
        if let Work::Send(_) = self { EpollFlags::EPOLLOUT } else { EpollFlags::EPOLLIN | EpollFlags::EPOLLRDHUP }
    }
}

/// One transfer for the reactor.
pub struct Job {
    /// What to do.
    pub work: Work,
    /// The descriptor to send to or receive from. The job owns this duplicate: if the caller closes its own descriptor and the
    /// number is reused, the job is not affected.
    pub peer: Arc<NonBlocking>,
    /// Longest time without progress.
    pub timeout: Option<Duration>,
    /// Maximum number of bytes per turn.
    pub chunk: u64,
    /// Shortest time between two progress reports; `None`: no reports.
    pub progress: Option<Duration>,
    /// Receives progress and result.
    pub observer: Box<dyn Observer>,
}

/// Where a job's work is.
pub(super) enum Place {
    /// On this thread: the job waits for a turn or for its peer.
    Local(Work),
    /// On this thread, while a pool thread reads ahead.
    Prefetching(Work, Task),
    /// On a pool thread, which runs a turn.
    InPool(Task),
    /// The pool dropped it, which is a bug.
    Lost,
}

/// A job and its state.
pub(super) struct RunningJob {
    pub id: u64,
    pub place: Place,
    pub peer: Arc<NonBlocking>,
    pub timeout: Option<Duration>,
    pub chunk: u64,
    pub progress: Option<Duration>,
    pub notifier: Notifier,
    pub cancel: Cancel,
    /// The error it ends with when its turn on the pool ends.
    pub stop_reason: Option<Error>,
    pub last_progress: Instant,
    pub last_report: Instant,
    pub reported_bytes: u64,
    /// Turns since the last byte moved.
    pub stalled_turns: u32,
    /// The peer is registered with epoll.
    pub is_registered: bool,
    /// Turns run on the pool because they may block on disk.
    pub uses_pool: bool,
    /// The time of the next turn, where epoll does not report readiness.
    pub retry_at: Option<Instant>,
    /// The work is a [`Receive`].
    pub receives: bool,
}

impl RunningJob {
    pub fn new(id: u64, job: Job, cancel: Cancel) -> Self {
        let now = Instant::now();
        let Job { work, peer, timeout, chunk, progress, observer } = job;
        let receives = matches!(work, Work::Receive(_));
        let mut this = Self {
            id,
            uses_pool: receives,
            receives,
            place: Place::Local(work),
            peer,
            timeout,
            chunk,
            progress,
            notifier: Notifier::new(observer),
            cancel,
            stop_reason: None,
            last_progress: now,
            last_report: now,
            reported_bytes: 0,
            stalled_turns: 0,
            is_registered: false,
            retry_at: None,
        };
        if !this.peer.is_pollable() {
            this.move_to_pool();
        }
        this
    }

    /// Makes all further turns run on the pool.
    pub fn move_to_pool(&mut self) {
        self.uses_pool = true;
        if let Place::Local(work) = &mut self.place {
            work.may_block();
        }
    }

    /// The work, unless a pool thread has it.
    pub fn work(&mut self) -> Option<&mut Work> {
        match &mut self.place {
            Place::Local(work) | Place::Prefetching(work, _) => Some(work),
            Place::InPool(_) | Place::Lost => None,
        }
    }

    /// Whether a pool thread runs a turn or a prefetch for it.
    pub fn is_on_pool_thread(&self) -> bool {
        matches!(self.place, Place::Prefetching(..) | Place::InPool(_))
    }

    /// The earlier of its timeout and [`RunningJob::retry_at`].
    pub fn deadline(&self) -> Option<Instant> {
        let timeout = self.timeout.and_then(|timeout| self.last_progress.checked_add(timeout));
        timeout.into_iter().chain(self.retry_at).min()
    }

    /// Records whether bytes have moved, and reports progress when it is due.
    pub fn record_progress(&mut self, now: Instant) {
        let Some(Report { bytes: sent, .. }) = self.work().map(|work| work.report()) else { return };
        if sent == self.reported_bytes {
            self.stalled_turns = self.stalled_turns.saturating_add(1);
            return;
        }
        self.stalled_turns = 0;
        self.last_progress = now;
        if let Some(interval) = self.progress
            && now.duration_since(self.last_report) >= interval
        {
            self.last_report = now;
            self.notifier.progress(sent);
        }
        self.reported_bytes = sent;
    }

    /// The error of a job without progress; it names the side that is the cause.
    pub fn timeout_error(&self, timeout: Duration) -> Error {
        let millis = timeout.as_millis();
        let reason = match (&self.place, self.receives) {
            (Place::InPool(_), true) => "the file's storage is too slow or hangs",
            (Place::InPool(_) | Place::Prefetching(..), _) => "the source file's storage is too slow or hangs",
            (_, true) => "the sender is too slow or gone",
            (_, false) => "the receiver is too slow or gone",
        };
        Error::new(
            Code::Timeout,
            format!("no bytes transferred for {millis} ms: {reason}; raise `timeout` if this is expected"),
        )
    }
}
