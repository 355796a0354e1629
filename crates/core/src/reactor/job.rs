//! A transfer, its peer, and how it is doing.

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
    /// Sends to its descriptor.
    Send(Transfer),
    /// Receives from its descriptor into a file, on a thread that may wait for the disk.
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

    /// Its turns run on threads that may wait for a disk from now on.
    pub(super) fn may_block(&mut self) {
        if let Work::Send(transfer) = self {
            transfer.set_disk(Disk::MayBlock);
        }
    }

    /// The file system that a turn may wait for when it runs on the pool.
    pub(super) fn volume(&self, peer: &NonBlocking) -> Volume {
        match self {
            Work::Receive(receive) => receive.volume(),
            Work::Send(_) if peer.is_regular_file() => Volume::of(peer),
            Work::Send(transfer) => transfer.volume(),
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
    /// Receives reports of progress and of the end.
    pub observer: Box<dyn Observer>,
}

/// Where a job's work is.
pub(super) enum Place {
    /// Here: it waits for its turn or for its descriptor.
    Here(Work),
    /// Here, while the pool reads ahead for it.
    Prefetching(Work, Task),
    /// A pool thread makes a turn.
    InPool(Task),
    /// The pool lost it.
    Lost,
}

/// A job at work: what the reactor adds to it.
pub(super) struct Running {
    pub id: u64,
    pub place: Place,
    pub peer: Arc<NonBlocking>,
    pub timeout: Option<Duration>,
    pub chunk: u64,
    pub progress: Option<Duration>,
    pub notifier: Notifier,
    pub cancel: Cancel,
    /// Why it ends as soon as its work is back, or at the deadline that is set then.
    pub ending: Option<Error>,
    pub last_progress: Instant,
    pub last_report: Instant,
    pub reported: u64,
    /// Turns since the last byte moved.
    pub fruitless: u32,
    /// Its descriptor is in the epoll set.
    pub registered: bool,
    /// It is in the queue for a turn.
    pub queued: bool,
    /// Its turns run on the pool: they may wait for a disk.
    pub on_pool: bool,
    /// The next turn comes at this time, not by epoll.
    pub retry_at: Option<Instant>,
    /// Its entry in the timers.
    pub timer: Option<Instant>,
    /// It receives into a file.
    pub receives: bool,
}

impl Running {
    pub fn new(id: u64, job: Job, cancel: Cancel, now: Instant) -> Self {
        let Job { work, peer, timeout, chunk, progress, observer } = job;
        let receives = matches!(work, Work::Receive(_));
        let mut running = Self {
            id,
            on_pool: receives,
            receives,
            place: Place::Here(work),
            peer,
            timeout,
            chunk,
            progress,
            notifier: Notifier::new(observer),
            cancel,
            ending: None,
            last_progress: now,
            last_report: now,
            reported: 0,
            fruitless: 0,
            registered: false,
            queued: false,
            retry_at: None,
            timer: None,
        };
        if !running.peer.is_pollable() {
            running.move_to_pool();
        }
        running
    }

    /// From now on its turns run on the pool.
    pub fn move_to_pool(&mut self) {
        self.on_pool = true;
        if let Place::Here(work) = &mut self.place {
            work.may_block();
        }
    }

    /// Its work, while no pool thread has it.
    pub fn work(&mut self) -> Option<&mut Work> {
        match &mut self.place {
            Place::Here(work) | Place::Prefetching(work, _) => Some(work),
            Place::InPool(_) | Place::Lost => None,
        }
    }

    /// True while a pool thread does something for it.
    pub fn is_away(&self) -> bool {
        matches!(self.place, Place::Prefetching(..) | Place::InPool(_))
    }

    /// When it fails for want of progress, or has its next turn.
    pub fn deadline(&self) -> Option<Instant> {
        let timeout = self.timeout.and_then(|timeout| self.last_progress.checked_add(timeout));
        timeout.into_iter().chain(self.retry_at).min()
    }

    /// Takes note of how far the transfer is, and reports it when it is time to.
    pub fn note_progress(&mut self, now: Instant) {
        let Some(Report { bytes: sent, .. }) = self.work().map(|work| work.report()) else { return };
        if sent == self.reported {
            self.fruitless = self.fruitless.saturating_add(1);
            return;
        }
        self.fruitless = 0;
        self.last_progress = now;
        if let Some(every) = self.progress
            && now.duration_since(self.last_report) >= every
        {
            self.last_report = now;
            self.notifier.progress(sent);
        }
        self.reported = sent;
    }

    /// The error of a job without progress: it names the side that was waited for.
    pub fn timed_out(&self, timeout: Duration) -> Error {
        let millis = timeout.as_millis();
        let reason = match (&self.place, self.receives) {
            (Place::InPool(_), true) => "the file's storage is too slow or hangs",
            (Place::InPool(_) | Place::Prefetching(..), _) => "the source file's storage is too slow or hangs",
            (_, true) => "the sender is too slow or gone",
            (_, false) => "the receiver is too slow or gone",
        };
        Error::new(Code::Timeout, format!("no byte moved for {millis} ms; {reason}, or `timeout` too short"))
    }
}
