//! One turn of a job: on the reactor's thread, or on a pool thread if it may block on disk.

use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::sys::epoll::{EpollEvent, EpollFlags};

use super::command::{Command, PoolTurn};
use super::job::Place;
use super::thread::{ReactorThread, aborted};
use crate::error::{Error, Result};
use crate::event_loop::slab::Token;
use crate::io::pool::{Lane, Pool};
use crate::transfer::{Budget, Progress};

/// Bytes per turn: a cancelled job ends with its turn, so this bounds the delay.
const MAX_TURN: u64 = 8 * 1024 * 1024;
/// Bytes per turn on a pool thread, which other tasks share.
const MAX_POOL_TURN: u64 = 1024 * 1024;
/// After this number of turns without a byte moved, the job waits for [`RETRY_INTERVAL`] instead of epoll: some descriptors
/// are always reported as ready but take nothing (an error queue, a device, a FUSE daemon that returns EAGAIN).
const MAX_STALLED_TURNS: u32 = 16;
const RETRY_INTERVAL: Duration = Duration::from_millis(20);

impl ReactorThread {
    pub fn turn(&mut self, token: Token) {
        let Some(job) = self.jobs.get_mut(token) else { return };
        job.retry_at = None;
        if job.cancel.is_requested() {
            return self.finish(token, Err(aborted()));
        }
        crate::failpoint::failpoint!("reactor::turn");
        if job.uses_pool {
            return self.turn_on_pool(token);
        }
        let mut budget = Budget::new(job.chunk.min(MAX_TURN));
        let peer = job.peer.clone();
        let Some(work) = job.work() else { return };
        let outcome = work.advance(&peer, &mut budget);
        // `finish` must hold the last reference: it closes the descriptor before it reports.
        drop(peer);
        self.after_turn(token, outcome);
    }

    fn turn_on_pool(&mut self, token: Token) {
        let Some(job) = self.jobs.get_mut(token) else { return };
        let mut work = match std::mem::replace(&mut job.place, Place::Lost) {
            Place::Local(work) => work,
            other => {
                job.place = other;
                return;
            }
        };
        let (peer, cancel, chunk) = (job.peer.clone(), job.cancel.clone(), job.chunk.min(MAX_POOL_TURN));
        let volume = work.volume(&peer);
        let turn = move || {
            let outcome = work.advance(&peer, &mut Budget::stoppable(chunk, cancel));
            Ok(PoolTurn { work, outcome })
        };
        let mailbox = self.event_loop.mailbox().clone();
        let reply = move |result| mailbox.send(Command::TurnEnded(token, result));
        job.place = Place::InPool(Pool::global().run(Lane::Long, volume, turn, reply));
    }

    pub fn after_turn(&mut self, token: Token, outcome: Result<Progress>) {
        let now = Instant::now();
        let Some(job) = self.jobs.get_mut(token) else { return };
        job.record_progress(now);
        match outcome {
            Ok(Progress::Yield) => self.enqueue(token),
            Ok(Progress::Blocked) if job.stalled_turns >= MAX_STALLED_TURNS || !job.peer.is_pollable() => {
                self.retry_later(token);
            }
            Ok(Progress::Blocked) => {
                if let Err(errno) = self.wait_for_readiness(token) {
                    self.not_pollable(token, errno);
                }
            }
            Ok(Progress::Cold) => self.prefetch(token),
            Ok(Progress::Done) => {
                let report = job.work().map(|work| work.report()).ok_or_else(Error::dropped);
                self.finish(token, report);
            }
            Err(error) => self.finish(token, Err(error)),
        }
    }

    fn retry_later(&mut self, token: Token) {
        if let Some(job) = self.jobs.get_mut(token) {
            job.retry_at = Some(Instant::now() + RETRY_INTERVAL);
            self.update_deadline(token);
        }
    }

    /// Arms the epoll entry for one event, so that a job that waits for its turn or for the pool is not woken.
    fn wait_for_readiness(&mut self, token: Token) -> std::result::Result<(), Errno> {
        let Some(job) = self.jobs.get_mut(token) else { return Ok(()) };
        let Some(interest) = job.work().map(|work| work.interest()) else { return Ok(()) };
        let mut event = EpollEvent::new(interest | EpollFlags::EPOLLONESHOT, token);
        let epoll = self.event_loop.epoll();
        if job.is_registered {
            return epoll.modify(&*job.peer, &mut event);
        }
        epoll.add(&*job.peer, event)?;
        job.is_registered = true;
        Ok(())
    }

    /// `EPERM`: epoll does not support the file, a device that is always ready. Its calls may block, so pool threads make them.
    fn not_pollable(&mut self, token: Token, errno: Errno) {
        let Some(job) = self.jobs.get_mut(token) else { return };
        if errno != Errno::EPERM {
            return self.finish(token, Err(Error::system("epoll_ctl", errno)));
        }
        job.move_to_pool();
        self.retry_later(token);
    }

    fn prefetch(&mut self, token: Token) {
        let Some(job) = self.jobs.get_mut(token) else { return };
        let Some(prefetch) = job.work().and_then(|work| work.prefetch()) else {
            return self.finish(token, Err(Error::dropped()));
        };
        let mailbox = self.event_loop.mailbox().clone();
        let task = prefetch.start(move |result| mailbox.send(Command::Prefetched(token, result)));
        job.place = match std::mem::replace(&mut job.place, Place::Lost) {
            Place::Local(work) => Place::Prefetching(work, task),
            other => other,
        };
    }
}
